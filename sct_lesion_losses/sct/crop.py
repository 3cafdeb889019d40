"""The crop of SCT's lesion model: 48 x 48 windows at 0.5 mm in plane, slices as they are.

It differs from `space.tube.CordTube` where SCT differs from the study: the windows stay inside the
image, slices without centerline are zeros, and the crop is brought to 0.5 mm along z afterwards, as
a block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sct_lesion_losses.errors import GeometryError
from sct_lesion_losses.space import resample
from sct_lesion_losses.space.centerline import Centerline
from sct_lesion_losses.space.grid import Grid

WIDTH_VOX = 48
SPACING_MM = 0.5
SECTION = 32  # slices resampled at a time: the box around a short piece of the cord is narrow


@dataclass(frozen=True, eq=False)
class Crop:
    """Windows on the axial slices of a scan, and the way back.

    Attributes
    ----------
    native : Grid
        The scan's, in RPI.
    plane : Grid
        The same slices at 0.5 mm in plane.
    starts : (Z, 2) int
        First voxel of each window on `plane`; the window ends where `plane` does.
    covered : (Z,) bool
        Whether the centerline is known on a slice.
    """

    native: Grid
    plane: Grid
    starts: NDArray[np.intp]
    covered: NDArray[np.bool_]

    @classmethod
    def around(cls, centerline: Centerline, native: Grid) -> Crop:
        """Crop a scan around a centerline.

        Parameters
        ----------
        centerline : Centerline
            On the scan's slices, on any in-plane grid; on the crop's own it is taken as it is.
        native : Grid
            The scan's, in RPI.
        """
        plane = in_plane(as_header(native))
        if centerline.grid.matches(plane):
            xy, covered = centerline.xy, centerline.covered
        else:
            line = centerline.on(in_plane(native))
            # Rounded, so that a centre on a voxel does not fall to the one before it.
            xy, covered = np.round(line.xy, 6), line.covered
        first = np.zeros((len(covered), 2), dtype=np.intp)
        first[covered] = xy[covered].astype(np.intp) - (WIDTH_VOX // 2 - 1)
        last = np.array(plane.shape[:2]) - WIDTH_VOX
        return cls(as_header(native), plane, np.maximum(np.minimum(first, last), 0), covered)

    @property
    def coarse(self) -> Grid:
        """Grid of the crop with the scan's slices; its place in the plane has no meaning."""
        return Grid((WIDTH_VOX, WIDTH_VOX, self.plane.shape[2]), self.plane.affine)

    @property
    def fine(self) -> Grid:
        """Grid of the crop with slices of 0.5 mm."""
        return self.coarse.resampled((None, None, SPACING_MM))

    def cut(self, array: NDArray[Any]) -> NDArray[np.float32]:
        """Values of a scan in the windows, (48, 48, Z); zero where there is no image or centerline.

        Parameters
        ----------
        array : (X, Y, Z)
            On `native`.
        """
        result = np.zeros(self.coarse.shape, np.float32)
        width, height = self._window
        known = np.flatnonzero(self.covered)
        for k in range(0, len(known), SECTION):
            section = known[k : k + SECTION]
            low = self.starts[section].min(axis=0)
            high = self.starts[section].max(axis=0) + np.array([width, height])
            box = (
                slice(int(low[0]), int(high[0])),
                slice(int(low[1]), int(high[1])),
                slice(int(section[0]), int(section[-1]) + 1),
            )
            region = resample.values(array, self.native, self.plane, box)
            for z in section:
                x, y = self.starts[z] - low
                result[:width, :height, z] = region[x : x + width, y : y + height, z - section[0]]
        return result

    def refine(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Bring a crop from the scan's slices to slices of 0.5 mm, linearly."""
        return resample.values(values, self.coarse, self.fine)

    def uncut(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Put a crop with slices of 0.5 mm back on the scan; zero outside the windows.

        Linear along z to the scan's slices, then linear in plane, as SCT has it.

        Returns
        -------
        (X, Y, Z) float32
            On `native`.
        """
        if values.shape != self.fine.shape:
            raise GeometryError(f"crop: expected {self.fine.shape}, received {values.shape}")
        slices = resample.values(values, self.fine, self.coarse)
        frame, region = self._framed(slices)
        corner = np.eye(4)
        corner[:3, 3] = [part.start for part in frame]
        region_grid = Grid(region.shape, self.plane.affine @ corner)
        scale, offset = resample.axis_mapping(self.plane, self.native)
        box = []
        for k, part in enumerate(frame):
            low = np.ceil((part.start - offset[k]) / scale[k] - 1e-6) if part.start > 0 else 0
            top = (part.stop - 1 - offset[k]) / scale[k]
            size = self.native.shape[k]
            high = np.floor(top + 1e-6) + 1 if part.stop < self.plane.shape[k] else size
            box.append(slice(max(int(low), 0), min(int(high), size)))
        inside = (box[0], box[1], box[2])
        result = np.zeros(self.native.shape, np.float32)
        result[inside] = resample.values(region, region_grid, self.native, inside)
        return result

    @property
    def _window(self) -> tuple[int, int]:
        return min(WIDTH_VOX, self.plane.shape[0]), min(WIDTH_VOX, self.plane.shape[1])

    def _framed(self, slices: NDArray[np.float32]) -> tuple[resample.Box, NDArray[np.float32]]:
        """Windows on their bounding box, with one voxel of zeros around it inside the image."""
        width, height = self._window
        known = np.flatnonzero(self.covered)
        first, last = self.starts[known].min(axis=0), self.starts[known].max(axis=0)
        low = np.maximum([first[0] - 1, first[1] - 1, known[0] - 1], 0)
        end = [last[0] + width + 1, last[1] + height + 1, known[-1] + 2]
        high = np.minimum(end, self.plane.shape)
        region = np.zeros(high - low, np.float32)
        for z in known:
            x, y = self.starts[z] - low[:2]
            region[x : x + width, y : y + height, z - low[2]] = slices[:width, :height, z]
        x0, y0, z0 = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
        return (x0, y0, z0), region


def as_header(grid: Grid) -> Grid:
    """Grid with the affine as a NIfTI header holds it, in float32, as SCT takes it from there."""
    return Grid(grid.shape, grid.affine.astype(np.float32).astype(np.float64))


def in_plane(grid: Grid) -> Grid:
    """Grid at 0.5 mm in plane with the slices of an RPI grid."""
    return grid.resampled((SPACING_MM, SPACING_MM, None))


def centerline(mask: NDArray[Any], grid: Grid, method: str = "") -> Centerline:
    """Centerline of a cord mask or centerline image as SCT takes it from a file.

    The mask is interpolated linearly to 0.5 mm in plane, and the centre of mass taken on each
    slice. SCT cuts the centre to a whole voxel: where it lies on one (a single voxel at a simple
    ratio of spacings, for one) the last bit of the sum decides, so the arithmetic is SCT's.

    Parameters
    ----------
    mask : (X, Y, Z)
        Stored array, in any axis order.
    grid : Grid
        Its grid.
    method : str
        For the sidecar.

    Returns
    -------
    Centerline
        On the mask's slices at 0.5 mm in plane.

    Raises
    ------
    CenterlineError
        The mask is empty.
    """
    rpi, reorientation = grid.to_rpi()
    native = as_header(rpi)
    plane = in_plane(native)
    weights = reorientation.apply(mask.astype(np.uint8) if mask.dtype.kind == "b" else mask)
    xy = np.full((plane.shape[2], 2), np.nan)
    for z, values in _slices_in_plane(weights, native, plane):
        if values.any():
            xy[z] = ndimage.center_of_mass(values)
    return Centerline(plane, xy, method)


def _slices_in_plane(
    array: NDArray[Any], native: Grid, plane: Grid
) -> Iterator[tuple[int, NDArray[Any]]]:
    """Interpolate slices that may hold something, one by one, each (X, Y) of `plane`.

    The coordinates are summed in the order of `scipy.ndimage.affine_transform`, which nibabel and
    SCT interpolate with, but only around the voxels that are not zero.
    """
    if not array.any():
        return
    mapping = np.linalg.inv(native.affine).dot(plane.affine)
    used = [np.flatnonzero(array.any(axis=tuple({0, 1, 2} - {k}))) for k in range(3)]
    low = [int((used[k][0] - 1) / mapping[k, k]) - 1 for k in range(3)]
    high = [int((used[k][-1] + 1) / mapping[k, k]) + 2 for k in range(3)]
    x, y, slices = (
        np.arange(max(a, 0), min(b, size))
        for a, b, size in zip(low, high, plane.shape, strict=True)
    )
    kind = array.dtype if array.dtype.kind == "f" else np.float64
    for z in slices:
        at = np.stack(
            [
                mapping[k, 3] + mapping[k, 0] * x[:, None] + mapping[k, 1] * y + mapping[k, 2] * z
                for k in range(3)
            ]
        )
        whole = np.zeros(plane.shape[:2], kind)
        whole[x[0] : x[-1] + 1, y[0] : y[-1] + 1] = ndimage.map_coordinates(
            array, at, order=1, mode="nearest", output=kind
        )
        yield int(z), whole
