"""The embedded detector: finds the cord without SCT, and says when there is none.

OptiC's idea with weights of this package's own, trained by ``benchmarks/cord_detector.py`` on
simulated scans only: HOG scores at 1 mm on axial slabs, then the best path.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from sct_lesion_losses.centerline import optic
from sct_lesion_losses.centerline.optic import (
    PIXEL_MM,
    Doubles,
    Floats,
    Picture,
    best_path,
    each,
    to_millimetres,
    upright,
)
from sct_lesion_losses.errors import NoCordError
from sct_lesion_losses.geometry.centerline import HOW_TO_GIVE, Centerline
from sct_lesion_losses.geometry.grid import Grid

THICKNESS_MM = 3.0  # thin slices are averaged: less noise, fewer pictures
MARGIN_MM = 4.0  # half a cord: nearer to the edge, an object and its mirror image look like one
TAIL_PERCENT = 0.5  # of the voxels, clipped at both ends of the intensities
SAMPLED = 500_000  # voxels the percentiles are taken of
SHRUNK = 0.75  # an axis scaled by less is averaged over, another one interpolated
SMOOTHNESS = 1.0  # λ of the path for scores in logits
STRETCH_MM = 45.0  # a scan has a cord where this much of the path looks like one
# Signal of a cord against the upper quartile within 10 mm. Airways, whose walls look like a cord's
# border, are darker; vessels in the lung are brighter.
SIGNAL = (0.25, 2.0)
_FILE = Path(__file__).parent / "detector.npz"
_COARSE_PX = 400_000  # more pixels than these are searched at every second one first
_NEAR_PX = 8  # around the coarse path
_FAR_BELOW = 100.0  # below every score: where no cord is looked for
_AROUND_PX = 10


@dataclass(frozen=True, eq=False)
class Detector:
    """A trained detector.

    Attributes
    ----------
    weights : (577,) float32
        Weights and bias of the HOG score, a logit.
    limit : float
        Lowest evidence that counts as a cord.
    training : dict
        What it was trained on: version, seed, numbers of scans, evidence of the scans held out.
    """

    weights: Floats
    limit: float
    training: dict[str, Any]

    @property
    def identity(self) -> str:
        """Hash of all that decides what it finds."""
        path = (SMOOTHNESS, _COARSE_PX, _NEAR_PX, _FAR_BELOW)
        cord = (self.limit, STRETCH_MM, SIGNAL, _AROUND_PX)
        pictures = (PIXEL_MM, THICKNESS_MM, MARGIN_MM, TAIL_PERCENT, SAMPLED, SHRUNK)
        constants = repr((path, cord, pictures, optic.PARAMETERS))
        return hashlib.sha256(self.weights.tobytes() + constants.encode()).hexdigest()


def load(path: Path = _FILE) -> Detector:
    """Read a detector; the shipped one by default."""
    with np.load(path, allow_pickle=False) as stored:
        training = json.loads(str(stored["training"]))
        return Detector(stored["weights"], float(stored["limit"]), training)


@lru_cache(maxsize=1)
def shipped() -> Detector:
    """Read the detector of this package once."""
    return load()


def detect(image: npt.NDArray[Any], grid: Grid) -> Centerline:
    """Centerline of a scan by the embedded detector.

    Parameters
    ----------
    image : (X, Y, Z)
        Scan on its own axes; finite.
    grid : Grid
        Grid of the scan.

    Returns
    -------
    Centerline
        On the scan's grid in RPI, a point in every slice.

    Raises
    ------
    NoCordError
        The scan shows no cord.
    CenterlineError
        It cannot show one.
    """
    detector = shipped()
    pictures, pixels, seen = _searched(image, grid)
    if seen < detector.limit:
        raise NoCordError(
            f"no spinal cord was found: the evidence for one is {seen:.2f}, a cord has at least "
            f"{detector.limit:.2f}; check that the scan shows the cord in T2 or T2* contrast, or "
            f"give its course {HOW_TO_GIVE}"
        )
    xy = pictures.to_voxels(pixels)
    z = np.arange(pictures.grid.shape[2])
    every = np.column_stack([np.interp(z, pictures.z, xy[:, k]) for k in range(2)])
    return Centerline(pictures.grid, every, f"embedded (detector {detector.training['version']})")


def shows_cord(image: npt.NDArray[Any], grid: Grid) -> bool:
    """Say whether a scan, (X, Y, Z) on its own axes, shows a cord; `detect` refuses others."""
    _, _, seen = _searched(image, grid)
    return seen >= shipped().limit


def _searched(image: npt.NDArray[Any], grid: Grid) -> tuple[Slabs, Doubles, float]:
    """Slabs of a scan, the path through them in pixels, and the evidence for a cord."""
    pictures = cut(*upright(image, grid))
    pixels, scores = trace(pictures, shipped().weights)
    return pictures, pixels, evidence(scores, pictures.spacing_mm[2])


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
    z: Doubles

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Pixel size, and distance between slabs, mm."""
        apart = float(np.diff(self.z).mean()) if len(self.z) > 1 else 1.0
        return PIXEL_MM, PIXEL_MM, apart * self.grid.spacing_mm[2]

    def to_pixels(self, xy: npt.ArrayLike) -> Doubles:
        """Columns and rows, (..., 2), of voxel coordinates x, y."""
        return (np.asarray(xy, np.float64) + 0.5) * to_millimetres(self.grid) - 0.5

    def to_voxels(self, pixels: npt.ArrayLike) -> Doubles:
        """Voxel coordinates x, y, (..., 2), of columns and rows; the inverse of `to_pixels`."""
        return (np.asarray(pixels, np.float64) + 0.5) / to_millimetres(self.grid) - 0.5


