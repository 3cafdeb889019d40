"""Cubic patches along the crop, and their stitching into one map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sct_lesion_losses.errors import GeometryError

PATCH_VOX = 48  # Hussein et al. 2023, section 2.1
STRIDE_VOX = 12  # 75 % overlap: Hussein et al. 2023, section 2.3

Weighting = Literal["mean", "hann"]


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
    patches = np.empty((len(starts), *values.shape[:2], size), np.float32)
    for k, start in enumerate(starts):
        patches[k] = values[:, :, start : start + size]
    return patches


def stitch(
    patches: npt.NDArray[np.float32],
    starts: Sequence[int],
    length: int,
    weighting: Weighting = "mean",
) -> npt.NDArray[np.float32]:
    """Average overlapping patches into one map; the inverse of `extract`.

    Parameters
    ----------
    patches : (N, X, Y, S) float32
    starts : sequence of N int
        First slice of each patch.
    length : int
        Slices of the map.
    weighting : {"mean", "hann"}
        Every patch counts the same (the study's rule), or by a Hann window along z, which
        trusts the middle of a patch more than its ends.

    Returns
    -------
    (X, Y, length) float32

    Raises
    ------
    GeometryError
        A slice of the map lies in no patch, or a patch reaches beyond the map.
    """
    size = patches.shape[3]
    if len(starts) != len(patches) or min(starts) < 0 or max(starts) + size > length:
        raise GeometryError(
            f"{len(patches)} patches of {size} slices at {list(starts)} do not fit {length} slices"
        )
    # k + 0.5 keeps the first and last slice of a Hann window above zero.
    ramp = (
        np.ones(size)
        if weighting == "mean"
        else np.sin(np.pi * (np.arange(size) + 0.5) / size) ** 2
    )
    total = np.zeros((*patches.shape[1:3], length))
    weight = np.zeros(length)
    for patch, start in zip(patches, starts, strict=True):
        total[:, :, start : start + size] += patch * ramp
        weight[start : start + size] += ramp
    if weight.min() <= 0:
        raise GeometryError(f"slice {int(weight.argmin())} of the map lies in no patch")
    return (total / weight).astype(np.float32)
