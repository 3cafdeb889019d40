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
import onnx
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from small_bundle import NETWORK, WEIGHTS, make_files, make_model, make_weights

from sct_lesion_losses.bundle import check, store
from sct_lesion_losses.bundle.check import check_network, check_weights
from sct_lesion_losses.errors import BundleError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A good bundle, to be damaged."""
    made = tmp_path / "tiny"
    made.mkdir()
    put(made, make_files())
    return made


def put(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).write_bytes(content)


def refused(folder: Path, words: str) -> None:
    """Both ways in refuse the bundle, and say which."""
    for read in (check.verify, store.load):
        with pytest.raises(BundleError, match=words) as caught:
            read(folder)
        assert "tiny" in str(caught.value)


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="no sha256sum here")
def test_sha256sum_accepts_the_manifest(folder: Path) -> None:
    subprocess.run(
        ["sha256sum", "--check", "--strict", check.MANIFEST],
        cwd=folder,
        check=True,
        capture_output=True,
    )


@pytest.mark.parametrize("name", [check.INFO, check.NETWORK, check.WEIGHTS, check.CARD])
def test_one_changed_bit_is_found_before_anything_is_parsed(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    refused(folder, f"{name} does not have the hash")


@pytest.mark.parametrize("name", check.MAX_BYTES)
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(BundleError, match=f"tiny: {name} is missing"):
        check.verify(folder)


@pytest.mark.parametrize(
    "text",
    ["", "nonsense", "0" * 64 + "  ../card.md\n", "\xff", "{good}{good}", "{less}"],
    ids=["empty", "text", "path", "binary", "twice", "a file not listed"],
)
def test_a_manifest_that_is_not_of_these_files_is_refused(folder: Path, text: str) -> None:
    good = (folder / check.MANIFEST).read_text()
    less = "".join(line for line in good.splitlines(keepends=True) if "card" not in line)
    (folder / check.MANIFEST).write_bytes(text.format(good=good, less=less).encode("latin-1"))
    refused(folder, r"MANIFEST\.sha256")


@pytest.mark.parametrize(
    "name", ["weights.pkl", "model.keras", "model.h5", "saved_model.pb", "x.npy"]
)
def test_a_file_or_folder_of_another_name_is_refused_unread(folder: Path, name: str) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path(folder / "sprung").touch, ())

    (folder / name).write_bytes(pickle.dumps(Trap()))
    refused(folder, f"'{name}' is not a file of a bundle")
    assert not (folder / "sprung").exists()
    (folder / name).unlink()
    (folder / name).mkdir()
    refused(folder, f"'{name}' is not a file of a bundle")


def test_a_symbolic_link_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / check.CARD).rename(tmp_path / "card.md")
    (folder / check.CARD).symlink_to(tmp_path / "card.md")
    refused(folder, "symbolic link")


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])  # a pipe would block
def test_what_is_no_regular_file_is_refused(folder: Path, make: Callable[[Path], None]) -> None:
    (folder / check.CARD).unlink()
    make(folder / check.CARD)
    refused(folder, "not a regular file")


def test_a_file_too_large_is_refused(folder: Path) -> None:
    with (folder / check.CARD).open("r+b") as stream:
        stream.truncate(check.MAX_BYTES[check.CARD] + 1)
    refused(folder, "more than 1048576 bytes")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (check.INFO, "schema version is 2, expected 1"),
        (check.NETWORK, "opset 18"),
        (check.WEIGHTS, "'kernel': 1 numbers are NaN or infinite"),
        (check.CARD, "not UTF-8"),
    ],
)
def test_contents_that_are_refused_are_said_whatever_their_hash(
    folder: Path, name: str, words: str
) -> None:
    info = json.loads(make_files()[check.INFO]) | {"schema_version": 2}
    wrong = {
        check.INFO: json.dumps(info).encode(),
        check.NETWORK: make_model(opset=18).SerializeToString(),
        check.WEIGHTS: make_weights(kernel=[np.nan]),
        check.CARD: b"\xff\xfe\x00",
    }
    put(folder, make_files({name: wrong[name]}))
    refused(folder, words)


@pytest.mark.parametrize(
    "name", [".DS_Store", "._card.md", "Thumbs.db", "desktop.ini", "__MACOSX", ".nfs0001"]
)
def test_what_desktops_leave_in_a_folder_is_no_part_of_a_bundle(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"x")
    assert check.verify(folder).name == "tiny"
    assert store.load(folder).name == "tiny"


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cannot read this bundle"):
        check.verify(tmp_path / "nowhere")


def test_sct_models_are_understood(sct_dir: Path) -> None:
    model = sct_dir / "data" / "deepseg_lesion_models" / "t2s_lesion.onnx"
    check_network(model.read_bytes())


def sigmoid(**fields: str) -> Callable[[Any], None]:
    """Change fields of the second node, a sigmoid."""
    return lambda model: model.graph.node[1].MergeFrom(onnx.NodeProto(**fields))


def attribute(name: str, value: Any) -> Callable[[Any], None]:
    """Give the sigmoid an attribute."""
    return lambda model: model.graph.node[1].attribute.append(helper.make_attribute(name, value))


def weights(tensor: Any) -> Callable[[Any], None]:
    """Add weights that no node uses."""
    return lambda model: model.graph.initializer.append(tensor)


def kernel(model: Any) -> Any:
    """Weights of the convolution."""
    return model.graph.initializer[0]


def filled(value: float) -> Callable[[Any], None]:
    """Give the convolution weights of one value."""
    values = numpy_helper.from_array(np.full((1, 1, 3, 3, 3), value, np.float32), "kernel")
    return lambda model: kernel(model).CopyFrom(values)


def elsewhere(model: Any) -> None:
    onnx.external_data_helper.set_external_data(kernel(model), "../../etc/passwd")
    kernel(model).ClearField("raw_data")


def inner_nan(model: Any) -> None:
    value = numpy_helper.from_array(np.array([np.inf], np.float32), "inner")
    model.graph.node.append(helper.make_node("Constant", [], ["c"], value=value))


FUNCTION = helper.make_function("f", "g", ["a"], ["b"], [], [helper.make_opsetid("", 17)])
NAN = [1, np.nan]
OPSET_ML = helper.make_opsetid("ai.onnx.ml", 3)
SECOND = helper.make_tensor_value_info("b", TensorProto.FLOAT, [1])
INNER = helper.make_graph([], "inner", [], [])


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda m: setattr(m.opset_import[0], "version", 18), "opset 18, expected at most 17"),
        (lambda m: setattr(m, "ir_version", 10), "IR version 10, expected at most 9"),
        *((filled(x), "'kernel': 27 numbers are NaN") for x in (np.nan, np.inf, -np.inf)),
        (lambda m: setattr(m.opset_import[0], "domain", "com.x"), "domain 'com.x'"),
        (lambda m: m.opset_import.append(OPSET_ML), "domain 'ai.onnx.ml'"),
        (sigmoid(op_type="Einsum"), "operator 'Einsum'"),
        (sigmoid(domain="com.x"), r"operator 'com\.x\.Sigmoid'"),
        *((sigmoid(op_type=name), f"operator '{name}'") for name in ("If", "Loop", "Scan")),
        (attribute("body", INNER), "'body of Sigmoid': values of type object"),
        (attribute("alpha", float("nan")), "'alpha of Sigmoid': 1 numbers are NaN or infinite"),
        (inner_nan, "'value of Constant': 1 numbers are NaN or infinite"),
        (lambda m: m.functions.append(FUNCTION), "a function"),
        (lambda m: m.training_info.add(), "a training graph"),
        (lambda m: m.graph.sparse_initializer.add(), "sparse weights"),
        (elsewhere, "data in another file"),
        (lambda m: setattr(kernel(m), "data_location", TensorProto.EXTERNAL), "another file"),
        *(
            (weights(numpy_helper.from_array(np.array(NAN, dtype), "e")), "'e': 1 numbers are NaN")
            for dtype in ("f2", "f4", "f8")
        ),
        (weights(helper.make_tensor("e", TensorProto.FLOAT, [2], NAN)), "'e': 1 numbers are NaN"),
        (weights(helper.make_tensor("t", TensorProto.STRING, [1], [b"x"])), "type object"),
        (lambda m: kernel(m).dims.append(2), "'kernel': cannot reshape"),
        (lambda m: kernel(m).dims.extend([2**40, 2**40]), "'kernel': "),
        (lambda m: kernel(m).dims.append(-1), "dimensions"),
        (lambda m: m.graph.input.append(SECOND), "2 inputs and 1 outputs"),
        (lambda m: m.graph.ClearField("node"), "0 nodes"),
    ],
)
def test_a_network_too_new_or_more_or_less_than_layers_and_finite_numbers_is_refused(
    damage: Callable[[Any], None], words: str
) -> None:
    model = make_model()
    damage(model)
    with pytest.raises(BundleError, match=words):
        check_network(model.SerializeToString())


def test_whole_numbers_and_weights_listed_as_inputs_are_accepted() -> None:
    model = make_model()
    make = helper.make_tensor
    model.graph.initializer.extend(
        [
            make("shape", TensorProto.INT64, [4], [0, -1, 48, 1]),
            make("flags", TensorProto.BOOL, [2], [True, False]),
            make("small", TensorProto.INT32, [2], [-3, 3]),
            make("weights", TensorProto.DOUBLE, [1], [0.5]),
        ]
    )
    shape = [1, 1, 3, 3, 3]
    model.graph.input.append(helper.make_tensor_value_info("kernel", TensorProto.FLOAT, shape))
    check_network(model.SerializeToString())


OTHER_FORMATS = [b"", b"ORTM" + bytes(99), b"\x89HDF\r\n\x1a\n" + bytes(99), b"PK\x03\x04"]


@pytest.mark.parametrize("content", [*OTHER_FORMATS, pickle.dumps({"w": list(range(1000))})])
def test_other_formats_are_refused(content: bytes) -> None:
    with pytest.raises(BundleError, match=r"model\.onnx: refused: "):
        check_network(content)
    with pytest.raises(BundleError, match=r"not a safetensors file .*pickles"):
        check_weights(content)


def test_files_cut_short_anywhere_are_refused() -> None:
    for whole, checked in ((NETWORK, check_network), (WEIGHTS, check_weights)):
        for length in range(len(whole)):
            with pytest.raises(BundleError):
                checked(whole[:length])


@given(st.data(), st.sampled_from([check_network, check_weights]))
@settings(max_examples=300)
def test_changed_bytes_are_accepted_or_refused(
    data: st.DataObject, checked: Callable[[bytes], None]
) -> None:
    changed = bytearray(NETWORK if checked is check_network else WEIGHTS)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    try:
        checked(bytes(changed))
    except BundleError:
        return


@given(st.binary(max_size=300))
def test_random_bytes_are_refused(content: bytes) -> None:
    for checked in (check_network, check_weights):
        with pytest.raises(BundleError):
            checked(content)


def test_a_file_of_safetensors_is_accepted() -> None:
    arrays = {
        "a": np.ones((2, 3), np.float32),
        "b": np.arange(4),
        "c": np.zeros((0, 2), np.float16),
        "d": np.array(3.0),
    }
    check_weights(safetensors.numpy.save(arrays, metadata={"format": "keras"}))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_to_train_on_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(BundleError, match="'bad': 1 numbers are NaN or infinite"):
        check_weights(make_weights(good=np.ones(3), bad=[1, value]))


F32 = {"dtype": "F32", "shape": (2,), "data_offsets": (0, 8)}


@pytest.mark.parametrize(
    ("header", "stored"),
    [
        *((text, 0) for text in (b"not json", b"[1, 2]", b"[" * 100_000, b'{"a": 3}')),
        *(({"a": F32}, stored) for stored in (4, 12)),
        ({"a": F32, "b": F32 | {"data_offsets": (4, 12)}}, 12),  # overlapping
        ({"a": F32, "b": F32 | {"data_offsets": (12, 20)}}, 20),  # apart
        ({"a": F32 | {"dtype": "PICKLE"}}, 8),
        *(({"a": F32 | {"shape": shape}}, 8) for shape in ((-1, -2), (2**39, 2**39))),
        *(({"a": F32 | {"data_offsets": place}}, 8) for place in ((8, 0), (4, 12))),
    ],
)
def test_a_table_of_weights_that_is_none_or_does_not_fit_its_bytes_is_refused(
    header: bytes | dict[str, Any], stored: int
) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    with pytest.raises(BundleError, match=r"weights\.safetensors: not a safetensors file"):
        check_weights(struct.pack("<Q", len(text)) + text + bytes(stored))
