from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from sct_lesion_losses.errors import UsageError
from sct_lesion_losses.phantom import cohort as phantom_cohort
from sct_lesion_losses.phantom import make_cohort, make_scan
from sct_lesion_losses.phantom.cohort import scans_of
from sct_lesion_losses.phantom.files import centerline_mask, write_nifti
from sct_lesion_losses.phantom.scan import PhantomScan, has_lesions
from sct_lesion_losses.space.grid import Grid


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cohort(3, 1, tmp_path_factory.mktemp("cohort"), preset="tiny")


def _content(folder: Path) -> dict[str, bytes]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_a_second_run_writes_the_same_bytes(cohort: Path, tmp_path: Path) -> None:
    assert _content(make_cohort(3, 1, tmp_path, preset="tiny", jobs=2)) == _content(cohort)


def test_a_larger_cohort_has_the_same_first_scans(cohort: Path) -> None:
    scan = make_scan(1, 0, preset="tiny")
    stored = nib.load(cohort / "sub-001" / "anat" / "sub-001_T2w.nii.gz")
    assert np.array_equal(np.asarray(stored.dataobj), scan.image)
    assert stored.affine == pytest.approx(scan.grid.affine, abs=1e-4)


def test_a_subject_with_two_scans_has_sessions(cohort: Path) -> None:
    names = [path.name for path in sorted(cohort.glob("sub-*/**/*_T2w.nii.gz"))]
    assert names == [
        "sub-001_T2w.nii.gz",
        "sub-002_T2w.nii.gz",
        "sub-003_ses-01_T2w.nii.gz",
        "sub-003_ses-02_T2w.nii.gz",
    ]


def test_labels_lie_on_the_grid_of_their_scan(cohort: Path) -> None:
    raw = nib.load(cohort / "sub-001" / "anat" / "sub-001_T2w.nii.gz")
    folder = cohort / "derivatives" / "labels" / "sub-001" / "anat"
    for label in ("lesion_seg", "SC_seg", "centerline"):
        mask = nib.load(folder / f"sub-001_T2w_label-{label}.nii.gz")
        assert mask.get_data_dtype() == np.uint8
        assert mask.shape == raw.shape
        assert np.array_equal(mask.affine, raw.affine)
        assert set(np.unique(mask.dataobj)) <= {0, 1}


def test_the_tables_describe_subjects_and_lesions(cohort: Path) -> None:
    people = (cohort / "participants.tsv").read_text().splitlines()
    assert people[0].split("\t")[:2] == ["participant_id", "site"]
    assert len(people) == 4
    assert len({row.split("\t")[1] for row in people[1:]}) == 3
    head, *rows = [line.split("\t") for line in (cohort / "truth.tsv").read_text().splitlines()]
    assert rows
    for row in rows:
        lesion = dict(zip(head, row, strict=True))
        assert (cohort / lesion["scan"]).is_file()
        assert 1.12 <= float(lesion["intensity_ratio"]) <= 2
    made = json.loads((cohort / "dataset_description.json").read_text())["GeneratedBy"][0]
    assert made["Seed"] == 1


def test_108_subjects_have_161_scans() -> None:
    counts = [len(scans_of(k)) for k in range(108)]
    assert sum(counts) == 161
    assert set(counts) == {1, 2}


def test_46_of_the_161_scans_are_of_subjects_without_lesions() -> None:
    assert sum(len(scans_of(k)) for k in range(108) if not has_lesions(1, k)) == 46


def test_a_stored_slope_multiplies_the_stored_numbers(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    write_nifti(tmp_path / "a.nii.gz", array, Grid((2, 3, 4), np.eye(4)), slope=0.5)
    image = nib.load(tmp_path / "a.nii.gz")
    assert image.get_data_dtype() == np.int16
    assert image.dataobj.slope == 0.5
    assert np.array_equal(np.asarray(image.dataobj), array * 0.5)
    assert int(image.header["qform_code"]) == int(image.header["sform_code"]) == 1


def test_the_centerline_mask_has_one_voxel_in_each_slice() -> None:
    scan = make_scan(1, 0, preset="tiny")
    _, turn = scan.grid.to_rpi()
    mask = turn.apply(centerline_mask(scan))
    assert (mask.sum(axis=(0, 1)) == 1).all()
    assert (turn.apply(scan.cord)[mask > 0] == 1).all()


def test_a_scan_whose_lesions_are_all_too_small_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def small(*args: object, **options: object) -> PhantomScan:
        made = make_scan(*args, **options)
        return replace(made, lesions=tuple(replace(r, labelled=False) for r in made.lesions))

    monkeypatch.setattr(phantom_cohort, "make_scan", small)
    make_cohort(2, 0, tmp_path, lesion_free=0.0, preset="tiny")
    assert "no lesion of 2 of the scans" in caplog.text
    assert "(sub-001 first)" in caplog.text


def test_numbers_out_of_range_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="subjects and jobs start at 1"):
        make_cohort(0, 1, tmp_path)
    with pytest.raises(UsageError, match="expected 0 to 1"):
        make_cohort(1, 1, tmp_path, lesion_free=1.5)
