from __future__ import annotations

import json
from pathlib import Path

import pytest

from sct_lesion_losses.errors import DataError
from sct_lesion_losses.images import bids


def dataset(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_scans_are_found_with_and_without_sessions_and_sorted(tmp_path: Path) -> None:
    dataset(
        tmp_path,
        "sub-02/anat/sub-02_T2w.nii.gz",
        "sub-01/ses-1/anat/sub-01_ses-1_acq-ax_T2w.nii",
        "sub-01/ses-1/anat/sub-01_ses-1_T2star.nii.gz",
        "sub-01/ses-1/anat/sub-01_ses-1_acq-ax_T2w.json",
        "sub-01/ses-1/dwi/sub-01_ses-1_dwi.nii.gz",
        "derivatives/labels/sub-02/anat/sub-02_T2w.nii.gz",
    )
    assert [path.name for path in bids.find_scans(tmp_path)] == [
        "sub-01_ses-1_acq-ax_T2w.nii",
        "sub-02_T2w.nii.gz",
    ]
    stars = bids.find_scans(tmp_path, bids.SUFFIXES["t2s"])
    assert [path.name for path in stars] == ["sub-01_ses-1_T2star.nii.gz"]


def test_a_folder_without_such_scans_says_what_there_is(tmp_path: Path) -> None:
    dataset(tmp_path, "t2.nii.gz")
    with pytest.raises(DataError, match="no image in sub-"):
        bids.find_scans(tmp_path)
    dataset(tmp_path, "sub-01/anat/sub-01_T1w.nii.gz", "sub-01/anat/sub-01_FLAIR.nii.gz")
    with pytest.raises(DataError, match="no T2w scan, only FLAIR, T1w;"):
        bids.find_scans(tmp_path)


@pytest.mark.parametrize(
    ("image", "tail", "name"),
    [
        ("sub-01_T2w.nii.gz", "label-L_mask", "sub-01_label-L_mask.nii.gz"),
        ("sub-01_ses-2_acq-ax_T2w.nii", "label-L_dseg", "sub-01_ses-2_acq-ax_label-L_dseg.nii"),
        ("sub-01_T2star.nii.gz", "label-L_mask", "sub-01_label-L_desc-T2star_mask.nii.gz"),
        ("sub-01_T2w.nii.gz", "label-centerline", "sub-01_label-centerline.nii.gz"),
    ],
)
def test_derivative_names_follow_bids(image: str, tail: str, name: str) -> None:
    assert bids.derivative_name(Path("anat") / image, tail) == name


def test_derivatives_are_described_once(tmp_path: Path) -> None:
    bids.describe_derivatives(tmp_path / "out")
    path = tmp_path / "out" / "dataset_description.json"
    described = json.loads(path.read_text())
    assert described["DatasetType"] == "derivative"
    assert described["GeneratedBy"][0]["Name"] == "sct_lesion_losses"
    path.write_text("mine")
    bids.describe_derivatives(tmp_path / "out")
    assert path.read_text() == "mine"
