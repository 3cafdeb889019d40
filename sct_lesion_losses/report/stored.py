"""The long tables of an evaluation, read again as they were written."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from sct_lesion_losses.data.cohort import MISSING
from sct_lesion_losses.errors import DataError
from sct_lesion_losses.metrics.detection import PRESETS
from sct_lesion_losses.metrics.lesion import LesionScore
from sct_lesion_losses.metrics.scan_score import ScanScore, TruthLesion
from sct_lesion_losses.metrics.voxel import VoxelScore
from sct_lesion_losses.report.scores import LesionRow

Row = TypeVar("Row")


def scores(path: Path) -> list[ScanScore]:
    """Read the table that `scores.tsv` wrote of `scores.scores`.

    Raises
    ------
    DataError
        It is not there, or not such a table.
    """
    return _read(path, _score)


def lesions(path: Path) -> list[LesionRow]:
    """Read the table that `scores.tsv` wrote of `scores.LESIONS`.

    Raises
    ------
    DataError
        It is not there, or not such a table.
    """
    return _read(path, _lesion)


def _read(path: Path, made: Callable[[Mapping[str, str]], Row]) -> list[Row]:
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            return [made(row) for row in csv.DictReader(stream, delimiter="\t")]
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: not a table of an evaluation ({error}); write it by sct_evaluate_lesion"
        ) from error


def _score(row: Mapping[str, str]) -> ScanScore:
    return ScanScore(
        row["scan"],
        row["subject"],
        _text(row["site"]),
        row["bundle"],
        _threshold(row["threshold"]),
        row["tuned"] == "1",
        VoxelScore(
            int(row["truth_vox"]),
            int(row["predicted_vox"]),
            int(row["tp_vox"]),
            int(row["fp_vox"]),
            int(row["fn_vox"]),
            *(_number(row[f"v_{name}"]) for name in ("sensitivity", "precision", "f1")),
        ),
        LesionScore(
            PRESETS[row["preset"]],
            int(row["truth_lesions"]),
            int(row["predicted_lesions"]),
            int(row["detected_lesions"]),
            int(row["correct_lesions"]),
            float(row["truth_mm3"]),
            float(row["predicted_mm3"]),
            *(_number(row[f"l_{name}"]) for name in ("sensitivity", "precision", "f1")),
        ),
    )


def _lesion(row: Mapping[str, str]) -> LesionRow:
    lesion = TruthLesion(
        row["scan"],
        row["subject"],
        row["bundle"],
        _threshold(row["threshold"]),
        row["tuned"] == "1",
        int(row["lesion"]),
        float(row["volume_mm3"]),
        row["detected"] == "1",
    )
    return LesionRow(lesion, row["preset"])


def _text(value: str) -> str:
    return "" if value == MISSING else value


def _number(value: str) -> float:
    return math.nan if value == MISSING else float(value)


def _threshold(value: str) -> float | None:
    return None if value == MISSING else float(value)
