from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from geometry import affine_of, grids
from hypothesis import given
from hypothesis import strategies as st
from nibabel.processing import resample_from_to

from sct_lesion_losses.errors import GeometryError
from sct_lesion_losses.geometry.grid import Grid
from sct_lesion_losses.geometry.resample import values


@given(grids(), st.integers(0, 2**32 - 1))
def test_values_agree_with_nibabel_on_any_grid(grid: Grid, seed: int) -> None:
    array = np.random.default_rng(seed).uniform(0, 1000, grid.shape).astype(np.float32)
    onto = grid.resampled((0.7, 0.7, 0.7))
    expected = resample_from_to(
        nib.Nifti1Image(array, grid.affine), (onto.shape, onto.affine), order=1, mode="nearest"
    )
    np.testing.assert_allclose(values(array, grid, onto), expected.get_fdata(), atol=2e-4)


@given(grids(), st.data())
def test_a_box_holds_what_the_whole_holds_there(grid: Grid, data: st.DataObject) -> None:
    array = np.random.default_rng(0).uniform(0, 1, grid.shape)
    onto = grid.resampled((1.0, 1.0, 1.0))
    box = []
    for n in onto.shape:
        start = data.draw(st.integers(0, n - 1))
        box.append(slice(start, data.draw(st.integers(start + 1, n))))
    whole = values(array, grid, onto)
    part = values(array, grid, onto, (box[0], box[1], box[2]))
    np.testing.assert_allclose(part, whole[tuple(box)], atol=1e-6)


def test_beyond_the_grid_the_edge_value_holds() -> None:
    grid = Grid((2, 1, 1), np.eye(4))
    box = (slice(-2, 4), slice(0, 1), slice(0, 1))
    result = values(np.array([10.0, 20.0]).reshape(2, 1, 1), grid, grid, box)
    np.testing.assert_array_equal(result[:, 0, 0], [10, 10, 10, 20, 20, 20])


@given(grids())
def test_a_ramp_comes_back_from_a_finer_grid(grid: Grid) -> None:
    ramp = np.indices(grid.shape).sum(axis=0).astype(np.float32)
    fine = grid.resampled(tuple(s / 2 for s in grid.spacing_mm))
    back = values(values(ramp, grid, fine), fine, grid)
    np.testing.assert_allclose(back, ramp, atol=1e-3)


def test_nearest_neighbour_invents_no_value() -> None:
    grid = Grid((3, 3, 3), np.diag([2.0, 2.0, 2.0, 1.0]))
    mask = (np.arange(27).reshape(3, 3, 3) % 2).astype(np.uint8)
    result = values(mask, grid, grid.resampled((0.7, 0.7, 0.7)), order=0)
    assert set(np.unique(result)) == {0.0, 1.0}


def test_grids_with_other_axes_are_refused() -> None:
    straight = Grid((8, 8, 8), np.eye(4))
    tilted = Grid((8, 8, 8), affine_of((0, 1, 2), (1, 1, 1), (1, 1, 1), (5.0, 0.0, 0.0)))
    with pytest.raises(GeometryError, match="different axes"):
        values(np.zeros((8, 8, 8)), straight, tilted)
