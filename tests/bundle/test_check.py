from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from sct_lesion_losses.bundle import check, store
from sct_lesion_losses.bundle.check import check_network, check_weights
from sct_lesion_losses.errors import BundleError

MakeFiles = Callable[..., dict[str, bytes]]


@pytest.fixture
def folder(tmp_path: Path, make_files: MakeFiles) -> Path:
    """A good bundle, to be damaged."""
    made = tmp_path / "tiny"
    made.mkdir()
    fill(made, make_files())
    return made


def fill(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).write_bytes(content)


def refused(folder: Path, words: str) -> None:
    """Both ways in refuse the bundle, and say which."""
    for read in (check.verify, store.load):
        with pytest.raises(BundleError, match=words) as caught:
            read(folder)
        assert "tiny" in str(caught.value)


def test_a_good_bundle_is_described(folder: Path) -> None:
    assert check.verify(folder).name == "tiny"


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="no sha256sum here")
def test_sha256sum_accepts_the_manifest(folder: Path) -> None:
    subprocess.run(
        ["sha256sum", "--check", "--strict", check.MANIFEST],
        cwd=folder,
        check=True,
        capture_output=True,
    )


@pytest.mark.parametrize("name", [check.INFO, check.NETWORK, check.WEIGHTS, check.CARD])
def test_one_changed_bit_is_found(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    refused(folder, f"{name} does not have the hash")


@pytest.mark.parametrize("name", [check.NETWORK, check.WEIGHTS, check.CARD])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    refused(folder, f"{name} is missing")


def test_a_missing_manifest_is_named(folder: Path) -> None:
    (folder / check.MANIFEST).unlink()
    refused(folder, r"MANIFEST\.sha256 is missing")


def test_a_missing_description_is_said(folder: Path) -> None:
    (folder / check.INFO).unlink()
    with pytest.raises(BundleError, match=r"bundle\.json is missing"):
        check.verify(folder)


def test_a_file_that_the_manifest_does_not_list_is_refused(folder: Path) -> None:
    lines = (folder / check.MANIFEST).read_text().splitlines(keepends=True)
    (folder / check.MANIFEST).write_text("".join(line for line in lines if "card" not in line))
    refused(folder, r"card\.md is not listed")


@pytest.mark.parametrize(
    "text",
    ["", "nonsense", "0" * 64 + "  ../card.md\n", "\xff", "{good}{good}"],
    ids=["empty", "text", "path", "binary", "twice"],
)
def test_a_manifest_that_is_no_manifest_is_refused(folder: Path, text: str) -> None:
    good = (folder / check.MANIFEST).read_text()
    (folder / check.MANIFEST).write_bytes(text.replace("{good}", good).encode("latin-1"))
    refused(folder, r"MANIFEST\.sha256")


@pytest.mark.parametrize(
    "name", ["weights.pkl", "model.keras", "model.h5", "saved_model.pb", "x.npy"]
)
def test_a_file_of_another_kind_is_refused_unread(folder: Path, name: str) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path(folder / "sprung").touch, ())

    (folder / name).write_bytes(pickle.dumps(Trap()))
    refused(folder, f"'{name}' is not a file of a bundle")
    assert not (folder / "sprung").exists()


def test_a_pickle_under_a_known_name_is_refused(folder: Path, make_files: MakeFiles) -> None:
    fill(folder, make_files({check.WEIGHTS: pickle.dumps({"kernel": [1.0]})}))
    refused(folder, "not a safetensors file .*pickles")


def test_a_sub_folder_is_refused(folder: Path) -> None:
    (folder / "assets").mkdir()
    refused(folder, "'assets' is not a file of a bundle")


def test_a_symbolic_link_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / check.CARD).rename(tmp_path / "card.md")
    (folder / check.CARD).symlink_to(tmp_path / "card.md")
    refused(folder, "symbolic link")


def test_a_folder_in_place_of_a_file_is_refused(folder: Path) -> None:
    (folder / check.CARD).unlink()
    (folder / check.CARD).mkdir()
    refused(folder, "not a regular file")


def test_a_named_pipe_in_place_of_a_file_does_not_block(folder: Path) -> None:
    (folder / check.CARD).unlink()
    os.mkfifo(folder / check.CARD)
    refused(folder, "not a regular file")


def test_a_file_too_large_is_refused(folder: Path) -> None:
    with (folder / check.CARD).open("r+b") as stream:
        stream.truncate(check.MAX_BYTES[check.CARD] + 1)
    refused(folder, "more than 1048576 bytes")


