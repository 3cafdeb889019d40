import nibabel as nib
import numpy as np
import pytest
from geometry import AXIS_ORDERS, affine_of, rpi_grid

from sct_lesion_losses.errors import GeometryError
from sct_lesion_losses.geometry.centerline import Centerline
from sct_lesion_losses.geometry.grid import Grid
from sct_lesion_losses.geometry.location import Location, locate

RPI = ((0, 1, 2), (-1, 1, 1))  # x runs to the patient's left, y to the front, z upwards
SHAPE = (11, 31, 25)


def grid_of(spacing=(1.0, 1.0, 1.0), shape=SHAPE) -> Grid:
    return rpi_grid(shape, spacing, (40.0, -20.0, 7.0))


def line_on(grid: Grid, x: float = 5, y: float = 5, slope: float = 0.0) -> Centerline:
    """Straight line through (x, y) of the lowest slice; `slope` voxels to the front a slice."""
    z = np.arange(grid.shape[2])
    return Centerline(grid, np.column_stack([np.full(len(z), x), y + slope * z]))


def lesion(*box: tuple[int, int], shape=SHAPE) -> np.ndarray:
    labels = np.zeros(shape, np.int32)
    labels[tuple(slice(low, high) for low, high in box)] = 1
    return labels


def test_a_lesion_of_an_upright_cord_worked_out_by_hand() -> None:
    grid = grid_of((0.5, 1.0, 2.0))
    labels = lesion((1, 3), (6, 9), (10, 13))  # x 1.5, y 7, z 11 on average
    (found,) = locate(labels, grid, line_on(grid))
    assert found.from_top_mm == pytest.approx(26)  # 13 slices of 2 mm below slice 24
    assert found.right_mm == pytest.approx(1.75)  # 3.5 voxels of 0.5 mm
    assert found.front_mm == pytest.approx(2)
    assert (found.side, found.depth) == ("right", "anterior")
    assert found.cord_length_mm == pytest.approx(6)
    # Each slice holds 2 x 3 voxels of 0.5 mm².
    assert found.diameter_mm == pytest.approx(2 * np.sqrt(3 / np.pi))
    assert (found.cord_share, found.level, found.levels) == (None, None, ())
    assert (found.level_name, found.levels_name) == ("", "")


def test_across_a_tilted_cord_lengths_are_perpendicular_to_it_and_along_it() -> None:
    # 3 mm to the front for 4 mm upwards: 1.25 mm of cord a slice, up = (0, 0.6, 0.8).
    grid = grid_of(shape=(11, 31, 25))
    labels = lesion((5, 6), (18, 19), (12, 13))  # 4 mm in front of the line's (5, 14, 12)
    labels[2, 10, 6:8] = 2  # 3 to the right; 0.5 mm in front of (5, 9.5), 0.25 behind (5, 10.25)
    first, second = locate(labels, grid, line_on(grid, slope=0.75))
    assert first.front_mm == pytest.approx(4 * 0.8)
    assert first.from_top_mm == pytest.approx(12 * 1.25 - 4 * 0.6)
    assert first.right_mm == pytest.approx(0, abs=1e-9)
    assert (first.side, first.depth) == ("both", "anterior")
    assert first.cord_length_mm == pytest.approx(1.25)
    assert first.diameter_mm == pytest.approx(2 * np.sqrt(0.8 / np.pi))
    assert second.cord_length_mm == pytest.approx(2.5)
    assert second.front_mm == pytest.approx(0.125 * 0.8)
    assert second.right_mm == pytest.approx(3)
    assert second.from_top_mm == pytest.approx(17.5 * 1.25 - 0.125 * 0.6)
    assert (second.side, second.depth) == ("right", "central")


@pytest.mark.parametrize(
    ("x", "y", "side", "depth"),
    [
        ((0, 2), (4, 7), "right", "central"),
        ((9, 11), (4, 7), "left", "central"),
        ((4, 7), (0, 3), "both", "posterior"),
        ((4, 7), (8, 11), "both", "anterior"),
        # Of four columns, one lies on the other side; of five, one on it counts as half.
        ((2, 6), (2, 6), "right", "posterior"),
        ((1, 6), (5, 10), "right", "anterior"),
        ((3, 7), (4, 8), "both", "central"),
    ],
)
def test_a_lesion_is_called_after_the_side_of_three_quarters_of_its_volume(
    x, y, side, depth
) -> None:
    grid = grid_of()
    (found,) = locate(lesion(x, y, (3, 9)), grid, line_on(grid))
    assert (found.side, found.depth) == (side, depth)


def test_a_voxel_on_the_line_lies_on_both_of_its_sides() -> None:
    grid = grid_of((3.0, 1.0, 1.0))  # a sagittal slice of 3 mm, 0.6 mm beside the line
    (found,) = locate(lesion((5, 6), (5, 6), (3, 9)), grid, line_on(grid, x=5.2))
    assert found.right_mm == pytest.approx(0.6)
    assert found.side == "both"


