"""Batches shared among devices: two of a CPU, in a process of their own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest

from sct_lesion_losses.errors import TrainingError, UsageError
from sct_lesion_losses.training import devices

# Two steps on one device and on two, with a loss of single samples and no batch statistics but
# those of equal halves, so that both backends must give the same weights.
SCRIPT = """
import sys
import numpy as np
import keras
from sct_lesion_losses import losses
from sct_lesion_losses.model import devices, unet

if devices.backend() == "tensorflow":
    import tensorflow as tf
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

rng = np.random.default_rng(0)
half = rng.normal(size=(2, 8, 8, 8, 1)).astype(np.float32)
patches = np.repeat(half, 2, axis=0)  # every second one: both devices see the same two
lesions = (patches > 1).astype(np.float32)

def weights(count):
    with devices.shared_by(count) as step:
        model = unet.build((2, 4), 8, seed=1)
        loss = losses.get("tversky", pooling="sample")
        model.compile(keras.optimizers.SGD(0.1), loss, jit_compile=devices.jit_compile())
        found = [step(model, patches, lesions) for _ in range(2)]
        found.append(float(model.test_on_batch(patches, lesions)))
    return found, model.get_weights()

(one, a), (two, b) = weights(1), weights(2)
np.testing.assert_allclose(one, two, rtol=1e-5)
assert one[0] != one[1]
for x, y in zip(a, b, strict=True):
    np.testing.assert_allclose(x, y, atol=1e-5)
assert keras.distribution.distribution() is None
print("same")
"""


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_two_devices_take_the_steps_of_one(backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    environment = os.environ | {
        "KERAS_BACKEND": backend,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, env=environment
    )
    assert done.stdout.splitlines()[-1:] == ["same"], done.stderr


def test_more_devices_than_there_are_is_refused():
    with (
        pytest.raises(UsageError, match="99 devices were asked for, tensorflow sees 1 CPU"),
        devices.shared_by(99),
    ):
        pass


@pytest.mark.skipif(devices.device() == "gpu", reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_missed_and_nothing_else_is():
    devices.require("auto")
    devices.require("cpu")
    with pytest.raises(TrainingError, match="tensorflow sees no GPU"):
        devices.require("gpu")


@pytest.mark.parametrize(
    ("kind", "count", "said"), [("cpu", 1, "the CPU"), ("gpu", 1, "a GPU"), ("gpu", 2, "2 GPUs")]
)
def test_what_a_training_uses_is_said(kind, count, said, monkeypatch):
    monkeypatch.setattr(devices, "device", lambda: kind)
    assert devices.described(count) == said
