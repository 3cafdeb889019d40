"""A small ONNX model of the graph of SCT's lesion models, with random weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

FILTERS = (4, 8)


class Graph:
    """Nodes and stored numbers, in the order and with the attributes of SCT's files."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[Any] = []
        self.stored: list[Any] = []

    def node(self, operator: str, inputs: list[str], **attributes: Any) -> str:
        name = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def constant(self, name: str, array: np.ndarray) -> str:
        self.stored.append(numpy_helper.from_array(array.astype(np.float32), name))
        return name

    def conv(self, x: str, given: int, width: int, side: int = 3) -> str:
        number = len(self.nodes)
        spread = (given * side**3) ** -0.5
        kernel = self.rng.normal(0, spread, (width, given, side, side, side))
        inputs = [
            self.constant(f"conv_{number}_W", kernel),
            self.constant(f"conv_{number}_b", self.rng.normal(0, 0.3, width)),
        ]
        return self.node(
            "Conv",
            [x, *inputs],
            kernel_shape=[side] * 3,
            pads=[side // 2] * 6,
            strides=[1] * 3,
            dilations=[1] * 3,
        )

    def block(self, x: str, given: int, width: int) -> str:
        """Convolution, normalisation, ReLU."""
        x = self.conv(x, given, width)
        number = len(self.nodes)
        parts = {
            "gamma": self.rng.uniform(0.5, 1.5, width),
            "beta": self.rng.normal(0, 0.3, width),
            "moving_mean": self.rng.normal(0, 0.3, width),
            "moving_variance": self.rng.uniform(0.2, 1, width),
        }
        inputs = [self.constant(f"norm_{number}_{k}", v) for k, v in parts.items()]
        x = self.node("BatchNormalization", [x, *inputs], epsilon=1e-3)
        return self.node("Relu", [x])

    def unet(self, filters: tuple[int, ...]) -> str:
        x, channels, skips = "input_1", 1, []
        for level, width in enumerate(filters):
            x = self.block(self.block(x, channels, width // 2), width // 2, width)
            channels = width
            if level < len(filters) - 1:
                skips.append(x)
                x = self.node("MaxPool", [x], kernel_shape=[2] * 3, strides=[2] * 3)
        for skip, width in zip(reversed(skips), filters[-2::-1], strict=True):
            scales = self.constant(f"{skip}_scales", np.array([1, 1, 2, 2, 2]))
            x = self.node(
                "Resize",
                [x, "", scales],
                mode="nearest",
                coordinate_transformation_mode="asymmetric",
                nearest_mode="floor",
            )
            x = self.node("Concat", [x, skip], axis=1)
            x = self.block(self.block(x, channels + width, width), width, width)
            channels = width
        x = self.node("Sigmoid", [self.conv(x, channels, 1, side=1)])
        self.nodes.append(helper.make_node("Identity", [x], ["predictions"]))
        return "predictions"


def make(
    filters: tuple[int, ...] = FILTERS,
    side: int = 48,
    seed: int = 0,
    change: Callable[[ModelProto], None] = lambda _: None,
) -> bytes:
    """ONNX file of the graph; `change` may spoil the model before it is written."""
    graph = Graph(seed)
    output = graph.unet(filters)
    shape = ["N", 1, side, side, side]
    made = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "lesion",
            [helper.make_tensor_value_info("input_1", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)],
            initializer=graph.stored,
        ),
        opset_imports=[helper.make_opsetid("", 13)],
        ir_version=8,
    )
    change(made)
    return bytes(made.SerializeToString())


def install(folder: Path, network: bytes, contrast: str = "t2") -> Path:
    """Put a model where SCT has it; the folder is one for $SCT_DIR."""
    path = folder / "data" / "deepseg_lesion_models" / f"{contrast}_lesion.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(network)
    return folder
