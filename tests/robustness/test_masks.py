"""Masks and centerline images that do not fit."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from sct_lesion_losses.errors import GeometryError, ImageError
from sct_lesion_losses.geometry.grid import Grid
from sct_lesion_losses.images import nifti

AFFINE = np.diag([-1.0, 1.0, 2.0, 1.0])
GRID = Grid((6, 6, 6), AFFINE)


def save(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    nib.Nifti1Image(array, affine).to_filename(path)
    return path


def moved(*by_mm: float) -> np.ndarray:
    affine = AFFINE.copy()
    affine[:3, 3] = by_mm
    return affine


def holding(*values: float, dtype: str = "float32") -> np.ndarray:
    array = np.zeros((6, 6, 6), dtype)
    array[0, 0, : len(values)] = values
    return array


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (holding(1, 2, dtype="uint8"), "the values 0, 1, 2, expected"),
        (holding(2, dtype="uint8"), "the values 0, 2, expected"),
        (holding(1, 255, dtype="uint8"), "the values 0, 1, 255, expected"),
        (holding(-1, 1, dtype="int16"), "the values -1, 0, 1, expected"),
        (holding(0.5, 1), "the values 0, 0.5, 1, expected"),
        (holding(0.99), "the values 0, 0.99, expected"),
        (holding(1.00123456, dtype="float64"), "the values 0, 1.00123456, expected"),
        (holding(np.nan, 1), "the values 0, 1, nan, expected"),
        (holding(np.inf), "the values 0, inf, expected"),
        (holding(1, 2, 3, 4, 5, 6), r"the values 0, 1, 2, 3, 4, … \(7 in all\)"),
    ],
)
def test_a_mask_of_other_values_is_refused_with_the_values(
    array: np.ndarray, said: str, tmp_path: Path
) -> None:
    with pytest.raises(ImageError, match=said):
        nifti.read_mask(save(tmp_path / "m.nii.gz", array))


@pytest.mark.parametrize(
    ("shape", "affine", "said"),
    [
        ((6, 6, 5), AFFINE, r"shape \(6, 6, 5\) on an image of shape \(6, 6, 6\)"),
        (GRID.shape, moved(0.5, 0, 0), "lie elsewhere"),
        (GRID.shape, moved(0, 0, -3), "lie elsewhere"),
        (GRID.shape, np.diag([1.0, 1, 2, 1]), "orientation LPI and RPI"),
    ],
)
def test_a_mask_on_another_grid_is_refused(
    shape: tuple[int, ...], affine: np.ndarray, said: str, tmp_path: Path
) -> None:
    path = save(tmp_path / "m.nii.gz", np.zeros(shape, "u1"), affine)
    with pytest.raises(GeometryError, match=said):
        nifti.read_mask(path, like=GRID)


def test_a_header_rounded_by_another_tool_still_fits(tmp_path: Path) -> None:
    path = save(tmp_path / "m.nii", holding(1), moved(0.02, 0.02, 0.02))
    assert nifti.read_mask(path, like=GRID).array.any()


@pytest.mark.parametrize("value", [0.99999, 1.00000006, 0.9995, 254.9999])
def test_a_mask_of_a_scaled_header_is_taken(value: float, tmp_path: Path) -> None:
    array = holding(value, 1e-9, dtype="float64")
    mask = nifti.read_mask(save(tmp_path / "m.nii.gz", array)).array
    assert np.argwhere(mask).tolist() == [[0, 0, 0]]
