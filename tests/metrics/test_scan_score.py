from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scan_rows import bearing, lesion_free

from sct_lesion_losses.errors import DataError
from sct_lesion_losses.metrics import scores
from sct_lesion_losses.metrics.scores import MEASURES, tuned, untuned

ROWS = [
    bearing("s1", "dice", 0.5),
    bearing("s1", "dice", 0.3, tuned=True),
    bearing("s1", "dice", 0.7),
    bearing("s2", "dice", 0.5),
    bearing("s2", "bce", 0.5),
]


def test_rows_are_chosen_by_threshold_and_kept_in_their_order() -> None:
    assert {bundle: list(scans) for bundle, scans in untuned(ROWS).items()} == {
        "dice": ["s1", "s2"],
        "bce": ["s2"],
    }
    assert tuned(ROWS) == {"dice": {"s1": ROWS[1]}}


def test_a_bundle_tuned_to_one_half_is_in_both_with_one_row_or_two() -> None:
    as_tuned, as_untuned = bearing("s1", tuned=True), bearing("s1", tuned=False)
    assert untuned([as_tuned]) == tuned([as_tuned]) == {"tversky": {"s1": as_tuned}}
    assert untuned([as_untuned, as_tuned]) == {"tversky": {"s1": as_untuned}}
    assert tuned([as_untuned, as_tuned]) == {"tversky": {"s1": as_tuned}}


def test_a_rule_of_its_own_counts_as_tuned() -> None:
    own = bearing("s1", "sct", None, tuned=True)
    assert tuned([own]) == {"sct": {"s1": own}}
    assert untuned([own]) == {}


def test_two_rows_of_one_scan_are_refused() -> None:
    other = dataclasses.replace(ROWS[0], subject="another")
    with pytest.raises(DataError, match=r"bundle dice has two rows for scan s1 at threshold 0\.5"):
        untuned([*ROWS, other])


def test_two_tuned_thresholds_of_one_bundle_are_refused() -> None:
    with pytest.raises(DataError, match=r"at the thresholds 0.3 and 0.2"):
        tuned([*ROWS, bearing("s2", "dice", 0.2, tuned=True)])


def test_several_lesion_presets_are_refused() -> None:
    with pytest.raises(DataError, match="by the presets anima, paper"):
        untuned([*ROWS, bearing("s3", "bce", preset="anima")])


def test_every_measure_is_the_one_it_is_called() -> None:
    given = {name: 0.1 * k for k, name in enumerate(MEASURES)}
    row = bearing("s1", measures=given)
    assert {name: value(row) for name, value in MEASURES.items()} == given


def test_lesion_free_scans_are_in_no_spread_but_in_the_specificity() -> None:
    rows = [bearing("s1"), bearing("s2", detected=0), lesion_free("s3"), lesion_free("s4")]
    rows.append(lesion_free("s5", n_predicted=1))
    assert all(scores.spread(rows, measure).n == 2 for measure in MEASURES)
    found = scores.patients(rows)
    assert (found.sensitivity.value, found.specificity.value) == (1 / 2, 2 / 3)
    assert scores.patients(rows, "any_lesion").sensitivity.value == 1
    assert np.isnan(scores.patients(rows[:2]).specificity.value)
