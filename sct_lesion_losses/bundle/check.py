"""Whether a bundle is whole and safe: files, hashes, schema, network, weights, in that order.

Nothing of a bundle is executed or unpickled, and nothing is handed to an engine before this.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from sct_lesion_losses.bundle import schema
from sct_lesion_losses.bundle.schema import BundleInfo
from sct_lesion_losses.errors import BundleError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
MAX_FIELDS = 500_000
_MAX_VARINT_BYTES = 10
_MASK_64 = (1 << 64) - 1


@dataclass(frozen=True)
class Field:
    """One field of a message.

    Attributes
    ----------
    number, wire : int
        Field number and wire type.
    value : int or memoryview
        The number of a varint, the raw bytes of the other wire types.
    raw : memoryview
        The whole field, key included.
    """

    number: int
    wire: int
    value: int | memoryview
    raw: memoryview

    @property
    def integer(self) -> int:
        """Value of a varint field as a signed 64 bit number."""
        if not isinstance(self.value, int):
            raise _malformed(f"field {self.number} is not a number")
        return self.value - (1 << 64) if self.value >> 63 else self.value

    @property
    def bytes(self) -> memoryview:
        """Content of a length-delimited field."""
        if self.wire != BYTES or isinstance(self.value, int):
            raise _malformed(f"field {self.number} is not a string or message")
        return self.value

    @property
    def text(self) -> str:
        """Content of a string field."""
        try:
            return str(self.bytes, "utf-8")
        except UnicodeDecodeError as error:
            raise _malformed(f"field {self.number} is not UTF-8 text") from error


class Reader:
    """Fields of messages, at most `max_fields` over the life of the reader."""

    def __init__(self, max_fields: int = MAX_FIELDS) -> None:
        self._left = max_fields

    def fields(self, message: memoryview) -> Iterator[Field]:
        """Fields of `message` in file order, sub-messages unopened.

        Raises
        ------
        BundleError
            The message is truncated or not protobuf, or there are too many fields.
        """
        at = 0
        while at < len(message):
            self._left -= 1
            if self._left < 0:
                raise _malformed("too many fields")
            start = at
            key, at = _varint(message, at)
            number, wire = key >> 3, key & 7
            if not 0 < number < 1 << 29:
                raise _malformed(f"field number {number}")
            value: int | memoryview
            if wire == VARINT:
                value, at = _varint(message, at)
            else:
                size, at = _size(message, at, wire)
                if size > len(message) - at:
                    raise _malformed(f"field {number} is cut short")
                value = message[at : at + size]
                at += size
            yield Field(number, wire, value, message[start:at])


def varints(packed: memoryview, limit: int) -> list[int]:
    """Numbers of a packed repeated field, at most `limit`, signed.

    Raises
    ------
    BundleError
        The last number is truncated, or there are too many.
    """
    values: list[int] = []
    at = 0
    while at < len(packed):
        if len(values) >= limit:
            raise _malformed("too many numbers in a list")
        value, at = _varint(packed, at)
        values.append(value - (1 << 64) if value >> 63 else value)
    return values


def encode(number: int, content: bytes) -> bytes:
    """Length-delimited field `number` with `content`.

    >>> encode(1, b"ab").hex()
    '0a026162'
    """
    return _encode_varint(number << 3 | BYTES) + _encode_varint(len(content)) + content


def _size(message: memoryview, at: int, wire: int) -> tuple[int, int]:
    if wire == BYTES:
        return _varint(message, at)
    if wire in (FIXED32, FIXED64):
        return (4 if wire == FIXED32 else 8), at
    raise _malformed(f"wire type {wire}")


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """Unsigned number at offset `at`, and the offset after it."""
    value = 0
    for i, byte in enumerate(message[at : at + _MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return value & _MASK_64, at + i + 1
    raise _malformed("a number is cut short or too long")


def _encode_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _malformed(what: str) -> BundleError:
    return BundleError(f"model.onnx: not a valid ONNX file ({what}); get the bundle again")


METADATA_PROPS = 14
_KEY, _VALUE = 1, 2


def metadata(network: bytes) -> dict[str, str]:
    """Metadata of an ONNX model.

    Raises
    ------
    BundleError
        The bytes are not an ONNX model, or a key is there twice.
    """
    reader = Reader()
    table: dict[str, str] = {}
    for field in reader.fields(memoryview(network)):
        if field.number == METADATA_PROPS:
            key, value = _entry(reader, field)
            if key in table:
                raise BundleError(
                    f"model.onnx: metadata {key!r} is there twice; get the bundle again"
                )
            table[key] = value
    return table


def with_metadata(network: bytes, entries: Mapping[str, str]) -> bytes:
    """Return the same model with `entries` added to its metadata, or replacing those of that name.

    Every other top-level field keeps its bytes and its order; the metadata comes last, by key.
    """
    table = {**metadata(network), **entries}
    pairs = [
        encode(METADATA_PROPS, encode(_KEY, key.encode()) + encode(_VALUE, table[key].encode()))
        for key in sorted(table)
    ]
    return b"".join([without_metadata(network), *pairs])


def without_metadata(network: bytes) -> bytes:
    """Return the same model without its metadata: every other top-level field, in its order.

    Raises
    ------
    BundleError
        The bytes are not an ONNX model.
    """
    fields = Reader().fields(memoryview(network))
    return b"".join(field.raw for field in fields if field.number != METADATA_PROPS)


def _entry(reader: Reader, field: Field) -> tuple[str, str]:
    parts = {_KEY: "", _VALUE: ""}
    for part in reader.fields(field.bytes):
        if part.number not in parts:
            raise BundleError("model.onnx: metadata is not pairs of texts; get the bundle again")
        parts[part.number] = part.text
    return parts[_KEY], parts[_VALUE]


MAX_IR_VERSION = 9
MAX_OPSET = 17
MAX_NODES = 5_000
MAX_NETWORK_BYTES = 256 * 2**20
_LAYERS = ("Conv", "ConvTranspose", "MaxPool", "AveragePool", "Resize", "Upsample")
_ACTIVATIONS = ("BatchNormalization", "InstanceNormalization", "Relu", "LeakyRelu", "Sigmoid")
_ARITHMETIC = ("Add", "Sub", "Mul", "Concat", "Pad", "Slice", "Gather")
_SHAPES = ("Cast", "Constant", "Identity", "Reshape", "Shape", "Squeeze", "Transpose", "Unsqueeze")
OPERATORS = frozenset((*_LAYERS, *_ACTIVATIONS, *_ARITHMETIC, *_SHAPES))

_DEFAULT_DOMAINS = ("", "ai.onnx")
_MAX_DIMS = 8
_MAX_OPERATOR_INPUTS = 1_000

# Field numbers of onnx.proto: those expected in each message.
_MODEL = {1, 2, 3, 4, 5, 6, 7, 8, 14}
_GRAPH = {1, 2, 5, 10, 11, 12, 13, 16}
_NODE = {1, 2, 3, 4, 5, 6, 7, 9}
_ATTRIBUTE = {1, 2, 3, 4, 5, 7, 8, 9, 13, 20}
_TENSOR = {1, 2, 4, 5, 7, 8, 9, 10, 12}
_FORBIDDEN = {
    "ModelProto": {20: "a training graph", 25: "functions", 26: "device settings"},
    "GraphProto": {14: "quantisation notes", 15: "sparse weights"},
    "NodeProto": {8: "a function overload", 10: "device settings"},
    "AttributeProto": {
        6: "a sub-graph",
        10: "a list of tensors",
        11: "sub-graphs",
        21: "a function's attribute",
        22: "a sparse tensor",
        23: "sparse tensors",
    },
    "TensorProto": {
        3: "a segment",
        6: "text",
        11: "unsigned 64 bit numbers",
        13: "data in another file",
        14: "data in another file",
    },
}

# TensorProto.DataType -> numpy type; the types a network of this package may store.
_GRAPH_TYPES: dict[int, np.dtype[np.generic]] = {
    1: np.dtype("<f4"),
    2: np.dtype("u1"),
    3: np.dtype("i1"),
    6: np.dtype("<i4"),
    7: np.dtype("<i8"),
    9: np.dtype("?"),
    10: np.dtype("<f2"),
    11: np.dtype("<f8"),
}
_FLOAT_DATA, _INT32_DATA, _INT64_DATA, _RAW_DATA, _DOUBLE_DATA = 4, 5, 7, 9, 10
_TYPED_DATA = {_FLOAT_DATA: (1,), _INT32_DATA: (2, 3, 6, 9), _INT64_DATA: (7,), _DOUBLE_DATA: (11,)}


@dataclass(frozen=True)
class NetworkSummary:
    """What was found in an accepted ONNX file.

    Attributes
    ----------
    ir_version, opset : int
        Versions of the format and of the operators.
    operators : tuple of str
        The operators used, sorted.
    weights : int
        Number of stored floating-point numbers.
    """

    ir_version: int
    opset: int
    operators: tuple[str, ...]
    weights: int


def inspect(network: bytes) -> NetworkSummary:
    """Check the bytes of an ONNX file and return what it is made of.

    Raises
    ------
    BundleError
        Not ONNX, too large, too new, or with an operator, type or field that is not accepted, or
        with weights that are not finite.
    """
    if len(network) > MAX_NETWORK_BYTES:
        raise _graph_refused(f"{len(network)} bytes, expected at most {MAX_NETWORK_BYTES}")
    reader = Reader()
    model = list(_expected(reader, memoryview(network), "ModelProto", _MODEL))
    ir_version = _only(model, 1, "ir_version").integer
    if not 1 <= ir_version <= MAX_IR_VERSION:
        raise _graph_refused(f"IR version {ir_version}, expected at most {MAX_IR_VERSION}")
    opset = _opset(reader, _only(model, 8, "opset_import"))
    graph = list(_expected(reader, _only(model, 7, "graph").bytes, "GraphProto", _GRAPH))
    operators, constants = _nodes(reader, [field for field in graph if field.number == 1])
    weights = sum(_tensor(reader, field.bytes) for field in graph if field.number == 5)
    _check_ends(reader, graph)
    return NetworkSummary(ir_version, opset, tuple(sorted(operators)), weights + constants)


def _opset(reader: Reader, field: Field) -> int:
    parts = list(_expected(reader, field.bytes, "OperatorSetIdProto", {1, 2}))
    for domain in (part.text for part in parts if part.number == 1):
        if domain not in _DEFAULT_DOMAINS:
            raise _graph_refused(f"operators of the domain {domain!r}")
    version = _only(parts, 2, "opset version").integer
    if not 1 <= version <= MAX_OPSET:
        raise _graph_refused(
            f"opset {version}, expected at most {MAX_OPSET}; export it again for 17"
        )
    return version


def _nodes(reader: Reader, nodes: list[Field]) -> tuple[set[str], int]:
    """Operators of the graph, and the number of floating-point constants in their attributes."""
    if not 1 <= len(nodes) <= MAX_NODES:
        raise _graph_refused(f"{len(nodes)} nodes, expected 1 to {MAX_NODES}")
    operators: set[str] = set()
    weights = 0
    for node in nodes:
        fields = list(_expected(reader, node.bytes, "NodeProto", _NODE))
        operator = _only(fields, 4, "op_type").text
        domains = {field.text for field in fields if field.number == 7}
        if not domains <= set(_DEFAULT_DOMAINS) or operator not in OPERATORS:
            shown = ".".join([*sorted(domains), operator])
            raise _graph_refused(
                f"operator {shown!r}, expected one of {', '.join(sorted(OPERATORS))}"
            )
        if sum(field.number in (1, 2) for field in fields) > _MAX_OPERATOR_INPUTS:
            raise _graph_refused(f"a {operator} with too many inputs")
        operators.add(operator)
        weights += sum(_attribute(reader, field) for field in fields if field.number == 5)
    return operators, weights


def _attribute(reader: Reader, attribute: Field) -> int:
    """Check one attribute; return the number of floating-point numbers of its tensor."""
    weights = 0
    for field in _expected(reader, attribute.bytes, "AttributeProto", _ATTRIBUTE):
        if field.number in (2, 7):
            _check_finite(_fixed(field, np.dtype("<f4")), "an attribute")
        elif field.number == 5:
            weights += _tensor(reader, field.bytes)
    return weights


def _tensor(reader: Reader, message: memoryview) -> int:
    """Check one tensor; return its size if it holds floating-point numbers, else 0."""
    fields = list(_expected(reader, message, "TensorProto", _TENSOR))
    label = "".join(field.text for field in fields if field.number == 8)[:100]
    name = repr(label) if label else "a constant"
    code = _only(fields, 2, "data_type").integer
    if code not in _GRAPH_TYPES:
        raise _graph_refused(f"{name}: element type {code}, expected one of {sorted(_GRAPH_TYPES)}")
    size = math.prod(_dims(fields))
    dtype = _GRAPH_TYPES[code]
    data = [field for field in fields if field.number in (_RAW_DATA, *_TYPED_DATA)]
    stored = 0
    for field in data:
        if field.number == _RAW_DATA:
            values = _fixed(field, dtype)
            stored += values.size
        elif code not in _TYPED_DATA[field.number]:
            raise _graph_refused(f"{name}: element type {code} in the wrong list")
        elif field.number in (_INT32_DATA, _INT64_DATA):
            stored += len(_integers(field, size))
            continue
        else:
            values = _fixed(field, dtype)
            stored += values.size
        _check_finite(values, name)
    raw = sum(field.number == _RAW_DATA for field in data)
    if stored != size or raw > 1 or (raw and len(data) > 1):
        raise _graph_refused(f"{name}: {stored} numbers stored, expected {size}")
    return size if dtype.kind == "f" else 0


def _dims(fields: list[Field]) -> list[int]:
    dims = [value for field in fields if field.number == 1 for value in _integers(field, _MAX_DIMS)]
    if len(dims) > _MAX_DIMS or any(dim < 0 for dim in dims):
        raise _graph_refused(f"a tensor of dimensions {dims[:_MAX_DIMS]}")
    return dims


def _integers(field: Field, limit: int) -> list[int]:
    return varints(field.bytes, limit) if field.wire == BYTES else [field.integer]


def _fixed(field: Field, dtype: np.dtype[np.generic]) -> np.ndarray:
    """Numbers of a packed or single field of fixed width, not copied."""
    if isinstance(field.value, int) or len(field.value) % dtype.itemsize:
        raise _graph_refused(f"field {field.number} does not hold whole numbers of type {dtype}")
    return np.frombuffer(field.value, dtype)


def _check_finite(values: np.ndarray, name: str) -> None:
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise _graph_refused(
            f"{name}: {int((~np.isfinite(values)).sum())} numbers are NaN or infinite"
        )


def _check_ends(reader: Reader, graph: list[Field]) -> None:
    """One input that is not a weight, one output."""
    weights = {_name(reader, field, 8) for field in graph if field.number == 5}
    inputs = {_name(reader, field, 1) for field in graph if field.number == 11} - weights
    outputs = [field for field in graph if field.number == 12]
    if len(inputs) != 1 or len(outputs) != 1:
        raise _graph_refused(
            f"{len(inputs)} inputs and {len(outputs)} outputs, expected one of each"
        )


def _name(reader: Reader, field: Field, number: int) -> str:
    return "".join(part.text for part in reader.fields(field.bytes) if part.number == number)


def _expected(reader: Reader, message: memoryview, kind: str, numbers: set[int]) -> Iterator[Field]:
    """Fields of `message`, each refused that is not one of `numbers`."""
    for field in reader.fields(message):
        if field.number not in numbers:
            what = _FORBIDDEN.get(kind, {}).get(field.number, f"field {field.number} of {kind}")
            raise _graph_refused(what)
        yield field


def _only(fields: list[Field], number: int, name: str) -> Field:
    found = [field for field in fields if field.number == number]
    if len(found) != 1:
        raise _graph_refused(f"{len(found)} times {name}, expected once")
    return found[0]


def _graph_refused(what: str) -> BundleError:
    return BundleError(
        f"model.onnx: refused: {what}; get the bundle again, or export it with sct_train_lesion"
    )


MAX_WEIGHTS_BYTES = 1024 * 2**20
MAX_HEADER_BYTES = 4 * 2**20
_LENGTH_BYTES = 8
_TYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "U8": "u1",
    "BOOL": "?",
}


def check_weights(weights: bytes) -> int:
    """Check the bytes of a safetensors file; return how many numbers it holds.

    Raises
    ------
    BundleError
        Not safetensors (a pickle, say), numbers that overlap, are missing or are not finite.
    """
    header, data = _split(weights)
    entries = [(name, entry) for name, entry in header.items() if name != "__metadata__"]
    places = sorted((_place(name, entry, len(data)), name, entry) for name, entry in entries)
    end = numbers = 0
    for (start, stop), name, entry in places:
        if start != end:
            raise _weights_refused(f"{name!r}: begins at byte {start}, expected {end}")
        end = stop
        values = np.frombuffer(data[start:stop], _TYPES[entry["dtype"]])
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise _weights_refused(
                f"{name!r}: {int((~np.isfinite(values)).sum())} NaN or infinite weights"
            )
        numbers += values.size
    if end != len(data):
        raise _weights_refused(f"{len(data) - end} bytes belong to no weight")
    return numbers


def _split(weights: bytes) -> tuple[dict[str, Any], memoryview]:
    length = int.from_bytes(weights[:_LENGTH_BYTES], "little")
    available = len(weights) - _LENGTH_BYTES
    if not 2 <= length <= min(available, MAX_HEADER_BYTES):
        raise _weights_refused("not a safetensors file; pickles and other formats are never loaded")
    begin = _LENGTH_BYTES + length
    try:
        header = json.loads(weights[_LENGTH_BYTES:begin])
    except (ValueError, RecursionError) as error:
        raise _weights_refused("not a safetensors file (its header is not JSON)") from error
    if not isinstance(header, dict):
        raise _weights_refused("not a safetensors file (its header is not a table)")
    return header, memoryview(weights)[begin:]


def _place(name: str, entry: object, available: int) -> tuple[int, int]:
    """First byte of a weight and the one after its last, checked against its type and shape."""
    if not isinstance(entry, dict) or str(entry.get("dtype")) not in _TYPES:
        raise _weights_refused(f"{name!r}: expected a type of {', '.join(_TYPES)}")
    shape, offsets = entry.get("shape"), entry.get("data_offsets")
    if not _are_counts(shape) or not _are_counts(offsets) or len(offsets) != 2:
        raise _weights_refused(f"{name!r}: no shape or no place in the file")
    start, stop = offsets
    size = math.prod(shape) * np.dtype(_TYPES[entry["dtype"]]).itemsize
    if stop - start != size or stop > available:
        raise _weights_refused(f"{name!r}: shape {shape} does not fit bytes {start} to {stop}")
    return start, stop


def _are_counts(values: object) -> TypeGuard[list[int]]:
    return (
        isinstance(values, list)
        and len(values) <= _MAX_DIMS
        and all(type(value) is int and 0 <= value <= MAX_WEIGHTS_BYTES for value in values)
    )


def _weights_refused(what: str) -> BundleError:
    return BundleError(f"weights.safetensors: {what}; get the bundle again")


INFO, NETWORK, WEIGHTS = "bundle.json", "model.onnx", "weights.safetensors"
CARD, MANIFEST = "card.md", "MANIFEST.sha256"
MAX_BYTES = {
    INFO: 16 * 2**20,
    NETWORK: MAX_NETWORK_BYTES,
    WEIGHTS: MAX_WEIGHTS_BYTES,
    CARD: 2**20,
    MANIFEST: 2**16,
}
_LINE = re.compile(r"([0-9a-f]{64}) [ *]([^/\\\s]{1,100})")

Files = Mapping[str, bytes]


def manifest(files: Files) -> bytes:
    """`MANIFEST.sha256` of `files`, as `sha256sum -c` reads it, sorted by name."""
    names = sorted(set(files) - {MANIFEST})
    return "".join(f"{_sha256(files[name])}  {name}\n" for name in names).encode()


def verify(folder: Path) -> BundleInfo:
    """Read and check the bundle in `folder`.

    Raises
    ------
    BundleError
        A file is missing, unknown, too large, a link, or fails one of the checks of `check`.
    """
    return check(read_files(folder), str(folder))


def check(files: Files, where: str) -> BundleInfo:
    """Check the files of a bundle against its manifest, the schema and each other.

    Parameters
    ----------
    files : mapping of str to bytes
        All files by name.
    where : str
        What the message of an error begins with.

    Raises
    ------
    BundleError
        A hash differs, a file is missing or not listed, bundle.json is refused, the network is
        refused or names another bundle or threshold, the weights are not finite, or the card is
        not text.
    """
    try:
        _check_manifest(files)
        return check_contents(files)
    except BundleError as error:
        raise BundleError(f"{where}: {error}") from error


def check_contents(files: Files) -> BundleInfo:
    """Check schema, network, weights and card, hashes left out; return what is in bundle.json."""
    info = schema.parse(files[INFO])
    inspect(files[NETWORK])
    inside, expected = metadata(files[NETWORK]), info.metadata()
    for key, value in expected.items():
        if inside.get(key) != value:
            raise BundleError(
                f"model.onnx: {key} is {inside.get(key)!r}, bundle.json says {value!r};"
                " get the bundle again, or run sct_tune_lesion on it"
            )
    check_weights(files[WEIGHTS])
    try:
        files[CARD].decode()
    except UnicodeDecodeError as error:
        raise BundleError("card.md: not UTF-8 text; get the bundle again") from error
    return info


def read_files(folder: Path) -> dict[str, bytes]:
    """Contents of a bundle's folder by name.

    Raises
    ------
    BundleError
        The folder cannot be read, or holds something that is not one of a bundle's regular files.
    """
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208 - names, not paths
    except OSError as error:
        raise BundleError(f"{folder}: cannot read this bundle ({error.strerror})") from error
    for name in names:
        if name not in MAX_BYTES:
            raise BundleError(f"{folder}: {unknown(name)}")
    return {name: read_file(folder / name) for name in names}


def unknown(name: str) -> str:
    """Why a file of this name is refused."""
    return (
        f"{name!r} is not a file of a bundle ({', '.join(sorted(MAX_BYTES))});"
        " pickles and saved models are never loaded; remove it, or get the bundle again"
    )


def read_file(path: Path) -> bytes:
    """Contents of one of a bundle's files; neither a link nor a pipe is followed.

    Raises
    ------
    BundleError
        It cannot be read, is not a regular file, or is larger than a file of that name may be.
    """
    limit = MAX_BYTES[path.name]
    try:
        # A named pipe would block open(), a link would lead elsewhere.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise BundleError(f"{path}: not a regular file; get the bundle again")
        with os.fdopen(descriptor, "rb") as stream:
            content = stream.read(limit + 1)
    except OSError as error:
        if path.is_symlink():
            raise BundleError(f"{path}: a symbolic link; copy the file itself here") from error
        raise BundleError(f"{path}: cannot be read ({error.strerror})") from error
    if len(content) > limit:
        raise BundleError(f"{path}: more than {limit} bytes; get the bundle again")
    return content


def _check_manifest(files: Files) -> None:
    listed = _listed(files)
    required = set(MAX_BYTES) - {MANIFEST}
    present = set(files) - {MANIFEST}
    for name in sorted(required | set(listed)):
        if name not in present:
            raise BundleError(f"{name} is missing; get the bundle again")
    for name in sorted(present):
        if name not in listed:
            raise BundleError(f"{name} is not listed in {MANIFEST}; get the bundle again")
        if _sha256(files[name]) != listed[name]:
            raise BundleError(
                f"{name} does not have the hash that {MANIFEST} lists, it was damaged or changed;"
                " get the bundle again"
            )


def _listed(files: Files) -> dict[str, str]:
    if MANIFEST not in files:
        raise BundleError(f"{MANIFEST} is missing; get the bundle again")
    table: dict[str, str] = {}
    for line in files[MANIFEST].decode("utf-8", "replace").splitlines():
        match = _LINE.fullmatch(line)
        if match is None or match[2] in table:
            raise BundleError(f"{MANIFEST}: unexpected line {line[:80]!r}; get the bundle again")
        table[match[2]] = match[1]
    return table


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
