from __future__ import annotations

import keras
import numpy as np
import pytest

from sct_lesion_losses.training.unet import BatchNormalization


@pytest.fixture
def layers() -> tuple[keras.layers.Layer, keras.layers.Layer]:
    """This package's layer and Keras' own, with the same weights."""
    own, keras_own = (
        layer(momentum=0.9) for layer in (BatchNormalization, keras.layers.BatchNormalization)
    )
    for layer in (own, keras_own):
        layer.build((None, 6, 5, 4, 3))
        layer.gamma.assign([0.5, 1.0, 2.0])
        layer.beta.assign([0.1, 0.0, -0.3])
        layer.moving_mean.assign([1.0, 2.0, 3.0])
        layer.moving_variance.assign([0.5, 1.0, 2.0])
    return own, keras_own


def activations(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(2, 3, (2, 6, 5, 4, 3)).astype(np.float32)


@pytest.mark.parametrize("training", [False, True])
def test_activations_are_those_of_keras(layers, training):
    own, expected = (np.asarray(layer(activations(), training=training)) for layer in layers)
    assert own == pytest.approx(expected, abs=1e-5)


def test_moving_averages_follow_as_those_of_keras(layers):
    for layer in layers:
        layer(activations(), training=True)
    own, expected = layers
    for name in ("moving_mean", "moving_variance"):
        average, of_keras = (np.asarray(getattr(layer, name).value) for layer in (own, expected))
        # An unbiased variance would put 0.1 · 9 / 239 = 4e-3 between them: 240 voxels.
        assert average == pytest.approx(of_keras, abs=1e-5), name


def test_gradients_are_those_of_keras(layers):
    tf = pytest.importorskip("tensorflow")
    x, weights = tf.constant(activations()), tf.constant(activations(1))
    gradients = []
    for layer in layers:
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = tf.reduce_sum(weights * layer(x, training=True))
        gradients.append(tape.gradient(total, [x, layer.gamma.value, layer.beta.value]))
    for own, expected in zip(*gradients, strict=True):
        assert np.asarray(own) == pytest.approx(np.asarray(expected), abs=2e-4, rel=1e-4)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_stays_half(precision):
    layer = BatchNormalization(dtype=precision)
    assert layer(activations(), training=True).dtype == precision.removeprefix("mixed_")
    assert layer.moving_mean.dtype == "float32"
