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
    fp: int
    fn: int
    sensitivity: float
    precision: float
    f1: float


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
    n_truth, n_predicted = int(truth.sum()), int(prediction.sum())
    tp = int((truth & prediction).sum())
    if n_truth == 0:
        sensitivity = precision = f1 = float("nan")
    else:
        sensitivity = tp / n_truth
        precision = tp / n_predicted if n_predicted else 0.0
        f1 = 2 * tp / (n_truth + n_predicted)
    return VoxelScore(
        n_truth=n_truth,
        n_predicted=n_predicted,
        tp=tp,
        fp=n_predicted - tp,
        fn=n_truth - tp,
        sensitivity=sensitivity,
        precision=precision,
        f1=f1,
    )
