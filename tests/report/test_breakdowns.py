from __future__ import annotations

import dataclasses

import pytest
from scan_rows import bearing, lesion_free

from sct_lesion_losses.errors import DataError, UsageError
from sct_lesion_losses.metrics import scores
from sct_lesion_losses.metrics.scores import TruthLesion
from sct_lesion_losses.report import tables
from sct_lesion_losses.report.tables import Table


def texts(table: Table) -> list[list[str]]:
    return [[cell.text for cell in line] for line in table.rows]


def lesion(
    label: int, volume_mm3: float, detected: bool, bundle: str = "a", tuned: bool = True
) -> TruthLesion:
    return TruthLesion("s1", f"p{label}", bundle, 0.3, tuned, label, volume_mm3, detected)


def test_both_rules_of_patient_wise_scores_stand_side_by_side() -> None:
    rows = [bearing(f"s{k}", "a", 0.3, True, detected=int(k < 15)) for k in range(26)]
    rows += [lesion_free("f", "a", 0.3, True), lesion_free("g", "a", 0.3, True, n_predicted=2)]
    found = tables.patients(scores.tuned(rows))
    assert texts(found) == [
        [
            *("a", "0.3", "0.58 (0.39 to 0.74)", "1.00 (0.87 to 1.00)", "0.50 (0.09 to 0.91)"),
            *("26", "2"),
        ]
    ]
    assert "by the preset paper" in found.notes[-1]


def test_sites_are_sorted_and_scans_of_none_come_last() -> None:
    rows = [
        bearing("s1", "a", 0.3, True, {"V-F1": 0.2}),
        bearing("s2", "a", 0.3, True, {"V-F1": 0.6}, site="Lyon"),
        bearing("s3", "a", 0.3, True, {"V-F1": 0.8}, site="Lyon", detected=0),
        lesion_free("s4", "a", 0.3, True, site="Basel"),
        bearing("s2", "b", 0.5, True, {"V-F1": 0.6}, site="Lyon"),
    ]
    # Of 0.6 and 0.8: median and mean 0.7, deviation 0.2 / sqrt(2).
    assert texts(tables.sites(scores.tuned(rows))) == [
        ["Basel", "a", "0.3", "n/a", "n/a", "n/a", "n/a", "n/a", "1.00", "0", "1"],
        [
            *("Lyon", "a", "0.3", "0.70 (0.70±0.14)", "0.60 to 0.80"),
            *("0.40 (0.40±0.00)", "0.40 to 0.40", "0.50", "n/a", "2", "0"),
        ],
        [
            *("Lyon", "b", "0.5", "0.60 (0.60±n/a)", "n/a"),
            *("0.40 (0.40±n/a)", "n/a", "1.00", "n/a", "1", "0"),
        ],
        [
            *("n/a", "a", "0.3", "0.20 (0.20±n/a)", "n/a"),
            *("0.40 (0.40±n/a)", "n/a", "1.00", "n/a", "1", "0"),
        ],
    ]


def test_lesions_are_counted_by_size_and_an_edge_belongs_above() -> None:
    lesions = [lesion(1, 29.9, False), lesion(2, 30, True), lesion(3, 99.9, True)]
    lesions += [lesion(1, 29.9, True, "b"), lesion(4, 5, True, tuned=False)]
    assert texts(tables.lesion_sizes(lesions)) == [
        ["under 30", "a", "0.3", "1", "0", "0.00 (n/a)"],
        ["under 30", "b", "0.3", "1", "1", "1.00 (n/a)"],
        ["30 to 100", "a", "0.3", "2", "2", "1.00 (1.00 to 1.00)"],
        ["30 to 100", "b", "0.3", "0", "0", "n/a"],
        ["100 or more", "a", "0.3", "0", "0", "n/a"],
        ["100 or more", "b", "0.3", "0", "0", "n/a"],
    ]


@pytest.mark.parametrize(
    ("edges", "names"),
    [([], ["all"]), ([50], ["under 50", "50 or more"])],
)
def test_edges_of_ones_own(edges: list[float], names: list[str]) -> None:
    lesions = [lesion(1, 29.9, True), lesion(2, 70, False)]
    assert [line[0] for line in texts(tables.lesion_sizes(lesions, edges))] == names


def test_edges_that_do_not_rise_are_refused() -> None:
    with pytest.raises(UsageError, match="expected rising numbers"):
        tables.lesion_sizes([], [100, 30])


def test_a_lesion_is_counted_once() -> None:
    one = lesion(1, 20, True)
    with pytest.raises(DataError, match="two tuned rows"):
        tables.lesion_sizes([one, dataclasses.replace(one, detected=False)])
