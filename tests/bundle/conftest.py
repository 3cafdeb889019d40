"""A small real bundle: its description, a network of one convolution, its weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import safetensors.numpy
from numpy.typing import NDArray

from sct_lesion_losses.bundle import check, schema, store
from sct_lesion_losses.bundle.schema import BundleInfo

Arrays = dict[str, NDArray[Any]]


@pytest.fixture(scope="session")
def make_info() -> Callable[..., BundleInfo]:
    """Build a valid BundleInfo, fields replaced by name."""

    def build(**changes: Any) -> BundleInfo:
        fields: dict[str, Any] = {
            "name": "tiny",
            "loss": {"name": "tversky", "numbers": {"fn_weight": 0.7, "fp_weight": 0.3}},
            "preparation": {
                "kind": "study",
                "percentiles": (1.0, 50.0, 99.0),
                "landmarks": (0.0, 40.0, 100.0),
            },
            "network": {"filters": (16, 32, 64), "levels": 3},
            "provenance": {"data": "Three simulated scans."},
            "intended_use": "Tests.",
            "limits": ("Not for use.",),
        }
        return BundleInfo.model_validate(fields | changes)

    return build


@pytest.fixture(scope="session")
def make_model() -> Callable[..., Any]:
    """Build a ModelProto: a convolution and a sigmoid on (N, 1, 8, 8, 8)."""

    def build(opset: int = 17) -> Any:
        helper, floats = onnx.helper, onnx.TensorProto.FLOAT
        kernel = np.full((1, 1, 3, 3, 3), 0.5, np.float32)
        shape = ["batch", 1, 8, 8, 8]
        graph = helper.make_graph(
            [
                helper.make_node("Conv", ["patches", "kernel"], ["logits"], pads=[1] * 6),
                helper.make_node("Sigmoid", ["logits"], ["lesion"]),
            ],
            "tiny",
            [helper.make_tensor_value_info("patches", floats, shape)],
            [helper.make_tensor_value_info("lesion", floats, shape)],
            [onnx.numpy_helper.from_array(kernel, "kernel")],
        )
        opsets = [helper.make_opsetid("", opset)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=9)

    return build


@pytest.fixture(scope="session")
def network(make_model: Callable[..., Any]) -> bytes:
    """The bytes of that model."""
    return bytes(make_model().SerializeToString())


@pytest.fixture(scope="session")
def make_weights() -> Callable[[Arrays], bytes]:
    """Build the bytes of a safetensors file of float32 arrays."""

    def build(arrays: Arrays) -> bytes:
        floats = {name: np.asarray(array, np.float32) for name, array in arrays.items()}
        return bytes(safetensors.numpy.save(floats, metadata={"format": "keras"}))

    return build


@pytest.fixture(scope="session")
def weights(make_weights: Callable[[Arrays], bytes]) -> bytes:
    """The weights of that model."""
    return make_weights(
        {"conv/kernel": np.full((3, 3, 3, 1, 1), 0.5, "f4"), "conv/bias": np.zeros(1, "f4")}
    )


@pytest.fixture(scope="session")
def make_files(
    make_info: Callable[..., BundleInfo], network: bytes, weights: bytes
) -> Callable[..., dict[str, bytes]]:
    """Build the five files of a bundle with right hashes, contents replaced by file name."""

    def build(changes: dict[str, bytes] | None = None, **fields: Any) -> dict[str, bytes]:
        info = make_info(**fields)
        files = {
            check.INFO: schema.dump(info),
            check.NETWORK: network,
            check.WEIGHTS: weights,
            check.CARD: b"# tiny\n",
            **(changes or {}),
        }
        return {**files, check.MANIFEST: check.manifest(files)}

    return build


@pytest.fixture
def bundle(
    tmp_path: Path, make_info: Callable[..., BundleInfo], network: bytes, weights: bytes
) -> store.Bundle:
    """Save and return a bundle in a folder of its own."""
    return store.save(tmp_path / "store" / "tiny", make_info(), network, weights, "# tiny\n")