def test_another_schema_version_is_refused(folder: Path, make_files: MakeFiles) -> None:
    document = json.loads(make_files()[check.INFO])
    text = json.dumps(document | {"schema_version": 2}).encode()
    fill(folder, make_files({check.INFO: text}))
    refused(folder, "schema version is 2, expected 1")


@pytest.mark.parametrize("threshold", [0, -0.5, 1.5])
def test_a_threshold_outside_0_to_1_is_refused(
    folder: Path, make_files: MakeFiles, threshold: float
) -> None:
    document = json.loads(make_files()[check.INFO])
    document["operating_point"]["threshold"] = threshold
    fill(folder, make_files({check.INFO: json.dumps(document).encode()}))
    refused(folder, r"operating_point\.threshold is")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ({"opset": 18}, "opset 18"),
        ({"ir_version": 11}, "IR version 11"),
        ({"weight": np.nan}, "27 numbers are NaN or infinite"),
    ],
)
def test_a_network_that_is_refused_is_said(
    folder: Path,
    make_files: MakeFiles,
    make_model: Callable[..., Any],
    damage: dict[str, Any],
    words: str,
) -> None:
    model = bytes(make_model(**damage).SerializeToString())
    fill(folder, make_files({check.NETWORK: model}))
    refused(folder, words)


def test_weights_that_are_not_finite_are_refused(
    folder: Path, make_files: MakeFiles, make_weights: Callable[..., bytes]
) -> None:
    bad = make_weights({"kernel": np.array([np.nan], "f4")})
    fill(folder, make_files({check.WEIGHTS: bad}))
    refused(folder, "'kernel': 1 numbers are NaN or infinite")


@pytest.mark.parametrize(
    "name", [".DS_Store", "._card.md", "Thumbs.db", "desktop.ini", "__MACOSX", ".nfs0001"]
)
def test_what_desktops_leave_in_a_folder_is_no_part_of_a_bundle(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"x")
    assert check.verify(folder).name == "tiny"
    assert store.load(folder).name == "tiny"


def test_a_card_that_is_not_text_is_refused(folder: Path, make_files: MakeFiles) -> None:
    fill(folder, make_files({check.CARD: b"\xff\xfe\x00"}))
    refused(folder, "not UTF-8")


def test_hashes_are_checked_before_anything_is_parsed(folder: Path) -> None:
    (folder / check.INFO).write_text('{"schema_version": 99}')
    refused(folder, "does not have the hash")


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cannot read this bundle"):
        check.verify(tmp_path / "nowhere")


Make = Callable[..., Any]


def network_refused(model: Any, words: str) -> None:
    with pytest.raises(BundleError, match=words):
        check_network(model.SerializeToString())


def test_sct_models_are_understood(sct_dir: Path) -> None:
    model = sct_dir / "data" / "deepseg_lesion_models" / "t2s_lesion.onnx"
    check_network(model.read_bytes())


def test_a_newer_opset_is_refused(make_model: Make) -> None:
    network_refused(make_model(opset=18), "opset 18, expected at most 17")


def test_a_newer_ir_is_refused(make_model: Make) -> None:
    network_refused(make_model(ir_version=10), "IR version 10, expected at most 9")


def test_operators_of_another_domain_are_refused(onnx: Any, make_model: Make) -> None:
    model = make_model()
    model.opset_import[0].domain = "com.example"
    network_refused(model, "domain 'com.example'")


def test_two_operator_sets_are_refused(onnx: Any, make_model: Make) -> None:
    model = make_model()
    model.opset_import.append(onnx.helper.make_opsetid("ai.onnx.ml", 3))
    network_refused(model, "domain 'ai.onnx.ml'")


def test_an_unknown_operator_is_refused(make_model: Make) -> None:
    model = make_model()
    model.graph.node[1].op_type = "Einsum"
    network_refused(model, "operator 'Einsum'")


def test_a_known_operator_of_another_domain_is_refused(make_model: Make) -> None:
    model = make_model()
    model.graph.node[1].domain = "com.example"
    network_refused(model, r"operator 'com\.example\.Sigmoid'")


@pytest.mark.parametrize("operator", ["If", "Loop", "Scan"])
def test_control_flow_is_refused(onnx: Any, make_model: Make, operator: str) -> None:
    model = make_model()
    model.graph.node[1].op_type = operator
    network_refused(model, f"operator '{operator}'")


def test_a_sub_graph_is_refused_under_any_operator(onnx: Any, make_model: Make) -> None:
    model = make_model()
    inner = make_model().graph
    model.graph.node[1].attribute.append(onnx.helper.make_attribute("body", inner))
    network_refused(model, "attribute 'body' of a Sigmoid")


