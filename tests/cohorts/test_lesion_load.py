from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from sct_lesion_losses.cohorts import splits
from sct_lesion_losses.cohorts.splits import LesionLoad
from sct_lesion_losses.cohorts.table import CohortScan
from sct_lesion_losses.errors import ImageError


def scan_of(folder: Path, mask: np.ndarray, name: str = "t2.nii.gz") -> CohortScan:
    path = folder / f"mask-{name}"
    nib.save(nib.Nifti1Image(mask.astype(np.uint8), np.diag([0.5, 0.5, 2.0, 1.0])), path)
    return CohortScan(folder / name, path, "sub-01")


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
    scans = [scan_of(tmp_path, np.ones((4, 4, 4)), f"{k}.nii.gz") for k in range(3)]
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
