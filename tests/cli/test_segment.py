from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sct_lesion_losses.cli.segment import main, main_tversky
from sct_lesion_losses.errors import BundleError, ImageError
from sct_lesion_losses.geometry.centerline import Centerline
from sct_lesion_losses.geometry.grid import Grid
from sct_lesion_losses.inference import predict
from sct_lesion_losses.inference.predict import InferenceSettings
from sct_lesion_losses.report.sidecar import Found, Segmentation
from sct_lesion_losses.workflows import segment


class Runs(list[tuple[Path, Any, Any]]):
    """Calls of `segment.segment`: image, settings, outputs."""


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Runs:
    """Stand-in for the work: it notes the call and fails on scans named `bad…`."""
    monkeypatch.chdir(tmp_path)
    calls = Runs()

    def run(image: Path, settings: Any, outputs: Any, progress: Any = None) -> Segmentation:
        calls.append((image, settings, outputs))
        if image.name.startswith("bad"):
            raise ImageError(f"{image}: truncated;\ncopy it again")
        if image.name.startswith("defect"):
            raise ValueError("x")
        found = Found(2, 143.0, 0.9, (1.0, 2.0, 3.0))
        written = (outputs.mask, outputs.sidecar)
        line = Centerline(Grid((1, 1, 1), np.diag([-1.0, 1.0, 1.0, 1.0])), np.zeros((1, 2)))
        return Segmentation(written, None, None, found, 0.35, 0.35, line, "onnxruntime", ())

    monkeypatch.setattr(segment, "segment", run)
    monkeypatch.setattr(predict, "opened", lambda *_: (None, None))
    monkeypatch.setattr(segment, "require", lambda *_: None)
    return calls


