"""All losses against the oracle, on degenerate input, and in Keras."""

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

tf = pytest.importorskip("tensorflow")

# Name of the oracle's values: function, numbers.
ORACLE = {name: (name, {}) for name in losses.LOSSES if name not in ("dice_bce", "blob")}
ORACLE["dice_squared"] = ("dice", {"squared": True})
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
# float32(1 - 1e-7) is 1 - 1.19e-7: a logarithm of an exactly saturated term is off by 1.1 %.
SATURATED = 0.012
REGION = ("dice", "log_cosh_dice", "generalized_dice", "tversky", "focal_tversky")


def function(name):
    return getattr(losses, name)


@pytest.fixture(scope="module")
def oracle(testing_data):
    with np.load(testing_data / "oracles" / "losses.npz") as stored:
        arrays_ = dict(stored)
    return arrays_, json.loads((testing_data / "oracles" / "losses.json").read_text())


def value_and_gradient(name, y_true, y_pred, **numbers):
    """Loss of each sample, and the gradient of their mean."""
    p = tf.constant(y_pred)
    with tf.GradientTape() as tape:
        tape.watch(p)
        value = function(name)(tf.constant(y_true), p, **numbers)
        mean = tf.reduce_mean(value)
    return value.numpy(), np.asarray(tape.gradient(mean, p), np.float64)


def cases(name):
    """Cases of the oracle; a focused loss has no slope at 0, so it is held to soft cases there."""
    if name == "asymmetric_focal_tversky":
        return [case for case in CASES if case.endswith(("_soft", "_half"))]
    return CASES


EVERY = [(name, case) for name in ORACLE for case in cases(name)]


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize(("name", "case"), EVERY)
def test_values_and_gradients_are_those_of_the_oracle(oracle, name, case, pooling):
    arrays_, values = oracle
    called, numbers = ORACLE[name]
    y_true, y_pred = arrays_[f"{case}/y_true"], arrays_[f"{case}/y_pred"]
    value, gradient = value_and_gradient(called, y_true, y_pred, pooling=pooling, **numbers)
    expected = np.broadcast_to(values[name][case][pooling], 3)
    ends = called in REGION or not case.endswith(("_ones", "_saturated", "_inverted"))
    assert value == pytest.approx(expected, rel=2e-6 if ends else SATURATED, abs=1e-6)
    slope = arrays_[f"grad/{name}/{pooling}/{case}"]
    np.testing.assert_allclose(gradient, slope, atol=1e-6, rtol=0 if ends else SATURATED)


@pytest.mark.parametrize("name", losses.LOSSES)
def test_the_class_is_the_function(oracle, name):
    arrays_, _ = oracle
    y_true, y_pred = arrays_["mixed_soft/y_true"], arrays_["mixed_soft/y_pred"]
    expected = np.mean(function(name)(y_true, y_pred))
    assert float(losses.get(name)(y_true, y_pred)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", losses.LOSSES)
def test_logits_give_the_loss_of_their_probabilities(oracle, name):
    arrays_, _ = oracle
    y_true, logits = arrays_["mixed_soft/y_true"], arrays_["mixed_soft/logits"]
    by_logits = function(name)(y_true, logits, from_logits=True)
    by_probability = function(name)(y_true, 1 / (1 + np.exp(-logits)))
    assert np.asarray(by_logits) == pytest.approx(np.asarray(by_probability), rel=1e-5)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", losses.LOSSES)
def test_every_degenerate_case_has_a_finite_value_and_gradient(oracle, name, case, dtype, pooling):
    arrays_, _ = oracle
    p = tf.cast(arrays_[f"{case}/y_pred"], dtype)
    with tf.GradientTape() as tape:
        tape.watch(p)
        value = function(name)(arrays_[f"{case}/y_true"], p, pooling=pooling)
        mean = tf.reduce_mean(value)
    assert value.dtype == "float32"
    assert value.shape == (3,)
    assert np.isfinite(value).all()
    assert np.isfinite(tf.cast(tape.gradient(mean, p), "float32")).all()


@pytest.mark.parametrize("name", losses.LOSSES)
def test_half_precision_does_not_overflow_on_a_whole_patch(name):
    # 48^3 = 110592 voxels: beyond the largest float16, 65504.
    ones = ops.ones((1, 48, 48, 48, 1), "float16")
    perfect = float(function(name)(ones, ones)[0])
    # Combo is a·CE - (1 - a)·DSC; a loss under a root ends where its slope would be infinite.
    expected, apart = {
        "combo": (-0.5, 1e-5),
        "focal_tversky": (1e-7**0.75, 1e-6),
        "asymmetric_focal_tversky": (1e-7**0.25 / 2, 1e-6),
    }.get(name, (0, 1e-5))
    assert perfect == pytest.approx(expected, abs=apart)


@pytest.mark.parametrize("name", losses.LOSSES)
def test_configuration_makes_the_same_loss_again(name):
    loss = losses.get(name, from_logits=True)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert type(again) is type(loss)
    assert again.get_config() == loss.get_config()


@pytest.mark.parametrize("name", losses.LOSSES)
def test_a_network_learns_with_the_loss_in_a_compiled_step(name):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((4, 4, 4, 1)), keras.layers.Conv3D(1, 1)])
    model.compile(optimizer=keras.optimizers.Adam(0.1), loss=losses.get(name, from_logits=True))
    x = np.random.default_rng(0).normal(size=(4, 4, 4, 4, 1)).astype("float32")
    history = model.fit(x, (x > 0).astype("float32"), epochs=15, verbose=0).history["loss"]
    assert history[-1] < history[0] - 0.1 * abs(history[0])


