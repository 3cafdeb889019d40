from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sct_lesion_losses.bundle import check as networks
from sct_lesion_losses.bundle.check import inspect
from sct_lesion_losses.errors import BundleError

Make = Callable[..., Any]


def refused(model: Any, words: str) -> None:
    with pytest.raises(BundleError, match=words):
        inspect(model.SerializeToString())


def test_a_network_is_summarised(network: bytes) -> None:
    found = inspect(network)
    # 3 x 3 x 3 weights
    assert (found.ir_version, found.opset, found.weights) == (9, 17, 27)
    assert found.operators == ("Conv", "Sigmoid")


def test_sct_models_are_understood(sct_dir: Path) -> None:
    model = sct_dir / "data" / "deepseg_lesion_models" / "t2s_lesion.onnx"
    assert inspect(model.read_bytes()).weights > 100_000


def test_a_newer_opset_is_refused(make_model: Make) -> None:
    refused(make_model(opset=18), "opset 18, expected at most 17")


def test_a_newer_ir_is_refused(make_model: Make) -> None:
    refused(make_model(ir_version=10), "IR version 10, expected at most 9")


def test_operators_of_another_domain_are_refused(onnx: Any, make_model: Make) -> None:
    model = make_model()
    model.opset_import[0].domain = "com.example"
    refused(model, "domain 'com.example'")


def test_two_operator_sets_are_refused(onnx: Any, make_model: Make) -> None:
    model = make_model()
    model.opset_import.append(onnx.helper.make_opsetid("ai.onnx.ml", 3))
    refused(model, "2 times opset_import")


def test_an_unknown_operator_is_refused(make_model: Make) -> None:
    model = make_model()
    model.graph.node[1].op_type = "Einsum"
    refused(model, "operator 'Einsum'")


def test_a_known_operator_of_another_domain_is_refused(make_model: Make) -> None:
    model = make_model()
    model.graph.node[1].domain = "com.example"
    refused(model, r"operator 'com\.example\.Sigmoid'")


@pytest.mark.parametrize("operator", ["If", "Loop", "Scan"])
def test_control_flow_is_refused(onnx: Any, make_model: Make, operator: str) -> None:
    model = make_model()
    model.graph.node[1].op_type = operator
    refused(model, f"operator '{operator}'")


def test_a_sub_graph_is_refused_under_any_operator(onnx: Any, make_model: Make) -> None:
    model = make_model()
    inner = make_model().graph
    model.graph.node[1].attribute.append(onnx.helper.make_attribute("body", inner))
    refused(model, "a sub-graph")


def test_functions_are_refused(onnx: Any, make_model: Make) -> None:
    model = make_model()
    model.functions.append(
        onnx.helper.make_function("f", "g", ["a"], ["b"], [], [onnx.helper.make_opsetid("", 17)])
    )
    refused(model, "functions")


def test_a_training_graph_is_refused(make_model: Make) -> None:
    model = make_model()
    model.training_info.add()
    refused(model, "a training graph")


def test_sparse_weights_are_refused(make_model: Make) -> None:
    model = make_model()
    model.graph.sparse_initializer.add()
    refused(model, "sparse weights")


def test_data_in_another_file_is_refused(onnx: Any, make_model: Make) -> None:
    model = make_model()
    kernel = model.graph.initializer[0]
    onnx.external_data_helper.set_external_data(kernel, "../../etc/passwd")
    kernel.ClearField("raw_data")
    refused(model, "data in another file")


def test_data_that_claims_to_be_elsewhere_is_refused(onnx: Any, make_model: Make) -> None:
    model = make_model()
    model.graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL
    refused(model, "data in another file")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(make_model: Make, value: float) -> None:
    refused(make_model(weight=value), "'kernel': 27 numbers are NaN or infinite")


@pytest.mark.parametrize("code", ["FLOAT", "FLOAT16", "DOUBLE"])
def test_nan_is_found_in_every_float_type(onnx: Any, make_model: Make, code: str) -> None:
    model = make_model()
    dtype = onnx.helper.tensor_dtype_to_np_dtype(getattr(onnx.TensorProto, code))
    bad = onnx.numpy_helper.from_array(np.array([1, np.nan], dtype), "extra")
    model.graph.initializer.append(bad)
    refused(model, "'extra': 1 numbers are NaN")


def test_nan_is_found_in_numbers_stored_as_a_list(onnx: Any, make_model: Make) -> None:
    model = make_model()
    bad = onnx.helper.make_tensor("extra", onnx.TensorProto.FLOAT, [2], [1.0, float("nan")])
    model.graph.initializer.append(bad)
    refused(model, "'extra': 1 numbers are NaN")


