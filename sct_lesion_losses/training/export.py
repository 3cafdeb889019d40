"""The trained network as ONNX, to run, and as safetensors, to train on."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import onnx
import safetensors.numpy
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from safetensors import SafetensorError

from sct_lesion_losses.errors import BundleError
from sct_lesion_losses.training.recipe import EPSILON

OPSET = 17
IR_VERSION = 8  # onnxruntime 1.21, and every later one, loads it
AXES = 3
_KERNEL_TO_ONNX = (4, 3, 0, 1, 2)  # (k, k, k, in, out) to (out, in, k, k, k)

Weights = dict[str, NDArray[np.float32]]


def weights_of(model: keras.Model) -> Weights:
    """Every weight of a model by ``layer/variable``, float32."""
    return {
        f"{layer.name}/{variable.name}": np.asarray(variable, dtype=np.float32)
        for layer in model.layers
        for variable in layer.weights
    }


def to_safetensors(model: keras.Model) -> bytes:
    """Return the weights of a model as the bytes of a safetensors file."""
    return bytes(safetensors.numpy.save(weights_of(model), metadata={"format": "keras"}))


def import_weights(model: keras.Model, stored: bytes) -> None:
    """Put stored weights into a model of the same architecture.

    Raises
    ------
    BundleError
        The bytes are no safetensors file, or belong to another architecture.
    """
    try:
        weights = safetensors.numpy.load(stored)
    except SafetensorError as error:
        raise BundleError(f"weights: not a safetensors file ({error})") from error
    expected = {name: array.shape for name, array in weights_of(model).items()}
    received = {name: array.shape for name, array in weights.items()}
    if expected != received:
        different = sorted(
            name
            for name in expected.keys() | received.keys()
            if expected.get(name) != received.get(name)
        )
        raise BundleError(
            f"weights: {len(different)} arrays do not fit this network, {different[0]} first "
            f"(expected shape {expected.get(different[0])}, received "
            f"{received.get(different[0])}); build it with the filters of the bundle"
        )
    for layer in model.layers:
        for variable in layer.weights:
            variable.assign(weights[f"{layer.name}/{variable.name}"])


def to_onnx(model: keras.Model) -> bytes:
    """Write a U-Net of `unet.build` as an ONNX model in float32.

    Batch normalisation is folded into the convolution before it. Channels come first, as ONNX
    wants them: input ``patches`` (N, 1, P, P, P), output ``lesion`` of the same shape, N free.

    Parameters
    ----------
    model : keras.Model
        From `unet.build`, of any precision.

    Returns
    -------
    bytes
        Opset 17, IR version 8, no external data.
    """
    graph = _Graph(weights_of(model))
    side = model.input_shape[1]
    levels = sum(layer.name.endswith("_pool") for layer in model.layers)
    halved = {"kernel_shape": [2] * AXES, "strides": [2] * AXES}
    x, skips = "patches", []
    for level in range(levels):
        x = graph.convolutions(x, f"down{level}")
        skips.append(x)
        x = graph.add("MaxPool", [x], f"down{level}_pool", **halved)
    x = graph.convolutions(x, "bottom")
    for level in reversed(range(levels)):
        name = f"up{level}_transpose"
        # Keras keeps (k, k, k, out, in) here, ONNX wants (in, out, k, k, k).
        x = graph.add("ConvTranspose", [x, *graph.stored(name, *graph.of(name))], name, **halved)
        x = graph.add("Concat", [skips[level], x], f"up{level}_concat", axis=1)
        x = graph.convolutions(x, f"up{level}")
    inputs = [x, *graph.stored("lesion", *graph.of("lesion"))]
    x = graph.add("Conv", inputs, "lesion_logits", kernel_shape=[1] * AXES)
    graph.add("Sigmoid", [x], "lesion")
    shape = ["batch", 1, side, side, side]
    made = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "unet3d",
            [helper.make_tensor_value_info("patches", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("lesion", TensorProto.FLOAT, shape)],
            initializer=graph.initializers,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="sct_lesion_losses",
    )
    onnx.checker.check_model(made, full_check=True)
    return bytes(made.SerializeToString(deterministic=True))


class _Graph:
    """Nodes and constants of the ONNX graph, made from the weights of the Keras layers."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []

    def add(self, operator: str, inputs: list[str], name: str, **attributes: Any) -> str:
        """Add a node; return the name of what it gives."""
        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def of(self, layer: str) -> tuple[NDArray[Any], NDArray[Any]]:
        """Kernel and bias of a Keras layer."""
        return self._weights[f"{layer}/kernel"], self._weights[f"{layer}/bias"]

    def stored(self, name: str, kernel: NDArray[Any], bias: NDArray[Any]) -> list[str]:
        """Store a kernel as ONNX wants it, and a bias; return their names."""
        arrays = {f"{name}_w": kernel.transpose(_KERNEL_TO_ONNX), f"{name}_b": bias}
        self.initializers += [
            numpy_helper.from_array(np.ascontiguousarray(array, np.float32), key)
            for key, array in arrays.items()
        ]
        return list(arrays)

    def convolutions(self, x: str, name: str) -> str:
        """Add both convolutions of a level, each with its normalisation folded in, and ReLU."""
        for step in ("a", "b"):
            conv, norm = f"{name}_conv_{step}", f"{name}_norm_{step}"
            kernel = self._weights[f"{conv}/kernel"].astype(np.float64)
            gamma, beta, mean, variance = (
                self._weights[f"{norm}/{part}"].astype(np.float64)
                for part in ("gamma", "beta", "moving_mean", "moving_variance")
            )
            scale = gamma / np.sqrt(variance + EPSILON)
            folded = self.stored(conv, kernel * scale, beta - mean * scale)
            x = self.add("Conv", [x, *folded], conv, kernel_shape=[3] * AXES, pads=[1] * 2 * AXES)
            x = self.add("Relu", [x], f"{name}_relu_{step}")
        return x
