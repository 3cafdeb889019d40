"""Histograms of oriented gradients with a linear score: how much a pixel looks like the cord.

The descriptor is OptiC's: a window of 32 × 32 pixels, 16 blocks of four cells, nine signed
orientations, square-root gamma, L2-Hys normalisation; 576 numbers and a bias.

References
----------
Dalal and Triggs 2005, Histograms of oriented gradients for human detection.
Gros et al. 2018, Automatic spinal cord localization, robust to MRI contrasts using global curve
optimization.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

WINDOW_PX = 32
FEATURES = 576  # 4 × 4 blocks of 2 × 2 cells of 9 orientations

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

_HALF = WINDOW_PX // 2
_EVERY_WINDOW = -1e30  # no score is below it: OpenCV reports each window with its score


def _descriptor() -> Any:
    return cv2.HOGDescriptor(*PARAMETERS)


def scores(
    image: npt.NDArray[np.uint8], weights: npt.NDArray[np.float32], stride: int = 1
) -> npt.NDArray[np.float32]:
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
    rows, columns = image.shape
    # With this padding window k starts at k - 16, so pixel k is its centre; one more may fit.
    found = _detected(image, weights, stride, _HALF)
    full = found.reshape(rows // stride + 1, columns // stride + 1)
    return np.ascontiguousarray(full[: -(-rows // stride), : -(-columns // stride)])


def scores_near(
    image: npt.NDArray[np.uint8],
    weights: npt.NDArray[np.float32],
    centre: tuple[int, int],
    radius: int,
) -> npt.NDArray[np.float32]:
    """Scores in a square of `2 radius + 1` pixels around one of them: those of `scores`.

    Parameters
    ----------
    image : (rows, columns) uint8
    weights : (577,) float32
    centre : tuple of int
        Row and column; the square may reach beyond the image.
    radius : int

    Returns
    -------
    (2 radius + 1, 2 radius + 1) float32
        Minus infinity beyond the image.
    """
    # One pixel around the windows for their gradients.
    margin = _HALF + radius + 1
    padded = cv2.copyMakeBorder(
        np.ascontiguousarray(image), *(margin,) * 4, borderType=cv2.BORDER_REFLECT_101
    )
    row, column = centre
    side = 2 * margin + 1
    crop = padded[row : row + side, column : column + side]
    count = 2 * radius + 3
    full = _detected(crop, weights, 1, 0).reshape(count + 1, count + 1)
    result = full[1 : count - 1, 1 : count - 1].copy()
    for axis, (at, n) in enumerate(zip(centre, image.shape, strict=True)):
        index = np.arange(at - radius, at + radius + 1)
        outside = (index < 0) | (index >= n)
        result[(outside, slice(None)) if axis == 0 else (slice(None), outside)] = -np.inf
    return result


def _detected(
    image: npt.NDArray[np.uint8], weights: npt.NDArray[np.float32], stride: int, padding: int
) -> npt.NDArray[np.float32]:
    """Score of each window of the padded image, row by row."""
    if weights.shape != (FEATURES + 1,):
        raise ValueError(f"expected {FEATURES + 1} weights, received shape {weights.shape}")
    hog = _descriptor()
    hog.setSVMDetector(np.ascontiguousarray(weights, np.float32))
    _, found = hog.detect(
        np.ascontiguousarray(image), _EVERY_WINDOW, (stride, stride), (padding, padding)
    )
    return np.asarray(found, np.float32).ravel()


def features(
    image: npt.NDArray[np.uint8], pixels: npt.NDArray[np.integer[Any]]
) -> npt.NDArray[np.float32]:
    """Descriptors around some pixels of a slice.

    Parameters
    ----------
    image : (rows, columns) uint8
    pixels : (N, 2) int
        Row and column of each pixel.

    Returns
    -------
    (N, 576) float32
    """
    # The border is added here: OpenCV drops listed windows that leave the padded image.
    padded = cv2.copyMakeBorder(
        np.ascontiguousarray(image), *(_HALF + 1,) * 4, borderType=cv2.BORDER_REFLECT_101
    )
    corners = [(int(column) + 1, int(row) + 1) for row, column in pixels]
    values = _descriptor().compute(padded, locations=corners)
    return np.asarray(values, np.float32).reshape(len(pixels), FEATURES)
