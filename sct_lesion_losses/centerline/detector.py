"""The embedded detector: finds the cord without SCT, and says when there is none.

OptiC's idea with weights of this package's own, trained by `sct_lesion_losses.centerline.training`
on simulated scans only: HOG scores at 1 mm on axial slabs, then the best path.
"""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from sct_lesion_losses.centerline import optic
from sct_lesion_losses.centerline.optic import best_path, check_field, path_scores
from sct_lesion_losses.errors import CenterlineError, NoCordError
from sct_lesion_losses.geometry.centerline import HOW_TO_GIVE, Centerline
from sct_lesion_losses.geometry.grid import Grid

PIXEL_MM = 1.0
THICKNESS_MM = 3.0  # thin slices are averaged: less noise, fewer pictures
MARGIN_MM = 4.0  # half a cord: nearer to the edge, an object and its mirror image look like one
TAIL_PERCENT = 0.5  # of the voxels, clipped at both ends of the intensities
SAMPLED = 500_000  # voxels the percentiles are taken of
SMOOTHNESS = 1.0  # λ of the path for scores in logits
STRETCH_MM = 45.0  # a scan has a cord where this much of the path looks like one
# Signal of a cord against the upper quartile within 10 mm. Airways, whose walls look like a cord's
# border, are darker; vessels in the lung are brighter.
SIGNAL = (0.2, 2.0)
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

    weights: npt.NDArray[np.float32]
    limit: float
    training: dict[str, Any]

    @property
    def version(self) -> str:
        """Version of the weights."""
        return str(self.training["version"])

    @property
    def identity(self) -> str:
        """Hash of all that decides what it finds."""
        path = (SMOOTHNESS, _COARSE_PX, _NEAR_PX, _FAR_BELOW)
        cord = (self.limit, STRETCH_MM, SIGNAL, _AROUND_PX)
        pictures = (
            *(PIXEL_MM, THICKNESS_MM, MARGIN_MM),
            *(TAIL_PERCENT, SAMPLED),
        )
        constants = repr((path, cord, pictures, optic.PARAMETERS))
        return hashlib.sha256(self.weights.tobytes() + constants.encode()).hexdigest()


def load(path: Path = _FILE) -> Detector:
    """Read a detector; the shipped one by default."""
    with np.load(path, allow_pickle=False) as stored:
        training = json.loads(str(stored["training"]))
        return Detector(stored["weights"], float(stored["limit"]), training)


def save(path: Path, detector: Detector) -> None:
    """Write a detector, without pickles."""
    training = np.array(json.dumps(detector.training, sort_keys=True))
    np.savez(path, weights=detector.weights, limit=np.float64(detector.limit), training=training)


@lru_cache(maxsize=1)
def shipped() -> Detector:
    """Read the detector of this package once."""
    return load()


def detect(image: npt.NDArray[Any], grid: Grid, detector: Detector | None = None) -> Centerline:
    """Centerline of a scan by the embedded detector.

    Parameters
    ----------
    image : (X, Y, Z)
        Scan on its own axes; finite.
    grid : Grid
        Grid of the scan.
    detector : Detector, optional
        The shipped one by default.

    Returns
    -------
    Centerline
        On the scan's grid in RPI, a point in every slice.

    Raises
    ------
    NoCordError
        The scan shows no cord.
    CenterlineError
        It shows too little of the body to see one.
    """
    detector = shipped() if detector is None else detector
    pictures, pixels, seen = _searched(image, grid, detector)
    if seen < detector.limit:
        raise NoCordError(
            f"no spinal cord was found: the evidence for one is {seen:.2f}, a cord has at least "
            f"{detector.limit:.2f}; check that the scan shows the cord in T2 or T2* contrast, or "
            f"give its course {HOW_TO_GIVE}"
        )
    xy = pictures.to_voxels(pixels)
    z = np.arange(pictures.grid.shape[2])
    every = np.column_stack([np.interp(z, pictures.z, xy[:, k]) for k in range(2)])
    return Centerline(pictures.grid, every, f"embedded (detector {detector.version})")


def shows_cord(image: npt.NDArray[Any], grid: Grid, detector: Detector | None = None) -> bool:
    """Whether a scan, (X, Y, Z) on its own axes, shows a cord; `detect` refuses it otherwise."""
    detector = shipped() if detector is None else detector
    _, _, seen = _searched(image, grid, detector)
    return seen >= detector.limit


