from __future__ import annotations

import itertools

import numpy as np
import pytest

from sct_lesion_losses.phantom import PhantomScan, make_scan
from sct_lesion_losses.phantom.lesions import rater_mask


@pytest.fixture(scope="module")
def scans() -> list[PhantomScan]:
    return [make_scan(4, k, preset="tiny", lesions=True, raters=3) for k in range(6)]


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Dice coefficient of two masks."""
    return float(2 * ((a > 0) & (b > 0)).sum() / max((a > 0).sum() + (b > 0).sum(), 1))


def test_raters_agree_with_the_truth_as_people_do(scans: list[PhantomScan]) -> None:
    scores = [overlap(scan.lesion, mask) for scan in scans for mask in scan.raters]
    assert len(scores) == 3 * len(scans)
    assert 0.5 < np.median(scores) < 0.97


def test_raters_differ_from_one_another_as_people_do(scans: list[PhantomScan]) -> None:
    pairs = [pair for scan in scans for pair in itertools.combinations(scan.raters, 2)]
    scores = [overlap(one, other) for one, other in pairs]
    assert 0.5 < np.median(scores) < 0.97


def test_a_rater_marks_nothing_outside_the_cord(scans: list[PhantomScan]) -> None:
    for scan in scans:
        for mask in scan.raters:
            assert not (mask & ~scan.cord).any()


def test_raters_leave_the_scan_as_it_is(scans: list[PhantomScan]) -> None:
    alone = make_scan(4, 2, preset="tiny", lesions=True)
    assert alone.raters == ()
    assert np.array_equal(alone.image, scans[2].image)
    assert np.array_equal(alone.lesion, scans[2].lesion)


def test_the_faintest_tenth_is_overlooked_and_the_brightest_four_fifths_are_not() -> None:
    # Ratios at the 9th and the 21st percentile of 1.38 exp(0.15 z): z = -1.34 and -0.81.
    ratios = np.array([1.38 * np.exp(0.15 * -1.34), 1.38 * np.exp(0.15 * -0.81)])
    share, cord = np.ones((1, 1, 3), np.float32), np.ones((1, 1, 3), bool)
    owners = np.array([[[0, 1, -1]]], np.int32)
    for seed in range(20):
        mask = rater_mask(np.random.default_rng(seed), share, cord, owners, ratios)
        assert mask.tolist() == [[[False, True, False]]]


def test_the_border_is_off_by_the_share_of_a_voxel() -> None:
    share = np.linspace(0, 1, 101, dtype=np.float32).reshape(1, 1, 101)
    owners = np.zeros((1, 1, 101), np.int32)
    counts = [
        int(rater_mask(np.random.default_rng(k), share, owners == 0, owners, np.array([1.5])).sum())
        for k in range(100)
    ]
    assert 10 <= min(counts) < 30  # share >= 0.9 is left in 11 of 101 voxels
    assert 75 < max(counts) <= 91
