"""Command lines that cannot be meant, exit status 2, and work that cannot be done, 1."""

from pathlib import Path
from typing import Any

import pytest

from sct_lesion_losses.cli import (
    bundle,
    evaluate,
    implant,
    rethreshold,
    segment,
    simulate,
    split,
    study,
    train,
    tune,
)
from sct_lesion_losses.cli.parser import Command

WRONG = {
    segment.main: {
        "-i a.nii b.nii -o m.nii": "-o names one mask",
        "-i . -o m.nii": "-o names one mask",
        "-i a.nii -o a.nii": "overwrite the scan",
        "-i a.nii -o folder": "use -ofolder",
        "-i a.nii -thr 1.5": "not in the range",
        "-i a.nii -thr -0.1": "not in the range",
        "-i a.nii -thr nan": "not a finite number",
        "-i a.nii -sct_rule 1": "-bundle sct",
        "-i a.nii -lesion_point 1 -thr 0": "leave out -lesions, -lesion_point",
        "-i a.nii -centerline file": "-file_centerline",
        "-i a.nii -centerline svm -file_centerline c.nii": "not svm",
        "-i a.nii b.nii -file_centerline c.nii": "belongs to one scan",
        "-i . -file_centerline c.nii": "belongs to one scan",
        "-i a.nii b.nii -cord c.nii": "the folder that holds a cord mask of each",
        "-i a.nii b.nii -levels l.nii": "give the folder that holds the labels of each",
        "-i a.nii -levels l.nii -thr 0": "-levels is for the table of lesions",
        "-i a.nii -levels l.nii -lesions 0": "-levels is for the table of lesions",
        "-i a.nii -centerline optic": "is not one of",
        "-i a.nii -precision float16": "is not one of",
        # Outputs that meet: masks, sidecars of two masks, an output and an input.
        "-i a/t2.nii.gz b/t2.nii.gz": "-ofolder",
        "-i t2.nii t2.nii.gz": "-ofolder",
        "-i t2.nii.gz ./t2.nii.gz": "-ofolder",
        "-i t2.nii.gz t2_lesionseg.nii.gz": "-ofolder",
    },
    segment.main_tversky: {"-i t2.nii.gz -bundle sct": "no such option: -bundle"},
    rethreshold.main: {
        **{f"-i p.nii -thr {wrong}": "-thr" for wrong in ("0", "-0.1", "1.01", "nan", "x")},
        "-i p.nii": "-thr is missing",
        "-i t.tsv -cord c.nii": "-cord belongs to one p-map",
        **{
            f"-i t.tsv {wrong}": "leave out -thr, -o and -ofolder"
            for wrong in ("-thr 0.5", "-o m.nii", "-ofolder out")
        },
    },
    simulate.main: {"-ofolder x -n 0": "-n", "-ofolder x -figure sheet.tiff": "ends in .png"},
    implant.main: {
        "-i a.nii": "-ofolder",
        "-i a.nii -ofolder x -n 0": "-n",
        "-i a.nii -ofolder x -free 1.5": "not in the range",
        "-i a.nii -ofolder x -acquisition coronal": "is not one of",
        "-i a.nii b.nii -ofolder x -cord c.nii": "2 scans and 1 cord masks",
        "-i a/t2.nii a/t2.nii.gz -ofolder x": "another scan has the same name",
    },
    split.main: {
        "-i cohort -ofile s.tsv -lesion_free 1.5": "not in the range",
        "-i cohort -ofile s.tsv -lesion_free_tuning -0.5": "not in the range",
        "-i cohort -ofile s.tsv -seed -1": "not in the range",
        "-i cohort -ofile s.tsv -figure 2": "is not one of",
    },
    train.main: {
        f"-i cohort -ofolder b {wrong}": said
        for wrong, said in {
            "-loss dise": "is not one of",
            "-loss_numbers 0.8": "expected name=value",
            "-loss_numbers fn_weight=": "expected name=value",
            "-loss_numbers alpha=0.8": "loss tversky: expected arguments out of fn_weight",
            "-loss_numbers from_logits=True": "this one gives probabilities",
            "-seed -1": "not in the range",
            "-shift -1": "not in the range",
            "-rate 0": "rate is 0.0",
            "-filters 2 2 2 2 2 2": "can be halved four times, give five at most",
            "-init tversky -prior 0.1": "-prior is for random weights",
            "-lesion_free_tuning 2": "not in the range",
            "-c t1": "is not one of",
            "-c t2": "goes with -init sct",
            "-init tversky -c t2s": "goes with -init sct",
            "-bundle_version new": "version is 'new'",
        }.items()
    },
    tune.main: {
        "-i cohort": "-bundle",
        "-bundle b": "give a cohort with -i, or scans of healthy people with -healthy",
        **{
            f"-bundle b -healthy a.nii {wrong}": said
            for wrong, said in {
                "": "-healthy writes a new bundle: name its folder with -ofolder",
                "-i cohort -ofolder out": "-i does not go with -healthy",
                "-site Zurich -ofolder out": "-site does not go with -healthy",
                "-objective mean_v_f1 -ofolder out": "-objective does not go with -healthy",
                "-n 1 -ofolder out": "not in the range",
                "-specificity 0 -ofolder out": "not in the range",
            }.items()
        },
        **{
            f"-bundle b -i cohort {wrong}": said
            for wrong, said in {
                "-objective best": "is not one of",
                "-beta 0": "not in the range",
                "-specificity 1.1": "not in the range",
                "-preset study": "is not one of",
                "-jobs 0": "not in the range",
                "-objective l_f1_at_specificity": "needs a specificity",
                "-froc picture": "add it",
                "-cord c.nii": "-cord does not go with -i",
                "-n 3": "-n does not go with -i",
                "-objective l_f1_at_specificity -specificity 0.9 -lesion_point 1 "
                "-lesion_specificity 0.9": "leave out -lesion_specificity and -preset",
                "-objective l_f1_at_specificity -specificity 0.9 -lesion_point 1 -preset anima": (
                    "leave out -lesion_specificity and -preset"
                ),
                "-site Zurich": "name its folder with -ofolder",
                "-site Zurich -ofolder out -froc picture": "-froc does not go with -site",
                "-site Zurich -ofolder out -measure 0": "-measure does not go with -site",
                "-site Zurich -ofolder out -objective mean_v_f1": "-objective does not go with",
            }.items()
        },
    },
    evaluate.main: {
        "-i cohort -ofolder out": "give -bundle, -masks or -pmaps",
        "-i cohort -ofolder out -masks folder": "expected NAME=FOLDER",
        "-i cohort -ofolder out -pmaps a=b a=c": "names two folders a",
        "-i cohort -ofolder out -bundle b -preset study": "is not one of",
        "-i cohort -ofolder out -bundle b -centerline file": "is not one of",
        "-i cohort -ofolder out -bundle b -jobs 0": "not in the range",
        "-i cohort -ofolder out -bundle tversky tversky": "2 of the models are named tversky",
    },
    study.main: {
        "-i cohort": "-ofolder",
        "-i cohort -ofolder out -losses dise": "is not one of",
        "-i cohort -ofolder out -losses dice dice": "given twice",
        "-i cohort -ofolder out -losses dice -bundle tversky": "give one of the two",
        "-i cohort -ofolder out -rate 0": "rate is 0.0",
        "-i cohort -ofolder out -scheduler tcp://a:1 -scheduler_file b": "give one of them",
        "-i cohort -ofolder out -loss dice": "-loss",
    },
    bundle.main: {
        "": "Missing argument",
        "delete": "'delete' is not one of",
        "info": "info needs a bundle",
        "export": "export needs a bundle",
        "import": "import needs a zip file",
        "list dice": "list takes no bundle",
        "info dice -o x": "-o belongs to export",
        "export dice -ofolder x": "-ofolder belongs to import",
        "info dice -forse 1": "did you mean -force?",
    },
}


