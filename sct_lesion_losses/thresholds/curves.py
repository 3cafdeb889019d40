"""Counts of one scan at all thresholds, from which every score follows.

Voxels come from one pass over the histogram of the p-map, lesions from the masks, each labelled
once unless it is like the one before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sct_lesion_losses.errors import GeometryError, UsageError
from sct_lesion_losses.metrics import PRESETS, lesionwise
from sct_lesion_losses.metrics.lesionwise import LesionScore
from sct_lesion_losses.metrics.voxelwise import VoxelScore
from sct_lesion_losses.thresholds import THRESHOLDS
from sct_lesion_losses.thresholds.binarization import binarize, compared

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


_SAME = 1e-9  # between two spellings of one threshold


@dataclass(frozen=True, eq=False)
class LesionCurve:
    """Lesion counts of one scan at each threshold, by the rule of one preset.

    Attributes
    ----------
    n_predicted, correct : (T,) int64
        Predicted lesions, and those of them that are correct.
    found : (T, R) bool
        Which lesions of the manual mask are detected, the largest first.
    truth_sizes : (R,) int64
        Voxels of these lesions.
    """

    n_predicted: IntArray
    correct: IntArray
    found: NDArray[np.bool_]
    truth_sizes: IntArray


@dataclass(frozen=True, eq=False)
class ScanCounts:
    """Counts of one scan at each threshold.

    Attributes
    ----------
    thresholds : (T,) float64
        Rising.
    tp, fp : (T,) int64
        True and false positive voxels.
    n_truth : int
        Lesion voxels of the scan.
    voxel_mm3 : float
        Volume of a voxel; NaN where lesions were not counted.
    lesions : mapping of str to LesionCurve
        By the name of the preset.
    """

    thresholds: FloatArray
    tp: IntArray
    fp: IntArray
    n_truth: int
    voxel_mm3: float = float("nan")
    lesions: Mapping[str, LesionCurve] = field(default_factory=dict)

    def f_beta(self, beta: float = 1.0) -> FloatArray:
        """V-F-beta, (T,), V-F1 for one; NaN throughout where the scan holds no lesion.

        (1 + b^2) TP / ((1 + b^2) TP + b^2 FN + FP): sensitivity counts b times as much as
        precision.

        References
        ----------
        van Rijsbergen 1979, "Information Retrieval", chapter 7
        """
        if self.n_truth == 0:
            return np.full(len(self.tp), np.nan)
        weight = beta**2
        return (1 + weight) * self.tp / (self.tp + self.fp + weight * self.n_truth)

    def l_f1(self, preset: str) -> FloatArray:
        """L-F1, (T,); NaN throughout where the scan holds no lesion that counts."""
        return np.array([self.lesion_score(preset, k).f1 for k in range(len(self.thresholds))])

    def index(self, threshold: float) -> int:
        """Index of one of its thresholds.

        Raises
        ------
        UsageError
            It is not one of them.
        """
        apart = np.abs(self.thresholds - threshold)
        if not apart.min() < _SAME:
            raise UsageError(
                f"threshold {threshold:g} is not among those that were swept; sweep it as well"
            )
        return int(apart.argmin())

    def voxel_score(self, k: int) -> VoxelScore:
        """Score at the threshold of index k, as `metrics.voxelwise.score` gives it."""
        return VoxelScore(self.n_truth, int(self.tp[k] + self.fp[k]), int(self.tp[k]))

    def lesion_score(self, preset: str, k: int) -> LesionScore:
        """Score at the threshold of index k, as `metrics.lesionwise.score` gives it."""
        curve = self.lesions[preset]
        return LesionScore(
            PRESETS[preset],
            len(curve.truth_sizes),
            int(curve.n_predicted[k]),
            int(curve.found[k].sum()),
            int(curve.correct[k]),
            self.n_truth * self.voxel_mm3,
            int(self.tp[k] + self.fp[k]) * self.voxel_mm3,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the counts in a form that JSON can hold; the numbers of the presets are not."""
        return {
            "thresholds": self.thresholds.tolist(),
            "tp": self.tp.tolist(),
            "fp": self.fp.tolist(),
            "n_truth": self.n_truth,
            "voxel_mm3": self.voxel_mm3,
            "lesions": {
                preset: {name: values.astype(int).tolist() for name, values in vars(curve).items()}
                for preset, curve in self.lesions.items()
            },
        }


def from_dict(stored: Mapping[str, Any]) -> ScanCounts:
    """Return the counts that `ScanCounts.to_dict` wrote.

    Raises
    ------
    KeyError, TypeError, ValueError
        It did not.
    """
    n = len(stored["thresholds"])
    lesions = {}
    for preset in PRESETS:
        own = stored["lesions"][preset]
        sizes = np.array(own["truth_sizes"], dtype=np.int64)
        lesions[preset] = LesionCurve(
            np.array(own["n_predicted"], dtype=np.int64).reshape(n),
            np.array(own["correct"], dtype=np.int64).reshape(n),
            np.array(own["found"], dtype=bool).reshape(n, len(sizes)),
            sizes,
        )
    return ScanCounts(
        np.array(stored["thresholds"], dtype=np.float64),
        np.array(stored["tp"], dtype=np.int64).reshape(n),
        np.array(stored["fp"], dtype=np.int64).reshape(n),
        int(stored["n_truth"]),
        float(stored["voxel_mm3"]),
        lesions,
    )