def test_nan_is_found_in_a_constant_node(onnx: Any, make_model: Make) -> None:
    model = make_model()
    value = onnx.numpy_helper.from_array(np.array([np.inf], np.float32), "inner")
    model.graph.node.append(onnx.helper.make_node("Constant", [], ["c"], value=value))
    refused(model, "'inner': 1 numbers are NaN or infinite")


def test_nan_is_found_in_an_attribute(onnx: Any, make_model: Make) -> None:
    model = make_model()
    model.graph.node[1].attribute.append(onnx.helper.make_attribute("alpha", float("nan")))
    refused(model, "an attribute: 1 numbers are NaN")


def test_whole_numbers_stored_as_lists_are_accepted(onnx: Any, make_model: Make) -> None:
    model = make_model()
    make, proto = onnx.helper.make_tensor, onnx.TensorProto
    model.graph.initializer.extend(
        [
            make("shape", proto.INT64, [4], [0, -1, 48, 1]),
            make("flags", proto.BOOL, [2], [True, False]),
            make("small", proto.INT32, [2], [-3, 3]),
            make("weights", proto.DOUBLE, [1], [0.5]),
        ]
    )
    assert inspect(model.SerializeToString()).weights == 28


def test_fewer_numbers_than_the_shape_says_are_refused(make_model: Make) -> None:
    model = make_model()
    model.graph.initializer[0].dims[0] = 2
    refused(model, "27 numbers stored, expected 54")


def test_a_shape_that_claims_terabytes_is_refused(make_model: Make) -> None:
    model = make_model()
    model.graph.initializer[0].dims[:] = [2**40, 2**40, 1]
    refused(model, "numbers stored, expected")


@pytest.mark.parametrize("dims", [[-1, 27], [1] * 9 + [27]], ids=["negative", "many"])
def test_a_shape_that_cannot_be_is_refused(make_model: Make, dims: list[int]) -> None:
    model = make_model()
    model.graph.initializer[0].dims[:] = dims
    refused(model, "dimensions|too many")


def test_text_weights_are_refused(onnx: Any, make_model: Make) -> None:
    model = make_model()
    model.graph.initializer.append(
        onnx.helper.make_tensor("t", onnx.TensorProto.STRING, [1], [b"x"])
    )
    refused(model, "text")


def test_a_second_input_is_refused(onnx: Any, make_model: Make) -> None:
    model = make_model()
    model.graph.input.append(onnx.helper.make_tensor_value_info("b", onnx.TensorProto.FLOAT, [1]))
    refused(model, "2 inputs and 1 outputs")


def test_a_weight_listed_as_an_input_is_no_input(onnx: Any, make_model: Make) -> None:
    model = make_model()
    shape = [1, 1, 3, 3, 3]
    model.graph.input.append(
        onnx.helper.make_tensor_value_info("kernel", onnx.TensorProto.FLOAT, shape)
    )
    assert inspect(model.SerializeToString()).weights == 27


def test_a_graph_without_nodes_is_refused(make_model: Make) -> None:
    model = make_model()
    del model.graph.node[:]
    refused(model, "0 nodes")


def test_a_second_graph_is_refused(make_model: Make, network: bytes) -> None:
    # Protobuf merges a message that is there twice, so what is checked must be there once.
    with pytest.raises(BundleError, match="2 times"):
        inspect(network + network)


def test_a_field_that_onnx_does_not_have_is_refused(network: bytes) -> None:
    with pytest.raises(BundleError, match="field 99 of ModelProto"):
        inspect(network + b"\x98\x06\x01")  # 99 << 3 = 792 = 0x98 0x06


def test_a_network_too_large_is_refused(network: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "MAX_NETWORK_BYTES", 10)
    with pytest.raises(BundleError, match="expected at most 10"):
        inspect(network)


@pytest.mark.parametrize(
    "content", [b"", b"ORTM" + bytes(100), b"\x80\x04\x95pickle", b"PK\x03\x04", b"\x89HDF\r\n"]
)
def test_other_formats_are_refused(content: bytes) -> None:
    with pytest.raises(BundleError, match=r"model\.onnx"):
        inspect(content)


def test_a_network_cut_short_anywhere_is_refused(network: bytes) -> None:
    for length in range(len(network)):
        with pytest.raises(BundleError):
            inspect(network[:length])


@given(st.data())
@settings(max_examples=300)
def test_changed_bytes_are_accepted_or_refused(network: bytes, data: st.DataObject) -> None:
    changed = bytearray(network)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(network) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = inspect(bytes(changed))
    except BundleError:
        return
    assert set(found.operators) <= networks.OPERATORS


@given(st.binary(max_size=300))
def test_random_bytes_are_refused(content: bytes) -> None:
    with pytest.raises(BundleError):
        inspect(content)
