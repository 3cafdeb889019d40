from __future__ import annotations

import json

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from keras import ops

from sct_lesion_losses import losses
from sct_lesion_losses.errors import UsageError
from sct_lesion_losses.losses import Tversky, tversky

tf = pytest.importorskip("tensorflow")

CASES = [
    "all_background_ones",
    "all_background_soft",
    "all_background_tiny",
    "all_background_zeros",
    "all_foreground_ones",
    "all_foreground_soft",
    "all_foreground_zeros",
    "mixed_half",
    "mixed_inverted",
    "mixed_near_saturated",
    "mixed_ones",
    "mixed_perfect",
    "mixed_saturated",
    "mixed_soft",
    "mixed_zeros",
    "soft_labels_soft",
]
POOLINGS = ["batch", "sample"]


@pytest.fixture(scope="module")
def oracle(testing_data):
    with np.load(testing_data / "oracles" / "tversky.npz") as stored:
        arrays_ = dict(stored)
    return arrays_, json.loads((testing_data / "oracles" / "tversky.json").read_text())


def value_and_gradient(y_true, y_pred, **numbers):
    """Loss of each sample, and the gradient of their mean."""
    p = tf.constant(y_pred)
    with tf.GradientTape() as tape:
        tape.watch(p)
        value = tversky(tf.constant(y_true), p, **numbers)
        mean = tf.reduce_mean(value)
    return value.numpy(), np.asarray(tape.gradient(mean, p), np.float64)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("case", CASES)
def test_values_are_those_of_the_oracle(oracle, case, pooling):
    arrays_, values = oracle
    value, _ = value_and_gradient(
        arrays_[f"{case}/y_true"], arrays_[f"{case}/y_pred"], pooling=pooling
    )
    expected = np.broadcast_to(values[case][pooling], 3)
    assert value == pytest.approx(expected, rel=2e-6, abs=1e-6)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("case", CASES)
def test_gradients_are_those_of_the_oracle(oracle, case, pooling):
    arrays_, _ = oracle
    _, gradient = value_and_gradient(
        arrays_[f"{case}/y_true"], arrays_[f"{case}/y_pred"], pooling=pooling
    )
    assert np.abs(gradient - arrays_[f"grad/{pooling}/{case}"]).max() < 1e-6


def test_a_worked_example():
    # g = (1, 1, 0, 0), p = (0.8, 0.4, 0.5, 0): TP 1.2, FN 0.8, FP 0.5;
    # 1 - (1.2 + 1) / (1.2 + 0.7 * 0.8 + 0.3 * 0.5 + 1) = 1 - 2.2 / 2.91
    value = tversky(np.array([[1.0, 1, 0, 0]]), np.array([[0.8, 0.4, 0.5, 0]]))
    assert np.asarray(value) == pytest.approx([1 - 2.2 / 2.91])


def test_a_missed_lesion_costs_more_than_a_false_one():
    lesion, nothing = np.ones((1, 8)), np.zeros((1, 8))
    missed = tversky(lesion, nothing)
    false = tversky(nothing, lesion)
    # 1 - 1 / (0.7 * 8 + 1) and 1 - 1 / (0.3 * 8 + 1)
    assert float(missed[0]) == pytest.approx(1 - 1 / 6.6)
    assert float(false[0]) == pytest.approx(1 - 1 / 3.4)


def test_logits_give_the_loss_of_their_probabilities(oracle):
    arrays_, values = oracle
    y_true, logits = arrays_["mixed_soft/y_true"], arrays_["mixed_soft/logits"]
    value = tversky(y_true, logits, from_logits=True)
    assert np.asarray(value) == pytest.approx(
        np.broadcast_to(values["mixed_soft"]["batch"], 3), rel=1e-5
    )


probabilities = arrays(np.float32, (2, 4, 4), elements=st.floats(0, 1, width=32))
masks = arrays(np.float32, (2, 4, 4), elements=st.sampled_from([0.0, 1.0]))


@given(masks, probabilities, st.sampled_from(POOLINGS))
def test_loss_is_between_0_and_1(g, p, pooling):
    value = np.asarray(tversky(g, p, pooling=pooling))
    assert ((value >= -1e-6) & (value <= 1)).all()


@given(masks, probabilities)
def test_with_equal_weights_it_is_the_dice_loss(g, p):
    # Dice with smoothing 2: 1 - (2 TP + 2) / (sum p + sum g + 2)
    dice = 1 - (2 * (g * p).sum() + 2) / (p.sum() + g.sum() + 2)
    value = tversky(g, p, fn_weight=0.5, fp_weight=0.5)
    assert np.asarray(value) == pytest.approx(np.full(2, dice), abs=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("case", CASES)
def test_half_precision_gives_a_finite_value_and_gradient(oracle, case, dtype):
    arrays_, _ = oracle
    p = tf.cast(arrays_[f"{case}/y_pred"], dtype)
    with tf.GradientTape() as tape:
        tape.watch(p)
        value = tversky(arrays_[f"{case}/y_true"], p)
        mean = tf.reduce_mean(value)
    assert value.dtype == "float32"
    assert np.isfinite(value).all()
    assert np.isfinite(tf.cast(tape.gradient(mean, p), "float32")).all()


def test_half_precision_does_not_overflow_on_a_whole_patch():
    # 48^3 = 110592 voxels: beyond the largest float16, 65504.
    ones = ops.ones((1, 48, 48, 48, 1), "float16")
    assert float(tversky(ones, ones)[0]) == pytest.approx(0, abs=1e-6)


def test_shapes_that_would_broadcast_are_refused():
    with pytest.raises(ValueError, match=r"expected y_true and y_pred of one shape"):
        tversky(np.ones((2, 4, 4)), np.ones((2, 4, 4, 1)))


def test_unknown_pooling_is_refused():
    with pytest.raises(ValueError, match="expected pooling 'batch' or 'sample'"):
        tversky(np.ones((1, 2)), np.ones((1, 2)), pooling="voxel")


def test_configuration_makes_the_same_loss_again():
    loss = Tversky(fn_weight=0.8, fp_weight=0.2, smooth=2.0, pooling="sample", from_logits=True)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert isinstance(again, Tversky)
    assert again.get_config() == loss.get_config()


@pytest.mark.parametrize("pooling", POOLINGS)
def test_reduction_of_keras_leaves_the_value_of_a_batch_unchanged(oracle, pooling):
    arrays_, values = oracle
    loss = losses.get("tversky", pooling=pooling)
    value = loss(arrays_["mixed_soft/y_true"], arrays_["mixed_soft/y_pred"])
    assert float(value) == pytest.approx(np.mean(values["mixed_soft"][pooling]), rel=2e-6)


def test_a_network_learns_with_the_loss_in_a_compiled_step():
    model = keras.Sequential([keras.Input((4, 4, 4, 1)), keras.layers.Conv3D(1, 1)])
    model.compile(
        optimizer=keras.optimizers.Adam(0.1), loss=losses.get("tversky", from_logits=True)
    )
    x = np.random.default_rng(0).normal(size=(4, 4, 4, 4, 1)).astype("float32")
    history = model.fit(x, (x > 0).astype("float32"), epochs=10, verbose=0).history["loss"]
    assert history[-1] < 0.8 * history[0]


def test_unknown_names_are_refused_with_those_there_are():
    with pytest.raises(UsageError, match="choose one of tversky"):
        losses.get("tverski")


def test_unknown_numbers_are_refused():
    with pytest.raises(UsageError, match="alpha"):
        losses.get("tversky", alpha=0.7)
