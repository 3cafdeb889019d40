import numpy as np
import pytest
from geometry import AXIS_ORDERS, affine_of, grids
from hypothesis import given, reject
from hypothesis import strategies as st

from sct_lesion_losses.errors import CenterlineError
from sct_lesion_losses.geometry.centerline import Centerline
from sct_lesion_losses.geometry.cord_crop import CordCrop
from sct_lesion_losses.geometry.grid import Grid


def wandering(grid: Grid, seed: int) -> Centerline:
    rng = np.random.default_rng(seed)
    nx, ny, nz = grid.shape
    return Centerline(grid, rng.uniform(0, 1, (nz, 2)) * (nx - 1, ny - 1))


@given(grids(), st.integers(0, 2**32 - 1))
def test_uncut_puts_every_voxel_back(stored: Grid, seed: int) -> None:
    grid, _ = stored.to_rpi()
    crop = CordCrop.around(wandering(grid, seed), grid, width=4)
    array = np.random.default_rng(seed).uniform(1, 2, grid.shape).astype(np.float32)
    back = crop.uncut(crop.cut(array, grid), grid)
    inside = np.zeros(grid.shape, bool)
    for z, (x, y) in enumerate(crop.starts, start=crop.first):
        inside[max(x, 0) : x + 4, max(y, 0) : y + 4, z] = True
    np.testing.assert_allclose(back[inside], array[inside], rtol=1e-5)
    assert not back[~inside].any()


@given(grids(), st.integers(0, 2**32 - 1))
def test_a_ramp_survives_the_way_to_the_working_grid_and_back(stored: Grid, seed: int) -> None:
    grid, _ = stored.to_rpi()
    work = grid.resampled((0.5, 0.5, 0.5))
    x0, y0 = np.random.default_rng(seed).uniform(0, 1, 2) * (grid.shape[0] - 1, grid.shape[1] - 1)
    crop = CordCrop.around(Centerline(grid, np.tile([x0, y0], (grid.shape[2], 1))), work)
    ramp = 1 + np.indices(grid.shape).sum(axis=0).astype(np.float32)
    back = crop.uncut(crop.cut(ramp, grid), grid)
    # Native voxels inside every window come back unchanged, but for the last of each axis, whose
    # working neighbours repeat the edge, and where the working grid is the coarser one.
    centres = crop.grid.to_voxel(grid.to_world(np.moveaxis(np.indices(grid.shape), 0, -1)))
    low, high = crop.starts[0], crop.starts[0] + crop.width - 1
    inside = ((centres[..., :2] >= low) & (centres[..., :2] <= high)).all(axis=-1)
    inside &= centres[..., 2] <= crop.first + crop.length - 1
    inside[-1], inside[:, -1], inside[:, :, -1] = False, False, False
    coarse = float((np.array(work.spacing_mm) / grid.spacing_mm).max())
    tolerance = 1e-3 if coarse <= 1 else 3 * coarse
    np.testing.assert_allclose(back[inside], ramp[inside], atol=tolerance, rtol=1e-5)


def test_the_centre_falls_in_the_middle_of_the_window() -> None:
    grid = Grid((100, 100, 3), np.diag([-0.5, 0.5, 0.5, 1.0]))
    crop = CordCrop.around(Centerline(grid, np.full((3, 2), 50.4)), grid)
    np.testing.assert_array_equal(crop.starts, np.full((3, 2), 27))  # 50 is voxel 23 of 48


def test_windows_beyond_the_grid_repeat_its_edge() -> None:
    grid = Grid((6, 6, 2), np.diag([-0.5, 0.5, 0.5, 1.0]))
    crop = CordCrop.around(Centerline(grid, np.zeros((2, 2))), grid, width=4)
    array = np.arange(72, dtype=float).reshape(6, 6, 2)
    cut = crop.cut(array, grid)
    np.testing.assert_array_equal(cut[0], cut[1])  # x = -1 repeats x = 0
    assert cut[1, 1, 0] == array[0, 0, 0]


def test_only_covered_slices_belong_to_the_crop() -> None:
    grid = Grid((20, 20, 10), np.diag([-0.5, 0.5, 0.5, 1.0]))
    xy = np.full((10, 2), np.nan)
    xy[3:7] = 10
    crop = CordCrop.around(Centerline(grid, xy), grid, width=8)
    assert (crop.first, crop.length) == (3, 4)
    outside = np.r_[0:3, 7:10]
    assert not crop.uncut(np.ones((8, 8, 4)), grid)[:, :, outside].any()


@given(grids(min_side=6), st.data())
def test_every_covered_slice_keeps_its_values_and_no_other_has_any(
    stored: Grid, data: st.DataObject
) -> None:
    grid, _ = stored.to_rpi()
    nx, ny, nz = grid.shape
    low = data.draw(st.integers(0, nz - 1))
    high = data.draw(st.integers(low, nz - 1))
    covered = np.zeros(nz, bool)
    covered[low : high + 1] = True
    middle = np.where(covered[:, None], ((nx - 1) / 2, (ny - 1) / 2), np.nan)
    line, work = Centerline(grid, middle), grid.resampled((0.5, 0.5, 0.5))
    try:
        crop = CordCrop.around(line, work)
    except CenterlineError:  # less than a slice of the working grid
        reject()
    back = crop.uncut(np.ones((48, 48, crop.length), np.float32), grid)
    centre = back[(nx - 1) // 2, (ny - 1) // 2]
    np.testing.assert_allclose(centre[covered], 1, atol=1e-5)
    assert not back[:, :, ~covered].any()


@pytest.mark.parametrize("tilt_deg", [(0.0, 0.0, 0.0), (7.0, -11.0, 4.0)])
def test_the_stored_order_of_the_axes_moves_no_window(tilt_deg: tuple[float, float, float]) -> None:
    # One world, stored in 48 ways: voxels of 1 mm, 40 in each direction, a centerline of whole
    # voxels, which fall on the border between two voxels of the working grid.
    found = []
    for axes, signs in AXIS_ORDERS:
        affine = affine_of(axes, signs, (1.0, 1.0, 1.0), tilt_deg)
        ends = affine[:3, :3] @ np.full(3, 39.0)
        corner = affine_of((0, 1, 2), (1, 1, 1), (1.0, 1.0, 1.0), tilt_deg)[:3, :3] @ np.full(3, 39)
        affine[:3, 3] = (corner - ends) / 2 + (3.21, -17.3, 88.7)
        grid, _ = Grid((40, 40, 40), affine).to_rpi()
        line = Centerline(grid, np.column_stack([np.arange(40) // 2 + 10, np.full(40, 21)]))
        found.append(CordCrop.around(line, grid.resampled((0.5, 0.5, 0.5))).starts)
    for starts in found[1:]:
        np.testing.assert_array_equal(starts, found[0])
