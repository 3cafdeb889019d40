"""The crop of square windows that follows the cord, one window per axial slice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sct_lesion_losses.geometry.centerline import Centerline
from sct_lesion_losses.geometry.grid import Box, Grid, axis_mapping, resample

WIDTH_VOX = 48  # Hussein et al. 2023, section 2.1: 48 x 48 around the centerline at 0.5 mm
_SECTION = 32  # slices resampled at a time: the box around a short piece of the cord is narrow


@dataclass(frozen=True, eq=False)
class CordCrop:
    """Windows of `width` x `width` voxels on consecutive axial slices of an RPI grid.

    Attributes
    ----------
    grid : Grid
        Working grid in RPI.
    first : int
        Index of the first slice.
    starts : (Z, 2) int
        First voxel of each window; a window may reach beyond the grid.
    width : int
        Side of the window, voxels.
    extent : (float, float), optional
        Where the crop begins and ends along z, in slices of the grid; from half a slice below the
        first to half a slice above the last by default. Slices of another grid belong to the crop
        where their centre lies between the two.
    """

    grid: Grid
    first: int
    starts: npt.NDArray[np.intp]
    width: int = WIDTH_VOX
    extent: tuple[float, float] | None = None

    @classmethod
    def around(cls, centerline: Centerline, grid: Grid, width: int = WIDTH_VOX) -> CordCrop:
        """Crop around a centerline, over all the slices of `grid` that it covers.

        The centre of the cord falls on voxel ``width // 2 - 1`` of its window or between it and
        the next. Gaps in the centerline are bridged.

        Raises
        ------
        GeometryError
            `grid` is not in RPI or not parallel to the centerline's grid.
        CenterlineError
            No slice of `grid` is covered.
        """
        line = centerline.filled().on(grid)
        slices = np.flatnonzero(line.covered)
        # Rounded, so that the stored order of the axes does not decide between two voxels.
        starts = np.floor(np.round(line.xy[slices], 6)).astype(np.intp) - (width // 2 - 1)
        scale, offset = axis_mapping(grid, centerline.grid)
        known = np.flatnonzero(centerline.covered)[[0, -1]] + (-0.5, 0.5)
        low, high = scale[2] * known + offset[2]
        return cls(grid, int(slices[0]), starts, width, (float(low), float(high)))

    @property
    def length(self) -> int:
        """Number of slices."""
        return len(self.starts)

    @property
    def box(self) -> Box:
        """Smallest box of the grid that holds every window; it may reach beyond the grid."""
        low, high = self.starts.min(axis=0), self.starts.max(axis=0) + self.width
        return (
            slice(int(low[0]), int(high[0])),
            slice(int(low[1]), int(high[1])),
            slice(self.first, self.first + self.length),
        )

    def cut(
        self, array: npt.NDArray[Any], source: Grid, order: Literal[0, 1] = 1
    ) -> npt.NDArray[np.float32]:
        """Values of an array in the crop, resampled only where the crop is.

        Parameters
        ----------
        array : (X, Y, Z)
            Values on `source`; the edge value holds beyond it.
        source : Grid
            RPI grid parallel to the crop's.
        order : {0, 1}
            Nearest neighbour or linear.

        Returns
        -------
        (width, width, Z) float32
        """
        result = np.empty((self.width, self.width, self.length), np.float32)
        for k in range(0, self.length, _SECTION):
            section = CordCrop(self.grid, self.first + k, self.starts[k : k + _SECTION], self.width)
            box = section.box
            region = resample(array, source, self.grid, box, order)
            for z, (x, y) in enumerate(section.starts - (box[0].start, box[1].start), start=k):
                result[:, :, z] = region[x : x + self.width, y : y + self.width, z - k]
        return result

    def uncut(self, crop_values: npt.NDArray[Any], onto: Grid) -> npt.NDArray[np.float32]:
        """Put values in the crop back on a grid of the image; zero outside the crop.

        Parameters
        ----------
        crop_values : (width, width, Z)
        onto : Grid
            RPI grid parallel to the crop's: the crop's own, or the image's native one.

        Returns
        -------
        (X, Y, Z) float32
            Linear interpolation between the voxels of the crop and the zeros beside it; above
            and below, the outermost slices hold as far as the crop's `extent`.
        """
        region, region_grid = self._framed(crop_values)
        result = np.zeros(onto.shape, np.float32)
        scale, offset = axis_mapping(region_grid, onto)
        reach = [(0.0, n - 1.0) for n in region.shape[:2]] + [self._reach()]
        box = []
        for k, (first, last) in enumerate(reach):
            # Voxels of `onto` whose centre lies between `first` and `last` of the region.
            low = int(np.ceil((first - offset[k]) / scale[k] - 1e-6))
            high = int(np.floor((last - offset[k]) / scale[k] + 1e-6))
            box.append(slice(max(low, 0), min(high + 1, onto.shape[k])))
        inside = (box[0], box[1], box[2])
        if all(part.stop > part.start for part in inside):
            result[inside] = resample(region, region_grid, onto, inside)
        return result

    def _reach(self) -> tuple[float, float]:
        """Beginning and end of the crop along z, counted from its first slice."""
        low, high = self.extent or (self.first - 0.5, self.first + self.length - 0.5)
        return low - self.first, high - self.first

    def _framed(self, crop_values: npt.NDArray[Any]) -> tuple[npt.NDArray[np.float32], Grid]:
        """Values on the bounding box, one voxel of zeros beside it, with the box's grid."""
        box = self.box
        size = (box[0].stop - box[0].start + 2, box[1].stop - box[1].start + 2, self.length)
        region = np.zeros(size, np.float32)
        for k, (x, y) in enumerate(self.starts - (box[0].start - 1, box[1].start - 1)):
            region[x : x + self.width, y : y + self.width, k] = crop_values[:, :, k]
        corner = np.eye(4)
        corner[:3, 3] = box[0].start - 1, box[1].start - 1, self.first
        return region, Grid(size, self.grid.affine @ corner)
