"""One batch of patches: cut out of the tubes, augmented, normalised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sct_lesion_losses.geometry.patches import PATCH_VOX, STRIDE_VOX, patch_starts
from sct_lesion_losses.preprocessing import augmentation as augment
from sct_lesion_losses.preprocessing import intensity
from sct_lesion_losses.preprocessing.augmentation import Augmentation, Orientation


@dataclass(frozen=True, eq=False)
class TrainingTube:
    """A scan as training sees it.

    Attributes
    ----------
    values : (48 + 2M, 48 + 2M, Z) float32
        Standardised intensities around the centerline, M voxels wider on each side than a patch.
    lesion : (48 + 2M, 48 + 2M, Z) bool
        Lesion mask on the same voxels.
    name : str
        Name of the scan, for messages.
    """

    values: NDArray[np.float32]
    lesion: NDArray[np.bool_]
    name: str = ""

    @property
    def margin(self) -> int:
        """M, the voxels by which a window may be moved in plane."""
        return int(self.values.shape[0] - PATCH_VOX) // 2


@dataclass(frozen=True)
class Place:
    """Where a patch is: the tube's number and the first slice in it."""

    tube: int
    start: int
    has_lesion: bool


def places(tubes: Sequence[TrainingTube], stride: int = STRIDE_VOX) -> list[Place]:
    """Every patch of the tubes, in order; one holds lesion if its central window does."""
    found = []
    for number, tube in enumerate(tubes):
        m = tube.margin
        window = tube.lesion[m : m + PATCH_VOX, m : m + PATCH_VOX]
        per_slice: NDArray[np.bool_] = np.any(window, axis=(0, 1))
        found += [
            Place(number, start, bool(per_slice[start : start + PATCH_VOX].any()))
            for start in patch_starts(tube.values.shape[2], PATCH_VOX, stride)
        ]
    return found


def draw(
    candidates: Sequence[Place],
    number: int | None,
    lesion_share: float | None,
    rng: np.random.Generator,
) -> list[Place]:
    """Draw the patches of one epoch, in the order they are shown.

    Parameters
    ----------
    candidates : sequence of Place
        Every patch there is.
    number : int or None
        How many to draw; None takes as many as there are candidates.
    lesion_share : float or None
        Share of them that holds lesion. None draws all alike.
    rng : numpy.random.Generator

    Returns
    -------
    list of Place
        No patch is repeated before every other of its kind was drawn.
    """
    number = len(candidates) if number is None else number
    if lesion_share is None:
        groups = [(list(candidates), number)]
    else:
        with_lesion = [place for place in candidates if place.has_lesion]
        without = [place for place in candidates if not place.has_lesion]
        wanted = round(number * lesion_share) if without else number
        wanted = wanted if with_lesion else 0
        groups = [(with_lesion, wanted), (without, number - wanted)]
    drawn = [place for group, size in groups for place in _rounds(group, size, rng)]
    return [drawn[i] for i in rng.permutation(len(drawn))]


def _rounds(group: list[Place], size: int, rng: np.random.Generator) -> list[Place]:
    chosen: list[Place] = []
    while len(chosen) < size:
        order = rng.permutation(len(group))[: size - len(chosen)]
        chosen += [group[i] for i in order]
    return chosen


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
