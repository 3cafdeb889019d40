from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scan_rows import bearing
from sweep_rows import BROAD, NARROW, swept

from sct_lesion_losses.report import trends
from sct_lesion_losses.thresholds import THRESHOLDS

curves = st.dictionaries(st.sampled_from(THRESHOLDS), st.floats(0, 1, allow_nan=False), min_size=1)


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


def test_what_has_no_threshold_or_no_lesion_has_no_trend() -> None:
    rule = bearing("s0", "sct as shipped", None, True)
    free = [row for row in swept("dice", BROAD, 0.3) if row.scan.startswith("free")]
    assert trends.of([rule, *free]) == []


@given(curves)
def test_a_plateau_holds_the_best_and_nothing_far_below_it(curve: dict[float, float]) -> None:
    low, high = trends.plateau(curve)
    best = trends.best_of(curve)
    assert low <= best <= high
    assert curve[best] == max(curve.values())
    inside = [value for threshold, value in curve.items() if low <= threshold <= high]
    assert min(inside) >= max(curve.values()) - 0.1 - 1e-9


def test_the_table_has_a_row_per_model() -> None:
    table = trends.table(both())
    assert [line[0].text for line in table.rows] == ["dice", "bce"]
    assert {len(line) for line in table.rows} == {len(table.header)}
    assert [cell.text for cell in table.rows[1][:5]] == ["bce", "0.3", "0.3", "0.00", "0.3"]
