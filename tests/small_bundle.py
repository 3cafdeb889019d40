"""A small real bundle: its description, a network of one convolution, its weights."""

from typing import Any

import numpy as np
import onnx
import safetensors.numpy

from sct_lesion_losses.bundle import check, schema
from sct_lesion_losses.bundle.schema import BundleInfo


def make_info(**changes: Any) -> BundleInfo:
    """Build a valid BundleInfo, fields replaced by name."""
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


def make_model(opset: int = 17) -> onnx.ModelProto:
    """Build a convolution and a sigmoid on (N, 1, 8, 8, 8)."""
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


def make_weights(**arrays: Any) -> bytes:
    """Bytes of a safetensors file of float32 arrays."""
    floats = {name: np.asarray(array, np.float32) for name, array in arrays.items()}
    return bytes(safetensors.numpy.save(floats, metadata={"format": "keras"}))


NETWORK = bytes(make_model().SerializeToString())
WEIGHTS = make_weights(**{"conv/kernel": np.full((3, 3, 3, 1, 1), 0.5), "conv/bias": np.zeros(1)})


def make_files(changes: dict[str, bytes] | None = None, **fields: Any) -> dict[str, bytes]:
    """Five files of a bundle with right hashes, contents replaced by file name."""
    files = {
        check.INFO: schema.dump(make_info(**fields)),
        check.NETWORK: NETWORK,
        check.WEIGHTS: WEIGHTS,
        check.CARD: b"# tiny\n",
        **(changes or {}),
    }
    return {**files, check.MANIFEST: check.manifest(files)}