def _searched(
    image: npt.NDArray[Any], grid: Grid, detector: Detector
) -> tuple[Slabs, npt.NDArray[np.float64], float]:
    """Slabs of a scan, the path through them in pixels, and the evidence for a cord."""
    rpi, reorientation = grid.to_rpi()
    check_field(rpi)
    pictures = cut(reorientation.apply(image), rpi)
    pixels, scores = trace(pictures, detector.weights)
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


def trace(
    pictures: Slabs, weights: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
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
    inside = inner(pictures.images.shape[1:])
    with ThreadPoolExecutor() as pool:
        maps = np.stack(
            list(pool.map(lambda image: optic.scores(image, weights, stride), pictures.images))
        )
        maps[:, ~inside[::stride, ::stride]] = maps.min() - _FAR_BELOW
        dx, dy, dz = pictures.spacing_mm
        path = best_path(maps, (dx * stride, dy * stride, dz), SMOOTHNESS) * stride
        near = np.stack(
            list(
                pool.map(
                    lambda image, at: optic.scores_near(image, weights, (at[1], at[0]), _NEAR_PX),
                    pictures.images,
                    path,
                )
            )
        )
    # The windows follow the coarse path; put side by side on one frame they are one small map.
    framed, corner = _framed(near, path, inside)
    fine = best_path(framed, pictures.spacing_mm, SMOOTHNESS)
    pixels = np.array([_peak(scores, point) for scores, point in zip(framed, fine, strict=True)])
    smooth = ndimage.gaussian_filter1d(pixels, 1.0, axis=0, mode="nearest")
    at_path = path_scores(framed, fine).astype(np.float64)
    places = zip(pictures.images, np.rint(smooth + corner).astype(int), strict=True)
    signal = np.array([relative_signal(image, point) for image, point in places])
    likely = (signal >= SIGNAL[0]) & (signal <= SIGNAL[1])
    return smooth + corner, np.where(likely, at_path, np.minimum(at_path, 0.0))


def _framed(
    near: npt.NDArray[np.float32], path: npt.NDArray[np.intp], inside: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.intp]]:
    """Windows (K, n, n) around the points of a path in one frame, and the frame's first pixel.

    Far below any score where a slab was not looked at, or no cord is expected.
    """
    side = near.shape[1]
    starts = path - side // 2
    corner = starts.min(axis=0)
    width, height = starts.max(axis=0) - corner + side
    framed = np.full((len(near), height, width), -np.inf, np.float32)
    for target, window, (x, y) in zip(framed, near, starts - corner, strict=True):
        target[y : y + side, x : x + side] = window
    rows, columns = np.arange(height) + corner[1], np.arange(width) + corner[0]
    within = [(at >= 0) & (at < n) for at, n in zip((rows, columns), inside.shape, strict=True)]
    allowed = np.zeros((height, width), bool)
    allowed[np.ix_(*within)] = inside[np.ix_(rows[within[0]], columns[within[1]])]
    known = np.isfinite(framed)
    framed[~(known & allowed)] = framed[known].min() - _FAR_BELOW
    return framed, corner


def _peak(scores: npt.NDArray[np.float32], point: npt.NDArray[np.intp]) -> tuple[float, float]:
    """Column and row of the centre of the peak around a pixel, to a fraction of a pixel."""
    x, y = int(point[0]), int(point[1])
    rows = slice(max(y - 2, 0), y + 3)
    columns = slice(max(x - 2, 0), x + 3)
    window = scores[rows, columns]
    weight = np.exp(window - window.max())
    y_grid, x_grid = np.mgrid[
        rows.start : rows.start + window.shape[0], columns.start : columns.start + window.shape[1]
    ]
    total = float(weight.sum())
    return float((weight * x_grid).sum()) / total, float((weight * y_grid).sum()) / total


def relative_signal(image: npt.NDArray[np.uint8], point: npt.NDArray[np.intp]) -> float:
    """Signal at a column and row of a slab, against the upper quartile within 10 mm.

    The quartile lies between cord and fluid where there is a cord, in T2 and T2* contrast.
    """
    x, y = (int(at) for at in point)

    def around(pixels: int) -> npt.NDArray[np.uint8]:
        return image[max(0, y - pixels) : y + pixels + 1, max(0, x - pixels) : x + pixels + 1]

    return float(np.median(around(1)) / max(1.0, np.percentile(around(_AROUND_PX), 75)))


def evidence(scores: npt.NDArray[np.float64], distance_mm: float) -> float:
    """Mean score over the best stretch of 45 mm of a path, or over all of a shorter one."""
    count = min(len(scores), max(1, round(STRETCH_MM / distance_mm)))
    return float(np.convolve(scores, np.full(count, 1 / count), mode="valid").max())
