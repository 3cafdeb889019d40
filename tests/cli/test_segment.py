import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_data import script

from sct_lesion_losses.cli.segment import main, main_tversky
from sct_lesion_losses.errors import BundleError, ImageError
from sct_lesion_losses.geometry.centerline import Centerline
from sct_lesion_losses.geometry.grid import Grid
from sct_lesion_losses.inference import predict
from sct_lesion_losses.inference.predict import InferenceSettings
from sct_lesion_losses.report import columns
from sct_lesion_losses.report.sidecar import Found, Segmentation
from sct_lesion_losses.workflows import batch, segment


class Runs(list[tuple[Path, Any, Any]]):
    """Calls of `segment.segment`: image, settings, outputs."""


@pytest.fixture
def runs(monkeypatch, tmp_path) -> Runs:
    """Stand-in for the work: it notes the call and fails on scans named `bad…`."""
    monkeypatch.chdir(tmp_path)
    calls = Runs()

    def run(image: Path, settings: Any, outputs: Any, progress: Any = None) -> Segmentation:
        calls.append((image, settings, outputs))
        if image.name.startswith("bad"):
            raise ImageError(f"{image}: truncated;\ncopy it again")
        if image.name.startswith("defect"):
            raise ValueError("x")
        if settings.lesions:  # a batch reads the table back
            lesions = [{"lesion": 1}, {"lesion": 2}]
            columns.write(outputs.table, columns.PREDICTED_LESIONS, lesions)
            outputs.sidecar.write_text('{"LesionCount": 2}')
        found = Found(2, 143.0, 0.9, (1.0, 2.0, 3.0))
        written = (outputs.mask, outputs.sidecar)
        line = Centerline(Grid((1, 1, 1), np.diag([-1.0, 1.0, 1.0, 1.0])), np.zeros((1, 2)))
        return Segmentation(written, None, None, found, 0.35, 0.35, line, "onnxruntime", ())

    monkeypatch.setattr(segment, "segment", run)
    monkeypatch.setattr(predict, "opened", lambda *_: (None, None))
    monkeypatch.setattr(segment, "require", lambda *_: None)
    return calls


