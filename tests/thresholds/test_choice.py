import json

import numpy as np
import pytest

from sct_lesion_losses.errors import DataError, UsageError
from sct_lesion_losses.thresholds import ScanCounts, choose, sweep

GRID = np.array([0.2, 0.3, 0.5, 0.7, 0.8])


def curve(f1: list[float], grid: np.ndarray = GRID) -> ScanCounts:
    """A scan of 1000 lesion voxels and no false positive, with about these scores."""
    # 2 tp / (tp + 1000) = f1, so tp = 1000 f1 / (2 - f1)
    tp = np.array([1000 * f / (2 - f) for f in f1])
    return ScanCounts(grid, tp, np.zeros(len(f1)), 1000)


def test_the_median_decides():
    # medians 0.3, 0.4, 0.5, 0.2, 0.1; the means would choose 0.7
    scans = [
        curve([0.3, 0.4, 0.5, 0.1, 0.0]),
        curve([0.3, 0.4, 0.5, 0.2, 0.1]),
        curve([0.0, 0.0, 0.0, 1.0, 0.2]),
    ]
    assert choose(scans).threshold == 0.5
    assert choose(scans).curve == pytest.approx([0.3, 0.4, 0.5, 0.2, 0.1])
    assert choose(scans, objective="mean_v_f1").threshold == 0.7


@pytest.mark.parametrize(
    ("f1", "threshold"),
    [
        ([0.6, 0.6, 0.1, 0.1, 0.6], 0.3),  # the nearest to a half
        ([0.1, 0.6, 0.1, 0.6, 0.1], 0.7),  # at one distance the higher
    ],
)
def test_ties_go_to_the_threshold_nearest_to_a_half_then_to_the_higher(f1, threshold):
    assert choose([curve(f1)]).threshold == threshold


def test_lesion_free_scans_do_not_decide():
    free = ScanCounts(GRID, np.zeros(5, int), np.array([9, 5, 3, 1, 0]), 0)
    with_free = choose([curve([0.1, 0.6, 0.1, 0.1, 0.1]), free])
    assert (with_free.threshold, with_free.n_scans) == (0.3, 1)


def test_plateau_is_the_unbroken_range_within_2_percent():
    # 0.98 * 0.5 = 0.49: 0.3, 0.5 and 0.7 are within; 0.2 is not.
    chosen = choose([curve([0.4, 0.495, 0.5, 0.491, 0.3])])
    assert chosen.plateau == (0.3, 0.7)


@pytest.mark.parametrize(
    ("f1", "grid", "losses"),
    [([0.5, 0.6, 0.4], [0.45, 0.5, 0.55], (0.1, 0.2)), ([0.6, 0.5], [0.0, 0.05], (np.nan, 0.1))],
)
def test_losses_are_those_of_the_neighbours_at_a_distance_of_0_05(f1, grid, losses):
    chosen = choose([curve(f1, np.array(grid))])
    assert chosen.losses == pytest.approx(losses, nan_ok=True)
    assert chosen.at_end == np.isnan(losses[0])


def test_interval_spans_what_the_subjects_choose():
    low, high = [0.6, 0.1, 0.1, 0.1, 0.1], [0.1, 0.1, 0.1, 0.1, 0.6]
    chosen = choose([curve(low), curve(high), curve(low)], ["a", "b", "c"], bootstraps=500)
    assert chosen.interval == (0.2, 0.8)


def test_scans_of_one_subject_are_resampled_together():
    low, high = [0.6, 0.1, 0.1, 0.1, 0.1], [0.1, 0.1, 0.1, 0.1, 0.6]
    scans = [curve(low), curve(high), curve(low)]
    # With b, a resample holds the scans of a all or not at all: 0.2 never loses against 0.8.
    both = choose([*scans, curve(low)], ["a", "a", "a", "b"], bootstraps=200)
    assert both.interval == (0.2, 0.2)


def test_one_subject_gives_no_interval_and_no_leave_one_out():
    chosen = choose([curve([0.6, 0.1, 0.1, 0.1, 0.1])] * 2, ["a", "a"], bootstraps=200)
    assert (chosen.threshold, chosen.n_subjects) == (0.2, 1)
    assert np.isnan([*chosen.interval, chosen.leave_one_out]).all()


def test_leave_one_out_scores_a_subject_where_the_others_choose():
    # Left out, "a" is scored at 0.8 (the choice of b): 0.1; "b" at 0.2 (of a): 0.3; median 0.2.
    a, b = [0.6, 0.1, 0.1, 0.1, 0.1], [0.3, 0.1, 0.1, 0.1, 0.5]
    chosen = choose([curve(a), curve(b)], ["a", "b"])
    assert chosen.leave_one_out == pytest.approx(0.2)


def test_scans_without_lesions_or_over_different_thresholds_are_refused():
    with pytest.raises(DataError, match="no scan holds lesions"):
        choose([ScanCounts(GRID, np.zeros(5, int), np.zeros(5, int), 0)])
    scans = [curve([0.5, 0.6], np.array([0.3, last])) for last in (0.5, 0.6)]
    with pytest.raises(UsageError, match="different thresholds"):
        choose(scans)


def test_a_threshold_is_of_use_above_0_and_where_the_objective_is():
    assert choose([curve([0.1, 0.6, 0.1, 0.6, 0.1])]).useful
    found = choose([curve([0.0] * 5)] * 3)
    assert (found.threshold, found.best) == (0.5, 0)  # all are tied
    assert not found.useful
    assert not choose([curve([0.6, 0.1], np.array([0.0, 0.5]))]).useful


@pytest.fixture(scope="module")
def oracle(testing_data):
    with np.load(testing_data / "oracles" / "threshold_inputs.npz") as stored:
        curves = [sweep(stored[f"thr/g{n}"] > 0, stored[f"thr/p{n}"]) for n in range(9)]
    return choose(curves), json.loads((testing_data / "oracles" / "threshold.json").read_text())


def test_choice_and_curve_are_those_of_the_oracle(oracle):
    chosen, expected = oracle
    assert chosen.threshold == expected[">="]["selected_nearest_to_0.5"]
    assert chosen.curve == pytest.approx(expected[">="]["median"], abs=1e-12)
    assert chosen.n_scans == 7
