import numpy as np
import pytest
from geometry import affine_of
from scipy import ndimage

from sct_lesion_losses.errors import GeometryError
from sct_lesion_losses.geometry.centerline import Centerline
from sct_lesion_losses.geometry.grid import Grid
from sct_lesion_losses.geometry.levels import along

SHAPE = (11, 31, 25)
GRID = Grid(SHAPE, affine_of((0, 1, 2), (-1, 1, 1), (1.0, 1.0, 2.0)))


def line(slope: float = 0.0) -> Centerline:
    """Line through y 14 in the middle, `slope` voxels to the front a slice."""
    z = np.arange(SHAPE[2])
    return Centerline(GRID, np.column_stack([np.full(len(z), 5.0), 14 + slope * (z - 12)]))


def discs(**at: tuple[int, int]) -> np.ndarray:
    """Labels of discs, `d4=(y, z)`, in the middle."""
    labels = np.zeros(SHAPE, np.int32)
    for name, (y, z) in at.items():
        labels[5, y, z] = int(name[1:])
    return labels


def test_the_level_of_a_labelled_segmentation_is_the_commonest_of_a_slice() -> None:
    labels = np.zeros(SHAPE, np.int32)
    labels[3:8, 10:18, 4:10], labels[3:8, 10:18, 10:20] = 8, 7
    labels[3:8, 10:12, 10] = 8  # 10 of 40: the border is not axial
    labels[5, 25, 22] = 50  # the pontomedullary junction
    found = along(labels, line())
    np.testing.assert_array_equal(found, np.repeat([0, 8, 7, 0], [4, 6, 10, 5]))


def test_a_level_lies_between_its_discs_and_has_the_upper_one() -> None:
    labels = discs(d3=(7, 20), d4=(7, 14), d5=(7, 6), d49=(7, 24), d60=(7, 0))
    found = along(labels, line())
    np.testing.assert_array_equal(found, np.repeat([0, 4, 3, 0], [7, 8, 6, 4]))
    # Labels of 3 x 3 x 3 voxels, and behind a tilted cord: 3 mm to the front for 4 mm upwards.
    labels = np.zeros(SHAPE, np.int32)
    labels[4:7, 6:9, 15:18], labels[4:7, 3:6, 9:12] = 3, 4
    # The foot of (7 - 14, 2 · (16 - 12)) mm on the direction (0.6, 0.8) is 2.2 mm above the middle,
    # in slice 12 + 2.2 / 2.5 = 12.9; that of (-10, -4) is -9.2 mm, in slice 8.3.
    found = along(labels, line(slope=1.5))
    np.testing.assert_array_equal(np.flatnonzero(found), np.arange(9, 14))
    assert set(found[9:14]) == {3}


def test_between_discs_that_are_no_neighbours_no_level_is_known() -> None:
    found = along(discs(d3=(7, 22), d5=(7, 14), d6=(7, 8)), line())
    np.testing.assert_array_equal(found, np.repeat([0, 5, 0], [9, 6, 10]))


def test_discs_beyond_the_centerline_end_the_levels_at_its_end() -> None:
    xy = np.array(line().xy)
    xy[:6] = xy[15:] = np.nan
    labels = discs(d2=(7, 23), d3=(7, 19), d4=(7, 11), d5=(7, 3), d6=(7, 1))
    found = along(labels, Centerline(GRID, xy))
    np.testing.assert_array_equal(found, np.repeat([0, 4, 3, 0], [7, 5, 3, 10]))


def section(label: int) -> np.ndarray:
    labels = np.zeros(SHAPE, np.int32)
    labels[3:8, 10:18, 3:20] = label
    return labels


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (section(0), "no label"),
        (section(50), "no label"),
        (section(1), "as a cord mask does"),
        (section(63), "the label 63, expected SCT's numbers"),
        (discs(d3=(7, 10), d4=(7, 14)), "disc 4 above disc 3"),
        (
            ndimage.grey_dilation(discs(d3=(7, 20), d4=(7, 12), d5=(7, 4)), 5),
            "no two adjoin, as discs that are drawn large do",
        ),
        (discs(d3=(7, 14)), "the discs 3 and no two neighbours"),
        (discs(d3=(7, 14), d9=(7, 4)), "the discs 3, 9 and no two neighbours"),
        (discs(d3=(7, 20), d4=(7, 14), d5=(7, 8)) + discs(d3=(7, 2)), "disc 3 in several places"),
    ],
)
def test_labels_from_which_no_level_follows_are_refused(labels, said) -> None:
    with pytest.raises(GeometryError, match=said):
        along(labels, line())
