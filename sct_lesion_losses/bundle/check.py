"""Checks of a bundle: files, hashes, schema, network, weights, in that order.

Nothing of a bundle is executed or unpickled, and nothing is handed to an engine before its hash
is known. What the network and the weights hold is read by `verify` and by importing.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sct_lesion_losses.bundle import schema
from sct_lesion_losses.bundle.schema import BundleInfo
from sct_lesion_losses.errors import BundleError

if TYPE_CHECKING:
    from onnx import GraphProto

MAX_IR_VERSION = 9
MAX_OPSET = 17
_LAYERS = ("Conv", "ConvTranspose", "MaxPool", "AveragePool", "Resize", "Upsample")
_ACTIVATIONS = ("BatchNormalization", "InstanceNormalization", "Relu", "LeakyRelu", "Sigmoid")
_ARITHMETIC = ("Add", "Sub", "Mul", "Concat", "Pad", "Slice", "Gather")
_SHAPES = ("Cast", "Constant", "Identity", "Reshape", "Shape", "Squeeze", "Transpose", "Unsqueeze")
OPERATORS = frozenset((*_LAYERS, *_ACTIVATIONS, *_ARITHMETIC, *_SHAPES))
_DEFAULT_DOMAINS = ("", "ai.onnx")

INFO, NETWORK, WEIGHTS = "bundle.json", "model.onnx", "weights.safetensors"
CARD, MANIFEST = "card.md", "MANIFEST.sha256"
MAX_BYTES = {
    INFO: 16 * 2**20,
    NETWORK: 256 * 2**20,
    WEIGHTS: 1024 * 2**20,
    CARD: 2**20,
    MANIFEST: 2**16,
}

# What desktops and network file systems leave in a folder.
_LEFT_BY_DESKTOPS = re.compile(r"\.DS_Store|\._.*|Thumbs\.db|desktop\.ini|__MACOSX|\.nfs.*", re.I)

Files = Mapping[str, bytes]


def is_left_by_desktop(name: str) -> bool:
    """Tell whether a file of this name belongs to a desktop or a file system, not to a bundle."""
    return _LEFT_BY_DESKTOPS.fullmatch(name) is not None


def check_network(network: bytes) -> None:
    """Check the bytes of an ONNX model.

    Raises
    ------
    BundleError
        Not ONNX, too new, with an operator off `OPERATORS`, a sub-graph or a function, with data in
        another file, or with numbers that are not finite.
    """
    import onnx

    try:
        model = onnx.load_model_from_string(network)
    except Exception as error:  # protobuf's own, of which onnx has no root
        raise _network_refused(f"not an ONNX model ({_first_line(error)})") from error
    if model.ir_version > MAX_IR_VERSION:
        raise _network_refused(f"IR version {model.ir_version}, expected at most {MAX_IR_VERSION}")
    for opset in model.opset_import:
        if opset.domain not in _DEFAULT_DOMAINS:
            raise _network_refused(f"operators of the domain {opset.domain!r}")
        if opset.version > MAX_OPSET:
            raise _network_refused(f"opset {opset.version}, expected at most {MAX_OPSET}")
    graph = model.graph
    if model.functions or model.training_info or graph.sparse_initializer:
        raise _network_refused("a function, a training graph or sparse weights")
    for node in graph.node:
        if node.domain not in _DEFAULT_DOMAINS or node.op_type not in OPERATORS:
            shown = f"{node.domain}.{node.op_type}".lstrip(".")
            raise _network_refused(
                f"operator {shown!r}, expected one of {', '.join(sorted(OPERATORS))}"
            )
    inputs = {i.name for i in graph.input} - {t.name for t in graph.initializer}
    if not graph.node or len(inputs) != 1 or len(graph.output) != 1:
        raise _network_refused(
            f"{len(graph.node)} nodes, {len(inputs)} inputs and {len(graph.output)} outputs, "
            "expected one input and one output"
        )
    for name, value in _values(graph):
        _check_finite(value, f"{NETWORK}: {name[:100]!r}")
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, UnicodeError, ValueError) as error:
        raise _network_refused(f"not a valid graph ({_first_line(error)})") from error


def _values(graph: GraphProto) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """Yield the names and the values of all weights and attributes of a graph."""
    from onnx import TensorProto, external_data_helper, helper, numpy_helper

    found = [(tensor.name, tensor) for tensor in graph.initializer]
    for node in graph.node:
        for attribute in node.attribute:
            name = f"{attribute.name} of {node.op_type}"
            try:
                found.append((name, helper.get_attribute_value(attribute)))
            except ValueError as error:
                raise _network_refused(f"attribute {name}: {_first_line(error)}") from error
    for name, value in found:
        if not isinstance(value, TensorProto):
            yield name, np.asarray(value)
            continue
        if external_data_helper.uses_external_data(value) or value.external_data:
            raise _network_refused(f"{name!r}: data in another file")
        if any(size < 0 for size in value.dims):
            raise _network_refused(f"{name!r}: dimensions {list(value.dims)[:8]}")
        try:
            yield name, numpy_helper.to_array(value)
        except (ValueError, TypeError, KeyError) as error:
            raise _network_refused(f"{name!r}: {_first_line(error)}") from error


def check_weights(weights: bytes) -> None:
    """Check the bytes of a safetensors file.

    Raises
    ------
    BundleError
        Not safetensors (a pickle, say), or with numbers that are not finite.
    """
    import safetensors
    import safetensors.numpy

    try:
        tensors = safetensors.numpy.load(weights)
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise BundleError(
            f"{WEIGHTS}: not a safetensors file ({_first_line(error)}); pickles and other formats "
            "are never loaded; get the bundle again"
        ) from error
    for name, values in tensors.items():
        _check_finite(values, f"{WEIGHTS}: {name!r}")


def _check_finite(values: np.ndarray[Any, Any], name: str) -> None:
    if values.dtype.kind == "S":  # the padding of a convolution, for one
        return
    if values.dtype.kind not in "fiub":
        raise BundleError(f"{name}: values of type {values.dtype}; get the bundle again")
    strange = int(values.size - np.count_nonzero(np.isfinite(values)))
    if strange:
        raise BundleError(f"{name}: {strange} numbers are NaN or infinite; get the bundle again")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _network_refused(what: str) -> BundleError:
    return BundleError(
        f"{NETWORK}: refused: {what}; get the bundle again, or export it with sct_train_lesion"
    )


def manifest(files: Files) -> bytes:
    """`MANIFEST.sha256` of `files`, as `sha256sum -c` reads it, sorted by name."""
    names = sorted(set(files) - {MANIFEST})
    hashes = [hashlib.sha256(files[name]).hexdigest() for name in names]
    return "".join(f"{sha}  {name}\n" for sha, name in zip(hashes, names, strict=True)).encode()


def verify(folder: Path) -> BundleInfo:
    """Read and check the bundle in `folder`, network and weights included.

    Raises
    ------
    BundleError
        A file is missing, unknown, too large, a link, or fails one of the checks of `check`.
    """
    return check(read_files(folder), str(folder))


def check(files: Files, where: str, *, contents: bool = True) -> BundleInfo:
    """Check the files of a bundle against its manifest and the schema.

    Parameters
    ----------
    files : mapping of str to bytes
        All files by name.
    where : str
        Beginning of an error's message.
    contents : bool
        Also read what the network and the weights hold.

    Raises
    ------
    BundleError
        A hash differs, a file is missing or not listed, bundle.json, the network or the weights are
        refused, or the card is not text.
    """
    try:
        _check_manifest(files)
        info = schema.parse(files[INFO])
        if contents:
            check_network(files[NETWORK])
            check_weights(files[WEIGHTS])
        files[CARD].decode()
    except UnicodeDecodeError as error:
        raise BundleError(f"{where}: {CARD}: not UTF-8 text; get the bundle again") from error
    except BundleError as error:
        raise BundleError(f"{where}: {error}") from error
    return info


def read_files(folder: Path) -> dict[str, bytes]:
    """Contents of a bundle's folder by name.

    Raises
    ------
    BundleError
        The folder cannot be read, or holds something that is not one of a bundle's regular files.
    """
    try:
        names = sorted(n for n in os.listdir(folder) if not is_left_by_desktop(n))  # noqa: PTH208
    except OSError as error:
        raise BundleError(f"{folder}: cannot read this bundle ({error.strerror})") from error
    for name in names:
        if name not in MAX_BYTES:
            raise BundleError(f"{folder}: {unknown(name)}")
    return {name: read_file(folder / name) for name in names}


def unknown(name: str) -> str:
    """Say why a file of this name is refused."""
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
    missing = sorted(set(MAX_BYTES) - set(files))
    if missing:
        raise BundleError(f"{missing[0]} is missing; get the bundle again")
    listed = files[MANIFEST].decode("utf-8", "replace").splitlines()
    right = manifest(files).decode().splitlines()
    for line in right:
        if line not in listed:
            raise BundleError(
                f"{line.split()[1]} does not have the hash that {MANIFEST} lists, it was damaged "
                "or changed; get the bundle again"
            )
    if len(listed) != len(right):
        raise BundleError(
            f"{MANIFEST}: {len(listed)} lines, expected {len(right)}; get the bundle again"
        )
