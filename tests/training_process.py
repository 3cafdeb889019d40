"""A small training as a process of its own, to be killed: FOLDER KEEP_EVERY_S.

Prints every step, then a hash of the final weights.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from sct_lesion_losses.training.running import Listener
from sct_lesion_losses.training.steps import Machine
from small_crops import with_block as tube

from sct_lesion_losses.preprocessing.augmentation import Augmentation
from sct_lesion_losses.training import fit
from sct_lesion_losses.training.recipe import study

RECIPE = study(
    filters=(4, 8),
    batch_size=2,
    patches_per_epoch=8,
    validation_patches=2,
    epochs_planned=3,
    rate=1e-2,
    patience=1,
    augmentation=Augmentation(intensity=0.5),
)


def main(folder: str, keep_every_s: str) -> None:
    fitted = fit.fit(
        [tube(0), tube(1)],
        [tube(2)],
        RECIPE,
        Path(folder),
        resume=True,
        machine=Machine(keep_every_s=float(keep_every_s)),
        listener=Listener(step=lambda now: print(now.epoch, now.step, flush=True)),  # noqa: T201
    )
    digest = hashlib.sha256()
    for array in fitted.model.get_weights():
        digest.update(array.tobytes())
    print(digest.hexdigest())  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
