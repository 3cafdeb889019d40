from __future__ import annotations

import pytest

from sct_lesion_losses.training.resuming import changed_data

BEFORE = [("a in training", "1"), ("b in training", "2"), ("c in validation", "3")]


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (BEFORE, []),
        (BEFORE[:2], ["c in validation is missing"]),
        ([*BEFORE, ("d in training", "4")], ["d in training is new"]),
        ([BEFORE[0], ("b in training", "9"), BEFORE[2]], ["b in training has changed"]),
        (BEFORE[::-1], ["the scans come in another order"]),
        (
            [BEFORE[0], ("b in validation", "2"), BEFORE[2]],
            ["b in training is missing", "b in validation is new"],
        ),
    ],
)
def test_what_is_new_missing_or_changed_is_named(after, said):
    assert changed_data(BEFORE, after) == said


def test_many_changes_are_counted():
    many = [(f"s{number} in training", "1") for number in range(9)]
    assert changed_data([], many)[4:] == ["s4 in training is new", "and 4 more"]
