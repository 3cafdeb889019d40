"""Cubic patches along the crop, and their stitching into one map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sct_lesion_losses.errors import GeometryError

PATCH_VOX = 48  # Hussein et al. 2023, section 2.1
STRIDE_VOX = 12  # 75 % overlap: Hussein et al. 2023, section 2.3


def patch_starts(length: int, size: int = PATCH_VOX, stride: int = STRIDE_VOX) -> list[int]:
    """First slice of every patch along z; together the patches cover the crop.

    The last patch is moved back to end at `length`, so its overlap may exceed 75 %.

    >>> patch_starts(61)
    [0, 12, 13]

    Raises
    ------
    GeometryError
        The crop is shorter than one patch.
    """
    if length < size:
        raise GeometryError(
            f"the crop has {length} slices, a patch needs {size}; pad the crop first"
        )
    starts = list(range(0, length - size + 1, stride))
    if starts[-1] + size < length:
        starts.append(length - size)
    return starts


def extract(
    values: npt.NDArray[Any], starts: Sequence[int], size: int = PATCH_VOX
) -> npt.NDArray[np.float32]:
    """Patches of a crop.

    Parameters
    ----------
    values : (X, Y, Z)
    starts : sequence of N int
        First slice of each patch.
    size : int
        Slices of a patch.

    Returns
    -------
    (N, X, Y, size) float32
    """
    return np.stack([values[:, :, z : z + size] for z in starts], dtype=np.float32)


def stitch(
    patches: npt.NDArray[np.float32], starts: Sequence[int], length: int
) -> npt.NDArray[np.float32]:
    """Average overlapping patches into one map; the inverse of `extract`.

    Parameters
    ----------
    patches : (N, X, Y, S) float32
    starts : sequence of N int
        First slice of each patch; together they cover the map, see `patch_starts`.
    length : int
        Slices of the map.

    Returns
    -------
    (X, Y, length) float32
    """
    size = patches.shape[3]
    total = np.zeros((*patches.shape[1:3], length))
    times = np.zeros(length)
    for patch, start in zip(patches, starts, strict=True):
        total[:, :, start : start + size] += patch
        times[start : start + size] += 1
    return (total / times).astype(np.float32)
