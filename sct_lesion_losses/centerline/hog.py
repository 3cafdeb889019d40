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

_HALF = WINDOW_PX // 2
_EVERY_WINDOW = -1e30  # no score is below it: OpenCV reports each window with its score


def _descriptor() -> Any:
    return cv2.HOGDescriptor(
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


def scores(
    image: npt.NDArray[np.uint8], weights: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Linear score of the descriptor around each pixel.

    Parameters
    ----------
    image : (rows, columns) uint8
        One slice; beyond its border it is mirrored without repeating the edge.
    weights : (577,) float32
        Weight of each descriptor value; the last number is the bias.

    Returns
    -------
    (rows, columns) float32
    """
    if weights.shape != (FEATURES + 1,):
        raise ValueError(f"expected {FEATURES + 1} weights, received shape {weights.shape}")
    hog = _descriptor()
    hog.setSVMDetector(np.ascontiguousarray(weights, np.float32))
    rows, columns = image.shape
    # With this padding window k starts at k - 16, so pixel k is its centre; one more fits.
    _, found = hog.detect(np.ascontiguousarray(image), _EVERY_WINDOW, (1, 1), (_HALF, _HALF))
    full = np.asarray(found, np.float32).reshape(rows + 1, columns + 1)
    return np.ascontiguousarray(full[:rows, :columns])


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
