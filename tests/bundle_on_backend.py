"""Train a bundle on the backend that Keras runs on, with the other ones absent.

    KERAS_BACKEND=jax python tests/bundle_on_backend.py COHORT FOLDER written.npz

Writes ``history``, the validation loss of each epoch, and ``keras``, what the network of the bundle
gives for the patches ``patches``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
from backends import BACKENDS
from bare_import import hide


def main(cohort: str, folder: str, written: str) -> None:
    hide({*BACKENDS} - {os.environ["KERAS_BACKEND"]})
    from sct_lesion_losses.bundle import store
    from sct_lesion_losses.training import export, unet
    from sct_lesion_losses.training.recipe import study
    from sct_lesion_losses.workflows import train

    recipe = study(
        filters=(2,),
        batch_size=2,
        epochs_planned=2,
        patches_per_epoch=4,
        validation_patches=2,
        lesion_share=0.5,
        rate=1e-2,
    )
    train.run(Path(cohort), Path(folder), recipe)
    bundle = store.load(Path(folder))
    model = unet.build(recipe.network)
    export.import_weights(model, bundle.weights)
    patches = np.random.default_rng(0).normal(size=(2, 48, 48, 48, 1)).astype(np.float32)
    np.savez(
        written,
        history=[line.val_loss for line in bundle.info.history],
        patches=patches,
        keras=model.predict(patches, verbose=0),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
