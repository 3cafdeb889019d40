"""Counts of one scan at all thresholds, from which every score follows.

Voxels come from one pass over the histogram of the p-map, lesions from the masks, each labelled
once unless it is like the one before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sct_lesion_losses.errors import GeometryError, UsageError
from sct_lesion_losses.metrics import lesionwise
from sct_lesion_losses.metrics.lesionwise import (
    PRESETS,
    LesionScore,
    Overlap,
    Preset,
    bounding_box,
    components,
    overlap,
    sizes,
)
from sct_lesion_losses.metrics.voxelwise import VoxelScore
from sct_lesion_losses.thresholds import THRESHOLDS
from sct_lesion_losses.thresholds.binarization import binarize, compared

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_SAME = 1e-9  # thresholds that differ by less are one


@dataclass(frozen=True, eq=False)
class Curve:
    """Voxel counts of one scan at each threshold.

    Attributes
    ----------
    thresholds : (T,) float64
        Rising.
    tp, fp : (T,) int64
        True and false positive voxels.
    n_truth : int
        Lesion voxels of the scan.
    """

    thresholds: FloatArray
    tp: IntArray
    fp: IntArray
    n_truth: int

    @property
    def fn(self) -> IntArray:
        """False negative voxels, (T,)."""
        return self.n_truth - self.tp

    @property
    def f1(self) -> FloatArray:
        """V-F1 = 2TP / (2TP + FP + FN), (T,); NaN throughout where the scan holds no lesion."""
        return self.f_beta(1.0)

    def f_beta(self, beta: float) -> FloatArray:
        """V-F-beta, (T,); NaN throughout where the scan holds no lesion.

        (1 + b^2) TP / ((1 + b^2) TP + b^2 FN + FP): sensitivity counts b times as much as
        precision.

        References
        ----------
        van Rijsbergen 1979, "Information Retrieval", chapter 7
        """
        weight = beta**2
        return self._share((1 + weight) * self.tp, self.tp + self.fp + weight * self.n_truth)

    @property
    def sensitivity(self) -> FloatArray:
        """V-sensitivity = TP / (TP + FN), (T,); NaN throughout where the scan holds no lesion."""
        return self._share(self.tp, self.n_truth)

    @property
    def precision(self) -> FloatArray:
        """V-precision = TP / (TP + FP), (T,); 0 where nothing is predicted, NaN without lesion."""
        return self._share(self.tp, np.maximum(self.tp + self.fp, 1))

    def _share(self, hits: NDArray[Any], of: NDArray[Any] | int) -> FloatArray:
        if self.n_truth == 0:
            return np.full(len(self.tp), np.nan)
        return np.asarray(hits / of, dtype=np.float64)


def checked(
    truth: NDArray[Any], pmap: NDArray[np.floating[Any]], thresholds: ArrayLike
) -> tuple[NDArray[np.bool_], FloatArray]:
    """Return the manual mask as bool and the thresholds as an array, if a sweep can use them.

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
    return truth.astype(bool, copy=False), cuts


def sweep(
    truth: NDArray[np.bool_],
    pmap: NDArray[np.floating[Any]],
    thresholds: ArrayLike = THRESHOLDS,
) -> Curve:
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
    Curve

    Raises
    ------
    GeometryError
        The shapes differ.
    UsageError
        The thresholds do not rise, or are outside [0, 1].
    """
    lesion, cuts = checked(truth, pmap, thresholds)
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
    return Curve(cuts, tp.astype(np.int64), (predicted - tp).astype(np.int64), n_truth)


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
        return np.array([lesionwise.scores(self.n_truth, *map(int, row)) for row in counts])


def sweep_lesions(
    truth: NDArray[np.bool_],
    pmap: NDArray[np.floating[Any]],
    spacing_mm: Sequence[float],
    preset: str | Preset = "paper",
    thresholds: ArrayLike = THRESHOLDS,
) -> LesionCurve:
    """Count lesions at every threshold as `binarize` and `metrics.lesionwise.score` would.

    Parameters
    ----------
    truth, pmap, thresholds
        See `sweep`.
    spacing_mm : 3 float
        Of their grid.
    preset : str or Preset
        A key of `metrics.lesionwise.PRESETS`, or numbers of one's own.

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
    rule = lesionwise.find(preset)
    mask, cuts = checked(truth, pmap, thresholds)
    voxel_mm3 = lesionwise.voxel_volume_mm3(spacing_mm)
    # The masks shrink as the threshold rises: all but the one of threshold 0 lie in one box.
    lowest = next((cut for cut in cuts if cut > 0), 1.0)
    box = bounding_box(mask | binarize(pmap, lowest)) or (slice(0), slice(0), slice(0))
    probabilities, labels = pmap[box], components(mask[box], rule.connectivity)
    everything = lesionwise.counted(_everything(sizes(labels), pmap.size), rule, voxel_mm3)
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
            table = lesionwise.counted(table, rule, voxel_mm3)
        found[k], correct = lesionwise.detected(table, rule)
        counts[:, k] = len(correct), correct.sum()
    return LesionCurve(rule, cuts, counts[0], counts[1], found, everything.truth_sizes)


