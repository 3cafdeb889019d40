"""Values and gradients of every loss on the backend that Keras runs on, as an .npz file.

    KERAS_BACKEND=jax python tests/loss_table.py testing_data/oracles/losses.npz table.npz

Its keys, with the loss's name, the dtype of the predictions, the pooling and the oracle's case:

``value/tversky/float32/batch/mixed_soft``     loss of each sample
``gradient/tversky/float32/batch/mixed_soft``  gradient of their mean, in float32
``patch/tversky``                              loss of a perfect prediction of 48³ lesion voxels
``fit/tversky``                                loss of each epoch of a small network
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from sct_lesion_losses import losses

# Name of the oracle's values: function, numbers.
FUNCTIONS = {name: (name, {}) for name in losses.LOSSES}
FUNCTIONS["dice_squared"] = ("dice", {"squared": True})
OVERLAP = ("dice", "log_cosh_dice", "generalized_dice", "tversky", "focal_tversky")
DTYPES = ("float32", "float16", "bfloat16")
POOLINGS = ("batch", "sample")

Tensor = keras.KerasTensor
Arrays = dict[str, np.ndarray]


def differentiated(loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """Compiled function of ground truth and prediction: the loss, the gradient of its mean."""
    if keras.backend.backend() == "jax":
        import jax

        def mean(y_pred, y_true):
            value = loss(y_true, y_pred)
            return ops.mean(value), value

        with_gradient = jax.jit(jax.value_and_grad(mean, has_aux=True))

        def on_jax(y_true, y_pred):
            (_, value), gradient = with_gradient(y_pred, y_true)
            return value, gradient

        return on_jax
    if keras.backend.backend() == "torch":

        def on_torch(y_true, y_pred):
            y_pred = y_pred.clone().requires_grad_()
            value = loss(y_true, y_pred)
            ops.mean(value).backward()
            return value, y_pred.grad

        return on_torch
    import tensorflow as tf

    @tf.function
    def on_tensorflow(y_true, y_pred):
        with tf.GradientTape() as tape:
            tape.watch(y_pred)
            value = loss(y_true, y_pred)
            mean = ops.mean(value)
        return value, tape.gradient(mean, y_pred)

    return on_tensorflow


def values_and_gradients(inputs: Arrays) -> Arrays:
    cases = [key.removesuffix("/y_true") for key in inputs if key.endswith("/y_true")]
    table = {}
    for name, dtype, pooling in itertools.product(FUNCTIONS, DTYPES, POOLINGS):
        called, numbers = FUNCTIONS[name]
        function = getattr(losses, called)
        both = differentiated(
            lambda g, p, f=function, n={**numbers, "pooling": pooling}: f(g, p, **n)
        )
        for case in cases:
            g = ops.convert_to_tensor(inputs[f"{case}/y_true"])
            p = ops.cast(ops.convert_to_tensor(inputs[f"{case}/y_pred"]), dtype)
            value, gradient = both(g, p)
            key = f"{name}/{dtype}/{pooling}/{case}"
            table[f"value/{key}"] = ops.convert_to_numpy(value)
            table[f"gradient/{key}"] = ops.convert_to_numpy(ops.cast(gradient, "float32"))
    return table


def whole_patches() -> Arrays:
    # 48^3 = 110592 voxels: beyond the largest float16, 65504.
    ones = ops.ones((1, 48, 48, 48, 1), "float16")
    return {
        f"patch/{name}": ops.convert_to_numpy(getattr(losses, name)(ones, ones))
        for name in losses.LOSSES
    }


def trainings() -> Arrays:
    x = np.random.default_rng(0).normal(size=(4, 4, 4, 4, 1)).astype("float32")
    table = {}
    for name in losses.LOSSES:
        start = keras.initializers.Constant(0.3)
        layer = keras.layers.Conv3D(1, 1, kernel_initializer=start)
        model = keras.Sequential([keras.Input((4, 4, 4, 1)), layer])
        model.compile(optimizer=keras.optimizers.Adam(0.1), loss=losses.get(name, from_logits=True))
        fitted = model.fit(x, (x > 0).astype("float32"), epochs=15, verbose=0)
        table[f"fit/{name}"] = np.array(fitted.history["loss"])
    return table


def main(oracle: str, written: str) -> None:
    with np.load(oracle) as stored:
        inputs = dict(stored)
    np.savez(written, **values_and_gradients(inputs), **whole_patches(), **trainings())


if __name__ == "__main__":
    main(*sys.argv[1:])