probabilities = arrays(np.float32, (2, 4, 4), elements=st.floats(0, 1, width=32))
masks = arrays(np.float32, (2, 4, 4), elements=st.sampled_from([0.0, 1.0]))


@pytest.mark.parametrize("name", REGION)
@given(g=masks, p=probabilities, pooling=st.sampled_from(POOLINGS))
def test_a_loss_of_overlap_is_between_0_and_1(name, g, p, pooling):
    value = np.asarray(function(name)(g, p, pooling=pooling))
    assert ((value >= -1e-6) & (value <= 1 + 1e-6)).all()


@given(masks, probabilities)
def test_tversky_with_equal_weights_is_the_dice_loss(g, p):
    # 1 - (TP + s) / ((sum p + sum g) / 2 + s) is Dice with the smoothing 2 s.
    value = losses.tversky(g, p, fn_weight=0.5, fp_weight=0.5)
    assert np.asarray(value) == pytest.approx(np.asarray(losses.dice(g, p, smooth=2.0)), abs=1e-5)


def test_worked_examples():
    # g = (1, 1, 0, 0), p = (0.8, 0.4, 0.5, 0): TP 1.2, FN 0.8, FP 0.5, TN 1.5, sum p 1.7, sum g 2.
    g, p = np.array([[1.0, 1, 0, 0]]), np.array([[0.8, 0.4, 0.5, 0]])
    tversky = 1 - 2.2 / (1.2 + 0.7 * 0.8 + 0.3 * 0.5 + 1)
    dice = 1 - (2.4 + 1) / (3.7 + 1)
    entropy = -(np.log(0.8) + np.log(0.4) + np.log(0.5)) / 4
    # Both classes hold two voxels: equal weights.
    generalized = 1 - 2 * (1.2 + 1.5) / (3.7 + 4.3)
    expected = {
        "tversky": tversky,
        "focal_tversky": tversky**0.75,
        "dice": dice,
        "log_cosh_dice": np.log(np.cosh(dice)),
        "generalized_dice": generalized,
        "bce": entropy,
        "combo": 0.5 * entropy / 2 - 0.5 * (1 - dice),
        "dice_bce": dice + entropy,
        "hytver": 0.5 * entropy / 2 + 0.5 * tversky,
    }
    for name, value in expected.items():
        assert np.asarray(function(name)(g, p)) == pytest.approx([value], rel=1e-5), name


def test_a_missed_lesion_costs_more_than_a_false_one():
    lesion, nothing = np.ones((1, 8)), np.zeros((1, 8))
    # 1 - 1 / (0.7 * 8 + 1) and 1 - 1 / (0.3 * 8 + 1)
    assert float(losses.tversky(lesion, nothing)[0]) == pytest.approx(1 - 1 / 6.6)
    assert float(losses.tversky(nothing, lesion)[0]) == pytest.approx(1 - 1 / 3.4)


def test_combo_does_not_reward_false_lesion():
    nothing = np.zeros((1, 8))
    quiet, loud = (float(losses.combo(nothing, np.full((1, 8), p))[0]) for p in (0.1, 0.9))
    assert quiet < loud


@pytest.mark.parametrize("pooling", POOLINGS)
def test_reduction_of_keras_leaves_the_value_of_a_batch_unchanged(oracle, pooling):
    arrays_, values = oracle
    loss = losses.get("tversky", pooling=pooling)
    value = loss(arrays_["mixed_soft/y_true"], arrays_["mixed_soft/y_pred"])
    expected = np.mean(values["tversky"]["mixed_soft"][pooling])
    assert float(value) == pytest.approx(expected, rel=2e-6)


def test_shapes_that_would_broadcast_are_refused():
    with pytest.raises(ValueError, match=r"expected y_true and y_pred of one shape"):
        losses.tversky(np.ones((2, 4, 4)), np.ones((2, 4, 4, 1)))


def test_unknown_pooling_is_refused():
    with pytest.raises(ValueError, match="expected pooling 'batch' or 'sample'"):
        losses.tversky(np.ones((1, 2)), np.ones((1, 2)), pooling="voxel")


def test_unknown_names_are_refused_with_those_there_are():
    with pytest.raises(UsageError, match=r"choose one of .*tversky"):
        losses.get("tverski")


@pytest.mark.parametrize("name", losses.LOSSES)
def test_unknown_numbers_are_refused(name):
    with pytest.raises(UsageError, match="alpha"):
        losses.get(name, alpha=0.7)
