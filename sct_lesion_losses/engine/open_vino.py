"""OpenVINO: faster, where installed.

Importing it starts its telemetry, which keeps an identifier in the user's home and reports usage.
Here it is imported with the telemetry package out of reach; it then uses its own empty stand-in.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sct_lesion_losses.engine.network import Network, essence, layout_of, refused, require_one
from sct_lesion_losses.errors import EngineError

INSTALL = "install it with: pip install 'sct_lesion_losses[fast]'"

logger = logging.getLogger(__name__)


def import_openvino(required: bool) -> ModuleType | None:
    """Import OpenVINO; None where it is missing and not required."""
    try:
        installed = importlib.util.find_spec("openvino") is not None
    except ValueError:
        installed = False
    if not installed:
        if required:
            raise EngineError(f"OpenVINO is not installed; {INSTALL}, or use onnxruntime")
        return None
    try:
        with _without_telemetry():
            return importlib.import_module("openvino")
    except (ImportError, OSError) as error:
        if required:
            raise EngineError(
                f"OpenVINO cannot be imported ({essence(error)}); {INSTALL}"
            ) from error
        logger.warning("OpenVINO cannot be imported (%s): using ONNX Runtime", essence(error))
        return None


def load(openvino: ModuleType, network: bytes, precision: str, threads: int) -> Network:
    """Make a network ready to run by OpenVINO on the CPU."""
    core = openvino.Core()
    if precision == "bfloat16" and not _computes_bfloat16(core):
        logger.warning("this CPU has no bfloat16 arithmetic: bfloat16 will not be faster here")
    try:
        model = core.read_model(model=network)
        require_one(len(model.inputs), len(model.outputs))
        shape = [
            None if size.is_dynamic else size.get_length()
            for size in model.input(0).get_partial_shape()
        ]
        layout = layout_of(shape)
        model.reshape({model.input(0): list(layout.full)})
        compiled = core.compile_model(model, "CPU", _settings(precision, threads))
    except EngineError:
        raise
    except Exception as error:
        raise refused("OpenVINO", error) from error
    used = (
        "bfloat16" if "bf" in str(compiled.get_property("INFERENCE_PRECISION_HINT")) else "float32"
    )
    if used != precision:
        logger.warning("OpenVINO computes in %s on this CPU, not in %s", used, precision)
    request = compiled.create_infer_request()

    def infer(batch: NDArray[np.float32]) -> NDArray[Any]:
        return np.asarray(request.infer({0: batch})[0])

    version = str(openvino.__version__).split("-")[0]
    return Network("openvino", version, used, layout, infer)


def _settings(precision: str, threads: int) -> dict[str, Any]:
    return {
        # Left alone, OpenVINO chooses bfloat16 by itself where the CPU has it.
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": "1",
        "PERFORMANCE_HINT": "LATENCY",
        # Scans are often processed several at a time: pinned, they would share the first cores.
        "ENABLE_CPU_PINNING": False,
    }


def _computes_bfloat16(core: Any) -> bool:
    return "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@contextmanager
def _without_telemetry() -> Iterator[None]:
    name = "openvino_telemetry"
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # makes an import of it fail
    try:
        yield
    finally:
        sys.modules.pop(name, None)
