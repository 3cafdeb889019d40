"""The long tables of an evaluation, read again as they were written."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from sct_lesion_losses.cohorts.table import MISSING
from sct_lesion_losses.errors import DataError
from sct_lesion_losses.metrics.lesionwise import PRESETS, LesionScore
from sct_lesion_losses.metrics.scores import ScanScore, TruthLesion
from sct_lesion_losses.metrics.voxelwise import VoxelScore
from sct_lesion_losses.report import tables

Row = TypeVar("Row")
Value = str | int | float | None
_UNDEFINED = "n/a where the manual mask has no lesion"


@dataclass(frozen=True)
class Column(Generic[Row]):
    """A column: its name, what it holds, and the value of a row."""

    name: str
    units: str
    description: str
    value: Callable[[Row], Value]


@dataclass(frozen=True)
class LesionRow:
    """A row of the table of lesions.

    Attributes
    ----------
    lesion : TruthLesion
    preset : str
        By which it is, or is not, detected.
    """

    lesion: TruthLesion
    preset: str


def _operating(describe: str) -> str:
    return f"1: {describe} is the operating point of the model; 0: it is not"


_THRESHOLD = "A voxel is lesion where p >= threshold; n/a: masks by a rule of the model's own"

_SCORES: tuple[Column[ScanScore], ...] = (
    Column("scan", "", "Name of the scan", lambda r: r.scan),
    Column("subject", "", "Whose scan it is", lambda r: r.subject),
    Column("site", "", "Where it was made", lambda r: r.site),
    Column("bundle", "", "Model", lambda r: r.bundle),
    Column("threshold", "", _THRESHOLD, lambda r: r.threshold),
    Column("tuned", "", _operating("the threshold, or the rule,"), lambda r: int(r.tuned)),
    Column("preset", "", "Rule of lesion-wise scores", lambda r: r.lesions.preset.name),
    Column("truth_vox", "voxels", "Lesion in the manual mask", lambda r: r.voxels.n_truth),
    Column("predicted_vox", "voxels", "Lesion by the model", lambda r: r.voxels.n_predicted),
    Column("tp_vox", "voxels", "True positive", lambda r: r.voxels.tp),
    Column("fp_vox", "voxels", "False positive", lambda r: r.voxels.fp),
    Column("fn_vox", "voxels", "False negative", lambda r: r.voxels.fn),
    Column("v_sensitivity", "", f"TP / (TP + FN); {_UNDEFINED}", lambda r: r.voxels.sensitivity),
    Column(
        "v_precision",
        "",
        f"TP / (TP + FP); 0 where nothing is predicted, {_UNDEFINED}",
        lambda r: r.voxels.precision,
    ),
    Column("v_f1", "", f"2TP / (2TP + FP + FN); {_UNDEFINED}", lambda r: r.voxels.f1),
    Column("truth_lesions", "", "Lesions of the manual mask", lambda r: r.lesions.n_truth),
    Column("predicted_lesions", "", "Predicted lesions", lambda r: r.lesions.n_predicted),
    Column(
        "detected_lesions", "", "Lesions of the manual mask detected", lambda r: r.lesions.detected
    ),
    Column("correct_lesions", "", "Predicted lesions correct", lambda r: r.lesions.correct),
    Column(
        "l_sensitivity",
        "",
        f"detected_lesions / truth_lesions; {_UNDEFINED}",
        lambda r: r.lesions.sensitivity,
    ),
    Column(
        "l_precision",
        "",
        f"correct_lesions / predicted_lesions; 0 where nothing is predicted, {_UNDEFINED}",
        lambda r: r.lesions.precision,
    ),
    Column(
        "l_f1",
        "",
        f"Harmonic mean of l_sensitivity and l_precision; {_UNDEFINED}",
        lambda r: r.lesions.f1,
    ),
    Column("truth_mm3", "mm^3", "Volume of the manual mask", lambda r: r.lesions.truth_mm3),
    Column(
        "predicted_mm3", "mm^3", "Volume of the model's mask", lambda r: r.lesions.predicted_mm3
    ),
)

LESIONS: tuple[Column[LesionRow], ...] = (
    Column("scan", "", "Name of the scan", lambda r: r.lesion.scan),
    Column("subject", "", "Whose scan it is", lambda r: r.lesion.subject),
    Column("bundle", "", "Model", lambda r: r.lesion.bundle),
    Column("threshold", "", _THRESHOLD, lambda r: r.lesion.threshold),
    Column("tuned", "", _operating("the threshold, or the rule,"), lambda r: int(r.lesion.tuned)),
    Column("preset", "", "Rule by which lesions are detected", lambda r: r.preset),
    Column("lesion", "", "Number in the manual mask, 1 for the largest", lambda r: r.lesion.label),
    Column("volume_mm3", "mm^3", "Volume in the manual mask", lambda r: r.lesion.volume_mm3),
    Column("detected", "", "1: the model detects it; 0: not", lambda r: int(r.lesion.detected)),
)


def scores(versions: Mapping[str, str]) -> tuple[Column[ScanScore], ...]:
    """Columns of the table of scans; `versions` are those of the models by their names."""
    version: Column[ScanScore] = Column(
        "version", "", "Version of the model", lambda r: versions[r.bundle]
    )
    after = 1 + [column.name for column in _SCORES].index("bundle")
    return (*_SCORES[:after], version, *_SCORES[after:])


def tsv(columns: Sequence[Column[Row]], rows: Iterable[Row]) -> str:
    """Header and rows, separated by tabs; a value that is not known or not defined is n/a."""
    lines = ["\t".join(column.name for column in columns)]
    lines += ["\t".join(text(column.value(row)) for column in columns) for row in rows]
    return "\n".join(lines) + "\n"


def text(value: Value) -> str:
    """Write a value so that it is read again as it is."""
    if value is None or value == "":
        return MISSING
    if isinstance(value, float):
        return MISSING if math.isnan(value) else repr(float(value))
    return " ".join(str(value).split())


def dictionary(
    columns: Sequence[Column[Any]], bundles: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Describe the columns of a table, in the form of a BIDS sidecar.

    Parameters
    ----------
    columns : sequence of Column
    bundles : mapping of str to mapping
        What is to be said of every model.
    """
    levels: dict[str, Mapping[str, Any]] = {
        "bundle": bundles,
        "preset": {
            name: {"Description": tables.rule(preset), "Parameters": asdict(preset)}
            for name, preset in PRESETS.items()
        },
    }
    described = {}
    for column in columns:
        entry: dict[str, Any] = {"Description": column.description}
        if column.units:
            entry["Units"] = column.units
        if column.name in levels:
            entry["Levels"] = dict(levels[column.name])
        described[column.name] = entry
    return described


def read_scores(path: Path) -> list[ScanScore]:
    """Read the table that `scores.tsv` wrote of `scores.scores`.

    Raises
    ------
    DataError
        It is not there, or not such a table.
    """
    return _read(path, _score)


def read_lesions(path: Path) -> list[LesionRow]:
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
