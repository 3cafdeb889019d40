from __future__ import annotations

import math
from pathlib import Path

import pytest
from scan_rows import bearing, lesion_free

from sct_lesion_losses.errors import DataError
from sct_lesion_losses.metrics.scores import TruthLesion
from sct_lesion_losses.report import scores
from sct_lesion_losses.report import scores as stored
from sct_lesion_losses.report.scores import LesionRow

ROWS = [
    bearing("a", threshold=0.35, tuned=True, site="S", measures={"V-F1": 0.1 + 0.2}),
    bearing("b", threshold=None, preset="anima", subject="one"),
    lesion_free("c", n_predicted=3),
]
LESIONS = [
    LesionRow(TruthLesion("a", "one", "dice", 0.35, True, 1, 0.1 + 0.2, True), "paper"),
    LesionRow(TruthLesion("a", "one", "dice", None, False, 2, 7.0, False), "anima"),
]


def test_scores_are_read_as_they_were_written(tmp_path: Path) -> None:
    columns = scores.scores({"tversky": "1.0"})
    table = tmp_path / "scores.tsv"
    table.write_text(scores.tsv(columns, ROWS))
    found = stored.read_scores(table)
    assert found[:2] == ROWS[:2]
    assert math.isnan(found[2].voxels.f1)
    assert scores.tsv(columns, found) == table.read_text()


def test_lesions_are_read_as_they_were_written(tmp_path: Path) -> None:
    table = tmp_path / "lesions.tsv"
    table.write_text(scores.tsv(scores.LESIONS, LESIONS))
    assert stored.read_lesions(table) == LESIONS


@pytest.mark.parametrize("text", [None, "scan\tbundle\na\tb\n", "\x00"])
def test_another_file_is_refused(text: str | None, tmp_path: Path) -> None:
    table = tmp_path / "scores.tsv"
    if text is not None:
        table.write_text(text + "\n1\t2\n")
    with pytest.raises(DataError, match=r"scores.tsv: not a table of an evaluation"):
        stored.read_scores(table)
