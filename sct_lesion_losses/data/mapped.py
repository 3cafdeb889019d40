"""Arrays in a file that is mapped into memory, not read: safetensors, with a hash over all of it.

What is touched of an array is paged in, and paged out again when memory is short. The file can be
opened with any reader of the format; this one checks every byte first.

References
----------
safetensors, "Format", https://github.com/huggingface/safetensors
"""

from __future__ import annotations

import errno
import hashlib
import json
import mmap
import os
import resource
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from sct_lesion_losses.errors import DamagedError, DataError
from sct_lesion_losses.files import replacing

_TYPES = {"F32": np.dtype("<f4"), "BOOL": np.dtype(bool)}
_NAMES = {np.dtype(np.float32): "F32", np.dtype(bool): "BOOL"}
_FACTS, _HASH = "__metadata__", "sha256"
_LENGTH_BYTES = 8
_ALIGNMENT = 64  # a line of the processor's cache
_MAX_HEADER_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 20
_OTHER_FILES = 256  # open files that the rest of a program may need
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


@dataclass(frozen=True, eq=False)
class Mapped:
    """What a file holds.

    Attributes
    ----------
    arrays : dict of str to array
        float32 or bool, read-only; they keep the file mapped.
    facts : dict of str to str
    """

    arrays: dict[str, NDArray[Any]]
    facts: dict[str, str]


def write(path: Path, arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, str]) -> None:
    """Write arrays, float32 or bool, and facts about them; whole or not at all.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    header: dict[str, Any] = {_FACTS: dict(facts)}
    contents = []
    end = 0
    # The wider numbers first, so that every array is aligned to its own.
    for name, array in sorted(arrays.items(), key=lambda item: (-item[1].itemsize, item[0])):
        kind = _NAMES[array.dtype]
        contents.append(np.ascontiguousarray(array, _TYPES[kind]))
        start, end = end, end + array.nbytes
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [start, end]}
    digest = _started(header)
    for content in contents:
        digest.update(content.data)
    header[_FACTS][_HASH] = digest.hexdigest()
    text = json.dumps(header).encode()
    text += b" " * (-(_LENGTH_BYTES + len(text)) % _ALIGNMENT)
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(len(text).to_bytes(_LENGTH_BYTES, "little") + text)
        for content in contents:
            file.write(content.data)


def load(path: Path) -> Mapped:
    """Check a file to its last byte and map its arrays.

    Raises
    ------
    DamagedError
        It is not there, cannot be read, or is not as `write` wrote it.
    DataError
        This process may not open as many files, or map as much memory.
    """
    try:
        with path.open("rb") as file:
            header, begin = _header(path, file)
            facts = dict(header[_FACTS])
            _check_hash(path, file, header)
            view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        if error.errno in _EXHAUSTED:
            raise DataError(
                f"{path}: cannot be opened beside all others ({error.strerror}); raise the limit "
                "of this shell (ulimit -n), or give fewer scans"
            ) from error
        raise DamagedError(f"{path}: cannot be read ({error.strerror})") from error
    del facts[_HASH]
    arrays = {}
    for name, entry in header.items():
        if name != _FACTS:
            start, end = entry["data_offsets"]
            kind = _TYPES[entry["dtype"]]
            flat = np.frombuffer(view, kind, (end - start) // kind.itemsize, begin + start)
            arrays[name] = flat.reshape(entry["shape"])
    return Mapped(arrays, facts)


def allow(files: int) -> None:
    """Raise this process's limit of open files so far that as many can stay mapped.

    Python keeps a mapped file open. What the system does not allow is said by `load`.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = files + _OTHER_FILES
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _header(path: Path, file: BinaryIO) -> tuple[dict[str, Any], int]:
    """Header of a file, and where its arrays begin; leaves the file there."""
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
    if not 0 < length <= min(size - _LENGTH_BYTES, _MAX_HEADER_BYTES):
        raise DamagedError(f"{path}: {size} bytes that are no safetensors file")
    try:
        header = json.loads(file.read(length))
        hash_there = isinstance(header[_FACTS][_HASH], str)  # which vouches for all the rest
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != _FACTS]
        begin = _LENGTH_BYTES + length
        expected = begin + max(ends, default=0)
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise DamagedError(f"{path}: its header is damaged") from error
    if not hash_there or size != expected:
        raise DamagedError(f"{path}: {size} bytes, expected {expected}")
    return header, begin


def _check_hash(path: Path, file: BinaryIO, header: dict[str, Any]) -> None:
    digest = _started(header)
    buffer = memoryview(bytearray(_CHUNK_BYTES))
    while count := file.readinto(buffer):  # type: ignore[attr-defined]
        digest.update(buffer[:count])
    if digest.hexdigest() != header[_FACTS][_HASH]:
        raise DamagedError(f"{path}: its content does not match its hash")


def _started(header: dict[str, Any]) -> Any:
    """Hash of all of a header but the hash in it, to go on with the arrays."""
    facts = {name: fact for name, fact in header[_FACTS].items() if name != _HASH}
    text = json.dumps({**header, _FACTS: facts}, sort_keys=True)
    return hashlib.sha256(text.encode())
