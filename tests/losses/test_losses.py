"""Losses beside the oracle, and as Keras holds them."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from on_backend import OVERLAP, POOLINGS

from sct_lesion_losses import losses
from sct_lesion_losses.errors import UsageError
from sct_lesion_losses.losses.base import Pooled


def function(name):
    return getattr(losses, name)


def test_the_table_names_every_loss_and_no_other():
    for name, (_, loss) in losses.LOSSES.items():
        assert callable(function(name))
        assert type(losses.get(name)) is function(loss)
    written = {loss.__name__ for loss in Pooled.__subclasses__()}
    assert {loss for _, loss in losses.LOSSES.values()} == {"BinaryCrossentropy", *written}
    with pytest.raises(AttributeError, match="no attribute 'Tverski'"):
        _ = losses.Tverski


@pytest.mark.parametrize("name", losses.LOSSES)
def test_the_class_is_the_function(oracle, name):
    _, inputs = oracle
    y_true, y_pred = inputs["mixed_soft/y_true"], inputs["mixed_soft/y_pred"]
    expected = float(np.mean(np.asarray(function(name)(y_true, y_pred))))
    assert float(losses.get(name)(y_true, y_pred)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", losses.LOSSES)
def test_logits_give_the_loss_of_their_probabilities(oracle, name):
    _, inputs = oracle
    y_true, logits = inputs["mixed_soft/y_true"], inputs["mixed_soft/logits"]
    by_logits = function(name)(y_true, logits, from_logits=True)
    by_probability = function(name)(y_true, 1 / (1 + np.exp(-logits)))
    assert np.asarray(by_logits) == pytest.approx(np.asarray(by_probability), rel=1e-5)


@pytest.mark.parametrize("name", losses.LOSSES)
def test_configuration_makes_the_same_loss_again(name):
    loss = losses.get(name, from_logits=True)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert type(again) is type(loss)
    assert again.get_config() == loss.get_config()


probabilities = arrays(np.float32, (2, 4, 4), elements=st.floats(0, 1, width=32))
masks = arrays(np.float32, (2, 4, 4), elements=st.sampled_from([0.0, 1.0]))


@pytest.mark.parametrize("name", OVERLAP)
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
    elsewhere = {"asymmetric_focal_tversky", "blob"}  # in the oracle, and in test_blob
    assert set(expected) | elsewhere == set(losses.LOSSES), "work out an example of each loss"
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
    values, inputs = oracle
    loss = losses.get("tversky", pooling=pooling)
    value = loss(inputs["mixed_soft/y_true"], inputs["mixed_soft/y_pred"])
    expected = np.mean(values["tversky"]["mixed_soft"][pooling])
    assert float(value) == pytest.approx(expected, rel=2e-6)


def test_shapes_that_would_broadcast_are_refused():
    with pytest.raises(ValueError, match=r"expected y_true and y_pred of one shape"):
        losses.tversky(np.ones((2, 4, 4)), np.ones((2, 4, 4, 1)))


def test_unknown_pooling_is_refused():
    with pytest.raises(ValueError, match="expected pooling 'batch' or 'sample'"):
        losses.tversky(np.ones((1, 2)), np.ones((1, 2)), pooling="voxel")


@pytest.mark.parametrize("name", losses.LOSSES)
def test_unknown_arguments_are_refused(name):
    with pytest.raises(UsageError, match="alpha"):
        losses.get(name, alpha=0.7)
