"""OptiC: the cord's centerline from HOG scores and the best path, with weights given by the caller.

With the weights of the Spinal Cord Toolbox it gives that toolbox's own centerlines; this package
carries none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from sct_lesion_losses.errors import CenterlineError
from sct_lesion_losses.geometry.centerline import HOW_TO_GIVE, Centerline
from sct_lesion_losses.geometry.grid import Grid

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Picture = npt.NDArray[np.uint8]
Scalar = TypeVar("Scalar", bound=np.generic)
PIXEL_MM = 1.0  # of the slices the weights were trained on
SMOOTHNESS = 1.0  # SCT's -lambda
WINDOW_PX = 32
# Of OpenCV's descriptor, in the order of its arguments.
PARAMETERS = (
    (WINDOW_PX, WINDOW_PX),  # window
    (8, 8),  # block
    (8, 8),  # stride of blocks
    (4, 4),  # cell
    9,  # orientations
    1,  # aperture of the derivative
    2.0,  # sigma of the Gaussian over a block
    cv2.HOGDESCRIPTOR_L2HYS,
    0.2,  # clipping of L2-Hys
    True,  # square-root gamma
    64,  # pyramid levels, unused here
    True,  # signed gradient
)
LEAST_MM = 10.0  # of a field of view across the cord
_HALF = WINDOW_PX // 2
_EVERY_WINDOW = -1e30  # no score is below it: OpenCV reports each window with its score


def centerline(image: npt.NDArray[Any], grid: Grid, weights: Floats) -> Centerline:
    """Centerline of a scan by OptiC.

    Parameters
    ----------
    image : (X, Y, Z)
        Scan on its own axes; finite.
    grid : Grid
        Grid of the scan.
    weights : (577,) float32
        Weights and bias of the score, for pixels of 1 mm.

    Returns
    -------
    Centerline
        On the scan's grid in RPI, a point in every slice.

    Raises
    ------
    CenterlineError
        The scan is constant, or too narrow to hold a window.
    """
    turned, rpi = upright(image, grid)
    slices = to_eight_bit(turned).transpose(2, 1, 0)
    rows, columns = slices.shape[1:]
    fx, fy = to_millimetres(rpi)

    def scored(slice_: Picture) -> Floats:
        # To 1 mm by factors and back by size: the two differ where a size is rounded.
        resized = cv2.resize(
            np.ascontiguousarray(slice_), None, fx=fx, fy=fy, interpolation=cv2.INTER_LINEAR
        )
        found = scores(np.asarray(resized, np.uint8), weights)
        back = cv2.resize(found, (columns, rows), interpolation=cv2.INTER_LINEAR)
        return np.asarray(back, np.float32)

    path = best_path(each(scored, slices), rpi.spacing_mm, SMOOTHNESS)
    return Centerline(rpi, path.astype(np.float64), "svm (OptiC computed here with SCT's weights)")


def each(
    function: Callable[[Any], npt.NDArray[Scalar]], items: Iterable[Any]
) -> npt.NDArray[Scalar]:
    """Apply a function to each item, on all cores, and stack the arrays that it gives."""
    with ThreadPoolExecutor() as pool:
        return np.stack(list(pool.map(function, items)))


def upright(image: npt.NDArray[Any], grid: Grid) -> tuple[npt.NDArray[Any], Grid]:
    """Return a scan and its grid in RPI; refuse one in which no cord can be seen.

    Raises
    ------
    CenterlineError
        The field of view is narrower than `LEAST_MM`, or all voxels have one value.
    """
    rpi, reorientation = grid.to_rpi()
    x, y = (n * size for n, size in zip(rpi.shape[:2], rpi.spacing_mm[:2], strict=True))
    if min(x, y) < LEAST_MM:
        raise CenterlineError(
            f"the field of view is {x:.1f} × {y:.1f} mm across the cord; finding the centerline "
            f"needs {LEAST_MM:g} mm, give one {HOW_TO_GIVE}"
        )
    if image.min() == image.max():
        raise CenterlineError(
            f"every voxel of the image is {image.min():g}: there is no cord to find; check the scan"
        )
    return reorientation.apply(image), rpi


def to_millimetres(grid: Grid) -> Doubles:
    """Factors along x and y that lead from the pixels of a grid to those of `PIXEL_MM`, (2,)."""
    # An affine's spacing of 0.5000000005 must not tip the rounding of half a pixel.
    return np.round(grid.spacing_mm[:2], 6) / PIXEL_MM


def to_eight_bit(image: npt.NDArray[Any]) -> Picture:
    """Intensities from minimum to maximum on 0 to 255."""
    values = np.asarray(image, np.float64)
    low, high = float(values.min()), float(values.max())
    # By way of 16 bits, as SCT hands the scan to OptiC.
    sixteen = np.floor((values - low) * (65535.0 / (high - low)))
    return np.rint(sixteen * (255.0 / 65535.0)).astype(np.uint8)


def scores(image: Picture, weights: Floats, stride: int = 1) -> Floats:
    """Linear score of the descriptor around each pixel, or around every `stride`-th.

    Parameters
    ----------
    image : (rows, columns) uint8
        One slice; beyond its border it is mirrored without repeating the edge.
    weights : (577,) float32
        Weight of each descriptor value; the last number is the bias.
    stride : {1, 2, 4}
        Distance between the pixels scored, in both directions; the first is pixel 0.

    Returns
    -------
    (ceil(rows / stride), ceil(columns / stride)) float32
    """
    hog = cv2.HOGDescriptor(*PARAMETERS)
    hog.setSVMDetector(np.ascontiguousarray(weights, np.float32))
    _, found = hog.detect(
        np.ascontiguousarray(image), _EVERY_WINDOW, (stride, stride), (_HALF, _HALF)
    )
    # With this padding window k starts at k - 16, so pixel k is its centre; one more may fit.
    rows, columns = image.shape
    full = np.asarray(found, np.float32).reshape(rows // stride + 1, columns // stride + 1)
    return np.ascontiguousarray(full[: -(-rows // stride), : -(-columns // stride)])


def scores_within(image: Picture, weights: Floats, rows: slice, columns: slice) -> Floats:
    """Scores of a part of a slice: those of `scores`, without the work for the rest of it.

    Parameters
    ----------
    image : (rows, columns) uint8
    weights : (577,) float32
    rows, columns : slice
        From where to where; the ends may lie beyond the slice.
    """
    # The windows reach beyond the part, and one pixel more for their gradients.
    y, x = (max(part.start - _HALF - 1, 0) for part in (rows, columns))
    around = image[y : rows.stop + _HALF + 1, x : columns.stop + _HALF + 1]
    part = np.s_[rows.start - y : rows.stop - y, columns.start - x : columns.stop - x]
    return scores(around, weights)[part]


def best_path(
    scores: Floats,
    spacing_mm: tuple[float, float, float],
    smoothness: float = 1.0,
) -> npt.NDArray[np.intp]:
    """Point of each slice on the path of highest total score minus its bending cost.

    Maximises ``Σ S_z(p_z) − λ Σ |p_z − p_(z−1)|² / dz²`` exactly, by dynamic programming; both
    distances in mm. Each step along z is a distance transform of a quadratic, one axis after the
    other.

    Parameters
    ----------
    scores : (Z, Y, X) float32
        Score of each pixel of each axial slice; finite.
    spacing_mm : tuple of three floats
        Pixel size along x and y, and distance dz between slices.
    smoothness : float
        λ.

    Returns
    -------
    (Z, 2) int
        Voxel indices (x, y), slice by slice.

    References
    ----------
    Felzenszwalb and Huttenlocher 2012, Distance transforms of sampled functions.
    """
    dx, dy, dz = spacing_mm
    cost_x, cost_y = smoothness * (dx / dz) ** 2, smoothness * (dy / dz) ** 2
    totals = np.array(scores, np.float32)
    for z in range(1, len(totals)):
        reached = _transform(_transform(totals[z - 1], cost_y, 0), cost_x, 1)
        # Only differences matter; near zero they keep their digits.
        totals[z] += reached - reached.max()
    rows, columns = np.ogrid[: scores.shape[1], : scores.shape[2]]
    path = np.empty((len(scores), 2), np.intp)
    y, x = np.unravel_index(int(totals[-1].argmax()), totals.shape[1:])
    path[-1] = x, y
    for z in range(len(totals) - 2, -1, -1):
        step = cost_y * (rows - y) ** 2 + cost_x * (columns - x) ** 2
        y, x = np.unravel_index(int((totals[z] - step).argmax()), step.shape)
        path[z] = x, y
    return path


def _transform(values: Floats, cost: float, axis: int) -> Floats:
    """Best of ``values[q] − cost (p − q)²`` over q along one axis, for each p.

    Exact: a step that costs more than the whole range of the values never pays.
    """
    source = values if axis == 0 else values.T
    best = source.copy()
    span = float(source.max() - source.min())
    for step in range(1, len(source)):
        price = np.float32(cost * step * step)
        if price >= span:
            break
        np.maximum(best[step:], source[:-step] - price, out=best[step:])
        np.maximum(best[:-step], source[step:] - price, out=best[:-step])
    return best if axis == 0 else best.T
