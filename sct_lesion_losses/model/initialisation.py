"""Initial weights that depend on the seed alone, not on the backend of Keras."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np

Tensor = Any  # a tensor of whichever backend Keras runs on


@keras.saving.register_keras_serializable(package="sct_lesion_losses")
class GlorotUniform(keras.initializers.Initializer):  # type: ignore[misc]
    """Draws from the uniform distribution on ±√(6 / (inputs + outputs)), by numpy's generator.

    Keras' class of this name draws by the backend's own generator: other weights on each.

    Parameters
    ----------
    seed : int
        Seed; the same one gives the same weights at each call.

    References
    ----------
    Glorot & Bengio 2010, "Understanding the difficulty of training deep feedforward neural
    networks", equation 16.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __call__(self, shape: tuple[int, ...], dtype: Any = None) -> Tensor:
        """Draw the kernel (…, in, out) of a convolution, or (…, out, in) of a transposed one."""
        *window, inputs, outputs = shape
        limit = math.sqrt(6 / (math.prod(window) * (inputs + outputs)))
        drawn = np.random.default_rng(self.seed).uniform(-limit, limit, shape)
        return keras.ops.convert_to_tensor(drawn, dtype=keras.backend.standardize_dtype(dtype))

    def get_config(self) -> dict[str, Any]:
        """Return what Keras needs to build the same initialiser again."""
        return {"seed": self.seed}
