from __future__ import annotations

import pytest

from sct_lesion_losses.metrics.lesionwise import PRESETS
from sct_lesion_losses.metrics.patientwise import proportion
from sct_lesion_losses.metrics.statistics import Interval, spread
from sct_lesion_losses.report import tables

NAN = float("nan")


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([0.2, 0.4, NAN, 0.0, 0.9, 0.35], "0.35 (0.37±0.33)"),  # of the oracle
        ([0.5], "0.50 (0.50±n/a)"),
        ([NAN, NAN], "n/a"),
        ([], "n/a"),
    ],
)
def test_a_summary_cell_is_median_mean_and_deviation(values: list[float], text: str) -> None:
    assert tables.spread(spread(values)) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.126, "+0.13"), (-0.126, "-0.13"), (-0.001, "0.00"), (0.0, "0.00"), (NAN, "n/a")],
)
def test_a_change_has_a_sign_unless_it_is_none(value: float, text: str) -> None:
    assert tables.change(value) == text


@pytest.mark.parametrize(
    ("p", "text"),
    [(0.04996, "0.0500"), (0.00009, "<0.0001"), (0.0001, "0.0001"), (1.0, "1.0000"), (NAN, "n/a")],
)
def test_a_p_value_is_never_0(p: float, text: str) -> None:
    assert tables.p_value(p) == text


def test_intervals() -> None:
    assert tables.share(proportion(15, 26)) == "0.58 (0.39 to 0.74)"
    assert tables.share(proportion(0, 0)) == "n/a"
    assert tables.difference(Interval(0.1, -0.05, 0.2, 9)) == "+0.10 (-0.05 to +0.20)"
    assert tables.difference(Interval(NAN, NAN, NAN, 0)) == "n/a"
    assert tables.bounds(Interval(0.1, -0.05, 0.2, 9)) == "-0.05 to 0.20"


def test_bounds_that_are_not_known_are_said_once() -> None:
    one = Interval(0.1, NAN, NAN, 3)
    assert tables.share(one) == "0.10 (n/a)"
    assert tables.difference(one) == "+0.10 (n/a)"
    assert tables.bounds(one) == "n/a"


def test_thresholds_are_written_as_they_are_typed() -> None:
    texts = [tables.threshold_text(value) for value in (0.05, 0.3, 0.5, 1.0, None)]
    assert texts == ["0.05", "0.3", "0.5", "1", "n/a"]


def test_a_rule_names_its_preset_and_all_its_numbers() -> None:
    assert tables.rule(PRESETS["paper"]) == (
        "Lesion-wise scores by the preset paper: 18-neighbour lesions, detected where at least "
        "25 % is covered and the largest overlaps, up to 65 % of it, are with lesions of which at "
        "most 70 % lies outside."
    )
    assert tables.rule(PRESETS["anima"]) == (
        "Lesion-wise scores by the preset anima: 6-neighbour lesions of more than 3 mm³, detected "
        "where more than 10 % is covered and the largest overlaps, up to 65 % of it, are with "
        "lesions of which at most 70 % lies outside."
    )
    assert tables.rule(PRESETS["candidate"]) == (
        "Lesion-wise scores by the preset candidate: 18-neighbour lesions, detected where at least "
        "25 % is covered by a single lesion of which at most 70 % lies outside."
    )
