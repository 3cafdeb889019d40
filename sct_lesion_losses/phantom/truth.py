"""Ground truth of a scan: the label on its voxels, and what became of each lesion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from sct_lesion_losses.phantom.acquisition import Acquired
from sct_lesion_losses.phantom.anatomy import Body
from sct_lesion_losses.phantom.lesions import Lesion, Lesions, distance
from sct_lesion_losses.phantom.raters import rater_mask
from sct_lesion_losses.space.grid import Grid

SMALLEST_MM3 = 5.0  # of a labelled component

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class LesionRecord:
    """What became of a lesion in a scan.

    Attributes
    ----------
    lesion : Lesion
    number : int
        1 for the scan's first lesion.
    volume_mm3 : float
        Labelled volume that belongs to it.
    labelled : bool
        False where too little of it is in any voxel, or what there is was dropped as a speck.
    """

    lesion: Lesion
    number: int
    volume_mm3: float
    labelled: bool


@dataclass(frozen=True, eq=False)
class Truth:
    """Labels of a scan, on its grid in RPI.

    Attributes
    ----------
    cord, lesion : (X, Y, Z) bool
        At least half of the voxel inside; the lesions within the cord, without specks.
    dropped : int
        Labelled components that were too small to be kept.
    records : tuple of LesionRecord
    raters : tuple of (X, Y, Z) bool
        What each rater marks as lesion.
    """

    cord: Mask
    lesion: Mask
    dropped: int
    records: tuple[LesionRecord, ...]
    raters: tuple[Mask, ...]


def label(
    body: Body,
    lesions: Lesions,
    acquired: Acquired,
    grid: Grid,
    raters: tuple[np.random.Generator, ...] = (),
) -> Truth:
    """Label a scan by the share of its voxels inside cord and lesions.

    Parameters
    ----------
    body : Body
    lesions : Lesions
    acquired : Acquired
    grid : Grid
        RPI grid of the scan.
    raters : tuple of Generator
        One for each rater who marks the lesions, too.
    """
    size = grid.voxel_volume_mm3
    cord = acquired.cord >= 0.5
    lesion, dropped = _without_specks((acquired.lesion >= 0.5) & cord, size)
    owners = _owners(body, lesions, acquired.lesion > 0, grid)
    ratios = np.array([item.ratio for item in lesions.items])
    marked = (rater_mask(rng, acquired.lesion, cord, owners, ratios) for rng in raters)
    return Truth(
        cord=cord,
        lesion=lesion,
        dropped=dropped,
        records=_records(lesions, owners[lesion], size),
        raters=tuple(_without_specks(mask, size)[0] for mask in marked),
    )


def _without_specks(mask: Mask, voxel_mm3: float) -> tuple[Mask, int]:
    """Drop the components under `SMALLEST_MM3`, faces, edges and corners connected."""
    parts, count = ndimage.label(mask, np.ones((3, 3, 3)))
    sizes = np.bincount(parts.ravel(), minlength=count + 1) * voxel_mm3
    kept = sizes >= SMALLEST_MM3
    kept[0] = False
    return np.take(kept, parts), int(count - kept.sum())


def _owners(
    body: Body, lesions: Lesions, touched: npt.NDArray[np.bool_], grid: Grid
) -> npt.NDArray[np.int32]:
    """Index of the lesion that each touched voxel lies deepest in; -1 elsewhere."""
    owners = np.full(touched.shape, -1, np.int32)
    voxels = np.argwhere(touched)
    if len(voxels):
        u, v, s = (x.astype(np.float32) for x in body.coordinates(grid.to_world(voxels)))
        index = body.index(s)
        t = {k: body.tables[k].take(index) for k in ("cord_u", "cord_v", "cord_ru", "cord_rv")}
        a, b = (u - t["cord_u"]) / t["cord_ru"], (v - t["cord_v"]) / t["cord_rv"]
        radius = (t["cord_ru"] + t["cord_rv"]) * np.float32(0.5)
        depths = [distance(item, lesions, a, b, s, u, v, radius) for item in lesions.items]
        owners[touched] = np.argmin(depths, axis=0)
    return owners


def _records(
    lesions: Lesions, owners: npt.NDArray[np.int32], voxel_mm3: float
) -> tuple[LesionRecord, ...]:
    """Count the labelled voxels, whose owners are given, of each lesion."""
    counts = np.bincount(owners, minlength=len(lesions.items))
    return tuple(
        LesionRecord(item, k + 1, float(n * voxel_mm3), bool(n))
        for k, (item, n) in enumerate(zip(lesions.items, counts, strict=True))
    )
