"""The lesion table: one row per lesion as TSV, its columns described in JSON beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sct_lesion_losses import __version__
from sct_lesion_losses.bundle.store import Bundle
from sct_lesion_losses.images.atomic import write_json, write_text
from sct_lesion_losses.metrics.lesionwise import Lesion


@dataclass(frozen=True)
class Found:
    """What a scan turned out to hold.

    Attributes
    ----------
    lesions : int
        Connected components of the mask, 18-neighbour.
    load_mm3 : float
        Volume of the mask.
    highest_p : float or None
        Highest lesion probability anywhere; None under SCT's rule, which keeps no p-map.
    highest_p_mm : (x, y, z) or None
        World coordinates of that voxel.
    """

    lesions: int
    load_mm3: float
    highest_p: float | None
    highest_p_mm: tuple[float, float, float] | None

    @property
    def peak(self) -> str:
        """Highest probability and where it is, as the end of a sentence."""
        if self.highest_p is None or self.highest_p_mm is None:
            return ""
        x, y, z = self.highest_p_mm
        return f"; highest probability {self.highest_p:.2f} at ({x:.0f}, {y:.0f}, {z:.0f}) mm"


@dataclass(frozen=True)
class Filtered:
    """Which predicted lesions were kept; see `operating_point.lesion_filter`.

    Attributes
    ----------
    peak, volume_mm3 : float
        Least highest probability and least volume.
    removed : int
        Lesions of the mask that did not have them.
    """

    peak: float
    volume_mm3: float
    removed: int


@dataclass(frozen=True)
class Result:
    """What was found in a scan and where it was written.

    Attributes
    ----------
    written : tuple of Path
        Every file, the mask (or the p-map where it is alone) first, the sidecar last.
    found : Found or None
        None where only the p-map was asked for.
    threshold : float or None
        Applied to the p-map; None where none was.
    tuned_threshold : float or None
        The bundle's own; None where it was never tuned.
    centerline : str
        How the cord was found.
    warnings : tuple of str
        Everything that was warned of on the way.
    filtered : Filtered or None
        None where every predicted lesion was kept.
    """

    written: tuple[Path, ...]
    found: Found | None
    threshold: float | None
    tuned_threshold: float | None
    centerline: str
    engine: str
    warnings: tuple[str, ...]
    filtered: Filtered | None = None

    @property
    def sentence(self) -> str:
        """What was found, in one line."""
        found = self.found
        if found is None:
            return "p-map written, no threshold applied"
        at = "by SCT's rule" if self.threshold is None else f"at threshold {self.threshold:g}"
        if self.filtered is not None:
            at += f", {self.filtered.removed} more removed by the filter of lesions"
        if not found.lesions:
            return f"no lesion {at}{found.peak}"
        plural = "s" if found.lesions > 1 else ""
        return f"{found.lesions} lesion{plural}, {found.load_mm3:.0f} mm³, {at}{found.peak}"


def sidecar(result: Result, bundle: Bundle, command: str) -> dict[str, Any]:
    """Contents of the JSON beside a mask; base names only, nothing of the input's header.

    `GeneratedBy` follows SCT and BIDS; the other keys hold what is needed to judge the mask and to
    make it again.

    Parameters
    ----------
    result : Result
    bundle : Bundle
        That made the p-map.
    command : str
        What was typed, base names only.
    """
    found = result.found
    return {
        "GeneratedBy": [{"Name": f"sct_lesion_losses: {command}", "Version": __version__}],
        "Type": "Lesion",
        "Bundle": bundle.name,
        "BundleVersion": bundle.info.version,
        "BundleSHA256": bundle.sha256,
        "Threshold": result.threshold,
        "TunedThreshold": result.tuned_threshold,
        "LesionFilter": None
        if result.filtered is None
        else {
            "LeastPeak": result.filtered.peak,
            "LeastVolumeMm3": result.filtered.volume_mm3,
            "LesionsRemoved": result.filtered.removed,
        },
        "Centerline": result.centerline,
        "Engine": result.engine,
        "LesionCount": None if found is None else found.lesions,
        "LesionVolumeMm3": None if found is None else round(found.load_mm3, 3),
        "HighestProbability": None
        if found is None or found.highest_p is None
        else round(found.highest_p, 4),
        "HighestProbabilityMm": None if found is None else found.highest_p_mm,
        "Warnings": list(result.warnings),
        "Disclaimer": "Research software, not a medical device.",
    }


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
