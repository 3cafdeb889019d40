"""The lesion table: one row per lesion as TSV, its columns described in JSON beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sct_lesion_losses.files import write_json, write_text
from sct_lesion_losses.metrics.lesion import Lesion


@dataclass(frozen=True)
class Column:
    """A column of the table: its name, what it holds, and how it is written."""

    name: str
    units: str
    description: str
    text: Callable[[Lesion], str]


COLUMNS = (
    Column("lesion", "", "Number in the labelled mask, 1 for the largest", lambda x: f"{x.label}"),
    Column("volume_mm3", "mm^3", "Volume", lambda x: f"{x.volume_mm3:.3f}"),
    Column(
        "length_mm",
        "mm",
        "Extent along the image axis nearest to superior-inferior, whole voxels",
        lambda x: f"{x.length_mm:.3f}",
    ),
    Column("x_mm", "mm", "Centre, world x, to the right", lambda x: f"{x.centre_mm[0]:.3f}"),
    Column("y_mm", "mm", "Centre, world y, to the front", lambda x: f"{x.centre_mm[1]:.3f}"),
    Column("z_mm", "mm", "Centre, world z, upwards", lambda x: f"{x.centre_mm[2]:.3f}"),
    Column("mean_p", "", "Mean probability inside", lambda x: f"{x.mean_probability:.4f}"),
    Column("highest_p", "", "Highest probability inside", lambda x: f"{x.highest_probability:.4f}"),
    Column(
        "vanishes_above",
        "",
        "Highest decision threshold at which a voxel of the lesion is left, in full digits",
        # Nine digits bring a float32 back exactly, so that -thr with this value still keeps it.
        lambda x: f"{x.vanishes_above:.9g}",
    ),
)


def write(path: Path, lesions: Sequence[Lesion]) -> tuple[Path, Path]:
    """Write the table and the description of its columns; without lesions the header alone.

    Parameters
    ----------
    path : Path
        Of the TSV; the description has its name with `.json`.
    lesions : sequence of Lesion

    Returns
    -------
    tuple of Path
        The TSV and the JSON.
    """
    rows = [[column.name for column in COLUMNS]]
    rows += [[column.text(lesion) for column in COLUMNS] for lesion in lesions]
    description = path.with_name(path.name.removesuffix(".tsv") + ".json")
    write_text(path, "".join("\t".join(row) + "\n" for row in rows))
    write_json(description, {column.name: _described(column) for column in COLUMNS})
    return path, description


def _described(column: Column) -> dict[str, str]:
    units = {"Units": column.units} if column.units else {}
    return {"Description": column.description, **units}
