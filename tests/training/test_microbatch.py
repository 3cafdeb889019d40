"""Steps in micro-batches against steps on the whole batch, with Keras' own normalisation."""

from __future__ import annotations

import functools
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from sct_lesion_losses import losses
from sct_lesion_losses.training import microbatch, unet

# Keras' variables do not know a keyword of NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SIDE = 8
DEEP = (2, 4, 8)
RATE = 256.0  # so large that the rounding of a weight is little beside what a step takes from it


@functools.cache
def batch(patches: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Patches that differ in brightness and lesion load, so that no micro-batch is typical."""
    rng = np.random.default_rng(0)
    load = np.linspace(0, 0.4, patches).reshape(-1, 1, 1, 1, 1)
    lesions = rng.random((patches, SIDE, SIDE, SIDE, 1)) < load
    images = rng.normal(size=lesions.shape) * (1 + 5 * load) + 10 * load + lesions
    return images.astype(np.float32), lesions.astype(np.float32)


def compiled(model: keras.Model, optimizer: keras.Optimizer, loss: keras.Loss) -> keras.Model:
    model.compile(optimizer, loss, jit_compile=keras.backend.backend() == "jax")
    return model


def trained(filters=(2, 4), loss="tversky", optimizer=None, precision="float32", **numbers):
    """The package's network, and the same one with Keras' own normalisation."""

    def own(layer: keras.layers.Layer) -> keras.layers.Layer:
        if isinstance(layer, keras.layers.BatchNormalization):
            return keras.layers.BatchNormalization.from_config(layer.get_config())
        return layer.__class__.from_config(layer.get_config())

    optimizer = optimizer or keras.optimizers.SGD(RATE)
    model = unet.build(filters, SIDE, precision=precision)
    reference = keras.models.clone_model(model, clone_function=own)
    put(reference.variables, values(model.variables))
    again = type(optimizer).from_config(optimizer.get_config())
    return (
        compiled(model, optimizer, losses.get(loss, **numbers)),
        compiled(reference, again, losses.get(loss, **numbers)),
    )


def values(variables) -> list[np.ndarray]:
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def put(variables, arrays) -> None:
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)


def whole_batch_gradient(model: keras.Model, *examples: np.ndarray) -> list[np.ndarray]:
    """What one step of gradient descent takes from the weights, by the rate."""
    before, weights = values(model.variables), values(model.trainable_variables)
    model.train_on_batch(*examples)
    after = values(model.trainable_variables)
    put(model.variables, before)
    return [(old - new) / RATE for old, new in zip(weights, after, strict=True)]


def apart(ones, others) -> float:
    """Largest difference of two lists of arrays, as a share of the largest value of each array."""
    return max(
        np.abs(one - other).max() / np.abs(other).max()
        for one, other in zip(ones, others, strict=True)
    )


def distance(ones, others) -> float:
    """Euclidean distance of two lists of arrays, as a share of the length of the second."""
    one, other = (np.concatenate([x.ravel() for x in arrays]) for arrays in (ones, others))
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


def test_loss_and_gradient_are_those_of_the_whole_batch():
    model, reference = trained(DEEP)
    expected = whole_batch_gradient(reference, *batch())
    loss = float(reference.train_on_batch(*batch()))
    network = microbatch.prepare(model)
    for micro in (1, 3, 4):
        found = microbatch.gradient(network, *batch(), micro)
        assert found.loss == pytest.approx(loss, rel=1e-6)
        assert apart(found.weights, expected) < 1e-4


@pytest.mark.parametrize(
    ("loss", "numbers"),
    [
        ("tversky", {"pooling": "sample"}),
        ("bce", {}),
        ("combo", {}),
        ("focal_tversky", {}),
        ("blob", {"most_lesions": 2}),
    ],
)
def test_it_is_that_of_the_whole_batch_for_other_losses(loss, numbers):
    model, reference = trained((2, 4), loss, **numbers)
    found = microbatch.gradient(microbatch.prepare(model), *batch(), 2)
    assert apart(found.weights, whole_batch_gradient(reference, *batch())) < 1e-4


def test_the_mean_gradient_of_micro_batches_is_another():
    # Were the patches alike, nothing here could fail: it is off by two thirds of the gradient.
    _, reference = trained()
    expected = whole_batch_gradient(reference, *batch())
    images, lesions = batch()
    parts = [whole_batch_gradient(reference, images[i : i + 2], lesions[i : i + 2]) for i in (0, 2)]
    mean = [(a + b) / 2 for a, b in zip(*parts, strict=True)]
    assert distance(mean, expected) > 0.3


def test_weights_and_moving_averages_follow_those_of_whole_batches():
    model, reference = trained(optimizer=keras.optimizers.SGD(0.5, momentum=0.9))
    network = microbatch.prepare(model)
    for _ in range(3):
        expected = float(reference.train_on_batch(*batch()))
        assert microbatch.step(network, *batch(), 2) == pytest.approx(expected, rel=1e-5)
    assert apart(values(model.trainable_variables), values(reference.trainable_variables)) < 1e-4
    averages = model.non_trainable_variables, reference.non_trainable_variables
    assert apart(*map(values, averages)) < 1e-5


def test_the_optimiser_keeps_the_state_it_has_after_whole_batches():
    # Adam's moments, rather than weights: it makes steps of one size from rounding errors, too.
    model, reference = trained(optimizer=keras.optimizers.Adam(1e-4))
    network = microbatch.prepare(model)
    for _ in range(2):
        reference.train_on_batch(*batch())
        microbatch.step(network, *batch(), 1)
    state, expected = values(model.optimizer.variables), values(reference.optimizer.variables)
    assert state[0] == expected[0] == 2  # iterations
    assert apart(state[1:], expected[1:]) < 1e-3


def test_steps_on_whole_batches_and_in_micro_batches_may_alternate():
    model, reference = trained(optimizer=keras.optimizers.SGD(1.0))
    network = microbatch.prepare(model)
    for _ in range(2):
        reference.train_on_batch(*batch())
    model.train_on_batch(*batch())
    microbatch.step(network, *batch(), 2)
    assert apart(values(model.trainable_variables), values(reference.trainable_variables)) < 1e-4


def test_a_gradient_changes_nothing_of_the_model():
    model, _ = trained()
    before = values(model.variables)
    microbatch.gradient(microbatch.prepare(model), *batch(), 2)
    assert all(np.array_equal(a, b) for a, b in zip(before, values(model.variables), strict=True))


def test_a_scale_multiplies_gradients_and_leaves_the_loss():
    network = microbatch.prepare(trained((2,))[0])
    one, scaled = (microbatch.gradient(network, *batch(), 2, scale=s) for s in (1.0, 1024.0))
    assert scaled.loss == one.loss
    assert apart([weights / 1024 for weights in scaled.weights], one.weights) < 1e-6


def test_bfloat16_gradients_are_as_near_to_those_of_float32_as_on_whole_batches():
    exact, _ = trained()
    model, reference = trained(precision="mixed_bfloat16")
    expected = whole_batch_gradient(exact, *batch())
    whole = distance(whole_batch_gradient(reference, *batch()), expected)
    found = microbatch.gradient(microbatch.prepare(model), *batch(), 2)
    assert distance(found.weights, expected) < 1.5 * whole
    assert 0 < whole < 0.15  # 8 bits a number leave a tenth of error, with micro-batches or without


def test_float16_steps_are_scaled_like_those_of_whole_batches():
    # One level: TensorFlow pools no float16 volumes on a CPU.
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(1.0))
    model, reference = trained((2,), optimizer=optimizer, precision="mixed_float16")
    before = values(model.trainable_variables)
    microbatch.step(microbatch.prepare(model), *batch(), 2)
    reference.train_on_batch(*batch())
    steps = [
        [new - old for old, new in zip(before, values(m.trainable_variables), strict=True)]
        for m in (model, reference)
    ]
    assert apart(*steps) < 0.02


def test_gradients_that_overflow_halve_the_scale_and_leave_the_weights():
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(1.0), initial_scale=1e38)
    model, _ = trained((2,), optimizer=optimizer)
    before = values(model.trainable_variables)
    images, lesions = batch()
    microbatch.step(microbatch.prepare(model), images * np.float32(1e4), lesions, 2)
    assert float(model.optimizer.dynamic_scale.value) == pytest.approx(5e37)
    after = values(model.trainable_variables)
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("micro", [1, 3])
def test_the_validation_loss_is_that_of_the_whole_batch(micro):
    model, _ = trained()
    expected = float(model.test_on_batch(*batch()))
    assert microbatch.loss(model, *batch(), micro) == pytest.approx(expected, rel=1e-6)


def test_a_frozen_normalisation_is_refused():
    model, _ = trained((2,))
    model.get_layer("bottom_norm_a").trainable = False
    with pytest.raises(ValueError, match="'bottom_norm_a'"):
        microbatch.prepare(model)


def test_a_layer_with_a_random_state_is_refused():
    patches = keras.Input((SIDE, SIDE, SIDE, 1))
    model = keras.Model(patches, keras.layers.Dropout(0.5, name="drop", seed=0)(patches))
    with pytest.raises(ValueError, match="'drop'"):
        microbatch.prepare(compiled(model, keras.optimizers.SGD(), losses.get("dice")))


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() == "jax", reason="this is what it would start")
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")
def test_it_holds_on_jax():
    here = Path(__file__)
    files = [here, here.with_name("test_memory.py")]
    chosen = "moving_averages or steps_are_scaled or overflow or recognised"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", chosen, *files],
        cwd=here.parents[2],
        env=os.environ | {"KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
