import math

import numpy as np
import pytest

from sct_lesion_losses.metrics import lesionwise, statistics
from sct_lesion_losses.metrics.repeat import PlacedLesions, place, repeat, root_mean_square

Bar = tuple[int, int]


def scan(
    *lesions: Bar, length: int = 20, step_mm: float = 1.0, start_mm: float = 0.0
) -> PlacedLesions:
    """Lesions along z, from one voxel to before another; voxels of 1 x 1 x `step_mm`."""
    mask = np.zeros((3, 3, length), bool)
    for first, last in lesions:
        mask[1, 1, first:last] = True
    affine = np.diag([1.0, 1.0, step_mm, 1.0])
    affine[2, 3] = start_mm
    return place(lesionwise.components(mask, 26), affine)


def test_the_variation_of_two_volumes_is_their_difference_over_root_two_and_the_mean() -> None:
    found = repeat([scan((2, 8)), scan((2, 6))])
    assert found.volumes_mm3 == (6, 4)
    assert found.cv == pytest.approx(2 / math.sqrt(2) / 5)
    # SD of 2, 4 and 6 is 2, their mean 4.
    assert repeat([scan((2, 4)), scan((2, 6)), scan((2, 8))]).cv == pytest.approx(0.5)
    assert repeat([scan((2, 6)), scan((2, 6))]).cv == 0
    assert math.isnan(repeat([scan(), scan()]).cv)


def test_over_sessions_it_is_the_root_mean_square_by_subject() -> None:
    found = statistics.interval([0.3, 0.4, np.nan], ["a", "b", "c"], root_mean_square)
    assert found.value == pytest.approx(math.sqrt((0.09 + 0.16) / 2))
    assert (found.low, found.high, found.n) == (pytest.approx(0.3), pytest.approx(0.4), 2)


def test_lesions_that_share_a_voxel_are_found_again_both_ways() -> None:
    # The first of two overlaps by one voxel; the second has none; one of the other neither.
    found = repeat([scan((2, 5), (10, 12)), scan((4, 6), (15, 17))])
    assert found.again == (True, False, True, False)
    assert found.outside == 0


def test_scans_on_other_grids_are_compared_in_the_world() -> None:
    # Voxels of 3 mm have their centres at 0, 3, 6 … mm, the lesion's at 6 mm. Of voxels of 1 mm at
    # 4 and 5 mm the latter lies in it, though not the centre of the thick one in any of them.
    thin, thick = scan((4, 6)), scan((2, 3), length=7, step_mm=3.0)
    assert repeat([thin, thick]).again == (True, True)
    assert repeat([scan((3, 4)), thick]).again == (False, False)
    assert repeat([thin, thick]).volumes_mm3 == pytest.approx((2, 3))
    # The same lesion on a grid that starts 10 mm higher, and on one whose axis runs down.
    assert repeat([scan((12, 14)), scan((2, 4), start_mm=10.0)]).again == (True, True)
    down = scan((6, 8), step_mm=-1.0, start_mm=19.0)  # voxels 6 and 7 at 13 and 12 mm
    assert repeat([scan((12, 14)), down]).again == (True, True)


def test_only_what_both_scans_show_is_compared() -> None:
    # The other scan reaches from 10 to 29 mm: of (8, 12) the voxels at 10 and 11 mm are in it,
    # and its centre, at 9.5 mm, is in the voxel of 9.5 to 10.5 mm.
    whole, part = scan((2, 4), (8, 12)), scan((0, 2), (12, 15), start_mm=10.0)
    found = repeat([whole, part])
    assert found.volumes_mm3 == (2, 2)  # the lesion at 22 to 24 mm is beyond 19.5 mm
    assert found.again == (True, True)
    assert found.outside == 2


def test_a_scan_without_lesions_finds_none_again() -> None:
    found = repeat([scan((2, 4)), scan()])
    assert (found.again, found.volumes_mm3) == ((False,), (2, 0))
    assert found.cv == pytest.approx(math.sqrt(2))
