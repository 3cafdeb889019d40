"""The crop of SCT's lesion model."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nibabel import Nifti1Image
from nibabel.processing import resample_from_to
from scipy import ndimage

from sct_lesion_losses.errors import CenterlineError, GeometryError
from sct_lesion_losses.geometry.centerline import Centerline
from sct_lesion_losses.geometry.grid import Grid
from sct_lesion_losses.sct import lesion
from sct_lesion_losses.sct.lesion import Crop


def rpi_grid(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> Grid:
    """Grid whose axes start right, posterior and inferior."""
    affine = np.diag([-spacing_mm[0], spacing_mm[1], spacing_mm[2], 1.0])
    affine[:3, 3] = 17.3, -41.9, 5.1
    return Grid(shape, affine)


def straight(grid: Grid, x: float, y: float, slices: slice = slice(None)) -> Centerline:
    xy = np.full((grid.shape[2], 2), np.nan)
    xy[slices] = x, y
    return Centerline(grid, xy)


@pytest.mark.parametrize(
    ("centre", "start"),
    [
        (50.0, 27),  # 50 - 23: voxel 23 of the window is the centre
        (50.9, 27),  # cut, not rounded
        (10.0, 0),  # would start at -13
        (95.0, 52),  # would end at 120: 100 - 48
    ],
)
def test_windows_stay_inside_the_image(centre: float, start: int) -> None:
    grid = rpi_grid((100, 100, 3), (0.5, 0.5, 3))
    assert (Crop.around(straight(grid, centre, centre), grid).starts == start).all()


def test_a_line_on_the_scans_own_voxels_is_moved_to_the_plane_grid() -> None:
    # 1 mm voxels become two: voxel 30 becomes 60, and 60 - 23 = 37.
    grid = rpi_grid((80, 80, 2), (1, 1, 3))
    assert (Crop.around(straight(grid, 30, 30), grid).starts == 37).all()


def test_cut_takes_the_window_and_nothing_where_there_is_no_centerline() -> None:
    grid = rpi_grid((100, 90, 3), (0.5, 0.5, 3))
    image = np.arange(100 * 90 * 3, dtype=np.int32).reshape(100, 90, 3)
    cut = Crop.around(straight(grid, 50, 40, slice(1, 2)), grid).cut(image)
    np.testing.assert_array_equal(cut[:, :, 1], image[27:75, 17:65, 1])
    assert not cut[:, :, [0, 2]].any()


def test_an_image_narrower_than_the_window_is_padded_with_zeros_at_its_end() -> None:
    grid = rpi_grid((40, 60, 2), (0.5, 0.5, 3))
    cut = Crop.around(straight(grid, 20, 30), grid).cut(np.ones(grid.shape))
    assert (cut[:40] == 1).all()
    assert not cut[40:].any()


def test_slices_become_half_a_millimetre_thick() -> None:
    # 9 slices of 7.5 mm are 135 of 0.5 mm.
    grid = rpi_grid((60, 60, 9), (0.5, 0.5, 7.5))
    found = Crop.around(straight(grid, 30, 30), grid)
    assert found.refine(np.zeros((48, 48, 9), np.float32)).shape == (48, 48, 135)


def test_refine_is_linear_between_slices_and_level_beyond_them() -> None:
    # Two slices of 1 mm become four: at 0, 0.5, 1 and 1.5 slices; the last is beyond.
    grid = rpi_grid((60, 60, 2), (0.5, 0.5, 1))
    values = np.zeros((48, 48, 2), np.float32)
    values[:, :, 1] = 8
    fine = Crop.around(straight(grid, 30, 30), grid).refine(values)
    assert fine[0, 0].tolist() == [0, 4, 8, 8]


@given(
    st.tuples(st.integers(30, 70), st.integers(50, 70), st.integers(1, 5)),
    st.sampled_from([0.5, 1.0, 2.0]),
    st.integers(0, 200),
)
def test_uncut_puts_every_voxel_back(
    shape: tuple[int, int, int], thickness_mm: float, seed: int
) -> None:
    grid = rpi_grid(shape, (0.5, 0.5, thickness_mm))
    rng = np.random.default_rng(seed)
    xy = rng.uniform(0, np.array(shape[:2]) - 1, (shape[2], 2))
    xy[rng.random(shape[2]) < 0.3] = np.nan
    xy[0] = shape[0] / 2, shape[1] / 2
    found = Crop.around(Centerline(grid, xy), grid)
    image = rng.random(shape).astype(np.float32)
    expected = np.zeros_like(image)
    for z in np.flatnonzero(found.covered):
        x, y = found.starts[z]
        window = np.s_[x : x + 48, y : y + 48, z]
        expected[window] = image[window]
    back = found.uncut(found.refine(found.cut(image)))
    np.testing.assert_allclose(back, expected, atol=1e-6)


def test_uncut_of_ones_is_one_inside_the_windows_and_zero_away_from_them() -> None:
    grid = rpi_grid((60, 60, 6), (0.8, 0.8, 2))
    found = Crop.around(straight(grid, 30, 30, slice(1, 5)), grid)
    back = found.uncut(np.ones(found.fine.shape, np.float32))
    # The centre is voxel 48 of 0.5 mm, the window voxels 25 to 72 of it: 15.6 to 45 of 0.8 mm.
    assert (back[16:46, 16:46, 1:5] == 1).all()
    assert not back[:, :, [0, 5]].any()
    assert not back[:15].any()
    assert not back[47:].any()


def test_uncut_reaches_the_edge_of_the_image() -> None:
    # Linear interpolation has no value beyond the last voxel centre: the edge value holds.
    grid = rpi_grid((20, 20, 2), (0.8, 0.8, 2))
    found = Crop.around(straight(grid, 10, 10), grid)
    assert (found.uncut(np.ones(found.fine.shape, np.float32)) == 1).all()


def test_uncut_refuses_a_map_of_another_crop() -> None:
    grid = rpi_grid((60, 60, 2), (0.5, 0.5, 2))
    with pytest.raises(GeometryError, match="expected"):
        Crop.around(straight(grid, 30, 30), grid).uncut(np.zeros((48, 48, 7), np.float32))


@given(st.integers(0, 100), st.sampled_from([0.35, 0.5, 0.7, 0.8, 1.0]))
def test_the_line_of_a_mask_is_that_of_nibabels_resampling_to_the_bit(
    seed: int, spacing_mm: float
) -> None:
    rng = np.random.default_rng(seed)
    grid = lesion.as_header(rpi_grid((40, 50, 6), (spacing_mm, spacing_mm, 2.5)))
    mask = np.zeros(grid.shape, bool)
    for z in range(1, 5):
        x, y = rng.integers(2, 30, 2)
        mask[x : x + rng.integers(1, 9), y : y + rng.integers(1, 9), z] = True
    plane = lesion.in_plane(grid)
    whole = resample_from_to(
        Nifti1Image(mask.astype(np.float64), grid.affine),
        (plane.shape, plane.affine),
        order=1,
        mode="nearest",
    ).get_fdata()
    expected = np.full((6, 2), np.nan)
    for z in np.flatnonzero(whole.any(axis=(0, 1))):
        expected[z] = ndimage.center_of_mass(whole[:, :, z])
    np.testing.assert_array_equal(lesion.centerline(mask, grid).xy, expected)


def test_the_line_of_a_mask_does_not_depend_on_the_axis_order() -> None:
    grid = rpi_grid((40, 50, 6), (0.8, 0.8, 2.5))
    mask = np.zeros(grid.shape, bool)
    mask[10:17, 20:24, 1:5] = True
    # The same voxels stored as z, x, y.
    order = np.eye(4)[[1, 2, 0, 3]]
    stored = Grid((6, 40, 50), grid.affine @ order)
    found = lesion.centerline(mask.transpose(2, 0, 1), stored)
    np.testing.assert_array_equal(found.xy, lesion.centerline(mask, grid).xy)


def test_an_empty_mask_has_no_line() -> None:
    grid = rpi_grid((40, 50, 6), (0.8, 0.8, 2.5))
    with pytest.raises(CenterlineError):
        lesion.centerline(np.zeros(grid.shape, np.uint8), grid)
