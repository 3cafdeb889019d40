"""Scripts of the tests, run on one of Keras' backends in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).resolve().parent
BACKENDS = ("tensorflow", "jax", "torch")
# Keras makes arrays of torch's tensors in a way that numpy 2 warns of.
WARNINGS = ("-W", "error", "-W", "ignore:__array__ implementation:DeprecationWarning")

Arrays = dict[str, np.ndarray]


def run(backend: str, script: str, *args: str | Path) -> Arrays:
    """Run a script of this folder on a backend; the test is skipped where that is absent.

    The script is given `args` and, last, the .npz file that it has to write.
    """
    if find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    search = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    environment = {"KERAS_BACKEND": backend, "PYTHONPATH": search, "TF_CPP_MIN_LOG_LEVEL": "3"}
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "written.npz"
        done = subprocess.run(
            [sys.executable, *WARNINGS, HERE / script, *args, written],
            capture_output=True,
            text=True,
            env={**os.environ, **environment},
        )
        assert done.returncode == 0, done.stderr
        with np.load(written) as stored:
            return dict(stored)
