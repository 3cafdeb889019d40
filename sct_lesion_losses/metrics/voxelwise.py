"""Voxel-wise agreement of two masks on one grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sct_lesion_losses.errors import GeometryError


@dataclass(frozen=True)
class VoxelScore:
    """Voxel-wise scores of one scan; see `score`.

    Attributes
    ----------
    n_truth, n_predicted : int
        Voxels of the manual mask and of the prediction.
    tp, fp, fn : int
        True positive, false positive and false negative voxels.
    sensitivity, precision, f1 : float
        V-sensitivity, V-precision and V-F1; NaN where the manual mask is empty.
    """

    n_truth: int
    n_predicted: int
    tp: int

    @property
    def fp(self) -> int:
        """False positive voxels."""
        return self.n_predicted - self.tp

    @property
    def fn(self) -> int:
        """False negative voxels."""
        return self.n_truth - self.tp

    @property
    def sensitivity(self) -> float:
        """V-sensitivity; NaN where the manual mask is empty."""
        return self.tp / self.n_truth if self.n_truth else float("nan")

    @property
    def precision(self) -> float:
        """V-precision; NaN where the manual mask is empty, 0 where only the prediction is."""
        return self.tp / max(self.n_predicted, 1) if self.n_truth else float("nan")

    @property
    def f1(self) -> float:
        """V-F1; NaN where the manual mask is empty."""
        return 2 * self.tp / (self.n_truth + self.n_predicted) if self.n_truth else float("nan")


def score(truth: NDArray[np.bool_], prediction: NDArray[np.bool_]) -> VoxelScore:
    """Voxel-wise sensitivity, precision and F1 of a prediction.

    Parameters
    ----------
    truth, prediction : (X, Y, Z) bool
        Manual mask and predicted mask on the native grid.

    Returns
    -------
    VoxelScore
        Scores are NaN where the manual mask is empty, 0 where only the prediction is.

    Raises
    ------
    GeometryError
        The shapes differ.
    """
    if truth.shape != prediction.shape:
        raise GeometryError(
            f"the manual mask has shape {truth.shape} and the prediction {prediction.shape}, "
            "expected one grid"
        )
    truth, prediction = truth.astype(bool, copy=False), prediction.astype(bool, copy=False)
    counts = (int(np.count_nonzero(mask)) for mask in (truth, prediction, truth & prediction))
    return VoxelScore(*counts)
