"""The long tables: a row for each scan or lesion, and a JSON that describes the columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

from sct_lesion_losses.geometry.location import MOST, Location
from sct_lesion_losses.images import atomic
from sct_lesion_losses.images.bids import UNKNOWN
from sct_lesion_losses.metrics import PRESETS, Preset
from sct_lesion_losses.metrics.lesionwise import MeasuredLesion


@dataclass(frozen=True)
class Column:
    """A column: its name, what it holds, the value of a row, its units and its format.

    The value is an attribute of the row, or of one of its attributes, or follows from the row; of a
    row that is a mapping it is the entry of the column's name. One that is None, NaN or empty is
    written as n/a, a text as it is; without a format a number has its full digits.
    """

    name: str
    description: str
    value: str | Callable[[Any], Any] = ""
    units: str = ""
    form: str = ""

    def text(self, row: Any) -> str:
        """Write the value of a row."""
        if isinstance(row, Mapping):
            value = row.get(self.name)
        else:
            value = attrgetter(self.value)(row) if isinstance(self.value, str) else self.value(row)
        if value is None or value == "" or value != value:
            return UNKNOWN
        if isinstance(value, bool):
            value = int(value)
        return " ".join((value if isinstance(value, str) else format(value, self.form)).split())


def write(
    path: Path,
    columns: Sequence[Column],
    rows: Sequence[Any],
    levels: Mapping[str, Mapping[str, Any]] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> tuple[Path, Path]:
    """Write a table and the description of its columns; without rows the header alone.

    Parameters
    ----------
    path : Path
        Of the TSV; the description, in the form of a BIDS sidecar, has its name with ``.json``.
    columns : sequence of Column
    rows : sequence
    levels : mapping of str to mapping
        What the values of a column mean, by its name.
    facts : mapping
        Entries of the description that are about no column.

    Returns
    -------
    tuple of Path
        The TSV and the JSON.

    Raises
    ------
    OutputError
        A file cannot be written.
    """
    lines = [[column.name for column in columns]]
    lines += [[column.text(row) for column in columns] for row in rows]
    described = {}
    for column in columns:
        entry: dict[str, Any] = {"Description": column.description}
        if column.units:
            entry["Units"] = column.units
        if levels and column.name in levels:
            entry["Levels"] = dict(levels[column.name])
        described[column.name] = entry
    about = path.with_suffix(".json")
    atomic.write_text(path, "".join("\t".join(line) + "\n" for line in lines))
    atomic.write_json(about, {**described, **(facts or {})})
    return path, about


def rule(preset: Preset) -> str:
    """Sentence on what makes a lesion count as detected."""
    least = "more than" if preset.strict else "at least"
    volume = f" of more than {preset.min_volume_mm3:g} mm³" if preset.min_volume_mm3 else ""
    if preset.reach is None:
        by = "by a single lesion"
    else:
        by = f"and the largest overlaps, up to {100 * preset.reach:g} % of it, are with lesions"
    return (
        f"Lesion-wise scores by the preset {preset.name}: {preset.connectivity}-neighbour lesions"
        f"{volume}, detected where {least} {100 * preset.min_overlap:g} % is covered {by} of which "
        f"at most {100 * preset.max_outside:g} % lies outside."
    )


PRESET_LEVELS = {
    name: {"Description": rule(preset), "Parameters": asdict(preset)}
    for name, preset in PRESETS.items()
}

_THRESHOLD = "A voxel is lesion where p >= threshold; n/a: masks by a rule of the model's own"
_TUNED = "1: the threshold, or the rule, is the operating point of the model; 0: it is not"
_NONE = "n/a where the manual mask has no lesion"
_NOTHING = f"0 where nothing is predicted, {_NONE}"


def of_scans(versions: Mapping[str, str]) -> tuple[Column, ...]:
    """Columns of the scores of every scan; `versions` are those of the models by their names."""
    return (
        Column("scan", "Name of the scan", "scan"),
        Column("subject", "Whose scan it is", "subject"),
        Column("site", "Where it was made", "site"),
        Column("bundle", "Model", "bundle"),
        Column("version", "Version of the model", lambda row: versions[row.bundle]),
        Column("threshold", _THRESHOLD, "threshold"),
        Column("tuned", _TUNED, "tuned"),
        Column("preset", "Rule of lesion-wise scores", "lesions.preset.name"),
        Column("truth_vox", "Lesion in the manual mask", "voxels.n_truth", "voxels"),
        Column("predicted_vox", "Lesion by the model", "voxels.n_predicted", "voxels"),
        Column("tp_vox", "True positive", "voxels.tp", "voxels"),
        Column("fp_vox", "False positive", "voxels.fp", "voxels"),
        Column("fn_vox", "False negative", "voxels.fn", "voxels"),
        Column("v_sensitivity", f"TP / (TP + FN); {_NONE}", "voxels.sensitivity"),
        Column("v_precision", f"TP / (TP + FP); {_NOTHING}", "voxels.precision"),
        Column("v_f1", f"2TP / (2TP + FP + FN); {_NONE}", "voxels.f1"),
        Column("truth_lesions", "Lesions of the manual mask", "lesions.n_truth"),
        Column("predicted_lesions", "Predicted lesions", "lesions.n_predicted"),
        Column("detected_lesions", "Lesions of the manual mask detected", "lesions.detected"),
        Column("correct_lesions", "Predicted lesions correct", "lesions.correct"),
        Column(
            "l_sensitivity", f"detected_lesions / truth_lesions; {_NONE}", "lesions.sensitivity"
        ),
        Column(
            "l_precision", f"correct_lesions / predicted_lesions; {_NOTHING}", "lesions.precision"
        ),
        Column("l_f1", f"Harmonic mean of l_sensitivity and l_precision; {_NONE}", "lesions.f1"),
        Column("truth_mm3", "Volume of the manual mask", "lesions.truth_mm3", "mm^3"),
        Column("predicted_mm3", "Volume of the model's mask", "lesions.predicted_mm3", "mm^3"),
    )


TRUTH_LESIONS = (  # of a `TruthLesion`
    Column("scan", "Name of the scan", "of.scan"),
    Column("subject", "Whose scan it is", "of.subject"),
    Column("bundle", "Model", "of.bundle"),
    Column("threshold", _THRESHOLD, "of.threshold"),
    Column("tuned", _TUNED, "of.tuned"),
    Column("preset", "Rule by which lesions are detected", "of.lesions.preset.name"),
    Column("lesion", "Number in the manual mask, 1 for the largest", "label"),
    Column("volume_mm3", "Volume in the manual mask", "volume_mm3", "mm^3"),
    Column("detected", "1: the model detects it; 0: not", "detected"),
)


@dataclass(frozen=True)
class LesionRow:
    """A lesion of a mask: what it measures, and where in the cord it lies."""

    lesion: MeasuredLesion
    location: Location = field(default_factory=Location)


_mm = partial(Column, units="mm", form=".3f")
PREDICTED_LESIONS = (  # of a `LesionRow`
    Column("lesion", "Number in the labelled mask, 1 for the largest", "lesion.label"),
    Column("volume_mm3", "Volume", "lesion.volume_mm3", "mm^3", ".3f"),
    _mm(
        "length_mm",
        "Extent along the image axis nearest to superior-inferior, whole voxels",
        "lesion.length_mm",
    ),
    _mm("x_mm", "Centre, world x, to the right", lambda row: row.lesion.centre_mm[0]),
    _mm("y_mm", "Centre, world y, to the front", lambda row: row.lesion.centre_mm[1]),
    _mm("z_mm", "Centre, world z, upwards", lambda row: row.lesion.centre_mm[2]),
    Column("mean_p", "Mean probability inside", "lesion.mean_probability", form=".4f"),
    Column("highest_p", "Highest probability inside", "lesion.highest_probability", form=".4f"),
    Column(
        "vanishes_above",
        "Highest decision threshold at which a voxel of the lesion is left, in full digits; a "
        "lesion filter with a least volume may drop it at a lower one",
        "lesion.highest_probability",
        form=".9g",  # brings a float32 back exactly, so that -thr with this value still keeps it
    ),
    Column(
        "level",
        "Vertebral level of the centre (C1 to Co), by the labels of -levels; n/a without them, or "
        "beyond them",
        "location.level_name",
    ),
    Column("levels", "Vertebral levels from the highest to the lowest", "location.levels_name"),
    _mm(
        "from_top_mm",
        "Distance of the centre along the cord: arc length of the smoothed centerline from its "
        "upper end, in the highest axial slice in which it is known",
        "location.from_top_mm",
    ),
    Column(
        "side",
        f"left or right, of the patient: at least {100 * MOST:g} % of the volume lies on that side "
        "of the centerline; both: on neither",
        "location.side",
    ),
    Column(
        "depth",
        f"anterior or posterior: at least {100 * MOST:g} % of the volume lies in front of the "
        "centerline, or behind it; central: neither",
        "location.depth",
    ),
    _mm(
        "right_mm",
        "Mean offset from the centerline to the patient's right, in the plane perpendicular to the "
        "cord",
        "location.right_mm",
    ),
    _mm("front_mm", "The same to the front", "location.front_mm"),
    _mm(
        "cord_length_mm",
        "Extent along the cord: arc length of the centerline in the axial slices of the lesion",
        "location.cord_length_mm",
    ),
    _mm(
        "diameter_mm",
        "Diameter of a disc of the largest area of the lesion perpendicular to the cord",
        "location.diameter_mm",
    ),
    Column(
        "cord_share",
        "Largest share of the cord mask's area that the lesion takes in an axial slice; n/a "
        "without a cord mask",
        "location.cord_share",
        form=".4f",
    ),
)


_SCAN = Column("scan", "Path of the scan in its BIDS folder, or name of its file")
SEGMENTED_SCANS = (  # of a mapping, and so are the next ones
    _SCAN,
    Column("status", "How the scan fared"),
    Column("mask", "Path of its mask, or of its p-map where that is alone, from this folder"),
    Column("bundle", "Model"),
    Column("version", "Version of the model"),
    Column("threshold", _THRESHOLD),
    Column("centerline", "How the cord was found"),
    Column("lesions", "Number of lesions"),
    Column("volume_mm3", "Their volume", units="mm^3"),
    Column("highest_p", "Highest probability anywhere"),
    Column("outside_lesions", "Lesions dropped for lying outside the cord mask of -cord"),
    Column("outside_mm3", "Volume that the cord mask cut away", units="mm^3"),
    Column("seconds", "Time that it took, loading the model and writing files aside", units="s"),
    Column("warnings", "Everything that was warned of"),
    Column("error", "Why it failed"),
)
SEGMENTED_STATUS = {
    "done": "segmented when this table was written",
    "skipped": "not segmented again: its files were there, made in the same way",
    "failed": "not segmented; its files, where there are any, are of another run",
}
SEGMENTED_LESIONS = (_SCAN, *PREDICTED_LESIONS)
