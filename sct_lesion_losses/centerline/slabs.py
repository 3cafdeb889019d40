"""Axial slabs of a scan, all of one pixel size: what the detector looks at."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from sct_lesion_losses.errors import CenterlineError
from sct_lesion_losses.space.grid import Grid

PIXEL_MM = 1.0
THICKNESS_MM = 3.0  # thin slices are averaged: less noise, fewer pictures
MARGIN_MM = 4.0  # half a cord: nearer to the edge, an object and its mirror image look like one
TAIL_PERCENT = 0.5  # of the voxels, clipped at both ends of the intensities
SAMPLED = 500_000  # voxels the percentiles are taken of


@dataclass(frozen=True, eq=False)
class Slabs:
    """Pictures of consecutive axial slabs of an RPI grid.

    Attributes
    ----------
    grid : Grid
        RPI grid of the scan.
    images : (K, rows, columns) uint8
        Pixels of 1 mm, rows along y and columns along x.
    z : (K,) float64
        Middle of each slab, in slices of the grid.
    """

    grid: Grid
    images: npt.NDArray[np.uint8]
    z: npt.NDArray[np.float64]

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Pixel size, and distance between slabs, mm."""
        apart = float(np.diff(self.z).mean()) if len(self.z) > 1 else 1.0
        return PIXEL_MM, PIXEL_MM, apart * self.grid.spacing_mm[2]

    def to_pixels(self, xy: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Columns and rows, (..., 2), of voxel coordinates x, y."""
        return (np.asarray(xy, np.float64) + 0.5) * self._factors - 0.5

    def to_voxels(self, pixels: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Voxel coordinates x, y, (..., 2), of columns and rows; the inverse of `to_pixels`."""
        return (np.asarray(pixels, np.float64) + 0.5) / self._factors - 0.5

    @property
    def _factors(self) -> npt.NDArray[np.float64]:
        return _factors(self.grid)


def cut(image: npt.NDArray[Any], grid: Grid) -> Slabs:
    """Average a scan over slabs, at 1 mm in plane and with 8 bits.

    Parameters
    ----------
    image : (X, Y, Z)
        On `grid`; finite.
    grid : Grid
        RPI grid.

    Raises
    ------
    CenterlineError
        All voxels have one value.
    """
    low, high = _range(image)
    count = max(1, round(THICKNESS_MM / grid.spacing_mm[2]))
    starts = np.arange(0, grid.shape[2], count)
    fx, fy = _factors(grid)
    shrinks = min(fx, fy) < 0.75

    def one(start: int) -> npt.NDArray[np.uint8]:
        mean = image[:, :, start : start + count].mean(axis=2, dtype=np.float32)
        scaled = np.clip((mean - low) * (255.0 / (high - low)), 0, 255)
        resized = cv2.resize(
            np.ascontiguousarray(scaled.T, np.float32),
            None,
            fx=fx,
            fy=fy,
            interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR,
        )
        return np.asarray(np.rint(resized), np.uint8)

    with ThreadPoolExecutor() as pool:
        images = np.stack(list(pool.map(one, starts)))
    stops = np.minimum(starts + count, grid.shape[2])
    return Slabs(grid, images, (starts + stops - 1) / 2)


def inner(shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Pixels of a picture (rows, columns) where a cord's centre may be: not at its very edge.

    All of them along an axis too short to have an inside.
    """
    along = []
    for n in shape:
        margin = min(round(MARGIN_MM / PIXEL_MM), max(0, (n - 4) // 2))
        at = np.arange(n)
        along.append((at >= margin) & (at < n - margin))
    return np.logical_and.outer(along[0], along[1])


def _factors(grid: Grid) -> npt.NDArray[np.float64]:
    return np.array([round(size, 6) / PIXEL_MM for size in grid.spacing_mm[:2]])


def _range(image: npt.NDArray[Any]) -> tuple[float, float]:
    """Intensities that become 0 and 255: nearly the lowest and the highest."""
    step = max(1, round((image.size / SAMPLED) ** (1 / 3)))
    sample = image[::step, ::step, ::step]
    low, high = np.percentile(sample, (TAIL_PERCENT, 100 - TAIL_PERCENT))
    if low == high:
        low, high = image.min(), image.max()
    if low == high:
        raise CenterlineError(
            f"every voxel of the image is {float(low):g}: there is no cord to find; check the scan"
        )
    return float(low), float(high)