def _everything(truth_sizes: IntArray, voxels: int) -> Overlap:
    """Overlap with the one lesion that fills the whole grid."""
    lesions = np.arange(len(truth_sizes))
    return Overlap(truth_sizes, np.array([voxels]), lesions, np.zeros_like(lesions), truth_sizes)


@dataclass(frozen=True, eq=False)
class ScanCounts:
    """Voxel-wise and lesion-wise counts of one scan.

    Attributes
    ----------
    voxels : Curve
    lesions : mapping of str to LesionCurve
        By the name of the preset, over the same thresholds.
    voxel_mm3 : float
        Volume of a voxel.
    """

    voxels: Curve
    lesions: Mapping[str, LesionCurve]
    voxel_mm3: float

    def index(self, threshold: float) -> int:
        """Index of one of its thresholds.

        Raises
        ------
        UsageError
            It is not one of them.
        """
        there = np.flatnonzero(np.abs(self.voxels.thresholds - threshold) < _SAME)
        if not there.size:
            raise UsageError(
                f"threshold {threshold:g} is not among those that were swept; sweep it as well"
            )
        return int(there[0])

    def voxel_score(self, k: int) -> VoxelScore:
        """Score at the threshold of index k, as `metrics.voxelwise.score` gives it."""
        curve = self.voxels
        tp, fp = int(curve.tp[k]), int(curve.fp[k])
        shares = (float(values[k]) for values in (curve.sensitivity, curve.precision, curve.f1))
        return VoxelScore(curve.n_truth, tp + fp, tp, fp, curve.n_truth - tp, *shares)

    def lesion_score(self, preset: str, k: int) -> LesionScore:
        """Score at the threshold of index k, as `metrics.lesionwise.score` gives it."""
        curve, voxels = self.lesions[preset], self.voxels
        n_predicted, correct = int(curve.n_predicted[k]), int(curve.correct[k])
        counts = curve.n_truth, n_predicted, int(curve.found[k].sum()), correct
        return LesionScore(
            curve.preset,
            *counts,
            voxels.n_truth * self.voxel_mm3,
            int(voxels.tp[k] + voxels.fp[k]) * self.voxel_mm3,
            *lesionwise.scores(*counts),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the counts in a form that JSON can hold; the numbers of the presets are not."""
        return {
            "thresholds": self.voxels.thresholds.tolist(),
            "tp": self.voxels.tp.tolist(),
            "fp": self.voxels.fp.tolist(),
            "n_truth": self.voxels.n_truth,
            "voxel_mm3": self.voxel_mm3,
            "lesions": {
                name: {
                    "n_predicted": curve.n_predicted.tolist(),
                    "correct": curve.correct.tolist(),
                    "found": curve.found.astype(int).tolist(),
                    "truth_sizes": curve.truth_sizes.tolist(),
                }
                for name, curve in self.lesions.items()
            },
        }


def count(
    truth: NDArray[np.bool_],
    pmap: NDArray[np.floating[Any]],
    spacing_mm: Sequence[float],
    thresholds: ArrayLike = THRESHOLDS,
) -> ScanCounts:
    """Count voxels, and lesions by every preset, at every threshold.

    Parameters
    ----------
    truth, pmap, thresholds
        See `sweep`.
    spacing_mm : 3 float
        Of their grid.

    Returns
    -------
    ScanCounts

    Raises
    ------
    GeometryError, UsageError
        See `sweep` and `sweep_lesions`.
    """
    curves = {name: sweep_lesions(truth, pmap, spacing_mm, name, thresholds) for name in PRESETS}
    return ScanCounts(
        sweep(truth, pmap, thresholds), curves, lesionwise.voxel_volume_mm3(spacing_mm)
    )


def from_dict(stored: Mapping[str, Any]) -> ScanCounts:
    """Return the counts that `ScanCounts.to_dict` wrote.

    Raises
    ------
    KeyError, TypeError, ValueError
        It did not.
    """
    cuts = np.array(stored["thresholds"], dtype=np.float64)
    tp, fp = (_counts(stored[name], len(cuts)) for name in ("tp", "fp"))
    curves = {}
    for name, preset in PRESETS.items():
        own = stored["lesions"][name]
        n_truth = len(own["truth_sizes"])
        curves[name] = LesionCurve(
            preset,
            cuts,
            _counts(own["n_predicted"], len(cuts)),
            _counts(own["correct"], len(cuts)),
            np.array(own["found"], dtype=bool).reshape(len(cuts), n_truth),
            _counts(own["truth_sizes"], n_truth),
        )
    voxels = Curve(cuts, tp, fp, int(stored["n_truth"]))
    return ScanCounts(voxels, curves, float(stored["voxel_mm3"]))


def _counts(stored: Sequence[int], n: int) -> NDArray[np.int64]:
    return np.array(stored, dtype=np.int64).reshape(n)