def cut(image: npt.NDArray[Any], grid: Grid) -> Slabs:
    """Average a scan over slabs, at 1 mm in plane and with 8 bits.

    Parameters
    ----------
    image : (X, Y, Z)
        On `grid`; finite, and not the same everywhere.
    grid : Grid
        RPI grid.
    """
    # Nearly the lowest and the highest intensity become 0 and 255.
    step = max(1, round((image.size / SAMPLED) ** (1 / 3)))
    sample = image[::step, ::step, ::step]
    low, high = np.percentile(sample, (TAIL_PERCENT, 100 - TAIL_PERCENT)).tolist()
    if low == high:
        low, high = float(image.min()), float(image.max())
    count = max(1, round(THICKNESS_MM / grid.spacing_mm[2]))
    starts = np.arange(0, grid.shape[2], count)
    scale = to_millimetres(grid)

    def one(start: int) -> Picture:
        mean = image[:, :, start : start + count].mean(axis=2, dtype=np.float32)
        scaled = np.clip((mean - low) * (255.0 / (high - low)), 0, 255)
        resized = _resized(np.ascontiguousarray(scaled.T, np.float32), *scale)
        return np.asarray(np.rint(resized), np.uint8)

    stops = np.minimum(starts + count, grid.shape[2])
    return Slabs(grid, each(one, starts), (starts + stops - 1) / 2)


def _resized(picture: Floats, fx: float, fy: float) -> Floats:
    """Scale a picture, (rows, columns), by fx along its columns and fy along its rows.

    Axis by axis: sagittal slices of 3 mm are shrunk along one and enlarged along the other, where
    cv2.INTER_AREA would leave steps of 3 mm, which look like the edges of a cord.
    """
    for factor, factors in ((fx, (fx, 1.0)), (fy, (1.0, fy))):
        by = cv2.INTER_AREA if factor < SHRUNK else cv2.INTER_LINEAR
        picture = cv2.resize(picture, None, fx=factors[0], fy=factors[1], interpolation=by)
    return picture


