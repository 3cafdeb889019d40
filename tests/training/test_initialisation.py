from __future__ import annotations

import math

import keras
import numpy as np
import pytest

from sct_lesion_losses.training.unet import GlorotUniform

KERNEL = (3, 3, 3, 4, 8)


def test_weights_fill_the_range_of_glorot() -> None:
    drawn = np.asarray(GlorotUniform(1)(KERNEL))
    # 27 voxels of 4 inputs and of 8 outputs: sqrt(6 / 324), drawn 864 times.
    assert np.abs(drawn).max() == pytest.approx(math.sqrt(6 / 324), rel=0.02)
    assert drawn.std() == pytest.approx(math.sqrt(6 / 324 / 3), rel=0.1)
    assert np.abs(drawn).max() <= math.sqrt(6 / 324)


def test_weights_are_those_of_the_generator_of_numpy() -> None:
    # A window of 4 with 1 input and 1 output: ±sqrt(6 / 8).
    expected = (2 * np.random.default_rng(7).random(4) - 1) * math.sqrt(6 / 8)
    drawn = np.asarray(GlorotUniform(7)((4, 1, 1)))
    assert drawn.dtype == np.float32
    assert drawn.ravel() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_weights_have_the_dtype_asked_for(dtype: str) -> None:
    assert keras.backend.standardize_dtype(GlorotUniform(1)(KERNEL, dtype=dtype).dtype) == dtype


def test_configuration_makes_the_same_initialiser_again() -> None:
    first = GlorotUniform(3)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(first))
    assert np.array_equal(np.asarray(first(KERNEL)), np.asarray(again(KERNEL)))
