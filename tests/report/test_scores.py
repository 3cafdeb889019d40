from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scan_rows import bearing, lesion_free

from sct_lesion_losses.report import scores


@given(st.floats(allow_nan=False))
def test_a_number_is_read_again_to_the_bit(value: float) -> None:
    assert float(scores.text(value)) == value
    assert float(scores.text(np.float64(value))) == value


@pytest.mark.parametrize("value", [None, "", math.nan])
def test_what_is_not_known_is_said_as_in_bids(value: float | str | None) -> None:
    assert scores.text(value) == "n/a"


def test_every_line_has_every_column() -> None:
    columns = scores.scores({"tversky": "1.2"})
    rows = [bearing("a\tb", threshold=0.3, site="S"), lesion_free("c", threshold=None)]
    header, first, second = (
        dict(enumerate(line.split("\t"))) for line in scores.tsv(columns, rows).splitlines()
    )
    assert list(header) == list(first) == list(second)
    at = {name: k for k, name in header.items()}
    assert (first[at["scan"]], first[at["version"]], first[at["threshold"]]) == (
        "a b",
        "1.2",
        "0.3",
    )
    assert (second[at["site"]], second[at["threshold"]], second[at["l_f1"]]) == ("n/a",) * 3
