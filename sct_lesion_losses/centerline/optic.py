"""OptiC: the cord's centerline from HOG scores and the best path, with weights given by the caller.

With the weights of the Spinal Cord Toolbox it gives that toolbox's own centerlines; this package
carries none of them.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from sct_lesion_losses.centerline import hog
from sct_lesion_losses.centerline.path import best_path
from sct_lesion_losses.errors import CenterlineError
from sct_lesion_losses.space.centerline import HOW_TO_GIVE, Centerline
from sct_lesion_losses.space.grid import Grid

PIXEL_MM = 1.0  # of the slices the weights were trained on
SMOOTHNESS = 1.0  # SCT's -lambda


def optic(
    image: npt.NDArray[Any],
    grid: Grid,
    weights: npt.NDArray[np.float32],
    method: str = "OptiC",
) -> Centerline:
    """Centerline of a scan by OptiC.

    Parameters
    ----------
    image : (X, Y, Z)
        Scan on its own axes; voxels that are not finite count as zero.
    grid : Grid
        Grid of the scan.
    weights : (577,) float32
        Weights and bias of the score, for pixels of 1 mm.
    method : str
        Name given to the result.

    Returns
    -------
    Centerline
        On the scan's grid in RPI, a point in every slice.

    Raises
    ------
    CenterlineError
        The scan is constant, or too narrow to hold a window.
    """
    rpi, reorientation = grid.to_rpi()
    check_field(rpi)
    slices = to_eight_bit(reorientation.apply(image)).transpose(2, 1, 0)
    scores = score_maps(slices, rpi.spacing_mm[:2], weights)
    path = best_path(scores, rpi.spacing_mm, SMOOTHNESS)
    return Centerline(rpi, path.astype(np.float64), method)


def check_field(grid: Grid, least_mm: float = 10.0) -> None:
    """Refuse a field of view that cannot show the cord in an axial slice."""
    across = [n * size for n, size in zip(grid.shape[:2], grid.spacing_mm, strict=False)]
    if min(across) < least_mm:
        raise CenterlineError(
            f"the field of view is {across[0]:.1f} × {across[1]:.1f} mm across the cord; finding "
            f"the centerline needs {least_mm:g} mm, give one {HOW_TO_GIVE}"
        )


def to_eight_bit(image: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Intensities from minimum to maximum on 0 to 255; what is not finite counts as zero.

    Raises
    ------
    CenterlineError
        All voxels have one value.
    """
    values = np.nan_to_num(np.asarray(image, np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    if low == high:
        raise CenterlineError(
            f"every voxel of the image is {low:g}: there is no cord to find; check the scan"
        )
    # By way of 16 bits, as SCT hands the scan to OptiC.
    sixteen = np.floor((values - low) * (65535.0 / (high - low)))
    return np.rint(sixteen * (255.0 / 65535.0)).astype(np.uint8)


def score_maps(
    slices: npt.NDArray[np.uint8],
    spacing_mm: tuple[float, float],
    weights: npt.NDArray[np.float32],
) -> npt.NDArray[np.float32]:
    """Score of every pixel of every slice, computed at 1 mm and brought back.

    Parameters
    ----------
    slices : (Z, Y, X) uint8
    spacing_mm : tuple of two floats
        Pixel size along x and y.
    weights : (577,) float32

    Returns
    -------
    (Z, Y, X) float32
    """
    rows, columns = slices.shape[1:]
    # An affine's spacing of 0.5000000005 must not tip the rounding of half a pixel.
    fx, fy = (round(size, 6) / PIXEL_MM for size in spacing_mm)

    def one(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        # To 1 mm by factors and back by size: the two differ where a size is rounded.
        resized = cv2.resize(
            np.ascontiguousarray(image), None, fx=fx, fy=fy, interpolation=cv2.INTER_LINEAR
        )
        scored = hog.scores(np.asarray(resized, np.uint8), weights)
        back = cv2.resize(scored, (columns, rows), interpolation=cv2.INTER_LINEAR)
        return np.asarray(back, np.float32)

    with ThreadPoolExecutor() as pool:
        return np.stack(list(pool.map(one, slices)))