def inner(shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Pixels of a picture (rows, columns) where a cord's centre may be: not at its very edge.

    All of them along an axis too short to have an inside.
    """
    margins = [min(round(MARGIN_MM / PIXEL_MM), max(0, (n - 4) // 2)) for n in shape]
    inside = np.zeros(shape, bool)
    inside[tuple(slice(m, n - m) for n, m in zip(shape, margins, strict=True))] = True
    return inside


def trace(pictures: Slabs, weights: Floats) -> tuple[Doubles, Doubles]:
    """Best path through the slabs.

    Parameters
    ----------
    pictures : Slabs
    weights : (577,) float32

    Returns
    -------
    pixels : (K, 2) float64
        Column and row of the cord's centre in each slab.
    scores : (K,) float64
        Score there; at most 0 where the signal is not that of a cord.
    """
    stride = 2 if pictures.images.size > _COARSE_PX else 1
    dx, dy, dz = pictures.spacing_mm
    inside, start = inner(pictures.images.shape[1:]), np.zeros(2, int)
    maps = each(lambda image: optic.scores(image, weights, stride), pictures.images)
    maps = _limited(maps, inside[::stride, ::stride])
    path = best_path(maps, (dx * stride, dy * stride, dz), SMOOTHNESS) * stride
    corner = path.min(axis=0) - _NEAR_PX
    if stride > 1:
        start, stop = np.maximum(corner, 0), path.max(axis=0) + _NEAR_PX + 1
        near = np.s_[start[1] : stop[1], start[0] : stop[0]]
        maps = each(lambda image: optic.scores_within(image, weights, *near), pictures.images)
        maps = _limited(maps, inside[near])
        path = best_path(maps, (dx, dy, dz), SMOOTHNESS)
    # Counted from a corner nearby, coordinates keep their digits.
    peaks = [_peak(*at, start - corner) for at in zip(maps, path, strict=True)]
    smoothed = ndimage.gaussian_filter1d(np.array(peaks), 1.0, axis=0, mode="nearest")
    points: Doubles = np.add(smoothed, corner)
    at_path = maps[np.arange(len(path)), path[:, 1], path[:, 0]].astype(np.float64)
    places = zip(pictures.images, np.rint(points).astype(int), strict=True)
    signal = np.array([relative_signal(*place) for place in places])
    likely = (signal >= SIGNAL[0]) & (signal <= SIGNAL[1])
    return points, np.where(likely, at_path, np.minimum(at_path, 0.0))


def _limited(maps: Floats, inside: npt.NDArray[np.bool_]) -> Floats:
    """Put the scores of pixels where no cord is looked for far below all others."""
    return np.where(inside, maps, maps.min() - np.float32(_FAR_BELOW))


def _peak(
    scores: Floats, point: npt.NDArray[np.intp], shift: npt.NDArray[np.intp]
) -> tuple[float, float]:
    """Column and row of the centre of the peak around a pixel, to a fraction, plus `shift`."""
    x, y = np.maximum(point - 2, 0)
    window = scores[y : point[1] + 3, x : point[0] + 3]
    weight = np.exp(window - window.max())
    rows, columns = np.indices(window.shape)
    total = float(weight.sum())
    across, ahead = columns + (x + shift[0]), rows + (y + shift[1])
    return float((weight * across).sum()) / total, float((weight * ahead).sum()) / total


def relative_signal(image: Picture, point: npt.NDArray[np.intp]) -> float:
    """Signal at a column and row of a slab, against the upper quartile within 10 mm.

    The quartile lies between cord and fluid where there is a cord, in T2 and T2* contrast.
    """
    x, y = (int(at) for at in point)

    def around(pixels: int) -> Picture:
        return image[max(0, y - pixels) : y + pixels + 1, max(0, x - pixels) : x + pixels + 1]

    return float(np.median(around(1)) / max(1.0, np.percentile(around(_AROUND_PX), 75)))


def evidence(scores: Doubles, distance_mm: float) -> float:
    """Mean score over the best stretch of 45 mm of a path, or over all of a shorter one."""
    count = min(len(scores), max(1, round(STRETCH_MM / distance_mm)))
    return float(np.convolve(scores, np.full(count, 1 / count), mode="valid").max())
