"""A loaded network: its layout, and patches in, probabilities out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sct_lesion_losses.errors import EngineError


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
