"""The study's network: a 3-D U-Net in Keras, channels last, for patches of 48 voxels a side."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import numpy as np

from sct_lesion_losses.bundle.schema import Architecture
from sct_lesion_losses.geometry.patches import PATCH_VOX
from sct_lesion_losses.training.recipe import DOUBLING, network

Tensor = Any  # a tensor of whichever backend Keras runs on


def glorot_uniform(shape: tuple[int, ...], dtype: Any = None, *, seed: int) -> Tensor:
    """Draw from the uniform distribution on ±√(6 / (inputs + outputs)), by numpy's generator.

    Keras' initialiser of this name draws by the backend's own generator: other weights on each.

    Parameters
    ----------
    shape : tuple of int
        (…, in, out) of a convolution, or (…, out, in) of a transposed one.
    dtype : str, optional
        Keras' default unless it is given.
    seed : int
        The same one gives the same weights.

    References
    ----------
    Glorot & Bengio 2010, "Understanding the difficulty of training deep feedforward neural
    networks", equation 16.
    """
    *window, inputs, outputs = shape
    limit = math.sqrt(6 / (math.prod(window) * (inputs + outputs)))
    drawn = np.random.default_rng(seed).uniform(-limit, limit, shape)
    return keras.ops.convert_to_tensor(drawn, dtype=keras.backend.standardize_dtype(dtype))


class BatchNormalization(keras.layers.BatchNormalization):  # type: ignore[misc]
    """Keras' batch normalisation over the last axis, a third of a CPU training step cheaper.

    On TensorFlow it runs as one fused operation, which reads the activations once instead of once
    for each of mean, variance, shift and scale; on other backends it is Keras' own. Activations,
    gradients and moving averages are the same on all.
    """

    def call(
        self, inputs: Tensor, training: bool | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Normalise (B, X, Y, Z, C) by the batch while training, by moving averages otherwise."""
        if keras.backend.backend() != "tensorflow":
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf

        shape = tf.shape(inputs)
        # The operation knows two spatial axes; the first of three joins the second.
        flat = tf.reshape(inputs, (shape[0], shape[1] * shape[2], shape[3], inputs.shape[-1]))
        moving = (self.moving_mean, self.moving_variance)
        known = [tf.zeros(0)] * 2 if training else [tf.cast(v, "float32") for v in moving]
        normalised, mean, variance = tf.raw_ops.FusedBatchNormV3(
            x=flat,
            scale=tf.cast(self.gamma, "float32"),
            offset=tf.cast(self.beta, "float32"),
            mean=known[0],
            variance=known[1],
            epsilon=self.epsilon,
            data_format="NHWC",
            is_training=bool(training),
        )[:3]
        if training:
            # The operation gives n / (n − 1) times the variance of the n voxels.
            voxels = tf.cast(tf.reduce_prod(shape[:-1]), "float32")
            for average, new in zip(moving, (mean, variance * (1 - 1 / voxels)), strict=True):
                average.assign(average * self.momentum + new * (1 - self.momentum))
        return tf.reshape(normalised, shape)


MOMENTUM = 0.95  # Keras' 0.99 would take hundreds of steps to follow the activations


def build(
    architecture: Architecture | None = None,
    patch_vox: int = PATCH_VOX,
    *,
    seed: int = 0,
    precision: str = "float32",
    prior: float = 0.5,
) -> keras.Model:
    """Build a 3-D U-Net that maps patches to lesion probabilities.

    Each level holds two 3×3×3 convolutions, each followed by batch normalisation and ReLU; 2×2×2
    max-pooling leads down, a transposed 2×2×2 convolution leads up, and the level's own features
    are concatenated before it. The last layer, a 1×1×1 convolution with a sigmoid, computes in
    float32 whatever the precision, so that probabilities are not rounded to 8 bits.

    Parameters
    ----------
    architecture : Architecture, optional
        See `recipe.network`; the study's by default.
    patch_vox : int
        Side of a patch; a multiple of 2 to the power of the number of poolings.
    seed : int
        Seed of the initial weights: two networks of the same seed are the same network, on every
        backend of Keras.
    precision : str
        Keras' dtype policy of every layer but the last: ``float32``, ``mixed_bfloat16`` or
        ``mixed_float16``.
    prior : float
        Probability that the untrained network gives, about, to every voxel, in (0, 1). The share
        of lesion voxels, 0.02 say, spares a region loss the many steps in which it only learns
        that nearly everything is background.

    Returns
    -------
    keras.Model
        Input ``patches`` (B, P, P, P, 1), output (B, P, P, P, 1) float32 in [0, 1].

    References
    ----------
    Çiçek et al. 2016, "3D U-Net: Learning Dense Volumetric Segmentation from Sparse Annotation".
    """
    shape = architecture or network()
    widths, doubling = shape.filters, shape.architecture == DOUBLING
    if patch_vox % 2 ** (len(widths) - 1):
        raise ValueError(
            f"expected a patch side divisible by {2 ** (len(widths) - 1)}, received {patch_vox}"
        )
    seeds = iter(range(1000 * seed, 1000 * seed + 1000))
    policy = keras.dtype_policies.get(precision)

    def start() -> Callable[..., Tensor]:
        return partial(glorot_uniform, seed=next(seeds))

    def convolutions(x: keras.KerasTensor, first: int, second: int, name: str) -> keras.KerasTensor:
        for step, width in (("a", first), ("b", second)):
            x = keras.layers.Conv3D(
                width,
                3,
                padding="same",
                use_bias=False,
                kernel_initializer=start(),
                dtype=policy,
                name=f"{name}_conv_{step}",
            )(x)
            x = BatchNormalization(momentum=MOMENTUM, dtype=policy, name=f"{name}_norm_{step}")(x)
            x = keras.layers.ReLU(dtype=policy, name=f"{name}_relu_{step}")(x)
        return x

    patches = keras.Input((patch_vox, patch_vox, patch_vox, 1), name="patches")
    x, skips = patches, []
    for level, width in enumerate(widths[:-1]):
        x = convolutions(x, width // 2 if doubling else width, width, f"down{level}")
        skips.append(x)
        x = keras.layers.MaxPooling3D(2, dtype=policy, name=f"down{level}_pool")(x)
    x = convolutions(x, widths[-1] // 2 if doubling else widths[-1], widths[-1], "bottom")
    for level in reversed(range(len(skips))):
        x = keras.layers.Conv3DTranspose(
            widths[level + 1 if doubling else level],
            2,
            strides=2,
            kernel_initializer=start(),
            dtype=policy,
            name=f"up{level}_transpose",
        )(x)
        x = keras.layers.Concatenate(dtype=policy, name=f"up{level}_concat")([skips[level], x])
        x = convolutions(x, widths[level], widths[level], f"up{level}")
    lesion = keras.layers.Conv3D(
        1,
        1,
        activation="sigmoid",
        kernel_initializer=start(),
        bias_initializer=keras.initializers.Constant(math.log(prior / (1 - prior))),
        dtype="float32",
        name="lesion",
    )(x)
    return keras.Model(patches, lesion, name="unet3d")
