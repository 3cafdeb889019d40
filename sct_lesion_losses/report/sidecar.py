"""Lesions found in a scan, and the JSON beside its mask."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sct_lesion_losses import __version__
from sct_lesion_losses.geometry.centerline import Centerline
from sct_lesion_losses.geometry.grid import Grid
from sct_lesion_losses.geometry.location import locate
from sct_lesion_losses.images.cord_mask import CordMask
from sct_lesion_losses.metrics import lesionwise
from sct_lesion_losses.report import counted
from sct_lesion_losses.report.columns import LesionRow

if TYPE_CHECKING:  # not loaded to threshold a stored p-map
    from sct_lesion_losses.bundle.schema import LesionPoint
    from sct_lesion_losses.bundle.store import Bundle
    from sct_lesion_losses.thresholds.lesion_filter import Filter


logger = logging.getLogger(__name__)

PMAP_KEYS = (
    *("Bundle", "BundleVersion", "BundleSHA256", "TunedThreshold", "TunedLesionFilter"),
    *("Centerline", "CenterlineSlices", "ScanSlices", "Engine", "ScanSHA256", "InferenceSHA256"),
    *("CordMask", "CordMaskSHA256"),
)


@dataclass(frozen=True)
class Found:
    """Lesions of a mask and the height of its p-map.

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
    highest_p: float | None = None
    highest_p_mm: tuple[float, float, float] | None = None

    @classmethod
    def of(
        cls, labels: npt.NDArray[Any], pmap: npt.NDArray[np.float32] | None, grid: Grid
    ) -> Found:
        """Count numbered lesions, (X, Y, Z) int, and find the highest probability."""
        lesions, load_mm3 = int(labels.max()), np.count_nonzero(labels) * grid.voxel_volume_mm3
        if pmap is None:
            return cls(lesions, load_mm3)
        peak = np.unravel_index(int(np.argmax(pmap)), pmap.shape)
        x, y, z = (round(float(mm), 1) for mm in grid.to_world(peak))
        return cls(lesions, load_mm3, float(pmap[peak]), (x, y, z))

    @property
    def peak(self) -> str:
        """Highest probability and where it is, as the end of a sentence."""
        if self.highest_p is None or self.highest_p_mm is None:
            return ""
        x, y, z = self.highest_p_mm
        return f"; highest probability {self.highest_p:.3g} at ({x:.0f}, {y:.0f}, {z:.0f}) mm"

    def emptiness(self, filtered: Filtered | None, outside: Outside | None = None) -> str:
        """Say of an empty mask how high its p-map is, and how many lesions were dropped."""
        removed = 0 if filtered is None else filtered.removed
        dropped = f"; {counted(removed, 'lesion')} dropped by the lesion filter" if removed else ""
        if outside is not None and outside.removed:
            dropped = f"; {counted(outside.removed, 'lesion')} outside the cord mask{dropped}"
        return f"the mask is empty{self.peak}{dropped}"

    @property
    def load(self) -> str:
        """Number and volume of the lesions."""
        if not self.lesions:
            return "no lesion"
        return f"{counted(self.lesions, 'lesion')}, {self.load_mm3:.0f} mm³"

    @property
    def entries(self) -> dict[str, Any]:
        """Entries of a sidecar."""
        return {
            "LesionCount": self.lesions,
            "LesionVolumeMm3": round(self.load_mm3, 3),
            "HighestProbability": None if self.highest_p is None else round(self.highest_p, 4),
            "HighestProbabilityMm": self.highest_p_mm,
        }


@dataclass(frozen=True)
class Outside:
    """Lesions outside a cord mask, which were cut to it.

    Attributes
    ----------
    cord : str
        Name of the cord mask.
    predicted, removed, cut : int
        Lesions before; those of them that lie wholly outside; those that reach beyond the cord.
    removed_mm3 : float
        Volume outside.
    """

    cord: str
    predicted: int
    removed: int
    cut: int
    removed_mm3: float

    @classmethod
    def of(cls, mask: npt.NDArray[np.bool_], cord: CordMask, grid: Grid) -> Outside:
        """Count what of a mask, (X, Y, Z) bool, is outside the cord."""
        labels = lesionwise.components(mask)
        predicted = int(labels.max())
        beyond = np.unique(labels[mask & ~cord.array])
        inside = np.unique(labels[mask & cord.array])
        return cls(
            cord.name,
            predicted,
            predicted - inside.size,
            np.intersect1d(beyond, inside).size,
            float(np.count_nonzero(mask & ~cord.array) * grid.voxel_volume_mm3),
        )

    @property
    def sentence(self) -> str:
        """Say in one line what was outside."""
        return (
            f"outside the cord mask {self.cord}: {self.removed} of "
            f"{counted(self.predicted, 'predicted lesion')}, and parts of {self.cut}; "
            f"{self.removed_mm3:.0f} mm³ were cut away"
        )

    @property
    def entry(self) -> dict[str, Any]:
        """Entry of a sidecar."""
        return {
            "LesionsRemoved": self.removed,
            "LesionsCut": self.cut,
            "RemovedMm3": round(self.removed_mm3, 3),
        }


