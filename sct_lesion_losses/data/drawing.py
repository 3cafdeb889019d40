"""Which patches of the training scans are shown, and in what order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sct_lesion_losses.space.patches import PATCH_VOX, STRIDE_VOX, patch_starts


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