def test_functions_are_refused(onnx: Any, make_model: Make) -> None:
    model = make_model()
    model.functions.append(
        onnx.helper.make_function("f", "g", ["a"], ["b"], [], [onnx.helper.make_opsetid("", 17)])
    )
    network_refused(model, "a function")


def test_a_training_graph_is_refused(make_model: Make) -> None:
    model = make_model()
    model.training_info.add()
    network_refused(model, "a training graph")


def test_sparse_weights_are_refused(make_model: Make) -> None:
    model = make_model()
    model.graph.sparse_initializer.add()
    network_refused(model, "sparse weights")


def test_data_in_another_file_is_refused(onnx: Any, make_model: Make) -> None:
    model = make_model()
    kernel = model.graph.initializer[0]
    onnx.external_data_helper.set_external_data(kernel, "../../etc/passwd")
    kernel.ClearField("raw_data")
    network_refused(model, "data in another file")


def test_data_that_claims_to_be_elsewhere_is_refused(onnx: Any, make_model: Make) -> None:
    model = make_model()
    model.graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL
    network_refused(model, "data in another file")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_network_that_is_not_finite_is_refused(make_model: Make, value: float) -> None:
    network_refused(make_model(weight=value), "'kernel': 27 numbers are NaN or infinite")


@pytest.mark.parametrize("code", ["FLOAT", "FLOAT16", "DOUBLE"])
def test_nan_is_found_in_every_float_type(onnx: Any, make_model: Make, code: str) -> None:
    model = make_model()
    dtype = onnx.helper.tensor_dtype_to_np_dtype(getattr(onnx.TensorProto, code))
    bad = onnx.numpy_helper.from_array(np.array([1, np.nan], dtype), "extra")
    model.graph.initializer.append(bad)
    network_refused(model, "'extra': 1 numbers are NaN")


def test_nan_is_found_in_numbers_stored_as_a_list(onnx: Any, make_model: Make) -> None:
    model = make_model()
    bad = onnx.helper.make_tensor("extra", onnx.TensorProto.FLOAT, [2], [1.0, float("nan")])
    model.graph.initializer.append(bad)
    network_refused(model, "'extra': 1 numbers are NaN")


def test_nan_is_found_in_a_constant_node(onnx: Any, make_model: Make) -> None:
    model = make_model()
    value = onnx.numpy_helper.from_array(np.array([np.inf], np.float32), "inner")
    model.graph.node.append(onnx.helper.make_node("Constant", [], ["c"], value=value))
    network_refused(model, "'inner': 1 numbers are NaN or infinite")


def test_nan_is_found_in_an_attribute(onnx: Any, make_model: Make) -> None:
    model = make_model()
    model.graph.node[1].attribute.append(onnx.helper.make_attribute("alpha", float("nan")))
    network_refused(model, "attribute 'alpha' is NaN or infinite")


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
    check_network(model.SerializeToString())


def test_fewer_numbers_than_the_shape_says_are_refused(make_model: Make) -> None:
    model = make_model()
    model.graph.initializer[0].dims[0] = 2
    network_refused(model, "'kernel': cannot reshape")


def test_a_shape_that_claims_terabytes_is_refused(make_model: Make) -> None:
    model = make_model()
    model.graph.initializer[0].dims[:] = [2**40, 2**40, 1]
    network_refused(model, "'kernel': ")


def test_a_shape_that_cannot_be_is_refused(make_model: Make) -> None:
    model = make_model()
    model.graph.initializer[0].dims[:] = [-1, 27]
    network_refused(model, "dimensions")


def test_text_weights_are_refused(onnx: Any, make_model: Make) -> None:
    model = make_model()
    model.graph.initializer.append(
        onnx.helper.make_tensor("t", onnx.TensorProto.STRING, [1], [b"x"])
    )
    network_refused(model, "text")


def test_a_second_input_is_refused(onnx: Any, make_model: Make) -> None:
    model = make_model()
    model.graph.input.append(onnx.helper.make_tensor_value_info("b", onnx.TensorProto.FLOAT, [1]))
    network_refused(model, "2 inputs and 1 outputs")


def test_a_weight_listed_as_an_input_is_no_input(onnx: Any, make_model: Make) -> None:
    model = make_model()
    shape = [1, 1, 3, 3, 3]
    model.graph.input.append(
        onnx.helper.make_tensor_value_info("kernel", onnx.TensorProto.FLOAT, shape)
    )
    check_network(model.SerializeToString())