def sweep(
    truth: NDArray[np.bool_],
    pmap: NDArray[np.floating[Any]],
    thresholds: ArrayLike = THRESHOLDS,
) -> ScanCounts:
    """Count voxels at every threshold as `binarize` would decide them.

    Parameters
    ----------
    truth : (X, Y, Z) bool
        Manual mask on the native grid.
    pmap : (X, Y, Z) floating, in [0, 1]
        Probabilities on the same grid.
    thresholds : (T,) array_like
        Rising, in [0, 1].

    Returns
    -------
    ScanCounts
        Without lesions.

    Raises
    ------
    GeometryError
        The shapes differ.
    UsageError
        The thresholds do not rise, or are outside [0, 1].
    """
    cuts = np.asarray(thresholds, dtype=np.float64)
    if truth.shape != pmap.shape:
        raise GeometryError(
            f"the mask has shape {truth.shape} and the p-map {pmap.shape}, expected one grid; "
            "threshold the p-map on the mask's own grid"
        )
    if cuts.size == 0 or cuts[0] < 0 or cuts[-1] > 1 or (np.diff(cuts) <= 0).any():
        raise UsageError(f"thresholds are {cuts.tolist()}, expected rising numbers from 0 to 1")
    lesion = truth.astype(bool, copy=False)
    native = compared(cuts, pmap.dtype)
    everything = int(np.count_nonzero(native <= 0))
    above = pmap > 0  # most of a p-map is exactly 0: outside the cord crop
    passed = np.searchsorted(native, pmap[above], side="right")
    positives = np.bincount(passed, minlength=cuts.size + 1)
    hits = np.bincount(passed[lesion[above]], minlength=cuts.size + 1)
    n_truth = int(np.count_nonzero(lesion))
    positives[everything] += pmap.size - int(np.count_nonzero(above))
    hits[everything] += n_truth - int(np.count_nonzero(lesion[above]))
    # A voxel that passed k thresholds is in the masks of the first k of them.
    predicted = positives[::-1].cumsum()[::-1][1:]
    tp = hits[::-1].cumsum()[::-1][1:]
    return ScanCounts(cuts, tp.astype(np.int64), (predicted - tp).astype(np.int64), n_truth)


def count(
    truth: NDArray[np.bool_],
    pmap: NDArray[np.floating[Any]],
    spacing_mm: Sequence[float],
    thresholds: ArrayLike = THRESHOLDS,
    presets: Sequence[str] = tuple(PRESETS),
) -> ScanCounts:
    """Count voxels, and lesions as `metrics.lesionwise.score` would, at every threshold.

    Parameters
    ----------
    truth, pmap, thresholds
        See `sweep`.
    spacing_mm : 3 float
        Of their grid.
    presets : sequence of str
        Rules to count lesions by; keys of `metrics.PRESETS`.

    Returns
    -------
    ScanCounts

    Raises
    ------
    GeometryError
        The shapes differ, or the spacing is none.
    UsageError
        No preset has this name; the thresholds do not rise, or are outside [0, 1].
    """
    voxel_mm3 = lesionwise.voxel_volume_mm3(spacing_mm)
    counted = replace(sweep(truth, pmap, thresholds), voxel_mm3=voxel_mm3)
    # The masks shrink as the threshold rises: all but the one of threshold 0 lie in one box.
    lowest = next((cut for cut in counted.thresholds if cut > 0), 1.0)
    mask = truth.astype(bool, copy=False)
    box = lesionwise.bounding_box(mask | binarize(pmap, lowest))
    lesions = {name: _lesions(mask[box], pmap[box], counted, name) for name in presets}
    return replace(counted, lesions=lesions)


def _lesions(
    truth: NDArray[np.bool_], pmap: NDArray[np.floating[Any]], counted: ScanCounts, preset: str
) -> LesionCurve:
    """Count lesions in the box of the masks; `counted` are the voxels of the whole grid."""
    rule = lesionwise.find(preset)
    labels = lesionwise.components(truth, rule.connectivity)
    before = -1
    rows = []
    for cut, voxels in zip(counted.thresholds, counted.tp + counted.fp, strict=True):
        if voxels != before:
            if cut == 0:  # one lesion, which fills the whole grid
                table = lesionwise.overlap(labels, np.ones_like(labels))
                table = replace(table, predicted_sizes=np.array([voxels]))
            else:
                mask = binarize(pmap, cut)
                table = lesionwise.overlap(labels, lesionwise.components(mask, rule.connectivity))
            table = lesionwise.counted(table, rule, counted.voxel_mm3)
            found, correct = lesionwise.detected(table, rule)
        rows.append((len(correct), int(correct.sum()), found))
        before = voxels
    n_predicted, n_correct, detected = zip(*rows, strict=True)
    return LesionCurve(
        np.array(n_predicted), np.array(n_correct), np.array(detected), table.truth_sizes
    )
