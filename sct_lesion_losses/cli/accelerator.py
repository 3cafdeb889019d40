"""What Keras shall run on: settled before it is imported, which is when it looks."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from sct_lesion_losses.errors import UsageError

BACKENDS = ("tensorflow", "jax", "torch")  # in the order of preference
DEVICES = ("auto", "cpu", "gpu")
# TensorFlow's, then JAX's, and those of what either computes with
_THREADS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "NPROC", "OMP_NUM_THREADS")
_INSTALL = "pip install 'sct_lesion_losses[train]', or [train-jax] for JAX in place of TensorFlow"


def choose(backend: str | None, device: str, threads: int | None) -> None:
    """Set the environment of Keras for this process.

    Parameters
    ----------
    backend : str or None
        One of `BACKENDS`; by default $KERAS_BACKEND, else the first that is installed.
    device : str
        One of `DEVICES`. Which of several GPUs is chosen by $CUDA_VISIBLE_DEVICES, as always.
    threads : int or None
        CPU threads to compute with; all cores by default.

    Raises
    ------
    UsageError
        The backend is not installed, or none is.
    """
    os.environ["KERAS_BACKEND"] = _installed(backend or os.environ.get("KERAS_BACKEND"))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # a GPU may be shared
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
        os.environ["JAX_PLATFORMS"] = "cpu"
    if threads is not None:
        os.environ.update(dict.fromkeys(_THREADS, str(threads)))


def _installed(backend: str | None) -> str:
    if backend is None:
        found = [name for name in BACKENDS if importlib.util.find_spec(name)]
        if not found:
            raise UsageError(
                f"training needs TensorFlow, JAX or torch, none of which is installed: {_INSTALL}"
            )
        return found[0]
    if backend not in BACKENDS:
        raise UsageError(f"KERAS_BACKEND is {backend!r}; choose from {', '.join(BACKENDS)}")
    if importlib.util.find_spec(backend) is None:
        raise UsageError(f"the backend {backend} is not installed: {_INSTALL}")
    return backend


def training() -> ModuleType:
    """Load Keras with what trains, without what compiled libraries announce.

    Raises
    ------
    UsageError
        Something that training needs is not installed.
    """
    try:
        with _native_stderr_closed():
            from sct_lesion_losses import train
    except ModuleNotFoundError as error:
        raise UsageError(
            f"training needs {error.name}, which is not installed: {_INSTALL}"
        ) from error
    return train


@contextmanager
def _native_stderr_closed() -> Iterator[None]:
    """Swallow what compiled libraries write to stderr, whatever log level they are given."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
