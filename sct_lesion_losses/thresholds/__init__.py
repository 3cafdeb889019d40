"""Decision thresholds: applying one, the curve over all of them, and choosing one.

The registry of objectives stands here, where a help page can read it in no time; numpy is loaded
with the first function that is asked for.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from sct_lesion_losses.thresholds.binarization import binarize
    from sct_lesion_losses.thresholds.choice import Choice, choose
    from sct_lesion_losses.thresholds.curves import ScanCounts, count, sweep
    from sct_lesion_losses.thresholds.objectives import Objective

__all__ = [
    "OBJECTIVES",
    "THRESHOLDS",
    "Choice",
    "Criterion",
    "Objective",
    "ScanCounts",
    "binarize",
    "choose",
    "count",
    "sweep",
]

THRESHOLDS = tuple(k / 20 for k in range(21))  # Hussein et al. 2023, section 2.5


@dataclass(frozen=True)
class Criterion:
    """Rule by which an objective follows from the curves of scans.

    Attributes
    ----------
    score : {"v_f1", "v_fbeta", "l_f1"}
        Score of a scan at every threshold; see `Objective.scores`.
    statistic : {"median", "mean"}
        Of the scores over the scans with lesions.
    numbers : tuple of str
        What it depends on of the `Objective`: beta, preset, specificity. With the last, only
        thresholds with this P-specificity on the lesion-free scans are allowed.
    """

    score: Literal["v_f1", "v_fbeta", "l_f1"]
    statistic: Literal["median", "mean"]
    numbers: tuple[str, ...] = ()


OBJECTIVES = {
    "median_v_f1": Criterion("v_f1", "median"),  # Hussein et al. 2023, section 2.5
    "mean_v_f1": Criterion("v_f1", "mean"),
    "median_l_f1": Criterion("l_f1", "median", ("preset",)),
    "mean_l_f1": Criterion("l_f1", "mean", ("preset",)),
    "median_v_fbeta": Criterion("v_fbeta", "median", ("beta",)),
    "mean_v_fbeta": Criterion("v_fbeta", "mean", ("beta",)),
    "l_f1_at_specificity": Criterion("l_f1", "median", ("preset", "specificity")),
}

_MODULES = ("binarization", "curves", "objectives", "choice")


def __getattr__(name: str) -> Any:
    if name in __all__:
        for module in _MODULES:
            found = importlib.import_module(f"{__name__}.{module}")
            if hasattr(found, name):
                return getattr(found, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
