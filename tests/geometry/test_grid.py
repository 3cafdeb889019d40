from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from geometry import AXIS_ORDERS, affine_of, grids
from hypothesis import given
from hypothesis import strategies as st

from sct_lesion_losses.errors import GeometryError
from sct_lesion_losses.geometry.grid import Grid

OPPOSITE = str.maketrans("RLAPSI", "LRPAIS")


@given(grids())
def test_to_rpi_gives_rpi(grid: Grid) -> None:
    assert grid.to_rpi()[0].orientation == "RPI"


@pytest.mark.parametrize(("axes", "signs"), AXIS_ORDERS)
def test_orientation_is_nibabels_with_each_letter_turned_round(axes, signs) -> None:
    affine = affine_of(axes, signs, (0.5, 0.8, 3.0), (8.0, -5.0, 3.0))
    expected = "".join(nib.aff2axcodes(affine)).translate(OPPOSITE)
    assert Grid((4, 5, 6), affine).orientation == expected


@given(grids())
def test_undo_takes_every_voxel_back(grid: Grid) -> None:
    stored = np.arange(np.prod(grid.shape)).reshape(grid.shape)
    rpi, reorientation = grid.to_rpi()
    turned = reorientation.apply(stored)
    assert turned.shape == rpi.shape
    np.testing.assert_array_equal(reorientation.undo(turned), stored)


@given(grids())
def test_rpi_voxels_stay_where_they_are_in_the_world(grid: Grid) -> None:
    stored = np.moveaxis(np.indices(grid.shape), 0, -1)
    rpi, reorientation = grid.to_rpi()
    here = np.moveaxis(np.indices(rpi.shape), 0, -1)
    np.testing.assert_allclose(
        rpi.to_world(here), grid.to_world(reorientation.apply(stored)), atol=1e-9
    )


@given(grids(), st.lists(st.floats(-100, 100), min_size=3, max_size=3))
def test_to_voxel_inverts_to_world(grid: Grid, point: list[float]) -> None:
    np.testing.assert_allclose(grid.to_voxel(grid.to_world(point)), point, atol=1e-6)


@given(grids())
def test_resampled_keeps_the_first_voxel_and_the_field_of_view(grid: Grid) -> None:
    fine = grid.resampled((0.5, 0.5, 0.5))
    np.testing.assert_allclose(fine.to_world([0, 0, 0]), grid.to_world([0, 0, 0]))
    field = np.multiply(grid.shape, grid.spacing_mm)
    np.testing.assert_allclose(np.multiply(fine.shape, fine.spacing_mm), field)


def test_resampled_rounds_as_sct_does() -> None:
    # 60 slices of 2.81 mm are 337.2 voxels of 0.5 mm: 337, whose spacing is 168.6 / 337 mm.
    grid = Grid((60, 10, 10), np.diag([2.81, 0.5, 0.5, 1.0]))
    fine = grid.resampled((0.5, 0.5, None))
    assert fine.shape == (337, 10, 10)
    assert fine.spacing_mm[0] == pytest.approx(168.6 / 337)


def test_voxel_volume_of_a_sheared_grid_is_its_determinant() -> None:
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    affine[0, 1] = 0.5
    assert Grid((2, 2, 2), affine).voxel_volume_mm3 == pytest.approx(6.0)


def test_matches_sees_half_a_voxel() -> None:
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    moved = affine.copy()
    moved[0, 3] = 0.5
    assert Grid((4, 4, 4), affine).matches(Grid((4, 4, 4), affine))
    assert not Grid((4, 4, 4), affine).matches(Grid((4, 4, 4), moved))
    assert not Grid((4, 4, 4), affine).matches(Grid((4, 4, 5), affine))


@pytest.mark.parametrize(
    "affine",
    [
        np.diag([1.0, 1.0, 0.0, 1.0]),
        np.full((4, 4), np.nan),
        np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]),
    ],
    ids=["zero", "nan", "coincident axes"],
)
def test_an_affine_that_cannot_be_inverted_is_refused(affine) -> None:
    with pytest.raises(GeometryError, match="affine"):
        Grid((3, 3, 3), affine)


def test_tiny_voxels_are_not_singular() -> None:
    assert Grid((3, 3, 3), np.diag([0.01, 0.01, 0.01, 1])).spacing_mm[0] == pytest.approx(0.01)
