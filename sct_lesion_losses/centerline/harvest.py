"""What the detector learns from: descriptors of the cord and of what is not, from changed slabs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from sct_lesion_losses.centerline import hog, slabs

RIGHT_MM = 3.5  # nearer to the cord's centre is neither right nor wrong
WRONG_PER_SLAB = 10

Features = npt.NDArray[np.float32]
Picture = tuple[npt.NDArray[np.uint8], "npt.NDArray[np.float64] | None"]


@dataclass(frozen=True, eq=False)
class Example:
    """A simulated scan to train on.

    Attributes
    ----------
    pictures : Slabs
    points : (K, 2) float64 or None
        Column and row of the cord's centre in each slab, NaN where there is none; None for a
        scan without a cord.
    """

    pictures: slabs.Slabs
    points: npt.NDArray[np.float64] | None


def augmented(
    image: npt.NDArray[np.uint8],
    point: npt.NDArray[np.float64] | None,
    rng: np.random.Generator,
) -> Picture:
    """Change one slab as another scanner, contrast, posture or field of view might.

    Parameters
    ----------
    image : (rows, columns) uint8
    point : (2,) float64 or None
        Column and row of the cord's centre.
    rng : Generator

    Returns
    -------
    image : (rows, columns) uint8
        Perhaps smaller.
    point : (2,) float64 or None
    """
    rows, columns = image.shape
    centre = (columns / 2, rows / 2) if point is None else (float(point[0]), float(point[1]))
    turn = cv2.getRotationMatrix2D(centre, rng.normal(0, 8), rng.uniform(0.8, 1.25))
    values = cv2.warpAffine(
        image.astype(np.float32) / 255, turn, (columns, rows), borderMode=cv2.BORDER_REPLICATE
    )
    if rng.random() < 0.5:
        values = values[:, ::-1]
        point = None if point is None else np.array([columns - 1 - point[0], point[1]])
    if rng.random() < 0.3:
        values = cv2.GaussianBlur(np.ascontiguousarray(values), (0, 0), rng.uniform(0.4, 1.2))
    values = np.clip(values + rng.normal(0, rng.uniform(0, 0.05), values.shape), 0, 1)
    if rng.random() < 0.3:
        values = 1 - values
    if rng.random() < 0.5:  # fluid and fat may be white alike
        low, high = rng.uniform(0, 0.15), rng.uniform(0.45, 1)
        values = np.clip((values - low) / (high - low), 0, 1)
    values = values ** rng.uniform(0.5, 1.8)
    if rng.random() < 0.5:
        values, point = _narrowed(values, point, rng)
    return np.rint(values * 255).astype(np.uint8), point


def _narrowed(
    values: npt.NDArray[np.float64],
    point: npt.NDArray[np.float64] | None,
    rng: np.random.Generator,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64] | None]:
    """Cut a slab to a narrow field of view, around the cord where there is one."""
    rows, columns = values.shape
    if point is None:
        x, y = rng.uniform(0, columns), rng.uniform(0, rows)
    else:
        x, y = float(point[0]), float(point[1])
    left, right = rng.uniform(10, 22, 2)
    back, front = rng.uniform(12, 70, 2)
    x0, y0 = max(0, int(x - left)), max(0, int(y - back))
    cut = values[y0 : int(y + front) + 1, x0 : int(x + right) + 1]
    return cut, None if point is None else point - (x0, y0)


def harvest(
    examples: Iterable[Example],
    rng: np.random.Generator,
    weights: npt.NDArray[np.float32] | None = None,
    every: int = 3,
) -> tuple[Features, Features]:
    """Collect descriptors of the cord's centre and of places that are not the cord.

    Parameters
    ----------
    examples : iterable of Example
    rng : Generator
    weights : (577,) float32, optional
        Take the places that these weights score highest; random places by default.
    every : int
        Take every so many slabs of a scan.

    Returns
    -------
    right : (P, 576) float32
    wrong : (N, 576) float32
    """
    right, wrong = [np.empty((0, hog.FEATURES), np.float32)], []
    for example in examples:
        for k in range(int(rng.integers(every)), len(example.pictures.images), every):
            point = None if example.points is None else example.points[k]
            if point is not None and not np.isfinite(point).all():
                point = None
            image, point = augmented(example.pictures.images[k], point, rng)
            if point is not None:
                right.append(hog.features(image, np.rint(point[None, ::-1]).astype(int)))
            places = _wrong_places(image, point, rng, weights)
            if len(places):
                wrong.append(hog.features(image, places))
    return np.concatenate(right), np.concatenate(wrong)


def _wrong_places(
    image: npt.NDArray[np.uint8],
    point: npt.NDArray[np.float64] | None,
    rng: np.random.Generator,
    weights: npt.NDArray[np.float32] | None,
) -> npt.NDArray[np.intp]:
    """Rows and columns of places that are not the cord, (N, 2)."""
    rows, columns = np.ogrid[: image.shape[0], : image.shape[1]]
    away = (
        np.full(image.shape, np.inf)
        if point is None
        else np.hypot(columns - point[0], rows - point[1])
    )
    allowed = (away * slabs.PIXEL_MM > RIGHT_MM) & slabs.inner(image.shape)
    if weights is not None:
        scores = np.where(allowed, hog.scores(image, weights), -np.inf)
        peaks = np.argwhere((scores == cv2.dilate(scores, np.ones((5, 5)))) & allowed)
        order = np.argsort(-scores[peaks[:, 0], peaks[:, 1]], kind="stable")
        return peaks[order[:WRONG_PER_SLAB]]
    near = np.argwhere(allowed & (away < 10))
    far = np.argwhere(allowed)
    picked = [rng.permutation(near)[: WRONG_PER_SLAB // 2], rng.permutation(far)[:WRONG_PER_SLAB]]
    return np.concatenate(picked)
