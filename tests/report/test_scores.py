from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from score_rows import bearing, lesion_free

from sct_lesion_losses.metrics.scores import TruthLesion
from sct_lesion_losses.report import scores


@given(st.floats(0, 1))
def test_a_number_is_read_again_to_the_bit(value: float) -> None:
    text = scores.tsv(scores.columns_of({"tversky": "1"}), [bearing("a", measures={"V-F1": value})])
    header, line = (row.split("\t") for row in text.splitlines())
    assert float(line[header.index("v_f1")]) == value


def test_the_lesions_have_a_row_each() -> None:
    lesions = [
        TruthLesion("a", "one", "dice", 0.35, True, "paper", 1, 0.1 + 0.2, True),
        TruthLesion("a", "one", "dice", None, False, "anima", 2, 7.0, False),
    ]
    assert scores.tsv(scores.LESIONS, lesions).splitlines() == [
        "scan\tsubject\tbundle\tthreshold\ttuned\tpreset\tlesion\tvolume_mm3\tdetected",
        "a\tone\tdice\t0.35\t1\tpaper\t1\t0.30000000000000004\t1",
        "a\tone\tdice\tn/a\t0\tanima\t2\t7.0\t0",
    ]


def test_without_rows_a_table_is_its_header() -> None:
    assert scores.tsv(scores.LESIONS, []).count("\n") == 1


def test_every_line_has_every_column() -> None:
    columns = scores.columns_of({"tversky": "1.2"})
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
