"""What segmenting a scan came to: one line for a person, the JSON sidecar for a tool."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sct_lesion_losses import __version__
from sct_lesion_losses.bundle.store import Bundle


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
