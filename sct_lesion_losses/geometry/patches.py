"""Cubic patches along the crop, and their stitching into one map."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sct_lesion_losses.errors import GeometryError

PATCH_VOX = 48  # Hussein et al. 2023, section 2.1
STRIDE_VOX = 12  # 75 % overlap: Hussein et al. 2023, section 2.3


@dataclass(frozen=True)
class Way:
    """One of the ways in which a patch may lie in the plane of a crop.

    Attributes
    ----------
    mirrored : tuple of int
        Axes along which it is mirrored: 0 is x, 1 is y.
    shift : (int, int)
        Voxels by which it is moved in x and y.
    """

    mirrored: tuple[int, ...] = ()
    shift: tuple[int, int] = (0, 0)


AS_IT_IS = (Way(),)
# Test-time augmentation: with 75 % overlap four patches hold a voxel, and a network sees it in each
# of these ways once, at no cost. Within 18 mm of the ends of a crop fewer patches overlap, and in a
# crop of one patch the first way is the only one.
FOUR_WAYS = (Way(), Way((0,), (-1, 0)), Way((1,), (0, 1)), Way((0, 1), (0, -1)))


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
    values: npt.NDArray[Any],
    starts: Sequence[int],
    size: int = PATCH_VOX,
    ways: Sequence[Way] = AS_IT_IS,
) -> npt.NDArray[np.float32]:
    """Patches of a crop.

    Parameters
    ----------
    values : (X + 2M, Y + 2M, Z)
        M is the `reach` of the ways, 0 where they move nothing.
    starts : sequence of N int
        First slice of each patch.
    size : int
        Slices of a patch.
    ways : sequence of Way
        How the patches lie, in turn; the first and the last are not moved, so that every voxel is
        in a patch as long as one of the ways moves nothing.

    Returns
    -------
    (N, X, Y, size) float32
    """
    places = _places(values.shape[:2], starts, size, ways)
    return np.stack([np.flip(values[place], axes) for place, axes in places], dtype=np.float32)


def stitch(
    patches: npt.NDArray[np.float32],
    starts: Sequence[int],
    length: int,
    ways: Sequence[Way] = AS_IT_IS,
) -> npt.NDArray[np.float32]:
    """Average overlapping patches into one map; the inverse of `extract`.

    Parameters
    ----------
    patches : (N, X, Y, S) float32
    starts : sequence of N int
        First slice of each patch; together they cover the map, see `patch_starts`.
    length : int
        Slices of the map.
    ways : sequence of Way
        How the patches lie, as they were extracted.

    Returns
    -------
    (X, Y, length) float32
        Without the margin.
    """
    side = reach(ways)
    x, y = (n + 2 * side for n in patches.shape[1:3])
    total, times = np.zeros((x, y, length)), np.zeros((x, y, length))
    places = _places((x, y), starts, patches.shape[3], ways)
    for patch, (place, axes) in zip(patches, places, strict=True):
        total[place] += np.flip(patch, axes)
        times[place] += 1
    inner = np.s_[side : x - side, side : y - side]
    return (total[inner] / times[inner]).astype(np.float32)


def reach(ways: Sequence[Way]) -> int:
    """Voxels on each side of a crop that its patches reach into."""
    return max(abs(step) for way in ways for step in way.shift)


def _places(
    shape: tuple[int, ...], starts: Sequence[int], size: int, ways: Sequence[Way]
) -> Iterator[tuple[tuple[slice, ...], tuple[int, ...]]]:
    """Box of each patch in a crop with its margin, and the axes along which it is mirrored."""
    side, last = reach(ways), len(starts) - 1
    for number, (start, way) in enumerate(zip(starts, itertools.cycle(ways), strict=False)):
        x, y = (side + step * (0 < number < last) for step in way.shift)
        wide, high = (n - 2 * side for n in shape)
        yield np.s_[x : x + wide, y : y + high, start : start + size], way.mirrored