def test_paths_go_to_stdout_and_the_closing_lines_after_them(
    runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["-i", "data/t2.nii.gz", "-ofolder", "out"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "out/t2_lesionseg.nii.gz",
        "out/t2_lesionseg.json",
        "",
        "Done! To view results, type:",
        "fsleyes data/t2.nii.gz -cm greyscale out/t2_lesionseg.nii.gz -cm red -a 70.0 &",
        "",
    ]
    assert err.startswith("t2.nii.gz: 2 lesions, 143 mm³")


def test_verbosity_0_prints_nothing_but_paths(
    runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["-i", "t2.nii.gz", "-v", "0"]) == 0
    assert capsys.readouterr() == ("t2_lesionseg.nii.gz\nt2_lesionseg.json\n", "")


def test_without_options_the_settings_are_the_defaults(runs: Runs) -> None:
    main(["-i", "t2.nii.gz"])
    expected = segment.SegmentSettings(command="sct_deepseg_lesion_tuned -i t2.nii.gz")
    assert runs[0][1] == expected


def test_every_option_reaches_the_settings(runs: Runs) -> None:
    args = (
        "-i /data/t2.nii.gz -o m.nii.gz -ofolder /out -bundle sct -c t2_ax -thr 0.3 -pmap 1 "
        "-lesions 1 -figure 1 -centerline file -file_centerline /data/c.nii.gz -brain 0 "
        "-engine onnxruntime -precision float32 -qc qc -qc-dataset D -qc-subject S "
        "-qc-plane sagittal -r 0"
    )
    assert main(args.split()) == 0
    image, settings, outputs = runs[0]
    assert image == Path("/data/t2.nii.gz")
    assert outputs.mask == Path("/out/m.nii.gz")
    assert settings == segment.SegmentSettings(
        bundle="sct",
        threshold=0.3,
        inference=InferenceSettings("file", "t2_ax", False, "onnxruntime", "float32"),
        centerline_file=Path("/data/c.nii.gz"),
        pmap=True,
        lesions=True,
        figure=True,
        keep_centerline=True,
        qc=Path("qc"),
        qc_dataset="D",
        qc_subject="S",
        qc_plane="sagittal",
        command="sct_deepseg_lesion_tuned " + args.replace("/data/", "").replace("/out", "out"),
    )


def test_the_tversky_command_fixes_the_bundle(
    runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main_tversky(["-i", "t2.nii.gz"]) == 0
    assert runs[0][1].bundle == "tversky"
    assert main_tversky(["-i", "t2.nii.gz", "-bundle", "sct"]) == 2
    assert "no such option: -bundle" in capsys.readouterr().err


def test_a_scan_that_fails_gives_one_line_and_1(
    runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["-i", "bad.nii.gz"]) == 1
    assert capsys.readouterr() == (
        "",
        "sct_deepseg_lesion_tuned: error: bad.nii.gz: truncated; copy it again\n",
    )


def test_scans_that_fail_do_not_stop_the_others_and_are_listed(
    runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    scans = ["a.nii.gz", "bad.nii.gz", "defect.nii", "b.nii.gz"]
    assert main(["-i", *scans]) == 1
    assert [image.name for image, _, _ in runs] == scans
    out, err = capsys.readouterr()
    assert out.splitlines()[:4] == [
        *("a_lesionseg.nii.gz", "a_lesionseg.json"),
        *("b_lesionseg.nii.gz", "b_lesionseg.json"),
    ]
    assert err.splitlines() == [
        "a.nii.gz: 2 lesions, 143 mm³, at threshold 0.35; highest probability 0.9 at (1, 2, 3) mm",
        "ERROR: bad.nii.gz: truncated; copy it again",
        "ERROR: defect.nii: ValueError: x (this is a defect; -v 2 shows where)",
        "b.nii.gz: 2 lesions, 143 mm³, at threshold 0.35; highest probability 0.9 at (1, 2, 3) mm",
        "ERROR: 2 of 4 scans failed:",
        "  bad.nii.gz: truncated; copy it again",
        "  defect.nii: ValueError: x (this is a defect; -v 2 shows where)",
    ]


def test_a_scan_that_may_not_be_read_is_an_error_of_its_own(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("bad.nii.gz").touch()
    monkeypatch.setattr(os, "access", lambda path, mode: "bad" not in str(path))
    assert main(["-i", "bad.nii.gz", "a.nii.gz"]) == 1
    assert [image.name for image, _, _ in runs] == ["bad.nii.gz", "a.nii.gz"]
    assert "1 of 2 scans failed" in capsys.readouterr().err


def test_a_bundle_that_cannot_be_used_is_said_once(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def opened(*_: object) -> None:
        raise BundleError("no bundle 'x'; sct_lesion_bundle list shows what there is")

    monkeypatch.setattr(predict, "opened", opened)
    assert main(["-i", "a.nii", "b.nii", "-bundle", "x"]) == 1
    assert capsys.readouterr().err.count("no bundle 'x'") == 1
    assert runs == []


def test_each_sidecar_names_its_own_scan_alone(runs: Runs) -> None:
    main(["-i", "/p/a.nii", "/q/b.nii", "-thr", "0.2"])
    assert [settings.command for _, settings, _ in runs] == [
        "sct_deepseg_lesion_tuned -i a.nii -thr 0.2",
        "sct_deepseg_lesion_tuned -i b.nii -thr 0.2",
    ]


@pytest.mark.parametrize(
    "scans",
    [
        ["a/t2.nii.gz", "b/t2.nii.gz"],
        ["t2.nii", "t2.nii.gz"],  # the masks differ, the sidecars do not
        ["t2.nii.gz", "./t2.nii.gz"],
        ["t2.nii.gz", "t2_lesionseg.nii.gz"],  # the second is the first's output
    ],
)
def test_names_that_meet_are_refused_before_any_work(
    scans: list[str], runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["-i", *scans]) == 2
    assert "-ofolder" in capsys.readouterr().err
    assert runs == []


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["-i", "a.nii", "b.nii", "-o", "m.nii"], "-o names one mask"),
        (["-i", ".", "-o", "m.nii"], "-o names one mask"),
        (["-i", "a.nii", "-o", "a.nii"], "overwrite the scan"),
        (["-i", "a.nii", "-o", "folder"], "use -ofolder"),
        (["-i", "a.nii", "-thr", "1.5"], "not in the range"),
        (["-i", "a.nii", "-thr", "-0.1"], "not in the range"),
        (["-i", "a.nii", "-thr", "nan"], "not a finite number"),
        (["-i", "a.nii", "-sct_rule", "1"], "-bundle sct"),
        (["-i", "a.nii", "-lesion_point", "1", "-thr", "0.3"], "leave out -thr"),
        (["-i", "a.nii", "-centerline", "file"], "-file_centerline"),
        (["-i", "a.nii", "-centerline", "svm", "-file_centerline", "c.nii"], "not svm"),
        (["-i", "a.nii", "b.nii", "-file_centerline", "c.nii"], "belongs to one scan"),
        (["-i", ".", "-file_centerline", "c.nii"], "belongs to one scan"),
        (["-i", "a.nii", "-centerline", "optic"], "is not one of"),
        (["-i", "a.nii", "-precision", "float16"], "is not one of"),
    ],
)
def test_wrong_use_gives_2_and_says_what(
    args: list[str], said: str, runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(args) == 2
    assert said in capsys.readouterr().err.splitlines()[-1]
    assert runs == []


@pytest.mark.parametrize(
    ("option", "holds"),
    [
        (["-lesion_point", "1"], lambda asked: asked.lesion_point),
        (["-thr", "0"], lambda asked: asked.pmap_alone),
    ],
)
def test_one_option_may_decide_more_than_its_own_value(option: list[str], holds, runs: Runs):
    assert main(["-i", "a.nii", *option]) == 0
    assert holds(runs[0][1])


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    for name in (
        "sub-01/anat/sub-01_T2w.nii.gz",
        "sub-02/ses-1/anat/sub-02_ses-1_T2w.nii.gz",
        "sub-02/ses-1/anat/sub-02_ses-1_T2star.nii.gz",
    ):
        path = tmp_path / "ds" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "ds"


def test_a_bids_folder_is_segmented_into_its_derivatives(runs: Runs, dataset: Path) -> None:
    assert main(["-i", "ds"]) == 0
    derivatives = Path("ds/derivatives/sct_lesion_losses")
    assert [outputs.mask for _, _, outputs in runs] == [
        derivatives / "sub-01/anat/sub-01_label-L_mask.nii.gz",
        derivatives / "sub-02/ses-1/anat/sub-02_ses-1_label-L_mask.nii.gz",
    ]
    described = json.loads((derivatives / "dataset_description.json").read_text())
    assert described["DatasetType"] == "derivative"


def test_the_contrast_chooses_the_scans_of_a_bids_folder(runs: Runs, dataset: Path) -> None:
    assert main(["-i", "ds", "-c", "t2s", "-ofolder", "out"]) == 0
    assert [outputs.mask for _, _, outputs in runs] == [
        Path("out/sub-02/ses-1/anat/sub-02_ses-1_label-L_desc-T2star_mask.nii.gz")
    ]


def test_a_folder_without_scans_is_refused(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["-i", "empty"]) == 1
    assert "no T2w scan" in capsys.readouterr().err
    assert list((tmp_path / "empty").iterdir()) == []
