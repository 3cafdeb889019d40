from __future__ import annotations

import math

import pytest
from scan_rows import NAN, bearing, lesion_free

from sct_lesion_losses.metrics import scores, statistics
from sct_lesion_losses.report import tables

V_F1 = {"s1": 0.1, "s2": 0.2, "s3": 0.6, "s4": 0.7, "s5": 0.9}
OWNERS = {"s1": "p", "s2": "p", "s3": "q", "s4": "r", "s5": "r"}


def scans(bundle="a", threshold=0.3, tuned=True):
    rows = [
        bearing(scan, bundle, threshold, tuned, {"V-F1": value}, subject=OWNERS[scan])
        for scan, value in V_F1.items()
    ]
    return [*rows, lesion_free("s6", bundle, threshold, tuned)]


def lines(rows):
    found = tables.table(scores.untuned(rows), scores.tuned(rows))
    return [[cell.text for cell in line] for line in found.rows]


def test_the_interval_resamples_subjects_with_all_of_their_scans():
    # Subjects p and r own two scans each: 0.1 and 0.2, 0.7 and 0.9.
    expected = statistics.interval(list(V_F1.values()), list(OWNERS.values()))
    by_scan = statistics.interval(list(V_F1.values()), list(V_F1))
    assert (expected.low, expected.high) != (by_scan.low, by_scan.high)
    first = lines(scans())[0]
    wanted = f"{expected.low:.2f} to {expected.high:.2f}"
    assert [*first[:3], *first[-2:]] == ["a", "0.3", f"0.60 ({wanted})", "5", "3"]


def test_every_model_is_listed_at_half_and_at_its_tuned_threshold():
    rows = [*scans("a", 0.5, False), *scans("a"), *scans("b", 0.5), *scans("rule", None)]
    found = lines(rows)
    assert [(line[0], line[1]) for line in found] == [
        ("a", "0.5"),
        ("a", "0.3"),
        ("b", "0.5"),
        ("rule", "n/a"),
    ]


@pytest.mark.parametrize("other", [NAN, 0.4])
def test_one_subject_alone_has_no_interval(other):
    rows = [bearing("s1", subject="p"), bearing("s2", measures={"V-F1": other}, subject="q")]
    known = not math.isnan(other)
    assert (tables.text(rows, "V-F1") == "n/a") is not known
    assert tables.text(rows, "L-F1") == "0.40 to 0.40"
    assert tables.text(rows[:1], "L-F1") == "n/a"
