"""How the lesions of two masks overlap: the contingency table of their labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Overlap:
    """Sizes of the lesions of two masks, and what each pair of them has in common.

    Pairs without a common voxel are left out: a noisy mask has thousands of components, and nearly
    all of its pairs are empty. Lesions are counted from 0, in the order of their labels.

    Attributes
    ----------
    truth_sizes : (R,) int64
        Voxels of each lesion of the manual mask.
    predicted_sizes : (T,) int64
        Voxels of each predicted lesion.
    truth, predicted : (P,) int64
        The two lesions of each overlapping pair.
    voxels : (P,) int64
        What they have in common, at least 1.
    """

    truth_sizes: IntArray
    predicted_sizes: IntArray
    truth: IntArray
    predicted: IntArray
    voxels: IntArray

    def swapped(self) -> Overlap:
        """Return the table with the roles of manual mask and prediction exchanged."""
        return Overlap(
            self.predicted_sizes, self.truth_sizes, self.predicted, self.truth, self.voxels
        )

    def larger_than(self, volume_vox: float) -> Overlap:
        """Return the table without the lesions of at most this volume, in the same order."""
        return self.only(self.truth_sizes > volume_vox, self.predicted_sizes > volume_vox)

    def only(self, truth: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> Overlap:
        """Return the table of these lesions alone, (R,) and (T,) bool, in the same order."""
        kept = truth[self.truth] & predicted[self.predicted]
        return Overlap(
            self.truth_sizes[truth],
            self.predicted_sizes[predicted],
            (np.cumsum(truth) - 1)[self.truth[kept]],
            (np.cumsum(predicted) - 1)[self.predicted[kept]],
            self.voxels[kept],
        )


def overlap(truth: NDArray[np.integer[Any]], prediction: NDArray[np.integer[Any]]) -> Overlap:
    """Count the voxels that each pair of lesions has in common.

    Parameters
    ----------
    truth, prediction : (X, Y, Z) int
        Labels 1, 2, … of the lesions of both masks, 0 outside.

    Returns
    -------
    Overlap
    """
    truth_sizes, predicted_sizes = sizes(truth), sizes(prediction)
    both = (truth > 0) & (prediction > 0)
    n = max(len(predicted_sizes), 1)
    codes = (truth[both].astype(np.int64) - 1) * n + prediction[both] - 1
    pairs, voxels = np.unique(codes, return_counts=True)
    return Overlap(truth_sizes, predicted_sizes, pairs // n, pairs % n, voxels.astype(np.int64))


def sizes(labels: NDArray[np.integer[Any]]) -> IntArray:
    """Voxels of the lesions 1, 2, … of a labelled mask."""
    return np.bincount(labels[labels > 0], minlength=1)[1:].astype(np.int64)