def test_paths_go_to_stdout_and_the_closing_lines_after_them_unless_it_is_to_be_quiet(runs, capsys):
    paths = ["out/t2_lesionseg.nii.gz", "out/t2_lesionseg.json"]
    assert main(["-i", "data/t2.nii.gz", "-ofolder", "out"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        *paths,
        "",
        "Done! To view results, type:",
        "fsleyes data/t2.nii.gz -cm greyscale out/t2_lesionseg.nii.gz -cm red -a 70.0 &",
        "",
    ]
    assert err.startswith("t2.nii.gz: 2 lesions, 143 mm³")
    assert main(["-i", "data/t2.nii.gz", "-ofolder", "out", "-v", "0"]) == 0
    assert capsys.readouterr() == ("\n".join([*paths, ""]), "")


def test_without_options_the_settings_are_the_defaults(runs):
    for of_command, bundle in ((main, "default"), (main_tversky, "tversky")):
        assert of_command(["-i", "t2.nii.gz"]) == 0
        expected = segment.SegmentSettings(bundle, command=f"{of_command.name} -i t2.nii.gz")
        assert runs[-1][1] == expected


def test_every_option_reaches_the_settings(runs, tmp_path, monkeypatch):
    for name in ("sct_qc", "sct_version"):
        script(tmp_path / "sct" / "bin" / name)
    monkeypatch.setenv("SCT_DIR", str(tmp_path / "sct"))
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


def test_scans_that_fail_do_not_stop_the_others_and_are_listed(runs, monkeypatch, capsys):
    Path("bad.nii.gz").touch()  # and it may not be read
    monkeypatch.setattr(os, "access", lambda path, mode: "bad" not in str(path))
    scans = ["a.nii.gz", "bad.nii.gz", "defect.nii", "b.nii.gz"]
    assert main(["-i", *scans, "-lesions", "0"]) == 1
    assert [image.name for image, _, _ in runs] == scans
    out, err = capsys.readouterr()
    assert out.splitlines()[:5] == [
        *("a_lesionseg.nii.gz", "a_lesionseg.json"),
        *("b_lesionseg.nii.gz", "b_lesionseg.json"),
        "segmented_scans.tsv",
    ]
    found = "2 lesions, 143 mm³, at threshold 0.35; highest probability 0.9 at (1, 2, 3) mm"
    assert err.splitlines() == [
        f"a.nii.gz: {found}",
        "ERROR: bad.nii.gz: truncated; copy it again",
        "ERROR: defect.nii: ValueError: x (this is a defect; -v 2 shows where)",
        f"b.nii.gz: {found}",
        "ERROR: 2 of 4 scans failed:",
        "  bad.nii.gz: truncated; copy it again",
        "  defect.nii: ValueError: x (this is a defect; -v 2 shows where)",
    ]
    assert main(["-i", "bad.nii.gz"]) == 1
    error = "sct_deepseg_lesion_tuned: error: bad.nii.gz: truncated; copy it again\n"
    assert capsys.readouterr() == ("", error)


def test_a_bundle_that_cannot_be_used_is_said_once(runs, monkeypatch, capsys):
    def opened(*_: object) -> None:
        raise BundleError("no bundle 'x'; sct_lesion_bundle list shows what there is")

    monkeypatch.setattr(predict, "opened", opened)
    assert main(["-i", "a.nii", "b.nii", "-bundle", "x"]) == 1
    assert capsys.readouterr().err.count("no bundle 'x'") == 1
    assert runs == []


def test_each_sidecar_names_its_own_scan_alone(runs):
    main(["-i", "/p/a.nii", "/q/b.nii", "-thr", "0.2"])
    assert [settings.command for _, settings, _ in runs] == [
        "sct_deepseg_lesion_tuned -i a.nii -thr 0.2",
        "sct_deepseg_lesion_tuned -i b.nii -thr 0.2",
    ]


@pytest.fixture
def dataset(tmp_path) -> Path:
    for name in (
        "sub-01/anat/sub-01_T2w.nii.gz",
        "sub-02/ses-1/anat/sub-02_ses-1_T2w.nii.gz",
        "sub-02/ses-1/anat/sub-02_ses-1_T2star.nii.gz",
    ):
        path = tmp_path / "ds" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "ds"


@pytest.mark.parametrize(
    ("options", "folder", "masks"),
    [
        ([], "ds/derivatives/sct_lesion_losses", ["sub-01_label-L", "sub-02_ses-1_label-L"]),
        (["-c", "t2s", "-ofolder", "out"], "out", ["sub-02_ses-1_label-L_desc-T2star"]),
    ],
)
def test_the_scans_of_a_contrast_in_a_bids_folder_are_segmented_into_derivatives(
    options, folder, masks, runs, dataset
):
    assert main(["-i", "ds", *options]) == 0
    made = [outputs.mask for _, _, outputs in runs]
    assert [mask.name for mask in made] == [f"{name}_mask.nii.gz" for name in masks]
    assert all(mask.is_relative_to(folder) for mask in made)
    described = Path(folder, "dataset_description.json")
    assert json.loads(described.read_text())["DatasetType"] == "derivative"


def test_options_of_a_batch_reach_it(runs, dataset, monkeypatch):
    asked = []

    def run(scans: list[batch.BatchScan], settings: batch.BatchSettings, *_: object) -> Any:
        asked.append((scans, settings))
        return {}, []

    monkeypatch.setattr(batch, "run", run)
    choice = ["-include", "^sub-0", "-exclude", "ses-1", "-force", "1", "-bids", "0"]
    assert main(["-i", "ds", "-ofolder", "out", *choice, "-jobs", "3", "-thr", "0.2"]) == 0
    [(scans, settings)] = asked
    of_each = segment.SegmentSettings(threshold=0.2, lesions=True)
    assert settings == batch.BatchSettings(of_each, "^sub-0", "ses-1", True, 3)
    assert [str(scan.outputs.mask) for scan in scans] == [
        "out/sub-01/anat/sub-01_T2w_lesionseg.nii.gz",
        "out/sub-02/ses-1/anat/sub-02_ses-1_T2w_lesionseg.nii.gz",
    ]
    assert scans[0].command.startswith("sct_deepseg_lesion_tuned -i sub-01_T2w.nii.gz -ofolder out")
    for line, jobs in (
        (["-scheduler", "tcp://host:8786"], "tcp://host:8786"),
        (["-scheduler_file", "s.json", "-thr", "0"], Path("s.json")),
    ):
        assert main(["-i", "ds", *line]) == 0
        assert asked[-1][1].jobs == jobs
    assert asked[-1][1].segment.lesions is False


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["-include", "sub-01"], "choose among several scans"),
        (["-bids", "1", "-o", "m.nii.gz"], "-bids 1 names the mask"),
        (["-bids", "1"], "t2.nii.gz: not the name of a BIDS scan"),
        (["-scheduler", "a", "-scheduler_file", "b"], "name one cluster each"),
        (["-scheduler", "a", "-jobs", "2"], "a cluster has workers of its own"),
        (["-include", "("], "choose among several scans"),
        (["-qc_page", "t2.nii.gz"], "expected a file name that ends in .html"),
    ],
)
def test_options_of_a_batch_that_contradict_are_refused(options, said, runs, capsys):
    assert main(["-i", "t2.nii.gz", *options]) == 2
    assert said in capsys.readouterr().err
    assert runs == []


def test_a_single_scan_gets_bids_names_where_they_are_asked_for(runs):
    assert main(["-i", "x/sub-01_ses-2_T2w.nii.gz", "-bids", "1", "-ofolder", "out"]) == 0
    assert runs[0][2].mask == Path("out/sub-01/ses-2/anat/sub-01_ses-2_label-L_mask.nii.gz")
    assert Path("out/dataset_description.json").exists()
    assert not Path("out/segmented_scans.tsv").exists()
