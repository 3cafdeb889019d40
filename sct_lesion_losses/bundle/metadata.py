"""The table of names and values inside an ONNX file, read and rewritten without the onnx package.

`metadata_props` is field 14 of ModelProto: a repeated pair of key (1) and value (2).
"""

from __future__ import annotations

from collections.abc import Mapping

from sct_lesion_losses.bundle.wire import Field, Reader, encode
from sct_lesion_losses.errors import BundleError

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
