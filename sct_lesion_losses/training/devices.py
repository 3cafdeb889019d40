"""What Keras computes on, and how a batch is shared among several devices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from sct_lesion_losses.errors import TrainingError, UsageError

_TYPES = {"ResourceExhaustedError", "OutOfMemoryError"}  # TensorFlow's, torch's
_WORDS = ("resource_exhausted", "oom when allocating", "out of memory", "can't allocate memory")


def exhausted(error: BaseException) -> bool:
    """Whether an error of TensorFlow, JAX or torch means that the device's memory ran out.

    Parameters
    ----------
    error : BaseException
        What a training step raised. Errors that it wraps count: Keras raises some of TensorFlow's
        anew, as a RuntimeError with the same words. A `MemoryError`, of the host, does not count.
    """
    seen: BaseException | None = error
    while seen is not None:
        if any(kind.__name__ in _TYPES for kind in type(seen).__mro__):
            return True
        if isinstance(seen, RuntimeError) and _says_so(str(seen)):  # JAX's is one
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def _says_so(message: str) -> bool:
    return any(word in message.lower() for word in _WORDS)


def halved(micro: int) -> int:
    """Size of the micro-batch to try where one of `micro` patches does not fit.

    >>> [halved(8), halved(4), halved(3), halved(2)]
    [4, 2, 1, 1]

    Raises
    ------
    TrainingError
        `micro` is 1.
    """
    if micro == 1:
        raise TrainingError(
            "a single patch does not fit into the memory of the device; close what else uses it, "
            "train with fewer filters or in half precision, or with -device cpu"
        )
    return micro // 2


Array = NDArray[np.float32]

# One optimiser step on a batch of patches and lesion masks; returns the loss before it.
TrainStep = Callable[[keras.Model, Any, Any], float]


def backend() -> str:
    """Name the backend that Keras runs on: ``tensorflow``, ``jax`` or ``torch``."""
    return str(keras.backend.backend())


def device() -> str:
    """Name the kind of device that Keras computes on: ``gpu`` where there is one, else ``cpu``."""
    if backend() == "torch":  # Keras lists no devices there
        return "gpu" if keras.ops.ones(()).device.type == "cuda" else "cpu"
    kinds = {str(name).split(":")[0].lower() for name in keras.distribution.list_devices()}
    return next((kind for kind in ("gpu", "tpu") if kind in kinds), "cpu")


def described(count: int) -> str:
    """Say what a training uses: ``the CPU``, ``a GPU`` or ``2 GPUs``."""
    kind = device().upper()
    if count > 1:
        return f"{count} {kind}s"
    return "the CPU" if kind == "CPU" else f"a {kind}"


def jit_compile() -> bool:
    """Whether training steps are compiled by XLA.

    On a CPU, XLA makes a TensorFlow step of the U-Net several times slower; JAX has nothing else.
    """
    return backend() == "jax" or (backend() == "tensorflow" and device() == "gpu")


def jitted(function: Callable[..., Any]) -> Any:
    """Compile a pure function of tensors where the backend compiles."""
    if backend() == "jax":
        import jax

        return jax.jit(function)
    if backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function, jit_compile=jit_compile(), reduce_retracing=True)
    return function


def whole_batch(model: keras.Model, patches: Any, lesions: Any) -> float:
    """Take one optimiser step on one device; a `TrainStep`."""
    return float(model.train_on_batch(patches, lesions))


@contextmanager
def shared_by(count: int) -> Iterator[TrainStep]:
    """Share every batch among the first `count` devices; networks are built inside the block.

    On JAX the step is that of the whole batch, computed in parts. On TensorFlow each device takes
    the batch statistics and the loss of its own part, and the gradients are averaged: sums that a
    loss pools over the batch are then pooled over a part.

    Yields
    ------
    TrainStep

    Raises
    ------
    UsageError
        See `require_several`.
    """
    if count == 1:
        yield whole_batch
        return
    require_several(count)
    names = [str(name) for name in keras.distribution.list_devices(device())]
    if backend() == "jax":
        before = keras.distribution.distribution()
        keras.distribution.set_distribution(keras.distribution.DataParallel(devices=names[:count]))
        try:
            yield whole_batch
        finally:
            keras.distribution.set_distribution(before)
        return
    import tensorflow as tf

    strategy = tf.distribute.MirroredStrategy(names[:count])

    def step(model: keras.Model, patches: Any, lesions: Any) -> float:
        def part(array: Array) -> Any:
            return strategy.experimental_distribute_values_from_function(
                lambda context: tf.constant(array[context.replica_id_in_sync_group :: count])
            )

        model.make_train_function()
        model.reset_metrics()
        return float(model.train_function(iter([(part(patches), part(lesions))]))["loss"])

    with strategy.scope():
        yield step


def require_several(count: int) -> None:
    """Raise a UsageError where batches cannot be shared by so many devices."""
    if count == 1:
        return
    if backend() == "torch":
        raise UsageError("torch trains on one device here; share batches on TensorFlow or JAX")
    found = len(keras.distribution.list_devices(device()))
    if found < count:
        raise UsageError(
            f"{count} devices were asked for, {backend()} sees {found} {device().upper()}; ask "
            "for as many as there are"
        )


def require(kind: str) -> None:
    """Raise a TrainingError where the GPU that was asked for is not there."""
    if kind == "gpu" and device() != "gpu":
        raise TrainingError(
            f"{backend()} sees no GPU; install its GPU build (README, Train and tune), or train on "
            "the CPU"
        )
