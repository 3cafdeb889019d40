import dataclasses

import numpy as np
import pytest
from score_rows import bearing, lesion_free

from sct_lesion_losses.errors import DataError
from sct_lesion_losses.metrics import scores
from sct_lesion_losses.metrics.scores import (
    MEASURES,
    ScanScore,
    between_bundles,
    between_thresholds,
    tuned,
    untuned,
)

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


def test_two_rows_of_a_bundle_for_one_scan_are_refused() -> None:
    for choose in (untuned, tuned):
        with pytest.raises(DataError, match="dice has two rows for scan s1"):
            choose([*ROWS, *map(dataclasses.replace, ROWS)])


def test_a_bundle_tuned_to_one_half_is_in_both_and_a_rule_of_its_own_is_tuned() -> None:
    row, own = bearing("s1", tuned=True), bearing("s1", "sct", None, tuned=True)
    assert untuned([row, own]) == {"tversky": {"s1": row}}
    assert tuned([row, own]) == {"tversky": {"s1": row}, "sct": {"s1": own}}


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
    assert found.any_lesion.value == 1
    assert np.isnan(scores.patients(rows[:2]).specificity.value)


def scans(
    bundle: str, threshold: float | None, is_tuned: bool, v_f1: list[float]
) -> list[ScanScore]:
    rows = [
        bearing(f"s{k}", bundle, threshold, is_tuned, {"V-F1": value}, subject=f"p{k // 2}")
        for k, value in enumerate(v_f1)
    ]
    return [*rows, lesion_free("free", bundle, threshold, is_tuned)]


def test_thresholds_are_compared_on_every_measure_of_every_bundle() -> None:
    rows = scans("a", 0.5, False, [0.1, 0.2, 0.3, 0.4]) + scans(
        "a", 0.3, True, [0.2, 0.4, 0.6, 0.9]
    )
    rows += scans("b", 0.5, False, [0.1] * 4) + scans("b", 0.2, True, [0.1] * 4)
    found = between_thresholds(untuned(rows), tuned(rows))
    keys = [(c.first, c.second, c.measure) for c in found]
    assert keys == [(name, name, measure) for name in "ab" for measure in MEASURES]
    one = found[0]
    assert (one.measure, one.thresholds, one.difference.n) == ("V-F1", (0.5, 0.3), 4)
    assert one.difference.value == pytest.approx(0.25)  # the median of 0.1, 0.2, 0.3, 0.5
    assert one.test.p == 2 / 2**4
    assert one.p_holm == 1  # 12 tests times 0.125, capped
    assert found[6].test.p == found[6].p_holm == 1  # b does not change


def test_a_bundle_tuned_to_one_half_does_not_count_for_the_correction() -> None:
    values = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    rows = scans("a", 0.5, False, values) + scans("a", 0.3, True, [v + v * v for v in values])
    alone = between_thresholds(untuned(rows), tuned(rows), ["V-F1"])
    rows += scans("b", 0.5, False, values) + scans("b", 0.5, True, values)
    found = between_thresholds(untuned(rows), tuned(rows), ["V-F1"])
    assert [c.first for c in found] == ["a", "b"]
    assert found[0].p_holm == alone[0].p_holm == 2 / 2**7
    assert np.isnan(found[1].p_holm)
    assert not found[1].significant


def test_bundles_are_compared_on_the_scans_that_both_have() -> None:
    rows = scans("a", 0.3, True, [0.1, 0.2, 0.3]) + scans("b", 0.2, True, [0.3, 0.3])
    rows += scans("c", 0.1, True, [0.3])
    found = between_bundles(tuned(rows), ["V-F1"])
    assert [(c.first, c.second) for c in found] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert [c.difference.n for c in found] == [2, 1, 1]
    assert found[0].difference.value == pytest.approx(0.15)
    assert [c.test.n for c in found] == [2, 1, 0]


def test_bundles_without_a_common_scan_with_lesions_do_not_count_for_the_correction() -> None:
    rows = [bearing(f"s{k}", "a", 0.3, True, {"V-F1": 0.1 + k / 100}) for k in range(8)]
    rows += [bearing(f"s{k}", "b", 0.3, True, {"V-F1": 0.5 + k / 50}) for k in range(8)]
    rows += [bearing("elsewhere", "c", 0.3, True)]
    first, *others = between_bundles(tuned(rows), ["V-F1"])
    assert first.p_holm == first.test.p == 2 / 2**8
    assert first.significant
    assert all(np.isnan(c.p_holm) and not c.significant and c.difference.n == 0 for c in others)


def test_the_interval_of_the_difference_resamples_subjects() -> None:
    both = [bearing(f"s{k}", "a", 0.3, True, {"V-F1": 0.0}, subject="one") for k in range(3)]
    both += [bearing(f"s{k}", "b", 0.3, True, {"V-F1": k / 10}, subject="one") for k in range(3)]
    (found,) = between_bundles(tuned(both), ["V-F1"])
    assert found.difference.value == pytest.approx(0.1)
    assert np.isnan([found.difference.low, found.difference.high]).all()  # one subject


def test_what_has_nothing_beside_it_is_not_compared() -> None:
    rows = scans("a", 0.5, False, [0.1]) + scans("b", None, True, [0.3])
    assert between_thresholds(untuned(rows), tuned(rows)) == between_bundles(tuned(rows)) == ()
    assert between_bundles({}) == between_thresholds({}, {}) == ()
