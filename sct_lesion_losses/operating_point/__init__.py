"""Decision thresholds: applying one, the curve over all of them, and choosing one."""

from __future__ import annotations

from sct_lesion_losses.operating_point.binarize import binarize
from sct_lesion_losses.operating_point.choose import Choice, choose
from sct_lesion_losses.operating_point.lesion_sweep import LesionCurve, sweep_lesions
from sct_lesion_losses.operating_point.objectives import OBJECTIVES, Objective
from sct_lesion_losses.operating_point.sweep import THRESHOLDS, Curve, sweep
from sct_lesion_losses.operating_point.tally import Tally, tally

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
