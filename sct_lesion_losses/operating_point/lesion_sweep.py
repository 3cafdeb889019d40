"""The lesion-wise curve of a scan over all decision thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sct_lesion_losses.metrics import detection, lesion
from sct_lesion_losses.metrics.components import bounding_box, components
from sct_lesion_losses.metrics.detection import Preset
from sct_lesion_losses.metrics.overlap import Overlap, overlap, sizes
from sct_lesion_losses.operating_point.binarize import binarize
from sct_lesion_losses.operating_point.sweep import THRESHOLDS, FloatArray, IntArray, checked


@dataclass(frozen=True, eq=False)
class LesionCurve:
    """Lesion counts of one scan at each threshold.

    Attributes
    ----------
    preset : Preset
        The rule that decided.
    thresholds : (T,) float64
        Rising.
    n_predicted, correct : (T,) int64
        Predicted lesions, and those of them that are correct.
    found : (T, R) bool
        Which lesions of the manual mask are detected, the largest first.
    truth_sizes : (R,) int64
        Voxels of these lesions.
    """

    preset: Preset
    thresholds: FloatArray
    n_predicted: IntArray
    correct: IntArray
    found: NDArray[np.bool_]
    truth_sizes: IntArray

    @property
    def n_truth(self) -> int:
        """Lesions of the manual mask."""
        return len(self.truth_sizes)

    @property
    def detected(self) -> IntArray:
        """How many lesions of the manual mask are detected, (T,)."""
        return np.asarray(self.found.sum(axis=1), dtype=np.int64)

    @property
    def sensitivity(self) -> FloatArray:
        """L-sensitivity, (T,); NaN throughout where the scan holds no lesion."""
        return self._scores()[:, 0]

    @property
    def precision(self) -> FloatArray:
        """L-precision, (T,); 0 where nothing is predicted, NaN where the scan holds no lesion."""
        return self._scores()[:, 1]

    @property
    def f1(self) -> FloatArray:
        """L-F1, (T,); 0 where nothing is predicted, NaN where the scan holds no lesion."""
        return self._scores()[:, 2]

    def _scores(self) -> FloatArray:
        counts = zip(self.n_predicted, self.detected, self.correct, strict=True)
        return np.array([detection.scores(self.n_truth, *map(int, row)) for row in counts])


def sweep_lesions(
    truth: NDArray[np.bool_],
    pmap: NDArray[np.floating[Any]],
    spacing_mm: Sequence[float],
    preset: str | Preset = "paper",
    thresholds: ArrayLike = THRESHOLDS,
) -> LesionCurve:
    """Count lesions at every threshold as `binarize` and `metrics.lesion.score` would.

    Parameters
    ----------
    truth, pmap, thresholds
        See `sweep`.
    spacing_mm : 3 float
        Of their grid.
    preset : str or Preset
        A key of `metrics.detection.PRESETS`, or numbers of one's own.

    Returns
    -------
    LesionCurve

    Raises
    ------
    GeometryError
        The shapes differ, or the spacing is none.
    UsageError
        No preset has this name; the thresholds do not rise, or are outside [0, 1].
    """
    rule = detection.find(preset)
    mask, cuts = checked(truth, pmap, thresholds)
    voxel_mm3 = lesion.voxel_volume_mm3(spacing_mm)
    # The masks shrink as the threshold rises: all but the one of threshold 0 lie in one box.
    lowest = next((cut for cut in cuts if cut > 0), 1.0)
    box = bounding_box(mask | binarize(pmap, lowest)) or (slice(0), slice(0), slice(0))
    probabilities, labels = pmap[box], components(mask[box], rule.connectivity)
    everything = detection.counted(_everything(sizes(labels), pmap.size), rule, voxel_mm3)
    counts = np.zeros((2, len(cuts)), dtype=np.int64)
    found = np.zeros((len(cuts), len(everything.truth_sizes)), dtype=bool)
    voxels_before = -1
    for k, cut in enumerate(cuts):
        if cut == 0:
            table = everything
        else:
            predicted = binarize(probabilities, cut)
            voxels = int(np.count_nonzero(predicted))
            if voxels == voxels_before:
                counts[:, k], found[k] = counts[:, k - 1], found[k - 1]
                continue
            voxels_before = voxels
            table = overlap(labels, components(predicted, rule.connectivity))
            table = detection.counted(table, rule, voxel_mm3)
        found[k], correct = detection.detected(table, rule)
        counts[:, k] = len(correct), correct.sum()
    return LesionCurve(rule, cuts, counts[0], counts[1], found, everything.truth_sizes)


def _everything(truth_sizes: IntArray, voxels: int) -> Overlap:
    """Overlap with the one lesion that fills the whole grid."""
    lesions = np.arange(len(truth_sizes))
    return Overlap(truth_sizes, np.array([voxels]), lesions, np.zeros_like(lesions), truth_sizes)
