"""Batches of patches from tubes in memory, as a `keras.utils.PyDataset`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from sct_lesion_losses import augment
from sct_lesion_losses.augment import Augmentation
from sct_lesion_losses.errors import DataError
from sct_lesion_losses.intensity import zscore
from sct_lesion_losses.space.patches import patch_starts

PATCH_VOX = 48  # Hussein et al. 2023, section 2.3
STRIDE_VOX = 12  # 75 % overlap; Hussein et al. 2023, section 2.3

Batch = tuple[NDArray[np.float32], NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class TrainingTube:
    """A scan as training sees it.

    Attributes
    ----------
    values : (48 + 2M, 48 + 2M, Z) float32
        Standardised intensities around the centerline, M voxels wider on each side than a patch.
    lesion : (48 + 2M, 48 + 2M, Z) bool
        Lesion mask on the same voxels.
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


class PatchBatches(keras.utils.PyDataset):  # type: ignore[misc]
    """Batches of an epoch: patches (B, 48, 48, 48, 1) and lesion masks of the same shape, float32.

    Each patch is augmented, then brought to zero mean and unit deviation. The batch of a given
    number in a given epoch depends on the seed alone, not on who asks for it or in what order.

    Parameters
    ----------
    tubes : sequence of TrainingTube
        All scans, in memory.
    batch_size : int
        Patches per batch; the last batch of an epoch is filled up from its first patches, so that
        every step has the same shape.
    patches_per_epoch, lesion_share
        See `draw`.
    augmentation : Augmentation or None
        None for validation: the window is centred and the same patches come in every epoch.
    seed : int
    """

    def __init__(
        self,
        tubes: Sequence[TrainingTube],
        batch_size: int = 8,
        *,
        patches_per_epoch: int | None = None,
        lesion_share: float | None = None,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._tubes = list(tubes)
        self._candidates = places(self._tubes)
        if not self._candidates:
            raise DataError("there is no scan to draw patches from; check the split of the cohort")
        self._batch_size = batch_size
        self._number = patches_per_epoch
        self._lesion_share = lesion_share
        self._augmentation = augmentation
        self._seed = seed
        self.go_to(0)

    def go_to(self, epoch: int) -> None:
        """Make the batches those of an epoch, counted from 0."""
        self._epoch = epoch if self._augmentation is not None else 0
        rng = np.random.default_rng([self._seed, self._epoch])
        self._plan = draw(self._candidates, self._number, self._lesion_share, rng)

    def on_epoch_end(self) -> None:
        """Go to the next epoch; Keras calls this."""
        if self._augmentation is not None:
            self.go_to(self._epoch + 1)

    def __len__(self) -> int:
        return -(-len(self._plan) // self._batch_size)

    def __getitem__(self, index: int) -> Batch:
        rng = np.random.default_rng([self._seed, self._epoch, index])
        numbers = np.arange(index * self._batch_size, (index + 1) * self._batch_size)
        shape = (self._batch_size, PATCH_VOX, PATCH_VOX, PATCH_VOX)
        patches, lesions = np.empty(shape, np.float32), np.empty(shape, np.float32)
        for row, number in enumerate(numbers % len(self._plan)):
            patches[row], lesions[row] = self._patch(self._plan[number], rng)
        return zscore(patches)[..., None], lesions[..., None]

    def scans(self, index: int) -> list[str]:
        """Names of the scans that the patches of a batch come from."""
        numbers = np.arange(index * self._batch_size, (index + 1) * self._batch_size)
        return [self._tubes[self._plan[n].tube].name for n in numbers % len(self._plan)]

    def _patch(
        self, place: Place, rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        tube = self._tubes[place.tube]
        x = y = tube.margin
        if self._augmentation is not None and tube.margin:
            x, y = augment.shift(rng, tube.margin)
        box = (
            slice(x, x + PATCH_VOX),
            slice(y, y + PATCH_VOX),
            slice(place.start, place.start + PATCH_VOX),
        )
        patch, lesion = tube.values[box], tube.lesion[box]
        if self._augmentation is None:
            return patch, lesion
        return augment.apply(patch, lesion, rng, self._augmentation)
