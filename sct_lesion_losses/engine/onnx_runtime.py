"""ONNX Runtime: always installed.

Recent official builds (1.32 on Linux, for one) report usage to their maker and keep an identifier
in the user's home, unless ORT_DISABLE_TELEMETRY is set before the library is first imported.
"""

from __future__ import annotations

import importlib
import os
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sct_lesion_losses.engine.network import Network, essence, layout_of, refused, require_one
from sct_lesion_losses.errors import EngineError

LOG_ERRORS_ONLY = 3


def import_onnxruntime() -> ModuleType:
    """Import ONNX Runtime with its telemetry off and its log at errors."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    try:
        onnxruntime = importlib.import_module("onnxruntime")
    except ImportError as error:
        raise EngineError(
            f"ONNX Runtime cannot be imported ({essence(error)}); "
            "install it with: pip install onnxruntime"
        ) from error
    onnxruntime.disable_telemetry_events()
    onnxruntime.set_default_logger_severity(LOG_ERRORS_ONLY)
    return onnxruntime


def load(network: bytes, threads: int) -> Network:
    """Make a network ready to run by ONNX Runtime, in float32."""
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = LOG_ERRORS_ONLY
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    try:
        session = onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise refused("ONNX Runtime", error) from error
    inputs, outputs = session.get_inputs(), session.get_outputs()
    require_one(len(inputs), len(outputs))
    name = inputs[0].name

    def infer(batch: NDArray[np.float32]) -> NDArray[Any]:
        return np.asarray(session.run(None, {name: batch})[0])

    shape = [size if isinstance(size, int) else None for size in inputs[0].shape]
    return Network("onnxruntime", str(onnxruntime.__version__), "float32", layout_of(shape), infer)