def cut_to_cord(
    values: npt.NDArray[Any], mask: npt.NDArray[np.bool_] | None, cord: CordMask, grid: Grid
) -> tuple[npt.NDArray[Any], Outside | None]:
    """Cut a p-map or mask to the cord; count, and log, what of its mask is outside.

    Parameters
    ----------
    values : (X, Y, Z)
        What is cut; see `CordMask.cut`.
    mask : (X, Y, Z) bool, or None
        Lesions before; None where no threshold is applied, so that none are counted.
    cord : CordMask
    grid : Grid
    """
    outside = None if mask is None else Outside.of(mask, cord, grid)
    if outside is not None:
        logger.info("%s", outside.sentence)
    return cord.cut(values), outside


@dataclass(frozen=True, eq=False)
class Levels:
    """Vertebral levels of a scan.

    Attributes
    ----------
    along : (Z,) int
        At the centerline's point in each axial slice; see `geometry.levels.along`.
    name, sha256 : str
        Base name of the file of labels, and hash of its bytes.
    """

    along: npt.NDArray[np.int64]
    name: str
    sha256: str


@dataclass(frozen=True)
class Filtered:
    """The filter of predicted lesions, and how many it removed.

    Attributes
    ----------
    rule : Filter
    threshold : float
        The tuned one, at which it was chosen.
    predicted, removed : int
        Lesions of the mask before, and those of them that it did not keep.
    """

    rule: Filter
    threshold: float
    predicted: int
    removed: int

    @property
    def sentence(self) -> str:
        """Say in one line what was removed, and why."""
        return (
            f"the lesion filter (chosen at threshold {self.threshold:g}) dropped {self.removed} of "
            f"{counted(self.predicted, 'predicted lesion')}; it keeps those of {self.rule.words}"
        )

    @property
    def entry(self) -> dict[str, Any]:
        """Entry of a sidecar."""
        return {**(filter_entry(self.rule) or {}), "LesionsRemoved": self.removed}


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Lesions of a scan, how they were found, and where they were written.

    Attributes
    ----------
    written : tuple of Path
        Every file, the mask (or the p-map where it is alone) first, the sidecar last.
    mask : (X, Y, Z) bool, or None
        On the scan's own grid; None where only the p-map was asked for.
    pmap : (X, Y, Z) float32 in [0, 1], or None
        Lesion probability; None under SCT's rule.
    found : Found or None
        Number and volume of the lesions; None where only the p-map was asked for.
    threshold : float or None
        Applied to the p-map; None where none was.
    tuned_threshold : float or None
        The bundle's own; None where it was never tuned.
    centerline : Centerline
        Course of the cord, and how it was found.
    engine : str
        Inference engine, its version and its precision.
    warnings : tuple of str
        Everything that was warned of on the way.
    filtered : Filtered or None
        None where every predicted lesion was kept.
    scan_sha256 : str
        Hash of the bytes of the scan's file.
    inference_sha256 : str or None
        Hash of what the p-map follows from beside the scan; None with a line from a file.
    cord : CordMask or None
        Mask that the p-map was cut to.
    outside : Outside or None
        What of the lesions lay outside it; None without one, and without a mask.
    sections : (X, Y, Z) bool, or None
        Cord that shares of its area are told of: `cord`, or that of the centerline's file.
    levels : Levels or None
        Vertebral levels, where labels of them were given.
    seconds : float
        From the file of the scan to its lesions; loading the network and writing are not in it.
    """

    written: tuple[Path, ...]
    mask: npt.NDArray[np.bool_] | None
    pmap: npt.NDArray[np.float32] | None
    found: Found | None
    threshold: float | None
    tuned_threshold: float | None
    centerline: Centerline
    engine: str
    warnings: tuple[str, ...]
    filtered: Filtered | None = None
    scan_sha256: str = ""
    inference_sha256: str | None = None
    cord: CordMask | None = None
    outside: Outside | None = None
    sections: npt.NDArray[np.bool_] | None = None
    levels: Levels | None = None
    seconds: float = 0.0

    def rows(
        self, labels: npt.NDArray[np.integer[Any]], pmap: npt.NDArray[np.float32], grid: Grid
    ) -> list[LesionRow]:
        """Measure and locate numbered lesions of the scan, (X, Y, Z) int, in a p-map."""
        line = self.centerline.on(grid.to_rpi()[0])
        measured = lesionwise.measures(labels, pmap, grid.affine)
        levels = None if self.levels is None else self.levels.along
        return list(map(LesionRow, measured, locate(labels, grid, line, self.sections, levels)))

    @property
    def sentence(self) -> str:
        """Say in one line what was found."""
        if self.found is None:
            return "p-map written, no threshold applied"
        at = "by SCT's rule" if self.threshold is None else f"at threshold {self.threshold:g}"
        if self.outside is not None:
            at += f", {self.outside.removed} more outside the cord mask"
        if self.filtered is not None and self.filtered.predicted:
            at += f", {self.filtered.removed} more removed by the filter of lesions"
        comma = "," if self.found.lesions else ""
        return f"{self.found.load}{comma} {at}{self.found.peak}"


def sidecar(result: Segmentation, bundle: Bundle, command: str) -> dict[str, Any]:
    """Contents of the JSON beside a mask; base names only, nothing of the input's header.

    `GeneratedBy` follows SCT and BIDS; the other keys hold what is needed to judge the mask and to
    make it again.

    Parameters
    ----------
    result : Segmentation
    bundle : Bundle
        That made the p-map.
    command : str
        What was typed, base names only.
    """
    kept, outside = result.filtered, result.outside
    nothing = dict.fromkeys(Found(0, 0.0).entries)
    entries = {
        **pmap_entries(result, bundle),
        "Threshold": result.threshold,
        "OutsideCord": outside and outside.entry,
        "Levels": None if result.levels is None else result.levels.name,
        "LevelsSHA256": None if result.levels is None else result.levels.sha256,
        "LesionFilter": kept and kept.entry,
        **(nothing if result.found is None else result.found.entries),
    }
    return of_lesions(command, entries, result.warnings)


def pmap_entries(result: Segmentation, bundle: Bundle) -> dict[str, Any]:
    """Entries of the JSON beside a p-map: what made it, and what its masks are made with."""
    line, cord = result.centerline, result.cord
    entries = (
        *(bundle.name, bundle.info.version, bundle.sha256),
        *(result.tuned_threshold, filter_entry(bundle.info.operating_point.lesions)),
        *(line.method, int(line.covered.sum()), len(line.xy), result.engine),
        *(result.scan_sha256, result.inference_sha256),
        *((None, None) if cord is None else (cord.name, cord.sha256)),
    )
    return {
        **dict(zip(PMAP_KEYS, entries, strict=True)),
        "Files": [path.name for path in result.written],
        "Seconds": round(result.seconds, 2),
    }


def threshold_doubt(threshold: float, tuned: float | None, bundle: str) -> str:
    """Say that a threshold is not the one that a bundle was tuned to; empty where it is."""
    if tuned is None:
        return f"threshold {threshold:g}; the bundle {bundle!r} was never tuned to scans"
    if threshold != tuned:
        return (
            f"threshold {threshold:g} instead of {tuned:g}, the one the bundle {bundle!r} was "
            "tuned to"
        )
    return ""


def filter_entry(rule: Filter | LesionPoint | None) -> dict[str, Any] | None:
    """Entry of a filter of predicted lesions; None without one."""
    if rule is None:
        return None
    return {"LeastPeak": rule.peak, "LeastVolumeMm3": rule.volume_mm3}


def of_lesions(command: str, entries: dict[str, Any], warnings: Sequence[str]) -> dict[str, Any]:
    """Sidecar of a lesion mask or p-map: its maker, these entries, and what was warned of."""
    name = f"sct_lesion_losses: {command}"
    return {
        "GeneratedBy": [{"Name": name, "Version": __version__}],
        "Type": "Lesion",
        **entries,
        "Warnings": list(warnings),
        "Disclaimer": "Research software, not a medical device.",
    }
