"""What in a scan looks like a lesion and is none: never labelled, but logged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sct_lesion_losses.phantom.anatomy import LEVELS, Body, axis_mm
from sct_lesion_losses.phantom.lesions import Lesions

SMALLEST_BULGE_MM = 0.5  # about a pixel; less cannot be told from the sac's own wobble


@dataclass(frozen=True)
class HardNegatives:
    """Hard negatives of a scan that the anatomy brings; its protocol holds those of the scanner.

    Attributes
    ----------
    haze : float
        Brightness of the diffuse change of the cord, relative to the tissue; 1 where there is none.
    canal_line_mm : float
        Radius of the bright line of the central canal; 0 where there is none.
    fissure_mm, fissure_depth : float
        Half width of the ventral fissure at the surface; its depth as a share of the cord's half
        axis from front to back.
    rootlets : float
        Share of the fluid's signal that roots and ligaments take away.
    bulges_mm : dict of str to float
        Indentation of the sac's front by each disc in view, under the vertebrae around it, such as
        "C4-C5"; those of `SMALLEST_BULGE_MM` and more.
    """

    haze: float
    canal_line_mm: float
    fissure_mm: float
    fissure_depth: float
    rootlets: float
    bulges_mm: dict[str, float]


def of_scan(body: Body, lesions: Lesions, along_mm: npt.NDArray[np.float64]) -> HardNegatives:
    """Hard negatives of a scan of a body that shows the cord at the places `along_mm`, (N,)."""
    numbers = body.numbers
    return HardNegatives(
        haze=lesions.haze,
        canal_line_mm=numbers["canal_line"],
        fissure_mm=numbers["fissure"],
        fissure_depth=numbers["fissure_depth"],
        rootlets=numbers["rootlets"],
        bulges_mm=_bulges(body, along_mm),
    )


def _bulges(body: Body, along_mm: npt.NDArray[np.float64]) -> dict[str, float]:
    """Deepest point of the sac's front between the middles of each two vertebrae, where in view."""
    found = {}
    s, bulge = axis_mm(), body.tables["bulge"]
    for k in range(len(LEVELS) - 1):
        between = np.flatnonzero((s < body.centres[k]) & (s > body.centres[k + 1]))
        if not len(between):  # below the part of the body that is made
            continue
        deepest = between[np.argmax(bulge[between])]
        in_view = len(along_mm) > 0 and along_mm[0] <= s[deepest] <= along_mm[-1]
        if in_view and bulge[deepest] >= SMALLEST_BULGE_MM:
            found[f"{LEVELS[k]}-{LEVELS[k + 1]}"] = round(float(bulge[deepest]), 2)
    return found
