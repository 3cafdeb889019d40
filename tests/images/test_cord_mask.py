"""Cord masks that lesions are cut to: read with suspicion."""

from pathlib import Path

import numpy as np
import pytest

from sct_lesion_losses.errors import GeometryError, ImageError, LesionError
from sct_lesion_losses.geometry.grid import Grid
from sct_lesion_losses.images import cord_mask
from sct_lesion_losses.phantom.dataset import write_nifti

GRID = Grid((6, 6, 6), np.diag([-1.0, 1.0, 2.0, 1.0]))


def block(side: int = 6) -> np.ndarray:
    """Mask of side x side voxels in every slice."""
    mask = np.zeros(GRID.shape, np.uint8)
    mask[:side, :side] = 1
    return mask


@pytest.mark.parametrize("dtype", [np.float32, np.bool_])
def test_what_is_outside_is_zero_and_what_is_inside_as_it_was(
    tmp_path: Path, dtype: type[np.generic]
) -> None:
    write_nifti(tmp_path / "cord.nii.gz", block(3), GRID)
    cord = cord_mask.read(tmp_path / "cord.nii.gz", GRID)
    values = np.ones(GRID.shape, dtype)
    cut = cord.cut(values)
    assert (cut.dtype, cord.name, len(cord.sha256)) == (values.dtype, "cord.nii.gz", 64)
    np.testing.assert_array_equal(cut, block(3).astype(dtype))
    assert values.all()


@pytest.mark.parametrize(
    ("mask", "grid", "error", "said"),
    [
        (block()[:5], Grid((5, 6, 6), GRID.affine), GeometryError, "sct_register_multimodal"),
        (block() * np.arange(6, dtype=np.uint8), GRID, ImageError, "expected a mask of 0 and 1"),
        (block() * np.float32(0.4), GRID, ImageError, "the values 0.4"),
        (block(5) * np.uint8(255), GRID, ImageError, "the values 0, 255, expected"),
        (block(0), GRID, ImageError, "the cord mask is empty"),
    ],
    ids=["shape", "levels", "soft", "255", "empty"],
)
def test_another_grid_other_values_and_nothing_at_all_are_refused_with_the_name_and_what_to_do(
    tmp_path: Path, mask: np.ndarray, grid: Grid, error: type[LesionError], said: str
) -> None:
    write_nifti(tmp_path / "cord.nii.gz", mask, grid)
    with pytest.raises(error, match=rf"cord\.nii\.gz: .*{said}"):
        cord_mask.read(tmp_path / "cord.nii.gz", GRID)


@pytest.mark.parametrize(("side", "warned"), [(1, True), (4, True), (5, False)])
def test_a_mask_too_thin_for_a_cord_such_as_a_centerline_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, side: int, warned: bool
) -> None:
    write_nifti(tmp_path / "cord.nii.gz", block(side), GRID)  # 1, 16 and 25 mm² a slice
    cord_mask.read(tmp_path / "cord.nii.gz", GRID)
    assert ("is it a mask of the cord?" in caplog.text) is warned


def test_a_mask_that_misses_slices_of_the_cord_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mask = block()
    mask[:, :, [0, 2, 3]] = 0
    write_nifti(tmp_path / "gaps.nii.gz", mask, GRID)
    cord_mask.read(tmp_path / "gaps.nii.gz", GRID)
    assert "gaps.nii.gz: empty in 2 axial slices between others" in caplog.text
