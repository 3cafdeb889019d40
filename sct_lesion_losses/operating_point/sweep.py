"""The voxel-wise curve of a scan over all decision thresholds, from one pass over its p-map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sct_lesion_losses.errors import GeometryError, UsageError
from sct_lesion_losses.operating_point.binarize import compared

THRESHOLDS = tuple(k / 20 for k in range(21))  # Hussein et al. 2023, section 2.5

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


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
        if self.n_truth == 0:
            return np.full(len(self.tp), np.nan)
        weight = beta**2
        hits = (1 + weight) * self.tp
        return np.asarray(hits / (self.tp + self.fp + weight * self.n_truth), dtype=np.float64)

    @property
    def sensitivity(self) -> FloatArray:
        """V-sensitivity = TP / (TP + FN), (T,); NaN throughout where the scan holds no lesion."""
        if self.n_truth == 0:
            return np.full(len(self.tp), np.nan)
        return np.asarray(self.tp / self.n_truth, dtype=np.float64)

    @property
    def precision(self) -> FloatArray:
        """V-precision = TP / (TP + FP), (T,); 0 where nothing is predicted, NaN without lesion."""
        if self.n_truth == 0:
            return np.full(len(self.tp), np.nan)
        return np.asarray(self.tp / np.maximum(self.tp + self.fp, 1), dtype=np.float64)


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
    above = pmap > 0  # most of a p-map is exactly 0: outside the tube
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
