"""Crops of noise to train on, for the tests of batches and of training."""

from __future__ import annotations

import numpy as np

from sct_lesion_losses.preprocessing.cache import TrainingCrop


def with_block(seed: int, length: int = 60) -> TrainingCrop:
    """Noise with one bright block, which is the lesion."""
    lesion = np.zeros((48, 48, length), bool)
    lesion[10:30, 12:30, 8:40] = True
    values = np.random.default_rng(seed).normal(size=lesion.shape) + 3 * lesion
    return TrainingCrop(values.astype(np.float32), lesion, f"scan{seed}")


def with_voxel(length: int = 60, margin: int = 0, lesion_at: int | None = None) -> TrainingCrop:
    """Noise of some length; the lesion is one voxel in the middle of a slice."""
    side = 48 + 2 * margin
    values = np.random.default_rng(length).normal(size=(side, side, length)).astype(np.float32)
    lesion = np.zeros(values.shape, bool)
    if lesion_at is not None:
        lesion[side // 2, side // 2, lesion_at] = True
    return TrainingCrop(values, lesion)
