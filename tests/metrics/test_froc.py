import json
import math

import numpy as np
import pytest

from sct_lesion_losses.metrics.froc import (
    FALSE_LESIONS,
    FrocScore,
    ScoredLesions,
    froc,
    scored_lesions,
)

Bar = tuple[int, int, float]


def scan(truth: list[tuple[int, int]], predicted: list[Bar]) -> ScoredLesions:
    """Lesions along one axis, from one voxel to before another, those predicted with a value."""
    mask, pmap = np.zeros((60, 1, 1), bool), np.zeros((60, 1, 1), np.float32)
    for start, stop in truth:
        mask[start:stop] = True
    for start, stop, p in predicted:
        pmap[start:stop] = p
    return scored_lesions(mask, pmap > 0, pmap)


def curve(found: FrocScore) -> list[tuple[float, float]]:
    return list(zip(found.false_lesions, found.sensitivity, strict=True))


def test_a_hit_needs_an_overlap_of_more_than_a_fifth_of_the_union() -> None:
    # 2 common of 2 + 9 - 2 = 9 voxels, 0.22; 2 of 10, exactly 0.2; 1 of 6.
    assert scan([(0, 2)], [(0, 9, 0.5)]).found_at.tolist() == [0.5]
    assert scan([(0, 2)], [(0, 10, 0.5)]).found_at.tolist() == [-math.inf]
    missed = scan([(0, 3)], [(2, 6, 0.5)])
    assert missed.found_at.tolist() == [-math.inf]
    assert missed.false.tolist() == [0.5]


def test_lesions_that_touch_by_a_corner_are_one_and_have_their_mean_probability() -> None:
    pmap = np.zeros((4, 4, 4), np.float32)
    pmap[0, 0, 0], pmap[1, 1, 1], pmap[3, 3, 3] = 1, 0.5, 0.25
    found = scored_lesions(np.zeros((4, 4, 4), bool), pmap > 0, pmap)
    assert found.false.tolist() == [0.75, 0.25]


def test_several_lesions_may_be_found_by_one_and_one_by_the_likeliest_of_several() -> None:
    # One of 10 voxels covers two of 4: 4 / 10 each. Two parts of one of 9: 4 / 9 each.
    assert scan([(0, 4), (6, 10)], [(0, 10, 0.5)]).found_at.tolist() == [0.5, 0.5]
    halves = scan([(0, 9)], [(0, 4, 0.25), (5, 9, 0.75)])
    assert halves.found_at.tolist() == [0.75]
    assert halves.false.tolist() == []


def test_the_curve_and_the_challenges_sensitivities_are_those_worked_out_by_hand() -> None:
    scans = [
        # Two lesions, found at 0.875 and 0.5; a false one at 0.75.
        scan([(0, 4), (10, 14)], [(0, 4, 0.875), (10, 14, 0.5), (20, 22, 0.75)]),
        # One lesion, found at 0.5; a false one at 0.25.
        scan([(0, 4)], [(0, 4, 0.5), (20, 22, 0.25)]),
        # None; two false ones at 0.25 and one at 0.125.
        scan([], [(0, 4, 0.25), (10, 14, 0.25), (20, 22, 0.125)]),
        scan([], []),
    ]
    found = froc(scans)
    # Mean over two scans with lesions; false ones over all four.
    assert curve(found) == [
        (0, 0),
        (0, 0.25),  # 0.875: 1 of 2, 0 of 1
        (0.25, 0.25),  # 0.75
        (0.25, 1),  # 0.5: 2 of 2, 1 of 1
        (1, 1),  # 0.25
        (1.25, 1),  # 0.125
    ]
    assert (found.n_scans, found.n_bearing) == (4, 2)
    assert [found.at(false) for false in FALSE_LESIONS] == [1, 1, 1, 1, 1]
    assert (found.at(0), found.at(0.125)) == (0.25, 0.25)
    assert found.mean == 1


def test_between_two_points_the_sensitivity_is_linear_and_constant_behind_the_last() -> None:
    # One scan: found at 0.75 is 1 of 2 with no false one; at 0.5 the other, with 2 false ones.
    one = scan([(0, 4), (10, 14)], [(0, 4, 0.75), (10, 14, 0.5), (20, 22, 0.5), (30, 32, 0.5)])
    found = froc([one])
    assert curve(found) == [(0, 0), (0, 0.5), (2, 1)]
    at = [0.5625, 0.625, 0.75, 1, 1]  # 0.5 + 0.25 times the false lesions; all beyond 2
    assert [found.at(false) for false in FALSE_LESIONS] == at
    assert found.mean == pytest.approx(sum(at) / 5)


def test_masks_without_probabilities_are_one_operating_point() -> None:
    found = froc([scan([(0, 4), (10, 14)], [(0, 4, 1), (20, 22, 1)])], with_probabilities=False)
    assert curve(found)[-1] == (1, 0.5)
    assert math.isnan(found.at(1))
    assert math.isnan(found.mean)


def test_without_lesions_or_without_predictions_nothing_crashes() -> None:
    free = froc([scan([], [(0, 4, 0.5)])])
    assert free.false_lesions[-1] == 1
    assert math.isnan(free.mean)
    nothing = froc([scan([(0, 4)], [])])
    assert (curve(nothing), nothing.mean) == ([(0, 0)], 0)


def test_what_is_kept_in_a_file_is_the_same_to_the_bit() -> None:
    own = scan([(0, 4), (10, 14)], [(0, 3, 0.7), (20, 22, 0.1)])
    again = ScoredLesions.from_dict(json.loads(json.dumps(own.to_dict())))
    assert again.found_at.tolist() == own.found_at.tolist()
    assert again.false.tolist() == own.false.tolist()