@pytest.mark.parametrize(("axes", "signs"), AXIS_ORDERS)
def test_the_order_of_the_stored_axes_does_not_matter(axes, signs) -> None:
    rng = np.random.default_rng(3)
    shape = (9, 12, 14)
    upright = Grid(shape, affine_of(*RPI, (0.7, 1.1, 2.0), (4.0, 11.0, -7.0), (3.0, -5.0, 90.0)))
    labels, levels = np.zeros(shape, np.int32), np.repeat([4, 3], 7)
    labels[1:4, 2:5, 2:5], labels[5:8, 6:9, 6:9] = 1, 2
    cord = rng.random(shape) < 0.8
    line = Centerline(
        upright, np.column_stack([np.linspace(3, 5, 14), 5 + np.sin(np.arange(14) / 5)])
    )
    expected = locate(labels, upright, line, cord, levels)
    assert expected[0].side == "right"
    assert [one.levels for one in expected] == [(4, 4), (3, 4)]

    def stored(array: np.ndarray) -> nib.Nifti1Image:
        order = nib.orientations.ornt_transform(
            nib.io_orientation(upright.affine), np.column_stack([axes, signs])
        )
        return nib.Nifti1Image(array.astype(np.uint8), upright.affine).as_reoriented(order)

    turned = stored(labels)
    grid = Grid(turned.shape, turned.affine)
    arrays = [np.asarray(stored(one).dataobj) for one in (labels, cord)]
    found = locate(arrays[0], grid, line, arrays[1] > 0, levels)
    for one, other in zip(found, expected, strict=True):
        for name, value in vars(other).items():
            there = getattr(one, name)
            assert there == (pytest.approx(value) if isinstance(value, float) else value), name


def test_a_line_of_whole_voxels_is_not_longer_than_the_cord() -> None:
    grid = grid_of(shape=(11, 40, 150))
    smooth = line_on(grid, slope=0.17)
    drawn = Centerline(grid, np.rint(smooth.xy))  # its steps add 6 % to the sum of distances
    labels = lesion((5, 6), (5, 6), (0, 3), shape=grid.shape)
    exact, found = (locate(labels, grid, line)[0].from_top_mm for line in (smooth, drawn))
    assert exact == pytest.approx(148 * np.hypot(1, 0.17), rel=1e-3)
    assert found == pytest.approx(exact, rel=0.01)


def test_a_bent_line_keeps_its_length_and_a_lesion_its_offset() -> None:
    # An arc of 60 mm radius towards the front, as of a strong lordosis, 1 mm slices.
    grid = grid_of(shape=(11, 41, 61))
    height = np.arange(61) - 30.0
    y = 30 - (60 - np.sqrt(60**2 - height**2))
    line = Centerline(grid, np.column_stack([np.full(61, 5.0), y]))
    labels = lesion((5, 6), (26, 27), (30, 31), shape=grid.shape)  # 4 mm behind the summit
    (found,) = locate(labels, grid, line)
    assert found.front_mm == pytest.approx(-4, abs=0.25)
    assert found.from_top_mm == pytest.approx(60 * np.arcsin(0.5), rel=0.01)


def test_the_share_of_the_cord_is_that_of_the_worst_axial_slice() -> None:
    grid = grid_of()
    labels, cord = lesion((4, 6), (4, 6), (3, 5)), np.zeros(SHAPE, bool)
    cord[3:7, 4:9, 3], cord[3:7, 5:7, 4] = True, True
    labels[8, 20, 9], labels[9, 20, 3] = 2, 3
    first, second, third = locate(labels, grid, line_on(grid), cord)
    # 4 of 20 voxels in slice 3; 2 of 8 in slice 4, the two others lie outside the cord.
    assert first.cord_share == 0.25
    assert second.cord_share is None  # there is no cord in slice 9
    assert third.cord_share == 0


def test_levels_are_those_of_the_centerline_in_front_of_a_voxel() -> None:
    grid = grid_of(shape=(11, 31, 25))
    levels = np.zeros(25, int)
    levels[15:20], levels[10:15] = 7, 8
    labels = np.zeros(SHAPE, np.int32)
    labels[5, 14, 12:17] = 1
    labels[5, 14, 18:24] = 2  # more than half of it above what is labelled
    labels[5, 14, 0:3] = 3
    first, second, third = locate(labels, grid, line_on(grid, y=14), levels=levels)
    assert (first.level_name, first.levels_name) == ("T1", "C7-T1")
    assert (second.level_name, second.levels_name) == ("", "C7")
    assert (third.level, third.levels) == (None, ())
    # With the cord tilted, a voxel 4 mm in front of slice 15 lies over slice 15 + 4 · 0.6 / 1.25.
    labels = lesion((5, 6), (20, 21), (15, 16))
    levels[17:] = 6
    (tilted,) = locate(labels, grid, line_on(grid, slope=0.75, y=16 - 15 * 0.75), levels=levels)
    assert tilted.level_name == "C6"


def test_one_slice_and_gaps_of_a_line_are_enough() -> None:
    grid = grid_of((1.0, 1.0, 3.0))
    xy = np.full((25, 2), np.nan)
    xy[10] = 5, 5
    (found,) = locate(lesion((2, 3), (5, 6), (9, 12)), grid, Centerline(grid, xy))
    assert (found.side, found.from_top_mm) == ("right", pytest.approx(0))
    assert found.cord_length_mm == pytest.approx(9)
    xy[20] = 5, 5
    (found,) = locate(lesion((2, 3), (5, 6), (12, 13)), grid, Centerline(grid, xy))
    assert found.from_top_mm == pytest.approx(24)


def test_without_lesions_there_is_nothing_to_locate() -> None:
    grid = grid_of()
    assert locate(np.zeros(SHAPE, np.int32), grid, line_on(grid)) == []
    assert Location().levels_name == ""


def test_another_grid_is_refused() -> None:
    grid = grid_of()
    labels, line = lesion((5, 6), (5, 6), (5, 6)), line_on(grid)
    with pytest.raises(GeometryError, match="another grid"):
        locate(labels, grid, line_on(grid_of((1.0, 1.0, 2.0))))
    with pytest.raises(GeometryError, match="another grid"):
        locate(labels, grid, line, np.zeros((3, 3, 3), bool))
    with pytest.raises(GeometryError, match="levels of 3 slices for a scan of 25"):
        locate(labels, grid, line, levels=np.ones(3, int))
