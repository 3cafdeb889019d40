import functools
import math

import keras
import numpy as np
import pytest
from on_backend import BACKENDS, run

from sct_lesion_losses.training import unet
from sct_lesion_losses.training.recipe import DOUBLING, EPSILON, STUDY, network
from sct_lesion_losses.training.unet import BatchNormalization, glorot_uniform


def test_study_network_has_0_34_million_parameters():
    assert unet.build().count_params() == 340_209


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_patches_become_float32_probabilities_whatever_the_precision(precision):
    patches = np.random.default_rng(0).normal(size=(2, 8, 8, 8, 1)).astype(np.float32)
    lesion = unet.build(network((2,)), 8, precision=precision)(patches)
    assert (lesion.shape, lesion.dtype) == ((2, 8, 8, 8, 1), "float32")
    assert (np.asarray(lesion) >= 0).all()
    assert (np.asarray(lesion) <= 1).all()


def test_an_untrained_network_starts_near_its_prior():
    patches = np.random.default_rng(0).normal(size=(1, 8, 8, 8, 1)).astype(np.float32)
    start = np.asarray(unet.build(network((2,)), 8, prior=0.02)(patches))
    # The logit is log(0.02 / 0.98) = -3.9, moved by what the features add.
    assert 0.005 < np.median(start) < 0.08


def test_the_seed_decides_the_weights_and_no_two_layers_start_alike():
    one, same, other = (
        unet.build(network((2, 2)), 8, seed=seed).get_weights() for seed in (1, 1, 2)
    )
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    kernels = [array for array in (*one, *other) if array.shape == (3, 3, 3, 2, 2)]
    assert len(kernels) == 8  # five convolutions of two to two channels, but for the first of each
    assert len({kernel.tobytes() for kernel in kernels}) == len(kernels)


def test_a_patch_that_cannot_be_halved_often_enough_is_refused():
    with pytest.raises(ValueError, match="divisible by 4, received 50"):
        unet.build(patch_vox=50)


@pytest.mark.parametrize(
    ("kind", "widths"),
    [
        (STUDY, (2, 2, 6, 6, 2, 2, 2, 1)),
        (DOUBLING, (1, 2, 3, 6, 6, 2, 2, 1)),  # channels are kept on the way up
    ],
)
def test_a_level_has_one_width_or_doubles_it(kind, widths):
    model = unet.build(network((2, 6), kind), 8)
    names = ("down0_conv_a", "down0_conv_b", "bottom_conv_a", "bottom_conv_b")
    names += ("up0_transpose", "up0_conv_a", "up0_conv_b", "lesion")
    found = {layer.name: layer.filters for layer in model.layers if hasattr(layer, "filters")}
    assert found == dict(zip(names, widths, strict=True))


def test_epsilon_is_that_of_the_layers():
    assert unet.build(network((2,)), 8).get_layer("bottom_norm_a").epsilon == EPSILON


KERNEL = (3, 3, 3, 4, 8)


def test_weights_are_those_of_the_generator_of_numpy_in_the_range_of_glorot() -> None:
    # 27 voxels of 4 inputs and of 8 outputs: ±sqrt(6 / 324).
    expected = (2 * np.random.default_rng(7).random(KERNEL) - 1) * math.sqrt(6 / 324)
    drawn = np.asarray(glorot_uniform(KERNEL, seed=7))
    assert drawn.dtype == np.float32
    np.testing.assert_allclose(drawn, expected, atol=1e-7)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_weights_have_the_dtype_asked_for(dtype: str) -> None:
    drawn = glorot_uniform(KERNEL, dtype, seed=1)
    assert keras.backend.standardize_dtype(drawn.dtype) == dtype


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


# Three steps of Adam at 1e-2 move a weight by 0.03; where its gradient is next to nothing, Adam's
# division enlarges the rounding of the gradient to some 1e-6.
MOVED = 1e-2
APART = 1e-5


@pytest.fixture(scope="module")
def weights_on():
    return functools.cache(lambda backend: run(backend, "three_steps"))


def part(weights, prefix):
    return {name: array for name, array in weights.items() if name.startswith(prefix)}


@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_a_network_starts_from_the_same_weights_on_every_backend(weights_on, backend):
    first, other = (part(weights_on(name), "start/") for name in (BACKENDS[0], backend))
    assert first.keys() == other.keys()
    for name, array in first.items():
        assert np.array_equal(other[name], array), name


@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_three_steps_lead_to_the_same_weights_on_every_backend(weights_on, backend):
    first, other = (part(weights_on(name), "end/") for name in (BACKENDS[0], backend))
    assert {"end/down0_norm_a/moving_mean", "end/down0_norm_a/moving_variance"} <= first.keys()
    for name, array in first.items():
        np.testing.assert_allclose(other[name], array, rtol=0, atol=APART, err_msg=name)


def test_three_steps_move_the_kernels_by_more_than_backends_may_differ(weights_on):
    weights = weights_on(BACKENDS[0])
    for name in part(weights, "end/"):
        if name.endswith("kernel"):
            moved = np.abs(weights[name] - weights[name.replace("end/", "start/")])
            assert moved.max() > MOVED > 100 * APART, name
