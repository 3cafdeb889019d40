from __future__ import annotations

import numpy as np
import pytest

from sct_lesion_losses.metrics.summary import interval, lesions_found


def test_a_lesion_is_found_when_a_quarter_of_it_is_covered():
    truth, prediction = np.zeros((20, 3, 3), bool), np.zeros((20, 3, 3), bool)
    truth[0:4, 0, 0] = truth[6:10, 0, 0] = truth[12:16, 0, 0] = True
    prediction[0, 0, 0] = True  # 1 of 4
    prediction[6:10, 0, 1] = True  # beside it
    assert lesions_found(truth, prediction) == (1, 3)


def test_a_scan_without_lesions_has_none_to_find():
    assert lesions_found(np.zeros((3, 3, 3), bool), np.ones((3, 3, 3), bool)) == (0, 0)


def test_nan_is_left_out_and_not_counted():
    found = interval([0.2, float("nan"), 0.6], ["a", "b", "c"])
    assert (found.value, found.n) == (pytest.approx(0.4), 2)


def test_interval_holds_the_value_and_lies_within_the_data():
    values = np.random.default_rng(0).uniform(0, 1, 40)
    found = interval(values, range(40), np.mean)
    assert values.min() < found.low < found.value < found.high < values.max()


def test_scans_of_one_subject_carry_no_spread():
    found = interval([0.1, 0.9], ["a", "a"], np.mean)
    assert (found.low, found.high) == (found.value, found.value)


def test_no_scan_gives_nan():
    found = interval([float("nan")], ["a"])
    assert found.n == 0
    assert np.isnan(found.value)
