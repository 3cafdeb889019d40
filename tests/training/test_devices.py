from __future__ import annotations

import keras
import pytest

from sct_lesion_losses.errors import TrainingError
from sct_lesion_losses.training import devices

# Keras' variables do not know a keyword of NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.mark.skipif(devices.device() == "gpu", reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_missed_and_nothing_else_is():
    devices.require("auto")
    devices.require("cpu")
    with pytest.raises(TrainingError, match=f"{devices.backend()} sees no GPU"):
        devices.require("gpu")


@pytest.fixture
def error() -> Exception:
    """What the backend raises where memory runs out."""
    if keras.backend.backend() == "tensorflow":  # tries for ten seconds before it raises
        import tensorflow as tf

        return tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
    with pytest.raises(RuntimeError) as caught:
        keras.ops.convert_to_numpy(keras.ops.ones((2**50,)))  # four petabytes
    return caught.value


def test_the_error_of_the_backend_is_recognised(error):
    assert devices.exhausted(error)


def test_it_is_recognised_where_keras_raises_it_anew_for_a_layer(error):
    class Layer(keras.layers.Layer):
        def call(self, x):
            raise error

    with pytest.raises(Exception, match="Layer") as caught:
        Layer()(keras.ops.ones((1, 1)))
    assert devices.exhausted(caught.value)


def test_it_is_recognised_by_the_type_that_torch_has():
    class OutOfMemoryError(RuntimeError):
        pass

    assert devices.exhausted(OutOfMemoryError("CUDA error"))


def test_it_is_recognised_as_the_cause_of_another_error():
    error = ValueError("batch 3")
    error.__cause__ = RuntimeError("RESOURCE_EXHAUSTED: failed to allocate 2.0GiB")
    assert devices.exhausted(error)


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes differ"), MemoryError(), ValueError("out of memory"), OSError()]
)
def test_other_errors_are_not_taken_for_it(error):
    assert not devices.exhausted(error)
