"""Train a small U-Net for three steps on the backend that Keras runs on; its weights as an .npz.

    KERAS_BACKEND=jax python tests/three_steps.py weights.npz

The keys are ``start/`` or ``end/`` and the name that `model.export.weights_of` gives a weight.
"""

from __future__ import annotations

import sys

import keras
import numpy as np

from sct_lesion_losses import losses
from sct_lesion_losses.training import export, unet
from sct_lesion_losses.training.recipe import network

SIDE = 8
BATCH = 2
STEPS = 3


def main(written: str) -> None:
    model = unet.build(network((2, 4)), SIDE, seed=1)
    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss=losses.get("tversky"))
    rng = np.random.default_rng(0)
    patches = rng.normal(size=(STEPS * BATCH, SIDE, SIDE, SIDE, 1)).astype(np.float32)
    lesions = (patches > 1).astype(np.float32)
    start = {f"start/{name}": array for name, array in export.weights_of(model).items()}
    model.fit(patches, lesions, batch_size=BATCH, shuffle=False, verbose=0)
    end = {f"end/{name}": array for name, array in export.weights_of(model).items()}
    np.savez(written, **start, **end)


if __name__ == "__main__":
    main(*sys.argv[1:])
