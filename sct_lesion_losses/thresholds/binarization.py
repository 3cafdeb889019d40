"""Application of a decision threshold: the one rule that tuning and use share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sct_lesion_losses.errors import UsageError

BoolArray = NDArray[np.bool_]


def binarize(pmap: NDArray[np.floating[Any]], threshold: float) -> BoolArray:
    """Voxels whose probability is at least the threshold.

    The threshold is cast to the map's dtype first: in float32 a voxel of 0.35 is in the mask at
    threshold 0.35, although float32(0.35) < 0.35. Threshold 0 gives everything.

    Parameters
    ----------
    pmap : (X, Y, Z) floating, in [0, 1]
        Probabilities.
    threshold : float
        In [0, 1].

    Returns
    -------
    (X, Y, Z) bool

    Raises
    ------
    UsageError
        The threshold is outside [0, 1], or the map does not hold floating-point numbers.
    """
    if not 0 <= threshold <= 1:
        raise UsageError(f"the threshold is {threshold!r}, expected a number from 0 to 1")
    if not np.issubdtype(pmap.dtype, np.floating):
        raise UsageError(
            f"the p-map holds {pmap.dtype} values, expected floating-point probabilities; "
            "was a mask given in its place?"
        )
    return np.asarray(pmap >= compared(np.float64(threshold), pmap.dtype))


def compared(
    thresholds: np.float64 | NDArray[np.float64], dtype: np.dtype[Any]
) -> NDArray[np.floating[Any]]:
    """Cast thresholds to what the voxels of a map of this dtype are compared with."""
    cast = np.asarray(thresholds).astype(dtype)
    lost = (cast == 0) & (thresholds > 0)
    if lost.any():  # only the threshold 0 gives everything
        cast = np.where(lost, np.finfo(dtype).smallest_subnormal, cast)
    return cast
