from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scan_rows import bearing, lesion_free

from sct_lesion_losses.metrics.scan_score import ScanScore
from sct_lesion_losses.operating_point import THRESHOLDS
from sct_lesion_losses.report import trends
from sct_lesion_losses.report.published import PUBLISHED

curves = st.dictionaries(st.sampled_from(THRESHOLDS), st.floats(0, 1, allow_nan=False), min_size=1)


def swept(
    bundle: str,
    v_f1: Mapping[float, float],
    tuned: float,
    predicted: Mapping[float, int] | None = None,
    scans: int = 8,
) -> list[ScanScore]:
    """Scans whose V-F1 at every threshold lies evenly around that given, and lesion-free ones."""
    rows = []
    for threshold in THRESHOLDS:
        for k in range(scans):
            value = v_f1.get(threshold, 0.1) + (k - (scans - 1) / 2) / 1000
            measures = {"V-F1": value}
            rows.append(bearing(f"s{k}", bundle, threshold, threshold == tuned, measures))
        marked = (predicted or {}).get(threshold, 0)
        for k in range(4):
            found = int(k < marked)
            rows.append(
                lesion_free(f"free{k}", bundle, threshold, threshold == tuned, n_predicted=found)
            )
    return rows


BROAD = dict.fromkeys(THRESHOLDS[4:17], 0.5)  # from 0.2 to 0.8
NARROW = {0.3: 0.4, 0.5: 0.2}


def both() -> list[trends.Trend]:
    return trends.of([*swept("dice", BROAD, 0.35), *swept("bce", NARROW, 0.3, {0.3: 3, 0.5: 1})])


def test_a_trend_is_what_the_rows_say() -> None:
    dice, bce = both()
    assert (dice.bundle, dice.plateau, dice.tuned) == ("dice", (0.2, 0.8), 0.35)
    assert dice.best == 0.5  # of equal ones that nearest to 0.5
    assert dice.gain == pytest.approx(0)
    assert (bce.best, bce.plateau, bce.width) == (0.3, (0.3, 0.3), 0.0)
    assert bce.gain == pytest.approx(0.2)
    # Three of four lesion-free scans are marked at 0.3, one at 0.5.
    assert (bce.specificity.value, bce.specificity_untuned.value) == (0.25, 0.75)
    assert bce.cost == 0.5
    # Eight scans, all better: p = 2 / 2^8, times the tests of all measures of both models.
    assert bce.test.test.p == pytest.approx(2 / 2**8)
    assert bce.test.p_holm >= bce.test.test.p


def test_models_are_told_from_the_most_stable_to_the_least() -> None:
    (said,) = trends.stability(both())
    assert said.endswith("narrowest: dice from 0.2 to 0.8 (0.6 wide); bce at 0.3 alone.")


def test_models_that_are_as_stable_are_told_together() -> None:
    found = trends.of([*swept("dice", BROAD, 0.35), *swept("combo", BROAD, 0.5)])
    assert "dice (0.2 to 0.8) and combo (0.2 to 0.8), 0.6 wide." in trends.stability(found)[0]


def test_gains_and_losses_are_told_with_their_significance() -> None:
    rows = [*swept("dice", BROAD, 0.35, scans=14), *swept("bce", NARROW, 0.3, scans=14)]
    said = " ".join(trends.gains(trends.of(rows)))
    assert "Tuning raises the median V-F1 of bce from 0.20 to 0.40." in said
    assert "It hardly changes that of dice." in said
    assert "differs from that at 0.5 for bce (p = 0.0" in said
    assert "significant for no other (smallest p of these" in said


def test_no_significance_is_said_to_be_none() -> None:
    found = trends.of(swept("bce", {0.3: 0.4, 0.5: 0.2}, 0.3, scans=3))
    said = " ".join(trends.gains(found))
    assert "significant for none of 1 models (smallest p = " in said
    assert "differs from that" not in said


def test_a_model_tuned_to_one_half_is_not_compared_with_itself() -> None:
    found = trends.of(swept("bce", BROAD, 0.5))
    assert trends.gains(found) == ["Tuning leaves bce at 0.5."]


def test_what_tuning_costs_in_specificity() -> None:
    said = trends.costs(both())
    assert said == [
        "It lowers the P-specificity, over 4 lesion-free scans, of bce from 0.75 to 0.25.",
        "It is the same at both thresholds for dice.",
    ]


def test_without_lesion_free_scans_no_specificity_is_told() -> None:
    rows = [row for row in swept("bce", NARROW, 0.3) if row.scan.startswith("s")]
    found = trends.of(rows)
    assert math.isnan(found[0].cost)
    assert trends.costs(found) == [
        "The unseen scans all hold lesions, so that P-specificity is not known."
    ]


def test_the_side_of_one_half_is_compared_with_the_published_one() -> None:
    found = trends.of([*swept("dice", {0.3: 0.5}, 0.3), *swept("bce", {0.8: 0.5}, 0.8)])
    said = " ".join(trends.against(found, PUBLISHED))
    assert "another side of 0.5 than the published one for bce (0.8, published 0.15)" in said
    assert "on the same for dice" in said


def test_the_order_of_models_is_compared_by_rank() -> None:
    # Published medians: bce 0.33, dice 0.36, tversky 0.41.
    rows = [
        *swept("bce", {0.3: 0.4}, 0.3),
        *swept("dice", {0.3: 0.5}, 0.3),
        *swept("tversky", {0.3: 0.6}, 0.3),
    ]
    said = " ".join(trends.against(trends.of(rows), PUBLISHED))
    assert "by median V-F1 is much like the published one (Spearman's rank correlation +1.00)" in (
        said
    )
    assert "highest median V-F1 is that of tversky, 0.60" in said


def test_a_model_of_no_published_loss_is_not_compared() -> None:
    assert trends.against(trends.of(swept("mine", BROAD, 0.3)), PUBLISHED) == []


def test_what_has_no_threshold_or_no_lesion_has_no_trend() -> None:
    rule = bearing("s0", "sct as shipped", None, True)
    free = [row for row in swept("dice", BROAD, 0.3) if row.scan.startswith("free")]
    assert trends.of([rule, *free]) == []
    for told in (trends.stability, trends.gains, trends.costs):
        assert told([]) == []


@given(curves)
def test_a_plateau_holds_the_best_and_nothing_far_below_it(curve: dict[float, float]) -> None:
    low, high = trends.plateau(curve)
    best = trends.best_of(curve)
    assert low <= best <= high
    assert curve[best] == max(curve.values())
    inside = [value for threshold, value in curve.items() if low <= threshold <= high]
    assert min(inside) >= 0.98 * max(curve.values()) - 1e-9


def test_the_table_has_a_row_per_model() -> None:
    table = trends.table(both())
    assert [line[0].text for line in table.rows] == ["dice", "bce"]
    assert {len(line) for line in table.rows} == {len(table.header)}
    assert [cell.text for cell in table.rows[1][:5]] == ["bce", "0.3", "0.3", "0.00", "0.3"]
