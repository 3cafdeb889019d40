"""Running a network on the CPU: ONNX Runtime or OpenVINO behind one function, without telemetry."""

from __future__ import annotations

import importlib
import importlib.util
import io
import logging
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


@dataclass(frozen=True)
class Layout:
    """How a network takes its patches.

    Attributes
    ----------
    batch : int
        Patches per call. One for a network that takes any number: larger batches were measured to
        be no faster and to need more memory.
    shape : tuple of int
        Of one patch, without batch and channel.
    channels_first : bool
        (B, 1, ...) rather than (B, ..., 1).
    """

    batch: int
    shape: tuple[int, ...]
    channels_first: bool

    def with_channel(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the patches (B, ...) as the network's input."""
        return np.expand_dims(patches, 1 if self.channels_first else -1)

    @property
    def full(self) -> tuple[int, ...]:
        """Shape of one batch as the network takes it."""
        if self.channels_first:
            return (self.batch, 1, *self.shape)
        return (self.batch, *self.shape, 1)


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
    layout : Layout
    """

    name: str
    version: str
    precision: str
    layout: Layout
    _infer: Callable[[NDArray[np.float32]], NDArray[Any]]

    def run(
        self, patches: NDArray[np.float32], progress: Callable[[int], None] | None = None
    ) -> NDArray[np.float32]:
        """Predict patches.

        Parameters
        ----------
        patches : (N, 48, 48, 48) float32
            N may be 0; for another network, (N, *layout.shape).
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
        if patches.shape[1:] != self.layout.shape:
            raise EngineError(
                f"network: expected patches (N, {', '.join(map(str, self.layout.shape))}), "
                f"received {patches.shape}; the bundle's patch size and its network do not agree"
            )
        predicted = np.empty(patches.shape, dtype=np.float32)
        for start in range(0, len(patches), self.layout.batch):
            part = patches[start : start + self.layout.batch]
            predicted[start : start + len(part)] = self._predict(part)
            if progress is not None:
                progress(len(part))
        return predicted

    def _predict(self, part: NDArray[np.float32]) -> NDArray[np.float32]:
        missing = self.layout.batch - len(part)
        padded = np.pad(part, [(0, missing)] + [(0, 0)] * (part.ndim - 1)) if missing else part
        batch = np.ascontiguousarray(self.layout.with_channel(padded), dtype=np.float32)
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


def layout_of(shape: Sequence[int | None]) -> Layout:
    """Layout of an input shape; None marks a free size."""
    free = "x".join("?" if size is None else str(size) for size in shape)
    if len(shape) >= 3 and shape[1] == 1:
        layout = Layout(shape[0] or 1, tuple(size or 0 for size in shape[2:]), True)
    elif len(shape) >= 3 and shape[-1] == 1:
        layout = Layout(shape[0] or 1, tuple(size or 0 for size in shape[1:-1]), False)
    else:
        raise EngineError(
            f"network: its input is {free}, expected batch x 1 x 48 x 48 x 48 or "
            "batch x 48 x 48 x 48 x 1; export it with one channel"
        )
    if 0 in layout.shape:
        raise EngineError(f"network: its input is {free}; export it with a fixed patch size")
    return layout


def require_one(inputs: int, outputs: int) -> None:
    """Refuse a network with several inputs or outputs."""
    if (inputs, outputs) != (1, 1):
        raise EngineError(
            f"network: expected one input and one output, received {inputs} and {outputs}; "
            "export the network alone"
        )


def refused(engine: str, error: Exception) -> EngineError:
    """Error of an engine that does not accept the network."""
    return EngineError(
        f"{engine} cannot load the network ({essence(error)}); "
        "verify the bundle, its model may be damaged or newer than the engine"
    )


def essence(error: Exception) -> str:
    """Return the last line of an error that says something; engines name source files first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


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


def load_onnxruntime(network: bytes, threads: int) -> Network:
    """Make a network ready to run by ONNX Runtime, in float32."""
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = LOG_ERRORS_ONLY
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    try:
        # It would print that it tries once more, on stdout.
        with redirect_stdout(io.StringIO()):
            session = onnxruntime.InferenceSession(
                network, options, providers=["CPUExecutionProvider"]
            )
    except Exception as error:
        raise refused("ONNX Runtime", error) from error
    inputs, outputs = session.get_inputs(), session.get_outputs()
    require_one(len(inputs), len(outputs))
    name = inputs[0].name

    def infer(batch: NDArray[np.float32]) -> NDArray[Any]:
        return np.asarray(session.run(None, {name: batch})[0])

    shape = [size if isinstance(size, int) else None for size in inputs[0].shape]
    return Network("onnxruntime", str(onnxruntime.__version__), "float32", layout_of(shape), infer)


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


def load_openvino(openvino: ModuleType, network: bytes, precision: str, threads: int) -> Network:
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
    module = None if engine == "onnxruntime" else import_openvino(required=engine == "openvino")
    if module is not None:
        return load_openvino(module, network, precision, count)
    if precision == "bfloat16":
        raise EngineError(f"bfloat16 needs OpenVINO; {INSTALL}, or use float32")
    return load_onnxruntime(network, count)


def available_cpus() -> int:
    """Count the CPUs this process may use: its affinity, and no more than $OMP_NUM_THREADS."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    limit = int(asked) if asked.isdecimal() and int(asked) > 0 else None
    return min(count or 1, limit or sys.maxsize)
