from __future__ import annotations

import numpy as np
import pytest

from sct_lesion_losses.metrics.patientwise import proportion
from sct_lesion_losses.report import reached
from sct_lesion_losses.thresholds import ScanCounts, count
from sct_lesion_losses.thresholds.lesion_filter import Filter, candidates

THRESHOLDS = (0.2, 0.5, 0.9)


def scan(truth_vox: int, low_vox: int = 0, high_vox: int = 0, beside_vox: int = 0) -> ScanCounts:
    """One lesion along x; of it so much at p = 0.6 and at p = 0.3, and so much apart from it."""
    truth, pmap = np.zeros((30, 5, 5), bool), np.zeros((30, 5, 5), np.float32)
    truth[:truth_vox, 0, 0] = True
    pmap[:high_vox, 0, 0] = 0.6
    pmap[high_vox : high_vox + low_vox, 0, 0] = 0.3
    pmap[:beside_vox, 4, 4] = 0.3
    return count(truth, pmap, (1.0, 1.0, 1.0), THRESHOLDS)


# At 0.2: TP 6, 10 and 0 of 10; FP 0, 10 and 0. V-F1 12/16, 20/30, 0. Lesions found: 1, 1, 0; of
# the second scan's two predicted ones 1 is correct. At 0.5: TP 2, 10, 0 and no FP: 4/12, 1, 0.
BEARING = [scan(10, 4, 2), scan(10, 0, 10, beside_vox=10), scan(10)]
FREE = [scan(0), scan(0, beside_vox=3)]
SUBJECTS = ["a", "b", "c", "d", "e"]


def test_summaries_are_those_of_the_scans_with_lesions():
    found = reached.metrics([*BEARING, *FREE], SUBJECTS, 0.2)
    values = {name: metric.value for name, metric in found.items()}
    assert values == pytest.approx(
        {
            "v_f1_median": 20 / 30,
            "v_f1_mean": (12 / 16 + 20 / 30) / 3,
            "v_f1_median_at_0.5": 4 / 12,
            "v_f1_mean_at_0.5": (4 / 12 + 1) / 3,
            "v_sensitivity_median": 0.6,
            "v_precision_median": 0.5,
            "l_sensitivity_median": 1.0,
            "l_precision_median": 0.5,
            "l_f1_median": 2 / 3,
            "p_sensitivity": 2 / 3,
            "p_specificity": 1 / 2,
            "scans_refused": 0.0,
        }
    )
    assert {name: metric.n for name, metric in found.items()} == dict.fromkeys(values, 3) | {
        "p_specificity": 2,
        "scans_refused": 5,
    }


def test_shares_have_wilson_intervals():
    found = reached.metrics([*BEARING, *FREE], SUBJECTS, 0.2, refused=3)
    for name, (some, n) in {
        "p_sensitivity": (2, 3),
        "p_specificity": (1, 2),
        "scans_refused": (3, 8),
    }.items():
        wilson = proportion(some, n)
        metric = found[name]
        assert (metric.value, metric.low, metric.high) == (wilson.value, wilson.low, wilson.high)


def test_intervals_resample_subjects():
    found = reached.metrics(BEARING, ["a", "a", "a"], 0.2)["v_f1_median"]
    assert found.value == pytest.approx(2 / 3)
    assert (found.low, found.high) == (None, None)  # one subject
    found = reached.metrics(BEARING, ["a", "b", "c"], 0.2)["v_f1_median"]
    assert (found.low, found.high) == (0.0, 12 / 16)


def test_what_no_scan_tells_of_is_left_out():
    assert set(reached.metrics(FREE, ["d", "e"], 0.2)) == {"p_specificity", "scans_refused"}
    assert reached.metrics([], [], 0.2) == {}
    assert set(reached.metrics([], [], 0.2, refused=1)) == {"scans_refused"}


def lesions(peaks, truth_vox=0):
    """Predicted lesions of 4 mm³ in a row; the first reaches over a true one of `truth_vox`."""
    truth, pmap = np.zeros((40, 5, 5), bool), np.zeros((40, 5, 5), np.float32)
    truth[:truth_vox, 0, 0] = True
    for k, peak in enumerate(peaks):
        pmap[6 * k : 6 * k + 4, 0, 0] = peak
    return candidates(truth, pmap, 0.2, (1.0, 1.0, 1.0))


# With a peak of 0.5 or more: the first scan keeps its true lesion of two predicted ones, the second
# loses it, the third keeps one true and one false; one lesion-free scan of two is left empty.
SEEN = [lesions([0.9, 0.3], 4), lesions([0.3], 4), lesions([0.8, 0.7], 4)]
EMPTY = [lesions([0.3, 0.4]), lesions([0.6])]


def test_the_filter_of_lesions_is_measured_on_every_scan():
    found = reached.filtered([*SEEN, *EMPTY], SUBJECTS, Filter(0.5, 2.0))
    assert {name: (m.value, m.n) for name, m in found.items()} == {
        "l_f1_median_filtered": (pytest.approx(2 / 3), 3),
        "p_sensitivity_filtered": (pytest.approx(2 / 3), 3),
        "p_specificity_filtered": (0.5, 2),
    }
    assert (found["l_f1_median_filtered"].low, found["l_f1_median_filtered"].high) == (0.0, 1.0)
    wilson = proportion(1, 2)
    share = found["p_specificity_filtered"]
    assert (share.low, share.high) == (wilson.low, wilson.high)
    assert "a peak of 0.5 and 2 mm³ or more, preset paper" in share.note
    assert set(reached.filtered(EMPTY, ["d", "e"], Filter())) == {"p_specificity_filtered"}
    assert reached.filtered([], [], Filter()) == {}


def test_a_filter_that_keeps_all_reaches_what_the_threshold_does():
    truth, pmap = np.zeros((30, 5, 5), bool), np.zeros((30, 5, 5), np.float32)
    truth[:10, 0, 0] = True
    pmap[:10, 0, 0] = pmap[:10, 4, 4] = 0.6
    seen = candidates(truth, pmap, 0.2, (1.0, 1.0, 1.0))
    counted = reached.metrics([count(truth, pmap, (1.0, 1.0, 1.0), THRESHOLDS)], ["a"], 0.2)
    found = reached.filtered([seen], ["a"], Filter())
    assert found["l_f1_median_filtered"].value == counted["l_f1_median"].value
    assert found["p_sensitivity_filtered"].value == counted["p_sensitivity"].value
