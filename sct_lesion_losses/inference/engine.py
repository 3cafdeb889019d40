"""Running a network on the CPU: ONNX Runtime or OpenVINO behind one function, without telemetry."""

from __future__ import annotations

import importlib
import io
import logging
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sct_lesion_losses.errors import EngineError, UsageError
from sct_lesion_losses.inference import ENGINES, PRECISIONS

LOG_ERRORS_ONLY = 3  # of ONNX Runtime
INSTALL = "install it with: pip install 'sct_lesion_losses[fast]'"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Network:
    """A network ready to run.

    Attributes
    ----------
    name : str
        "onnxruntime" or "openvino".
    version : str
        Of that engine.
    precision : str
        "float32" or "bfloat16": what the engine computes in, whatever was asked for.
    takes : tuple of int
        Shape of one batch, (B, 1, ...) or (B, ..., 1); see `batch_shape`.
    """

    name: str
    version: str
    precision: str
    takes: tuple[int, ...]
    _infer: Callable[[NDArray[np.float32]], NDArray[Any]]

    def run(
        self, patches: NDArray[np.float32], progress: Callable[[int], None] | None = None
    ) -> NDArray[np.float32]:
        """Predict patches.

        Parameters
        ----------
        patches : (N, 48, 48, 48) float32
            N may be 0; another network takes patches of another shape.
        progress : callable, optional
            Called after each batch with the number of patches in it.

        Returns
        -------
        (N, 48, 48, 48) float32

        Raises
        ------
        EngineError
            The patches do not fit the network, the engine fails, or the result is not finite.
        """
        patch = self.takes[2:] if self.takes[1] == 1 else self.takes[1:-1]
        if patches.shape[1:] != patch:
            raise EngineError(
                f"network: expected patches (N, {', '.join(map(str, patch))}), "
                f"received {patches.shape}; the bundle's patch size and its network do not agree"
            )
        predicted = np.empty(patches.shape, dtype=np.float32)
        for start in range(0, len(patches), self.takes[0]):
            part = patches[start : start + self.takes[0]]
            predicted[start : start + len(part)] = self._predict(part)
            if progress is not None:
                progress(len(part))
        return predicted

    def _predict(self, part: NDArray[np.float32]) -> NDArray[np.float32]:
        missing = self.takes[0] - len(part)
        padded = np.pad(part, [(0, missing)] + [(0, 0)] * (part.ndim - 1)) if missing else part
        batch = np.ascontiguousarray(padded, dtype=np.float32).reshape(self.takes)
        try:
            result = self._infer(batch)
        except Exception as error:
            raise EngineError(
                f"{self.name} failed to run the network: {essence(error)}; try another engine"
            ) from error
        if result.shape != batch.shape:
            raise EngineError(
                f"network: expected an output {batch.shape}, received {result.shape}; "
                "use a network with one probability per voxel"
            )
        output = np.asarray(result, dtype=np.float32).reshape(padded.shape)[: len(part)]
        if not np.isfinite(output).all():
            cause = (
                "its weights are damaged or overflow; verify the bundle"
                if np.isfinite(part).all()
                else "so has its input; replace NaN and infinite voxels in the scan"
            )
            raise EngineError(
                f"{self.name}: the network's output has NaN or infinite values: {cause}"
            )
        return output


def batch_shape(shape: Sequence[int | None]) -> tuple[int, ...]:
    """Shape of one batch of a network's input; None marks a free size.

    One patch per call for a network that takes any number: larger batches were measured to be no
    faster and to need more memory.
    """
    sizes = [shape[0] or 1, *(size or 0 for size in shape[1:])]
    if len(sizes) < 3 or not math.prod(sizes) or 1 not in (sizes[1], sizes[-1]):
        free = "x".join("?" if size is None else str(size) for size in shape)
        raise EngineError(
            f"network: its input is {free}, expected batch x 1 x 48 x 48 x 48 or "
            "batch x 48 x 48 x 48 x 1; export it with one channel and a fixed patch size"
        )
    return tuple(sizes)


