"""Agreement of masks by voxel, by lesion and by patient, and statistics over a cohort."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from types import ModuleType
from typing import Literal

Connectivity = Literal[6, 18, 26]
CONNECTIVITY: Connectivity = 18  # of sct_analyze_lesion
UNTUNED = 0.5  # the threshold that tuned ones are compared with; Hussein et al. 2023, section 2.5


@dataclass(frozen=True)
class Preset:
    """The numbers of the rule by which lesions are detected; see `lesionwise`.

    Attributes
    ----------
    name : str
    min_overlap : float
        Share of a lesion that must be covered.
    max_outside : float
        Share of a tested lesion that may lie outside all reference lesions; this much is allowed.
    reach : float or None
        Share of the overlap with a lesion that must come from such tested lesions, largest overlap
        first. None: a single one must cover `min_overlap` by itself, the literal reading of the
        rule.
    strict : bool
        More than `min_overlap` must be covered, not just as much.
    connectivity : 6, 18 or 26
        Neighbours that make one lesion.
    min_volume_mm3 : float
        Lesions must be larger than this; others are ignored, as if their voxels were background.
    """

    name: str
    min_overlap: float
    max_outside: float
    reach: float | None
    strict: bool
    connectivity: Connectivity
    min_volume_mm3: float


PRESETS = {
    preset.name: preset
    for preset in (
        Preset("paper", 0.25, 0.70, 0.65, False, 18, 0.0),  # Hussein et al. 2023, section 2.6
        Preset("anima", 0.10, 0.70, 0.65, True, 6, 3.0),  # defaults of animaSegPerfAnalyzer
        Preset("candidate", 0.25, 0.70, None, False, 18, 0.0),
    )
}

_MODULES = ("froc", "lesionwise", "patientwise", "repeat", "statistics", "voxelwise")


def __getattr__(name: str) -> ModuleType:
    if name in _MODULES:  # a help page reads the presets, and loads nothing for it
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
