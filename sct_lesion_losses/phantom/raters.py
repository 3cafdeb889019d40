"""Lesion masks as people draw them: borders a little off, the faintest lesions overlooked."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from sct_lesion_losses.phantom.lesions import MEDIAN_RATIO, SPREAD_RATIO
from sct_lesion_losses.phantom.noise import Floats

# Where half of a voxel is lesion, the border is right; a rater's own share moves it by up to about
# half a voxel to either side.
_BORDER = (0.1, 0.9)
_OVERLOOKED = (0.1, 0.2)  # share of all lesions, the faintest


def rater_mask(
    rng: np.random.Generator,
    share: Floats,
    cord: npt.NDArray[np.bool_],
    owners: npt.NDArray[np.int32],
    ratios: npt.NDArray[np.float64],
) -> npt.NDArray[np.bool_]:
    """Draw what one rater marks in a scan.

    Parameters
    ----------
    rng : Generator
    share : (X, Y, Z) float32
        Share of each voxel inside a lesion.
    cord : (X, Y, Z) bool
    owners : (X, Y, Z) int32
        Index of the lesion that a voxel belongs to; -1 where it belongs to none.
    ratios : (N,) float64
        Brightness of the lesions relative to the tissue around them.

    Returns
    -------
    (X, Y, Z) bool
        Inside the cord. A lesion is overlooked where its ratio is among the lowest 10 to 20 % of
        the distribution that lesions are drawn from, so many scans lose none.
    """
    border = rng.uniform(*_BORDER)
    overlooked = rng.uniform(*_OVERLOOKED)
    faint = MEDIAN_RATIO * np.exp(SPREAD_RATIO * NormalDist().inv_cdf(overlooked))
    seen = np.append(ratios >= faint, False)  # the last is that of voxels without a lesion
    mask: npt.NDArray[np.bool_] = (share >= border) & cord & seen[owners]
    return mask
