"""Lesions of a mask: connected components, and what is measured on each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from sct_lesion_losses.errors import GeometryError

Connectivity = Literal[6, 18, 26]
CONNECTIVITY: Connectivity = 18  # what sct_analyze_lesion counts
_RANK = {6: 1, 18: 2, 26: 3}


@dataclass(frozen=True)
class Lesion:
    """One connected component of a mask.

    Attributes
    ----------
    label : int
        Its number, 1 for the largest.
    volume_mm3 : float
    length_mm : float
        Extent along the voxel axis nearest to superior-inferior, whole voxels.
    centre_mm : (x, y, z)
        Mean of its voxel centres, world mm (x to the right, y to the front, z up).
    mean_probability, highest_probability : float
        Of the p-map inside it.
    """

    label: int
    volume_mm3: float
    length_mm: float
    centre_mm: tuple[float, float, float]
    mean_probability: float
    highest_probability: float

    @property
    def vanishes_above(self) -> float:
        """Highest threshold at which a voxel of it is left: its highest probability.

        `p >= t` keeps that voxel at this threshold and drops it at any above.
        """
        return self.highest_probability


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
    box = _bounding_box(found)
    if box is None:
        return labels
    structure = ndimage.generate_binary_structure(3, _RANK[connectivity])
    part, count = ndimage.label(found[box], structure=structure)
    sizes = np.bincount(part.ravel(), minlength=count + 1)[1:]
    rank = np.zeros(count + 1, dtype=np.int32)
    rank[1 + np.argsort(-sizes, kind="stable")] = np.arange(1, count + 1)
    labels[box] = rank[part]
    return labels


def measures(
    labels: npt.NDArray[np.integer[Any]],
    pmap: npt.NDArray[np.floating[Any]],
    affine: npt.NDArray[np.float64],
) -> list[Lesion]:
    """Measure each lesion of a labelled mask.

    Parameters
    ----------
    labels : (X, Y, Z) int
        From :func:`components`.
    pmap : (X, Y, Z) floating, in [0, 1]
    affine : (4, 4) float64
        Voxels to world mm.

    Returns
    -------
    list of Lesion
        By label; empty for an empty mask.

    Raises
    ------
    GeometryError
        The two arrays differ in shape.
    """
    if labels.shape != pmap.shape:
        raise GeometryError(f"labels {labels.shape} and p-map {pmap.shape} are on different grids")
    steps = np.asarray(affine, dtype=np.float64)[:3, :3]
    spacing_mm = np.linalg.norm(steps, axis=0)
    axis = int(np.argmax(np.abs(steps[2] / spacing_mm)))
    voxel_mm3 = float(abs(np.linalg.det(steps)))
    lesions = []
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None:
            continue
        inside = labels[box] == label
        probabilities = pmap[box][inside]
        start = np.array([side.start for side in box])
        centre = steps @ (start + np.argwhere(inside).mean(axis=0)) + affine[:3, 3]
        lesions.append(
            Lesion(
                label=label,
                volume_mm3=probabilities.size * voxel_mm3,
                length_mm=float((box[axis].stop - box[axis].start) * spacing_mm[axis]),
                centre_mm=(float(centre[0]), float(centre[1]), float(centre[2])),
                mean_probability=float(probabilities.mean(dtype=np.float64)),
                highest_probability=float(probabilities.max()),
            )
        )
    return lesions


def _bounding_box(mask: npt.NDArray[np.bool_]) -> tuple[slice, slice, slice] | None:
    """Smallest box that holds a mask; None for an empty one."""
    sides = []
    for axis in range(3):
        others = tuple(k for k in range(3) if k != axis)
        where = np.flatnonzero(mask.any(axis=others))
        if where.size == 0:
            return None
        sides.append(slice(int(where[0]), int(where[-1]) + 1))
    return sides[0], sides[1], sides[2]
