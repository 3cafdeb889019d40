"""The safetensors file, checked on its bytes: a header of names and places, then plain numbers.

References
----------
safetensors, "Format", https://github.com/huggingface/safetensors
"""

from __future__ import annotations

import json
import math
from typing import Any, TypeGuard

import numpy as np

from sct_lesion_losses.errors import BundleError

MAX_WEIGHTS_BYTES = 1024 * 2**20
MAX_HEADER_BYTES = 4 * 2**20
_LENGTH_BYTES = 8
_MAX_DIMS = 8
_TYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "U8": "u1",
    "BOOL": "?",
}


def check(weights: bytes) -> int:
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
            raise _refused(f"{name!r}: begins at byte {start}, expected {end}")
        end = stop
        values = np.frombuffer(data[start:stop], _TYPES[entry["dtype"]])
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise _refused(f"{name!r}: {int((~np.isfinite(values)).sum())} NaN or infinite weights")
        numbers += values.size
    if end != len(data):
        raise _refused(f"{len(data) - end} bytes belong to no weight")
    return numbers


def _split(weights: bytes) -> tuple[dict[str, Any], memoryview]:
    length = int.from_bytes(weights[:_LENGTH_BYTES], "little")
    available = len(weights) - _LENGTH_BYTES
    if not 2 <= length <= min(available, MAX_HEADER_BYTES):
        raise _refused("not a safetensors file; pickles and other formats are never loaded")
    begin = _LENGTH_BYTES + length
    try:
        header = json.loads(weights[_LENGTH_BYTES:begin])
    except (ValueError, RecursionError) as error:
        raise _refused("not a safetensors file (its header is not JSON)") from error
    if not isinstance(header, dict):
        raise _refused("not a safetensors file (its header is not a table)")
    return header, memoryview(weights)[begin:]


def _place(name: str, entry: object, available: int) -> tuple[int, int]:
    """First byte of a weight and the one after its last, checked against its type and shape."""
    if not isinstance(entry, dict) or str(entry.get("dtype")) not in _TYPES:
        raise _refused(f"{name!r}: expected a type of {', '.join(_TYPES)}")
    shape, offsets = entry.get("shape"), entry.get("data_offsets")
    if not _are_counts(shape) or not _are_counts(offsets) or len(offsets) != 2:
        raise _refused(f"{name!r}: no shape or no place in the file")
    start, stop = offsets
    size = math.prod(shape) * np.dtype(_TYPES[entry["dtype"]]).itemsize
    if stop - start != size or stop > available:
        raise _refused(f"{name!r}: shape {shape} does not fit bytes {start} to {stop}")
    return start, stop


def _are_counts(values: object) -> TypeGuard[list[int]]:
    return (
        isinstance(values, list)
        and len(values) <= _MAX_DIMS
        and all(type(value) is int and 0 <= value <= MAX_WEIGHTS_BYTES for value in values)
    )


def _refused(what: str) -> BundleError:
    return BundleError(f"weights.safetensors: {what}; get the bundle again")