def test_a_graph_without_nodes_is_refused(make_model: Make) -> None:
    model = make_model()
    del model.graph.node[:]
    network_refused(model, "no node")


@pytest.mark.parametrize(
    "content", [b"", b"ORTM" + bytes(100), b"\x80\x04\x95pickle", b"PK\x03\x04", b"\x89HDF\r\n"]
)
def test_other_formats_are_refused(content: bytes) -> None:
    with pytest.raises(BundleError, match=r"model\.onnx"):
        check_network(content)


def test_a_network_cut_short_anywhere_is_refused(network: bytes) -> None:
    for length in range(len(network)):
        with pytest.raises(BundleError):
            check_network(network[:length])


@given(st.data())
@settings(max_examples=300)
def test_changed_bytes_are_accepted_or_refused(network: bytes, data: st.DataObject) -> None:
    changed = bytearray(network)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(network) - 1))] = data.draw(st.integers(0, 255))
    try:
        check_network(bytes(changed))
    except BundleError:
        return


@given(st.binary(max_size=300))
def test_random_bytes_are_refused(content: bytes) -> None:
    with pytest.raises(BundleError):
        check_network(content)


def file(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(shape: Any = (2,), offsets: Any = (0, 8), dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def test_a_file_of_safetensors_is_accepted() -> None:
    arrays = {
        "a": np.ones((2, 3), np.float32),
        "b": np.arange(4),
        "c": np.zeros((0, 2), np.float16),
        "d": np.array(3.0),
    }
    check_weights(safetensors.numpy.save(arrays, metadata={"format": "keras"}))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_to_train_on_that_are_not_finite_are_refused(
    make_weights: Callable[..., bytes], value: float
) -> None:
    with pytest.raises(BundleError, match="'bad': 1 numbers are NaN or infinite"):
        check_weights(make_weights({"good": np.ones(3, "f4"), "bad": np.array([1, value], "f4")}))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_is_refused(protocol: int) -> None:
    with pytest.raises(BundleError, match="pickles"):
        check_weights(pickle.dumps({"weights": list(range(1000))}, protocol))


@pytest.mark.parametrize(
    "content", [b"", b"\x89HDF\r\n\x1a\n" + bytes(99), b"PK\x03\x04" + bytes(99)]
)
def test_other_formats_of_weights_are_refused(content: bytes) -> None:
    with pytest.raises(BundleError, match="not a safetensors file"):
        check_weights(content)


@pytest.mark.parametrize(
    "content",
    [
        file(b"not json"),
        file([1, 2]),
        file(b"[" * 100_000),
        file({"a": 3}),
        file({"a": entry(dtype="PICKLE")}, bytes(8)),
        file({"a": entry(dtype=[])}, bytes(8)),
        file({"a": entry(shape=None)}, bytes(8)),
        file({"a": entry(shape=(-1, -2))}, bytes(8)),
        file({"a": entry(shape=(True, 2))}, bytes(8)),
        file({"a": entry(shape=(1.0, 2))}, bytes(8)),
        file({"a": entry(shape=(2**39, 2**39))}, bytes(8)),
        file({"a": entry(shape=(1,) * 9)}, bytes(8)),
        file({"a": entry(offsets=(0, 4, 8))}, bytes(8)),
        file({"a": entry(offsets=(8, 0))}, bytes(8)),
        file({"a": entry()}, bytes(7)),
        file({"a": entry()}, bytes(9)),
        file({"a": entry(), "b": entry()}, bytes(8)),
        file({"a": entry(offsets=(4, 12))}, bytes(12)),
    ],
)
def test_a_header_that_does_not_fit_is_refused(content: bytes) -> None:
    with pytest.raises(BundleError, match=r"weights\.safetensors"):
        check_weights(content)


@given(st.binary(max_size=200))
def test_random_weights_are_refused(content: bytes) -> None:
    with pytest.raises(BundleError):
        check_weights(content)


@given(st.data())
def test_changed_bytes_of_weights_are_accepted_or_refused(
    weights: bytes, data: st.DataObject
) -> None:
    changed = bytearray(weights)
    changed[data.draw(st.integers(0, len(weights) - 1))] = data.draw(st.integers(0, 255))
    try:
        check_weights(bytes(changed))
    except BundleError:
        return


def test_a_file_cut_short_anywhere_is_refused(weights: bytes) -> None:
    for length in range(len(weights)):
        with pytest.raises(BundleError):
            check_weights(weights[:length])
