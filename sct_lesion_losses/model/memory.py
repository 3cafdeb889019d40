"""Too little memory on a device: how to know it, and what to try next."""

from __future__ import annotations

from sct_lesion_losses.errors import TrainingError

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