def _require_one(inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
    if (len(inputs), len(outputs)) != (1, 1):
        raise EngineError(
            "network: expected one input and one output, received "
            f"{len(inputs)} and {len(outputs)}; export the network alone"
        )


def essence(error: Exception) -> str:
    """Return the last line of an error that says something; engines name source files first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _in_onnxruntime(network: bytes) -> Network:
    """Make a network ready to run by ONNX Runtime, in float32."""
    try:
        import onnxruntime
    except ImportError as error:
        raise EngineError(
            f"ONNX Runtime cannot be imported ({essence(error)}); "
            "install it with: pip install onnxruntime"
        ) from error
    onnxruntime.disable_telemetry_events()
    onnxruntime.set_default_logger_severity(LOG_ERRORS_ONLY)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = LOG_ERRORS_ONLY
    options.intra_op_num_threads = available_cpus()
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    # It would print that it tries once more, on stdout.
    with redirect_stdout(io.StringIO()):
        session = onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
    _require_one(session.get_inputs(), session.get_outputs())
    taken = session.get_inputs()[0]

    def infer(batch: NDArray[np.float32]) -> NDArray[Any]:
        return np.asarray(session.run(None, {taken.name: batch})[0])

    takes = batch_shape([size if isinstance(size, int) else None for size in taken.shape])
    return Network("onnxruntime", str(onnxruntime.__version__), "float32", takes, infer)


def _in_openvino(openvino: ModuleType, network: bytes, precision: str) -> Network:
    """Make a network ready to run by OpenVINO on the CPU."""
    core = openvino.Core()
    if precision == "bfloat16" and not _computes_bfloat16(core):
        logger.warning("this CPU has no bfloat16 arithmetic: bfloat16 will not be faster here")
    model = core.read_model(model=network)
    _require_one(model.inputs, model.outputs)
    shape = model.input(0).get_partial_shape()
    takes = batch_shape([None if size.is_dynamic else size.get_length() for size in shape])
    model.reshape({model.input(0): list(takes)})
    settings = {
        # Left alone, OpenVINO chooses bfloat16 by itself where the CPU has it.
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32",
        "INFERENCE_NUM_THREADS": available_cpus(),
        "NUM_STREAMS": "1",
        "PERFORMANCE_HINT": "LATENCY",
        # Scans are often processed several at a time: pinned, they would share the first cores.
        "ENABLE_CPU_PINNING": False,
    }
    compiled = core.compile_model(model, "CPU", settings)
    hint = str(compiled.get_property("INFERENCE_PRECISION_HINT"))
    used = "bfloat16" if "bf" in hint else "float32"
    if used != precision:
        logger.warning("OpenVINO computes in %s on this CPU, not in %s", used, precision)
    request = compiled.create_infer_request()

    def infer(batch: NDArray[np.float32]) -> NDArray[Any]:
        return np.asarray(request.infer({0: batch})[0])

    return Network("openvino", str(openvino.__version__).split("-")[0], used, takes, infer)


def _computes_bfloat16(core: Any) -> bool:
    return "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def import_openvino(required: bool) -> ModuleType | None:
    """Import OpenVINO; None where it cannot be and is not required."""
    try:
        with _without_telemetry():
            return importlib.import_module("openvino")
    except (ImportError, OSError) as error:
        if required:
            raise EngineError(
                f"OpenVINO cannot be imported ({essence(error)}); {INSTALL}, or use onnxruntime"
            ) from error
        if not isinstance(error, ModuleNotFoundError) or error.name != "openvino":
            logger.warning("OpenVINO cannot be imported (%s): using ONNX Runtime", essence(error))
        return None


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


def load(network: bytes, engine: str = "auto", precision: str = "float32") -> Network:
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

    Raises
    ------
    EngineError
        The engine is not installed, or refuses the network.
    """
    if engine not in ENGINES or precision not in PRECISIONS:
        raise UsageError(
            f"engine: expected one of {ENGINES} and {PRECISIONS}, received {engine}, {precision}"
        )
    openvino = None if engine == "onnxruntime" else import_openvino(engine == "openvino")
    if openvino is None and precision == "bfloat16":
        raise EngineError(f"bfloat16 needs OpenVINO; {INSTALL}, or use float32")
    try:
        if openvino is not None:
            return _in_openvino(openvino, network, precision)
        return _in_onnxruntime(network)
    except EngineError:
        raise
    except Exception as error:
        raise EngineError(
            f"{'ONNX Runtime' if openvino is None else 'OpenVINO'} cannot load the network "
            f"({essence(error)}); verify the bundle, its model may be damaged or newer than the "
            "engine"
        ) from error


def available_cpus() -> int:
    """Count the CPUs this process may use: its affinity, and no more than $OMP_NUM_THREADS."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    limit = int(asked) if asked.isdecimal() and int(asked) > 0 else None
    return min(count or 1, limit or sys.maxsize)
