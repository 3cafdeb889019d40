"""What an ONNX file may hold to be run: checked on its bytes, before any engine sees them.

The file is walked as ModelProto > GraphProto > NodeProto > AttributeProto > TensorProto, each
field looked at wherever it stands, and every field number that is not expected refused. So there
are no sub-graphs, functions, training graphs, sparse tensors or data in other files.

References
----------
ONNX, onnx.proto, IR version 9 (field numbers); onnxruntime 1.21 reads opset 17.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sct_lesion_losses.bundle.wire import BYTES, Field, Reader, varints
from sct_lesion_losses.errors import BundleError

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
_TYPES: dict[int, np.dtype[np.generic]] = {
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
        raise _refused(f"{len(network)} bytes, expected at most {MAX_NETWORK_BYTES}")
    reader = Reader()
    model = list(_expected(reader, memoryview(network), "ModelProto", _MODEL))
    ir_version = _only(model, 1, "ir_version").integer
    if not 1 <= ir_version <= MAX_IR_VERSION:
        raise _refused(f"IR version {ir_version}, expected at most {MAX_IR_VERSION}")
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
            raise _refused(f"operators of the domain {domain!r}")
    version = _only(parts, 2, "opset version").integer
    if not 1 <= version <= MAX_OPSET:
        raise _refused(f"opset {version}, expected at most {MAX_OPSET}; export it again for 17")
    return version


def _nodes(reader: Reader, nodes: list[Field]) -> tuple[set[str], int]:
    """Operators of the graph, and the number of floating-point constants in their attributes."""
    if not 1 <= len(nodes) <= MAX_NODES:
        raise _refused(f"{len(nodes)} nodes, expected 1 to {MAX_NODES}")
    operators: set[str] = set()
    weights = 0
    for node in nodes:
        fields = list(_expected(reader, node.bytes, "NodeProto", _NODE))
        operator = _only(fields, 4, "op_type").text
        domains = {field.text for field in fields if field.number == 7}
        if not domains <= set(_DEFAULT_DOMAINS) or operator not in OPERATORS:
            shown = ".".join([*sorted(domains), operator])
            raise _refused(f"operator {shown!r}, expected one of {', '.join(sorted(OPERATORS))}")
        if sum(field.number in (1, 2) for field in fields) > _MAX_OPERATOR_INPUTS:
            raise _refused(f"a {operator} with too many inputs")
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
    if code not in _TYPES:
        raise _refused(f"{name}: element type {code}, expected one of {sorted(_TYPES)}")
    size = math.prod(_dims(fields))
    dtype = _TYPES[code]
    data = [field for field in fields if field.number in (_RAW_DATA, *_TYPED_DATA)]
    stored = 0
    for field in data:
        if field.number == _RAW_DATA:
            values = _fixed(field, dtype)
            stored += values.size
        elif code not in _TYPED_DATA[field.number]:
            raise _refused(f"{name}: element type {code} in the wrong list")
        elif field.number in (_INT32_DATA, _INT64_DATA):
            stored += len(_integers(field, size))
            continue
        else:
            values = _fixed(field, dtype)
            stored += values.size
        _check_finite(values, name)
    raw = sum(field.number == _RAW_DATA for field in data)
    if stored != size or raw > 1 or (raw and len(data) > 1):
        raise _refused(f"{name}: {stored} numbers stored, expected {size}")
    return size if dtype.kind == "f" else 0


def _dims(fields: list[Field]) -> list[int]:
    dims = [value for field in fields if field.number == 1 for value in _integers(field, _MAX_DIMS)]
    if len(dims) > _MAX_DIMS or any(dim < 0 for dim in dims):
        raise _refused(f"a tensor of dimensions {dims[:_MAX_DIMS]}")
    return dims


def _integers(field: Field, limit: int) -> list[int]:
    return varints(field.bytes, limit) if field.wire == BYTES else [field.integer]


def _fixed(field: Field, dtype: np.dtype[np.generic]) -> np.ndarray:
    """Numbers of a packed or single field of fixed width, not copied."""
    if isinstance(field.value, int) or len(field.value) % dtype.itemsize:
        raise _refused(f"field {field.number} does not hold whole numbers of type {dtype}")
    return np.frombuffer(field.value, dtype)


def _check_finite(values: np.ndarray, name: str) -> None:
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise _refused(f"{name}: {int((~np.isfinite(values)).sum())} numbers are NaN or infinite")


def _check_ends(reader: Reader, graph: list[Field]) -> None:
    """One input that is not a weight, one output."""
    weights = {_name(reader, field, 8) for field in graph if field.number == 5}
    inputs = {_name(reader, field, 1) for field in graph if field.number == 11} - weights
    outputs = [field for field in graph if field.number == 12]
    if len(inputs) != 1 or len(outputs) != 1:
        raise _refused(f"{len(inputs)} inputs and {len(outputs)} outputs, expected one of each")


def _name(reader: Reader, field: Field, number: int) -> str:
    return "".join(part.text for part in reader.fields(field.bytes) if part.number == number)


def _expected(reader: Reader, message: memoryview, kind: str, numbers: set[int]) -> Iterator[Field]:
    """Fields of `message`, each refused that is not one of `numbers`."""
    for field in reader.fields(message):
        if field.number not in numbers:
            what = _FORBIDDEN.get(kind, {}).get(field.number, f"field {field.number} of {kind}")
            raise _refused(what)
        yield field


def _only(fields: list[Field], number: int, name: str) -> Field:
    found = [field for field in fields if field.number == number]
    if len(found) != 1:
        raise _refused(f"{len(found)} times {name}, expected once")
    return found[0]


def _refused(what: str) -> BundleError:
    return BundleError(
        f"model.onnx: refused: {what}; get the bundle again, or export it with sct_train_lesion"
    )
