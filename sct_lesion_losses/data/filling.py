"""One batch of patches: cut out of the tubes, augmented, normalised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sct_lesion_losses import augment, intensity
from sct_lesion_losses.augment import Augmentation, Orientation
from sct_lesion_losses.data.drawing import Place, TrainingTube
from sct_lesion_losses.space.patches import PATCH_VOX

_LARGEST_KEPT_BYTES = 31 << 20  # glibc keeps 32 MiB at most


@dataclass(frozen=True, eq=False)
class Window:
    """A patch as it was drawn, before it is turned and normalised.

    Attributes
    ----------
    values : (48, 48, 48) float32
        A view of the tube, unless the intensities were changed.
    lesion : (48, 48, 48) bool
        A view of the tube.
    orientation : Orientation
        How both shall lie.
    """

    values: NDArray[np.float32]
    lesion: NDArray[np.bool_]
    orientation: Orientation


def windows(
    tubes: Sequence[TrainingTube],
    chosen: Sequence[Place],
    augmentation: Augmentation | None,
    rng: np.random.Generator,
) -> list[Window]:
    """Draw how each of the chosen patches is to be shown.

    Parameters
    ----------
    tubes : sequence of TrainingTube
    chosen : sequence of Place
    augmentation : Augmentation or None
        None takes the central window as it is.
    rng : numpy.random.Generator
        Drawn from patch after patch.
    """
    return [_window(tubes[place.tube], place.start, augmentation, rng) for place in chosen]


def filled(chosen: Sequence[Window]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Patches and their lesion masks as a network is trained on them.

    Parameters
    ----------
    chosen : sequence of B Window

    Returns
    -------
    patches : (B, 48, 48, 48, 1) float32
        Each with zero mean and unit standard deviation.
    lesions : (B, 48, 48, 48, 1) float32
        0 and 1.
    """
    shape = (len(chosen), PATCH_VOX, PATCH_VOX, PATCH_VOX)
    patches, lesions = np.empty(shape, np.float32), np.empty(shape, np.float32)
    # All of one patch before the next, while it is in the processor's cache.
    for window, patch, lesion in zip(chosen, patches, lesions, strict=True):
        orientation = window.orientation
        values = _upright(orientation.along_cord(window.values))
        scale = intensity.centre(values, out=values)
        np.multiply(orientation.in_plane(values), scale, out=patch)
        if window.lesion.any():
            mask = _upright(orientation.along_cord(window.lesion))
            lesion[...] = orientation.in_plane(mask)
        else:
            lesion[...] = 0
    return patches[..., None], lesions[..., None]


def keep_freed_memory() -> None:
    """Let the memory of a batch serve the next one.

    glibc gives arrays of this size back to the system when they are freed, and gets them anew page
    by page, which takes three times as long as filling them. Once it has seen a larger one freed,
    it keeps those that are smaller (mallopt(3), M_MMAP_THRESHOLD). Elsewhere nothing changes.
    """
    np.empty(_LARGEST_KEPT_BYTES, np.uint8)


def _window(
    tube: TrainingTube, start: int, augmentation: Augmentation | None, rng: np.random.Generator
) -> Window:
    x = y = tube.margin
    if augmentation is not None and tube.margin:
        x, y = augment.shift(rng, tube.margin)
    box = tuple(slice(first, first + PATCH_VOX) for first in (x, y, start))
    values, lesion = tube.values[box], tube.lesion[box]
    if augmentation is None:
        return Window(values, lesion, Orientation())
    if augmentation.intensity > 0:
        values = augment.vary_intensity(_upright(values), rng, augmentation.intensity)
    return Window(values, lesion, augment.draw_orientation(rng, augmentation))


def _upright(window: NDArray[Any]) -> NDArray[Any]:
    """Copy a window, (X, Y, Z), to a new array along whose rows z runs.

    The cache stores a tube slice after slice, so that a patch is read in one piece; to turn it
    takes numpy five times as long as OpenCV.
    """
    slices = np.ascontiguousarray(window.transpose(2, 0, 1)).reshape(window.shape[2], -1)
    numbers = slices.view(np.uint8) if slices.dtype == bool else slices
    turned: NDArray[Any] = cv2.transpose(numbers)
    return turned.view(slices.dtype).reshape(window.shape)
