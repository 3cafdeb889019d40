"""Connected components of a mask, and the box that holds it."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Connectivity = Literal[6, 18, 26]
CONNECTIVITY: Connectivity = 18  # what sct_analyze_lesion counts
_RANK = {6: 1, 18: 2, 26: 3}


def components(
    mask: npt.NDArray[Any], connectivity: Connectivity = CONNECTIVITY
) -> npt.NDArray[np.int32]:
    """Label the connected components of a mask, the largest as 1.

    Components of one size keep the order of their first voxels.

    Parameters
    ----------
    mask : (X, Y, Z) bool, or {0, 1}
    connectivity : 6, 18 or 26
        Neighbours of a voxel: by faces; also by edges; also by corners.

    Returns
    -------
    (X, Y, Z) int32
        0 outside; 1, 2, … inside.
    """
    found = np.asarray(mask, dtype=bool)
    labels = np.zeros(found.shape, dtype=np.int32)
    box = bounding_box(found)
    if box is None:
        return labels
    structure = ndimage.generate_binary_structure(3, _RANK[connectivity])
    part, count = ndimage.label(found[box], structure=structure)
    sizes = np.bincount(part.ravel(), minlength=count + 1)[1:]
    rank = np.zeros(count + 1, dtype=np.int32)
    rank[1 + np.argsort(-sizes, kind="stable")] = np.arange(1, count + 1)
    labels[box] = rank[part]
    return labels


def bounding_box(mask: npt.NDArray[np.bool_]) -> tuple[slice, slice, slice] | None:
    """Smallest box that holds an (X, Y, Z) mask; None for an empty one."""
    sides = []
    for axis in range(3):
        others = tuple(k for k in range(3) if k != axis)
        where = np.flatnonzero(mask.any(axis=others))
        if where.size == 0:
            return None
        side = slice(int(where[0]), int(where[-1]) + 1)
        sides.append(side)
        mask = mask[(slice(None),) * axis + (side,)]  # the next axis has less to look at
    return sides[0], sides[1], sides[2]
