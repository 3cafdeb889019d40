from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from sct_lesion_losses.cohorts import splits
from sct_lesion_losses.cohorts.splits import LesionLoad
from sct_lesion_losses.cohorts.table import CohortScan
from sct_lesion_losses.errors import DataError, ImageError

AFFINE = np.diag([0.5, 0.5, 2.0, 1.0])


def scan_of(folder: Path, mask: np.ndarray, name: str = "t2.nii.gz") -> CohortScan:
    path = folder / f"mask-{name}"
    nib.save(nib.Nifti1Image(mask.astype(np.uint8), AFFINE), path)
    return CohortScan(folder / name, path, "sub-01")


def with_image(scan: CohortScan, seed: int = 0, affine: np.ndarray = AFFINE) -> CohortScan:
    array = np.random.default_rng(seed).random((1, 4, 4), np.float32)
    nib.save(nib.Nifti1Image(array if affine is AFFINE else array[:, ::-1], affine), scan.scan)
    return scan


def test_lesions_that_touch_at_an_edge_are_one_and_at_a_corner_two(tmp_path):
    mask = np.zeros((8, 8, 8))
    mask[1, 1, 1] = mask[2, 2, 1] = 1  # a common edge
    mask[5, 5, 5] = mask[6, 6, 6] = 1  # a common corner
    # 4 voxels of 0.5 x 0.5 x 2 mm.
    assert splits.measure(scan_of(tmp_path, mask)) == LesionLoad(3, pytest.approx(2.0))


def test_an_empty_mask_has_no_load(tmp_path):
    assert splits.measure(scan_of(tmp_path, np.zeros((4, 4, 4)))) == LesionLoad(0, 0.0)


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs", b"\x1f\x8b cut off"])
def test_a_mask_that_cannot_be_read_names_the_scan(content, tmp_path):
    scan = scan_of(tmp_path, np.ones((4, 4, 4)))
    scan.lesion_mask.write_bytes(content)
    with pytest.raises(ImageError, match=r"^lesion mask of t2\.nii\.gz: .*mask-t2\.nii\.gz"):
        splits.measure(scan)


def test_report_hears_of_every_mask(tmp_path):
    scans = [with_image(scan_of(tmp_path, np.eye(4)[None], f"{k}.nii.gz")) for k in range(3)]
    heard: list[tuple[int, int]] = []
    loads = splits.measure_all(scans, lambda *now: heard.append(now))
    assert heard == [(1, 3), (2, 3), (3, 3)]
    assert list(loads) == [scan.scan for scan in scans]


def test_loads_are_gathered_by_part():
    def scan(name: str, subject: str, site: str, split: str) -> CohortScan:
        return CohortScan(Path(name), Path(name), subject, site, split)

    scans = [
        scan("a", "s1", "A", "training"),
        scan("b", "s1", "A", "training"),
        scan("c", "s2", "", "training"),
        scan("d", "s3", "B", "unseen"),
    ]
    loads = {s.scan: LesionLoad(k, 10.0 * k) for k, s in enumerate(scans)}
    training, validation, _, unseen = splits.by_part(scans, loads)
    assert (training.name, training.subjects, training.sites) == ("training", 2, 1)
    assert (len(training.loads), training.lesion_free) == (3, 1)
    assert training.bearing == (LesionLoad(1, 10.0), LesionLoad(2, 20.0))
    assert (validation.loads, validation.subjects) == ((), 0)
    assert (unseen.subjects, unseen.lesion_free) == (1, 0)


def test_all_masks_that_cannot_be_read_are_told_of_at_once(tmp_path):
    scans = [with_image(scan_of(tmp_path, np.eye(4)[None], f"{k}.nii.gz")) for k in range(3)]
    for scan in scans[1:]:
        scan.lesion_mask.write_bytes(b"")
    with pytest.raises(ImageError, match=r"1\.nii\.gz: .*mask of 2\.nii\.gz: .*\(2 of 3 scans"):
        splits.measure_all(scans)


@pytest.mark.parametrize("as_stored", [True, False])
def test_a_scan_of_two_subjects_is_refused_in_whatever_axis_order(as_stored, tmp_path):
    mirrored = np.diag([0.5, -0.5, 2.0, 1.0])
    one = with_image(scan_of(tmp_path, np.eye(4)[None], "a.nii.gz"))
    two = with_image(
        replace(scan_of(tmp_path, np.eye(4)[None], "b.nii.gz"), subject="sub-02"),
        affine=AFFINE if as_stored else mirrored,
    )
    with pytest.raises(DataError, match=r"b\.nii\.gz of sub-02 is the same image as .*a\.nii\.gz"):
        splits.measure_all([one, two])
    splits.measure_all([one, replace(two, subject="sub-01")])
    splits.measure_all([one, with_image(two, seed=1)])


def test_an_inverted_mask_is_warned_of_with_its_share_of_the_cord(tmp_path, caplog):
    mask = np.ones((10, 10, 10))
    mask[5, 5, 5] = 0
    scan = scan_of(tmp_path, mask)
    assert splits.measure(scan).lesions == 1
    assert "t2.nii.gz: the lesion mask covers 100% of the image; is it inverted" in caplog.text
    cord = np.zeros((10, 10, 10), np.uint8)
    cord[4:6, 5, 5] = 1
    nib.save(nib.Nifti1Image(cord, AFFINE), tmp_path / "t2_label-SC_seg.nii.gz")
    splits.measure(scan)
    assert "covers 50% of the cord and 100% of the image" in caplog.text


def test_a_lesion_that_fills_the_cord_of_a_close_crop_is_not_warned_of(tmp_path, caplog):
    mask = np.zeros((10, 10, 10))
    mask[3:7, 3:7] = 1  # 16 % of the image
    splits.measure(scan_of(tmp_path, mask))
    assert caplog.records == []
