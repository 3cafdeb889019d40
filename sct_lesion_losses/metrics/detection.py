"""Which lesions count as detected: the rule, and the presets it is run with.

The rule of the study, "overlapped by at least 25 % and not outside by more than 70 %", is the one
of Anima's ``animaSegPerfAnalyzer`` with its overlap raised to 25 %. For a reference lesion r and
the tested lesions t:

1. r fails unless the tested lesions together cover a share of it of at least `min_overlap`.
2. The tested lesions are visited by decreasing overlap with r (of equal ones the larger first, then
   the lower label). r fails where the share of t outside all reference lesions exceeds
   `max_outside`. It is detected once the visited ones hold the share `reach` of all the overlap.

References
----------
Hussein et al. 2023, section 2.6; Commowick et al. 2018, "Objective evaluation of multiple sclerosis
lesion segmentation using a data management and processing infrastructure", Scientific Reports 8.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sct_lesion_losses.errors import UsageError
from sct_lesion_losses.metrics.components import Connectivity
from sct_lesion_losses.metrics.overlap import Overlap

ROUNDING = 1e-6  # a spacing read from a float32 header is off by up to 6e-8 of itself

BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class Preset:
    """The numbers of the rule, and what counts as a lesion at all.

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


def find(preset: str | Preset) -> Preset:
    """Look up a preset by its name; one that is a preset already is returned as it is.

    Raises
    ------
    UsageError
        No preset has this name.
    """
    if isinstance(preset, Preset):
        return preset
    if preset not in PRESETS:
        raise UsageError(
            f"no lesion-wise preset is named {preset!r}; choose from {sorted(PRESETS)}"
        )
    return PRESETS[preset]


def counted(table: Overlap, preset: Preset, voxel_mm3: float) -> Overlap:
    """Leave the lesions out that are too small for the preset."""
    return table.larger_than(preset.min_volume_mm3 / voxel_mm3 * (1 + ROUNDING))


def detected(table: Overlap, preset: Preset) -> tuple[BoolArray, BoolArray]:
    """Apply the rule both ways.

    Parameters
    ----------
    table : Overlap
        Of the lesions that are counted, numbered by falling size as `components` does.
    preset : Preset

    Returns
    -------
    (R,) bool
        Lesions of the manual mask that are detected.
    (T,) bool
        Predicted lesions that are correct.
    """
    if preset.reach is None:
        return _alone(table, preset)
    return _together(table, preset, preset.reach), _together(table.swapped(), preset, preset.reach)


def scores(
    n_truth: int, n_predicted: int, detected: int, correct: int
) -> tuple[float, float, float]:
    """L-sensitivity, L-precision and their harmonic mean L-F1.

    NaN where the manual mask has no lesion; where only the prediction has none, 0.
    """
    if n_truth == 0:
        return float("nan"), float("nan"), float("nan")
    sensitivity = detected / n_truth
    precision = correct / n_predicted if n_predicted else 0.0
    total = sensitivity + precision
    return sensitivity, precision, 2 * sensitivity * precision / total if total else 0.0


def _alone(table: Overlap, preset: Preset) -> tuple[BoolArray, BoolArray]:
    """Find lesions with a predicted one that covers enough of them alone, and those predicted."""
    share = table.voxels / table.truth_sizes[table.truth]
    good = _enough(share, preset) & ~_leaks(table, preset)[table.predicted]
    found = np.zeros(len(table.truth_sizes), dtype=bool)
    correct = np.zeros(len(table.predicted_sizes), dtype=bool)
    found[table.truth[good]] = True
    correct[table.predicted[good]] = True
    return found, correct


def _together(table: Overlap, preset: Preset, reach: float) -> BoolArray:
    """Apply the two steps to every lesion of the manual mask."""
    total = np.zeros(len(table.truth_sizes), dtype=np.int64)
    np.add.at(total, table.truth, table.voxels)
    covered = _enough(total / table.truth_sizes, preset) & (total > 0)
    # Of equal overlaps the larger lesion comes first: it has the lower label.
    order = np.lexsort((table.predicted, -table.voxels, table.truth))
    row, voxels = table.truth[order], table.voxels[order]
    # What a lesion's tested ones before this one hold of the overlap with it.
    before = np.cumsum(voxels) - voxels - (np.cumsum(total) - total)[row]
    visited = before / total[row] < reach
    failed = visited & _leaks(table, preset)[table.predicted[order]]
    covered[row[failed]] = False
    return covered


def _enough(share: NDArray[np.float64], preset: Preset) -> BoolArray:
    return share > preset.min_overlap if preset.strict else share >= preset.min_overlap


def _leaks(table: Overlap, preset: Preset) -> BoolArray:
    """Predicted lesions that lie outside all lesions of the manual mask by more than allowed."""
    outside = table.predicted_sizes.copy()
    np.subtract.at(outside, table.predicted, table.voxels)
    return np.asarray(outside / table.predicted_sizes > preset.max_outside)
