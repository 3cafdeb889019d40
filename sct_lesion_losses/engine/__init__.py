"""Running a network on the CPU: ONNX Runtime or OpenVINO behind one function, without telemetry."""

from __future__ import annotations

import os
import sys

from sct_lesion_losses.engine import onnx_runtime, open_vino
from sct_lesion_losses.engine.network import Layout, Network
from sct_lesion_losses.errors import EngineError, UsageError

__all__ = ["ENGINES", "PRECISIONS", "Layout", "Network", "available_cpus", "load"]

ENGINES = ("auto", "onnxruntime", "openvino")
PRECISIONS = ("float32", "bfloat16")


def load(
    network: bytes,
    engine: str = "auto",
    precision: str = "float32",
    threads: int | None = None,
) -> Network:
    """Make a network ready to run on the CPU.

    Parameters
    ----------
    network : bytes
        An ONNX model with one input, (B, 1, ...) or (B, ..., 1), B fixed or free, and one output of
        the same shape.
    engine : {"auto", "onnxruntime", "openvino"}
        "auto" is OpenVINO where it can be imported, else ONNX Runtime.
    precision : {"float32", "bfloat16"}
        bfloat16 needs OpenVINO, and is faster only on a CPU that computes in it.
    threads : int, optional
        As many as this process may use CPUs, by default.

    Raises
    ------
    EngineError
        The engine is not installed, or refuses the network.
    """
    if engine not in ENGINES or precision not in PRECISIONS:
        raise UsageError(
            f"engine: expected one of {ENGINES} and {PRECISIONS}, received {engine}, {precision}"
        )
    if threads is not None and threads < 1:
        raise UsageError(f"engine: expected at least 1 thread, received {threads}")
    count = available_cpus() if threads is None else threads
    module = (
        None
        if engine == "onnxruntime"
        else open_vino.import_openvino(required=engine == "openvino")
    )
    if module is not None:
        return open_vino.load(module, network, precision, count)
    if precision == "bfloat16":
        raise EngineError(f"bfloat16 needs OpenVINO; {open_vino.INSTALL}, or use float32")
    return onnx_runtime.load(network, count)


def available_cpus() -> int:
    """Count the CPUs this process may use: its affinity, and no more than $OMP_NUM_THREADS."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    limit = int(asked) if asked.isdecimal() and int(asked) > 0 else None
    return min(count or 1, limit or sys.maxsize)
