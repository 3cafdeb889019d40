from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from sct_lesion_losses.centerline.optic import optic, to_eight_bit
from sct_lesion_losses.errors import CenterlineError
from sct_lesion_losses.geometry.grid import Grid

LAS = np.diag([-1.0, 1.0, 1.0, 1.0])


def sct_weights(folder: Path, contrast: str) -> np.ndarray:
    text = (folder / "data/optic_models" / f"{contrast}_model.yml").read_text()
    numbers = text[text.index("SVMDetector") :].split("[")[1].split("]")[0]
    return np.array([float(number) for number in numbers.split(",")], np.float32)


@pytest.mark.sct
@pytest.mark.parametrize(
    ("scan", "contrast", "slices"),
    [("t2/t2", "t2", 55), ("t2s/t2s", "t2s", 9), ("dmri/dwi_mean", "dwi", 5)],
)
def test_scts_weights_give_scts_gold_standard_voxel_for_voxel(
    shared: Path, sct_dir: Path, scan: str, contrast: str, slices: int
) -> None:
    stem = shared / "data/sct_testing_data" / scan
    image = nib.load(f"{stem}.nii.gz")
    gold = np.asarray(nib.load(f"{stem}_centerline-optic.nii.gz").dataobj)
    grid = Grid(image.shape, image.affine)
    line = optic(np.asarray(image.dataobj), grid, sct_weights(sct_dir, contrast))
    drawn = np.zeros(line.grid.shape, np.uint8)
    x, y = line.xy.astype(int).T
    drawn[x, y, np.arange(slices)] = 1
    assert gold.sum() == slices
    np.testing.assert_array_equal(grid.to_rpi()[1].undo(drawn), gold)


def test_the_line_is_the_same_however_the_scan_is_stored() -> None:
    values = np.random.default_rng(0).normal(size=(30, 31, 4))
    weights = np.random.default_rng(1).normal(size=577).astype(np.float32)
    expected = optic(values, Grid((30, 31, 4), LAS), weights)
    turned = np.ascontiguousarray(values.transpose(2, 0, 1)[::-1])
    affine = LAS @ np.array([[0, 1, 0, 0], [0, 0, 1, 0], [-1, 0, 0, 3], [0, 0, 0, 1.0]])
    actual = optic(turned, Grid((4, 30, 31), affine), weights)
    np.testing.assert_array_equal(actual.xy, expected.xy)


def test_eight_bits_span_the_range_of_the_image() -> None:
    values = to_eight_bit(np.array([-10.0, 0.0, 41.0]))
    # (0 + 10) / 51 of 65535 is 12850, and of 255 is 50.
    assert values.tolist() == [0, 50, 255]


def test_voxels_that_are_not_finite_count_as_zero() -> None:
    assert to_eight_bit(np.array([0.0, np.nan, np.inf, -np.inf, 5.0])).tolist() == [0, 0, 0, 0, 255]


@pytest.mark.parametrize("value", [0, 7, -3.5])
def test_a_constant_image_has_no_cord(value: float) -> None:
    with pytest.raises(CenterlineError, match="every voxel of the image"):
        optic(np.full((30, 30, 5), value), Grid((30, 30, 5), LAS), np.zeros(577, np.float32))


def test_a_field_narrower_than_the_cord_is_refused() -> None:
    with pytest.raises(CenterlineError, match=r"8\.0 × 30\.0 mm"):
        optic(np.zeros((8, 30, 5)), Grid((8, 30, 5), LAS), np.zeros(577, np.float32))
