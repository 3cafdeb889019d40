"""Protobuf's wire format, read without trusting it.

Only what an ONNX file is made of: varints, 32 and 64 bit numbers, and length-delimited fields.
Nothing is copied, nothing recurses, and the number of fields is bounded, so that the work done on
a hostile file is bounded by its size. Every defect is a `BundleError`.

References
----------
Protocol Buffers, "Encoding", https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

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
