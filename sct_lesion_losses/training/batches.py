"""Batches of patches from tubes, as a `keras.utils.PyDataset`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from sct_lesion_losses.errors import DataError
from sct_lesion_losses.preprocessing.augmentation import Augmentation
from sct_lesion_losses.preprocessing.sampler import (
    Place,
    TrainingTube,
    draw,
    filled,
    keep_freed_memory,
    places,
    windows,
)

Batch = tuple[NDArray[np.float32], NDArray[np.float32]]  # patches and lesion masks


class PatchBatches(keras.utils.PyDataset):  # type: ignore[misc]
    """Batches of an epoch: patches (B, 48, 48, 48, 1) and lesion masks of the same shape, float32.

    Each patch is augmented, then brought to zero mean and unit deviation. The batch of a given
    number in a given epoch depends on the seed alone, not on who asks for it or in what order.

    Parameters
    ----------
    tubes : sequence of TrainingTube
        All scans; mapped from `preprocessing.cache` they lie in the order that is read fastest.
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
        keep_freed_memory()
        self.go_to(0)

    def go_to(self, epoch: int) -> None:
        """Make the batches those of an epoch, counted from 0."""
        self._epoch = epoch if self._augmentation is not None else 0
        rng = np.random.default_rng([self._seed, self._epoch])
        self._plan = draw(self._candidates, self._number, self._lesion_share, rng)

    def __len__(self) -> int:
        return -(-len(self._plan) // self._batch_size)

    def __getitem__(self, index: int) -> Batch:
        rng = np.random.default_rng([self._seed, self._epoch, index])
        return filled(windows(self._tubes, self._rows(index), self._augmentation, rng))

    def _rows(self, index: int) -> list[Place]:
        numbers = np.arange(index * self._batch_size, (index + 1) * self._batch_size)
        return [self._plan[number] for number in numbers % len(self._plan)]

    def scans(self, index: int) -> list[str]:
        """Names of the scans that the patches of a batch come from."""
        return [self._tubes[place.tube].name for place in self._rows(index)]
