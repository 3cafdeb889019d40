"""Decision thresholds: applying one, the curve over all of them, and choosing one."""

from __future__ import annotations

from sct_lesion_losses.thresholds.binarize import binarize
from sct_lesion_losses.thresholds.choose import Choice, choose
from sct_lesion_losses.thresholds.objectives import OBJECTIVES, Objective
from sct_lesion_losses.thresholds.sweep import (
    THRESHOLDS,
    Curve,
    LesionCurve,
    Tally,
    sweep,
    sweep_lesions,
    tally,
)

__all__ = [
    "OBJECTIVES",
    "THRESHOLDS",
    "Choice",
    "Curve",
    "LesionCurve",
    "Objective",
    "Tally",
    "binarize",
    "choose",
    "sweep",
    "sweep_lesions",
    "tally",
]
