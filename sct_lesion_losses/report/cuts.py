"""Flat cuts through a scan and its labels, as they appear on a viewer's screen."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sct_lesion_losses.metrics import lesion
from sct_lesion_losses.space.grid import Grid
from sct_lesion_losses.space.resample import Box, values

Axis = Literal[0, 2]
SAGITTAL: Axis = 0
AXIAL: Axis = 2


@dataclass(frozen=True, eq=False)
class Labelled:
    """A scan with its masks, in RPI.

    Attributes
    ----------
    image, lesions, cord : (X, Y, Z)
        Voxels and masks on `grid`; a cord mask that is not known is empty.
    grid : Grid
    xy : (Z, 2) float64
        Centre of the cord in each axial slice, in voxels.
    """

    image: npt.NDArray[Any]
    lesions: npt.NDArray[np.bool_]
    cord: npt.NDArray[np.bool_]
    grid: Grid
    xy: npt.NDArray[np.float64]

    @property
    def slice_to_show(self) -> int:
        """Axial slice with most of the largest lesion; without one, the middle of the cord."""
        labels = lesion.components(self.lesions)
        if labels.any():
            return int(np.argmax((labels == 1).sum(axis=(0, 1))))
        covered = np.flatnonzero(self.cord.any(axis=(0, 1)))
        return int(np.median(covered)) if len(covered) else self.grid.shape[2] // 2

    def centre(self, z: int) -> tuple[float, float, float]:
        """Centre of the cord in an axial slice, in voxels."""
        return float(self.xy[z, 0]), float(self.xy[z, 1]), float(z)


@dataclass(frozen=True, eq=False)
class Cut:
    """One plane of a scan, its first row at the bottom.

    The patient's right is on the left of an axial cut, the front on the left of a sagittal one.

    Attributes
    ----------
    image : (H, W) float32
        Linear interpolation in the plane, the voxels of one slice across it.
    lesions, cord : (H, W) float32, in {0, 1}
        The nearest voxel's label.
    extent : (left, right, bottom, top)
        Outer edges of the pixels, mm from the middle of the panel.
    size_mm : (float, float)
        Width and height of the panel; a smaller field of view leaves its edges empty.
    middle : (float, float, float)
        Middle of the panel, in RPI voxels of the scan.
    """

    image: npt.NDArray[np.float32]
    lesions: npt.NDArray[np.float32]
    cord: npt.NDArray[np.float32]
    extent: tuple[float, float, float, float]
    size_mm: tuple[float, float]
    middle: tuple[float, float, float]


def cut(
    scan: Labelled,
    axis: Axis,
    centre: tuple[float, float, float],
    size_mm: tuple[float, float],
    pixel_mm: float,
) -> Cut:
    """Cut a scan along the slice nearest to a point.

    Parameters
    ----------
    scan : Labelled
    axis : {SAGITTAL, AXIAL}
    centre : (x, y, z)
        RPI voxel to show in the middle; moved where the panel would reach out of the field.
    size_mm : (float, float)
        Width and height.
    pixel_mm : float
        Wanted pixel; it gives way, so that a field of view is a whole number of them.
    """
    across, up = (1, 2) if axis == SAGITTAL else (0, 1)
    spacing, shape = scan.grid.spacing_mm, scan.grid.shape
    wanted: list[float | None] = [pixel_mm] * 3
    wanted[axis] = None
    fine = scan.grid.resampled(wanted)
    middle, box = list(centre), [slice(0, 0)] * 3
    edges = {}
    middle[axis] = float(np.clip(math.floor(centre[axis] + 0.5), 0, shape[axis] - 1))
    box[axis] = slice(int(middle[axis]), int(middle[axis]) + 1)
    for k, size in ((across, size_mm[0]), (up, size_mm[1])):
        half = size / 2 / spacing[k]
        middle[k] = _inside(centre[k], half, shape[k])
        box[k], edges[k] = _pixels(middle[k], half, shape[k], spacing[k], fine.spacing_mm[k])
    part: Box = (box[0], box[1], box[2])

    def plane(array: npt.NDArray[Any], order: Literal[0, 1]) -> npt.NDArray[np.float32]:
        found = values(array, scan.grid, fine, part, order).squeeze(axis).T
        return found[:, ::-1] if axis == SAGITTAL else found

    left, right = edges[across]
    if axis == SAGITTAL:
        left, right = -right, -left
    return Cut(
        image=plane(scan.image, 1),
        lesions=plane(scan.lesions, 0),
        cord=plane(scan.cord, 0),
        extent=(left, right, edges[up][0], edges[up][1]),
        size_mm=size_mm,
        middle=(middle[0], middle[1], middle[2]),
    )


def show(axes: Any, shown: Cut, window: tuple[float, float]) -> None:
    """Draw a cut's image in grey, the panel's middle at (0, 0) mm.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Of the proportions of the cut.
    shown : Cut
    window : (float, float)
        Intensities that are black, and white.
    """
    axes.imshow(
        shown.image,
        cmap="gray",
        origin="lower",
        extent=shown.extent,
        interpolation="nearest",
        aspect="auto",
        vmin=window[0],
        vmax=window[1],
    )
    axes.set_xlim(-shown.size_mm[0] / 2, shown.size_mm[0] / 2)
    axes.set_ylim(-shown.size_mm[1] / 2, shown.size_mm[1] / 2)


def _pixels(
    middle: float, half: float, length: int, spacing_mm: float, pixel_mm: float
) -> tuple[slice, tuple[float, float]]:
    """Pixels of a panel along an axis, and their outer edges, mm from its middle.

    The panel reaches `half` voxels to either side of `middle`; the field is `length` voxels long.
    """
    step = pixel_mm / spacing_mm
    low = math.ceil(round(max(middle - half, -0.5) / step, 6))
    high = math.floor(round(min(middle + half, length - 0.5) / step, 6))
    edges = ((low - 0.5) * step - middle) * spacing_mm, ((high + 0.5) * step - middle) * spacing_mm
    return slice(low, high + 1), edges


def _inside(centre: float, half: float, length: int) -> float:
    """Nearest middle of a panel that stays in the field; the field's own where it is smaller."""
    if 2 * half >= length:
        return (length - 1) / 2
    return float(np.clip(centre, half - 0.5, length - 0.5 - half))