def rows(said: dict[Command, dict[str, str]]) -> list[Any]:
    return [
        pytest.param(main, args, words, id=f"{main.name} {args}")
        for main, wrong in said.items()
        for args, words in wrong.items()
    ]


@pytest.mark.parametrize(("main", "args", "said"), rows(WRONG))
def test_wrong_use_gives_2_and_leaves_nothing(main, args, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(args.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


COULD_NOT = {
    segment.main: {"-i empty": "no T2w scan"},
    simulate.main: {"-ofolder out -figure file/sheet.png": "not a folder"},
    split.main: {
        "-i empty -ofile out.tsv": "no T2w scan",
        "-i cohort -ofile out.tsv -lesion_free 0.6 -lesion_free_tuning 0.6": "more than 1 together",
        "-i cohort -ofile out.tsv -unseen_sites Z": "unseen site Z; the cohort's sites: A, B",
    },
    train.main: {
        "-i none -ofolder out": "none: no such BIDS folder or TSV table",
        "-i cohort -ofolder out -init sct": "SCT",
        "-i cohort -ofolder out -init tverski": "did you mean tversky?",
        "-i cohort -ofolder out -lesion_free 0.5 -lesion_free_tuning 0.6": "0.5, and in thr-"
        "optimization, 0.6, are more than 1 together",
    },
    evaluate.main: {"-bundle sct -i cohort -ofolder out": "SCT"},
}


@pytest.mark.parametrize(("main", "args", "said"), rows(COULD_NOT))
def test_what_cannot_be_done_gives_1_and_no_output(
    main, args, said, cohort, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCT_DIR", "none")
    monkeypatch.setenv("PATH", "")
    Path("empty").mkdir()
    Path("file").touch()
    Path("cohort").symlink_to(cohort)
    assert main(args.split()) == 1
    assert said in capsys.readouterr().err.splitlines()[-1]
    assert not {"out", "out.tsv"} & {path.name for path in tmp_path.iterdir()}
    assert not list(Path("empty").iterdir())
