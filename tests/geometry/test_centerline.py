import numpy as np
import pytest
from geometry import affine_of, rpi_grid

from sct_lesion_losses.errors import CenterlineError, GeometryError
from sct_lesion_losses.geometry.centerline import Centerline
from sct_lesion_losses.geometry.grid import Grid

SHAPE = (10, 10, 6)


def test_from_mask_takes_the_centre_of_mass_of_each_slice() -> None:
    mask = np.zeros((10, 10, 6), bool)
    mask[2:5, 4, 1] = True  # x 2, 3, 4 -> 3
    mask[7, 1:3, 3] = True  # y 1, 2 -> 1.5
    line = Centerline.from_mask(mask, rpi_grid(SHAPE))
    np.testing.assert_array_equal(line.covered, [False, True, False, True, False, False])
    np.testing.assert_array_equal(line.xy[[1, 3]], [[3, 4], [7, 1.5]])


def test_filled_bridges_gaps_but_does_not_extend() -> None:
    xy = np.full((6, 2), np.nan)
    xy[1], xy[4] = (2, 0), (8, 3)
    filled = Centerline(rpi_grid(SHAPE), xy).filled()
    np.testing.assert_allclose(filled.xy[1:5, 0], [2, 4, 6, 8])
    assert not filled.covered[[0, 5]].any()


def test_on_a_finer_grid_the_line_is_in_the_same_place_in_the_world() -> None:
    line = Centerline(rpi_grid(SHAPE), np.column_stack([np.linspace(2, 7, 6), np.full(6, 3.0)]))
    fine = line.on(line.grid.resampled((0.5, 0.5, 0.5)))
    there, here = (
        one.grid.to_world(np.column_stack([one.xy, np.arange(len(one.xy))])) for one in (fine, line)
    )
    np.testing.assert_allclose(there[::2], here, atol=1e-9)


def test_a_thick_slice_covers_half_its_thickness_on_each_side() -> None:
    xy = np.full((6, 2), np.nan)
    xy[2] = 5, 5
    line = Centerline(rpi_grid(SHAPE, spacing=(1.0, 1.0, 4.0)), xy)
    fine = line.on(line.grid.resampled((None, None, 0.5)))
    # Slice 2 is centred on fine slice 16 and 8 fine slices thick.
    np.testing.assert_array_equal(np.flatnonzero(fine.covered), np.arange(12, 20))


def test_an_empty_centerline_is_refused() -> None:
    with pytest.raises(CenterlineError, match="no point"):
        Centerline.from_mask(np.zeros((10, 10, 6), bool), rpi_grid(SHAPE))


def test_a_grid_in_another_orientation_is_refused() -> None:
    with pytest.raises(GeometryError, match="LPI"):
        Centerline(Grid((4, 4, 4), np.eye(4)), np.zeros((4, 2)))


def test_a_csv_gives_the_same_line_to_the_last_bit() -> None:
    xy = np.random.default_rng(0).uniform(0, 9, (6, 2))
    xy[[0, 4]] = np.nan
    line = Centerline(rpi_grid(SHAPE), xy)
    text = line.to_csv(line.grid)
    rows = text.splitlines()
    assert len(rows) == 4
    assert [float(word) for word in rows[0].split(",")] == [*xy[1], 1]
    np.testing.assert_array_equal(Centerline.from_csv(text, line.grid).xy, xy)


def test_a_csv_is_in_the_axes_of_the_stored_image() -> None:
    # Axes from front to back (9 voxels), from head to foot (6), from left to right (10).
    stored = Grid((9, 6, 10), affine_of((1, 2, 0), (-1, -1, 1), (0.5, 2, 0.5)))
    rpi, _ = stored.to_rpi()
    assert rpi.shape == (10, 9, 6)
    line = Centerline.from_csv("1.5,0,2.25\n1,5,3\n", stored)
    # To the left: 9 - 2.25; to the front: 8 - 1.5; upwards: 5 - 0.
    np.testing.assert_array_equal(line.xy[[5, 0]], [[6.75, 6.5], [6, 7]])
    world = line.grid.to_world([*line.xy[5], 5])
    np.testing.assert_allclose(world, stored.to_world([1.5, 0, 2.25]))
    rows = [[float(word) for word in row.split(",")] for row in line.to_csv(stored).splitlines()]
    assert rows == [[1, 5, 3], [1.5, 0, 2.25]]


@pytest.mark.parametrize("row", ["x,y,z", "1,2", "1,2,3.5", "1,2,6", "40,2,1", "nan,2,1", "1,1,0"])
def test_a_row_that_is_no_point_of_the_image_is_named(row: str) -> None:
    with pytest.raises(CenterlineError, match=r"row 2 is .* voxel coordinates"):
        Centerline.from_csv(f"1,1,0\n{row}\n", rpi_grid(SHAPE))
