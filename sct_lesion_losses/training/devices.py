"""What Keras computes on."""

from __future__ import annotations

import keras

from sct_lesion_losses.errors import TrainingError

_TYPES = {"ResourceExhaustedError", "OutOfMemoryError"}  # TensorFlow's, torch's
_WORDS = ("resource_exhausted", "oom when allocating", "out of memory", "can't allocate memory")


def backend() -> str:
    """Name the backend that Keras runs on: ``tensorflow``, ``jax`` or ``torch``."""
    return str(keras.backend.backend())


def device() -> str:
    """Name the kind of device that Keras computes on: ``gpu`` where there is one, else ``cpu``."""
    if backend() == "torch":  # Keras lists no devices there
        return "gpu" if keras.ops.ones(()).device.type == "cuda" else "cpu"
    kinds = {str(name).split(":")[0].lower() for name in keras.distribution.list_devices()}
    return next((kind for kind in ("gpu", "tpu") if kind in kinds), "cpu")


def require(kind: str) -> None:
    """Raise a TrainingError where the GPU that was asked for is not there."""
    if kind == "gpu" and device() != "gpu":
        raise TrainingError(
            f"{backend()} sees no GPU; install its GPU build (README, Train and tune), or train on "
            "the CPU"
        )


def jit_compile() -> bool:
    """Whether training steps are compiled by XLA.

    On a CPU, XLA makes a TensorFlow step of the U-Net several times slower; JAX has nothing else.
    """
    return backend() == "jax" or (backend() == "tensorflow" and device() == "gpu")


def exhausted(error: BaseException) -> bool:
    """Whether an error of TensorFlow, JAX or torch means that the device's memory ran out.

    Parameters
    ----------
    error : BaseException
        Raised by a training step. Errors that it wraps count: Keras raises some of TensorFlow's
        anew, as a RuntimeError with the same words. A `MemoryError`, of the host, does not count.
    """
    seen: BaseException | None = error
    while seen is not None:
        if any(kind.__name__ in _TYPES for kind in type(seen).__mro__):
            return True
        words = str(seen).lower() if isinstance(seen, RuntimeError) else ""  # JAX's is one
        if any(word in words for word in _WORDS):
            return True
        seen = seen.__cause__ or seen.__context__
    return False
