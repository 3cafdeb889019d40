"""The long tables of an evaluation: a row for each scan, and for each lesion of a manual mask."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Generic, TypeVar

import pandas as pd

from sct_lesion_losses.metrics import PRESETS
from sct_lesion_losses.metrics.scores import ScanScore, TruthLesion
from sct_lesion_losses.report import tables

Row = TypeVar("Row")
_UNDEFINED = "n/a where the manual mask has no lesion"


@dataclass(frozen=True)
class TableColumn(Generic[Row]):
    """A column: its name, units and description, and the value of a row, None where unknown."""

    name: str
    units: str
    description: str
    value: Callable[[Row], str | int | float | None]


def _operating(describe: str) -> str:
    return f"1: {describe} is the operating point of the model; 0: it is not"


_THRESHOLD = "A voxel is lesion where p >= threshold; n/a: masks by a rule of the model's own"

_SCORES: tuple[TableColumn[ScanScore], ...] = (
    TableColumn("scan", "", "Name of the scan", lambda r: r.scan),
    TableColumn("subject", "", "Whose scan it is", lambda r: r.subject),
    TableColumn("site", "", "Where it was made", lambda r: r.site or None),
    TableColumn("bundle", "", "Model", lambda r: r.bundle),
    TableColumn("threshold", "", _THRESHOLD, lambda r: r.threshold),
    TableColumn("tuned", "", _operating("the threshold, or the rule,"), lambda r: int(r.tuned)),
    TableColumn("preset", "", "Rule of lesion-wise scores", lambda r: r.lesions.preset.name),
    TableColumn("truth_vox", "voxels", "Lesion in the manual mask", lambda r: r.voxels.n_truth),
    TableColumn("predicted_vox", "voxels", "Lesion by the model", lambda r: r.voxels.n_predicted),
    TableColumn("tp_vox", "voxels", "True positive", lambda r: r.voxels.tp),
    TableColumn("fp_vox", "voxels", "False positive", lambda r: r.voxels.fp),
    TableColumn("fn_vox", "voxels", "False negative", lambda r: r.voxels.fn),
    TableColumn(
        "v_sensitivity", "", f"TP / (TP + FN); {_UNDEFINED}", lambda r: r.voxels.sensitivity
    ),
    TableColumn(
        "v_precision",
        "",
        f"TP / (TP + FP); 0 where nothing is predicted, {_UNDEFINED}",
        lambda r: r.voxels.precision,
    ),
    TableColumn("v_f1", "", f"2TP / (2TP + FP + FN); {_UNDEFINED}", lambda r: r.voxels.f1),
    TableColumn("truth_lesions", "", "Lesions of the manual mask", lambda r: r.lesions.n_truth),
    TableColumn("predicted_lesions", "", "Predicted lesions", lambda r: r.lesions.n_predicted),
    TableColumn(
        "detected_lesions", "", "Lesions of the manual mask detected", lambda r: r.lesions.detected
    ),
    TableColumn("correct_lesions", "", "Predicted lesions correct", lambda r: r.lesions.correct),
    TableColumn(
        "l_sensitivity",
        "",
        f"detected_lesions / truth_lesions; {_UNDEFINED}",
        lambda r: r.lesions.sensitivity,
    ),
    TableColumn(
        "l_precision",
        "",
        f"correct_lesions / predicted_lesions; 0 where nothing is predicted, {_UNDEFINED}",
        lambda r: r.lesions.precision,
    ),
    TableColumn(
        "l_f1",
        "",
        f"Harmonic mean of l_sensitivity and l_precision; {_UNDEFINED}",
        lambda r: r.lesions.f1,
    ),
    TableColumn("truth_mm3", "mm^3", "Volume of the manual mask", lambda r: r.lesions.truth_mm3),
    TableColumn(
        "predicted_mm3", "mm^3", "Volume of the model's mask", lambda r: r.lesions.predicted_mm3
    ),
)

LESIONS: tuple[TableColumn[TruthLesion], ...] = (
    TableColumn("scan", "", "Name of the scan", lambda r: r.scan),
    TableColumn("subject", "", "Whose scan it is", lambda r: r.subject),
    TableColumn("bundle", "", "Model", lambda r: r.bundle),
    TableColumn("threshold", "", _THRESHOLD, lambda r: r.threshold),
    TableColumn("tuned", "", _operating("the threshold, or the rule,"), lambda r: int(r.tuned)),
    TableColumn("preset", "", "Rule by which lesions are detected", lambda r: r.preset),
    TableColumn("lesion", "", "Number in the manual mask, 1 for the largest", lambda r: r.label),
    TableColumn("volume_mm3", "mm^3", "Volume in the manual mask", lambda r: r.volume_mm3),
    TableColumn("detected", "", "1: the model detects it; 0: not", lambda r: int(r.detected)),
)


def columns_of(versions: Mapping[str, str]) -> tuple[TableColumn[ScanScore], ...]:
    """Columns of the table of scans; `versions` are those of the models by their names."""
    version: TableColumn[ScanScore] = TableColumn(
        "version", "", "Version of the model", lambda r: versions[r.bundle]
    )
    after = 1 + [column.name for column in _SCORES].index("bundle")
    return (*_SCORES[:after], version, *_SCORES[after:])


def tsv(columns: Sequence[TableColumn[Row]], rows: Sequence[Row]) -> str:
    """Header and rows, separated by tabs, in full digits; an unknown or undefined value is n/a."""
    values = {column.name: [column.value(row) for row in rows] for column in columns}
    return tables.to_tsv(pd.DataFrame(values))


def dictionary(
    columns: Sequence[TableColumn[Any]], bundles: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Describe the columns of a table, in the form of a BIDS sidecar.

    Parameters
    ----------
    columns : sequence of TableColumn
    bundles : mapping of str to mapping
        Entries on every model, by its name.
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
