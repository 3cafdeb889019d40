"""A bundle trained in seconds on small synthetic scans, for the tests of tuning and evaluating."""

from __future__ import annotations

from pathlib import Path

from small_cohort import write_cohort

from sct_lesion_losses.preprocessing.augmentation import Augmentation
from sct_lesion_losses.training.recipe import study
from sct_lesion_losses.workflows import train


def train_small(folder: Path) -> Path:
    """Train the bundle `small` enough to find bright blocks; return the split of its cohort."""
    data = write_cohort(folder / "data", subjects=18, lesion_free=2)
    recipe = study(
        filters=(4,),
        batch_size=2,
        epochs_planned=8,
        patches_per_epoch=16,
        validation_patches=2,
        rate=2e-2,
        augmentation=Augmentation(rotations=False),
    )
    train.run(data, folder / "small", recipe)
    return folder / "small.training" / train.SPLIT_TABLE
