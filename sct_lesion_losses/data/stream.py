"""The bytes of an image file, read to the end and never more than its header claims.

nibabel stops reading a gzip stream at the last voxel, so the checksum behind it is never looked
at: most flipped bits load silently as wrong voxels. Here the stream is always read to its end.
"""

from __future__ import annotations

import gzip
import os
import stat
import zlib
from pathlib import Path
from typing import BinaryIO, cast

from sct_lesion_losses.errors import ImageError

CHUNK_BYTES = 1 << 20
MAX_TRAILING_BYTES = 1 << 20
MAX_DEFLATE_RATIO = 1032  # zlib's documentation: the most that deflate can expand by
_GZIP = b"\x1f\x8b"
_LOOKS = (
    (b"version https://git-lfs", "a Git LFS pointer; run `git lfs pull`"),
    (b"/annex/objects/", "a git-annex pointer; run `git annex get`"),
    (b"../.git/annex", "a git-annex pointer; run `git annex get`"),
    (b"<!DOCTYPE", "an HTML page, not an image; download it again"),
    (b"<html", "an HTML page, not an image; download it again"),
    (b"PK\x03\x04", "a zip archive; unpack it first"),
    (b"NRRD", "an NRRD image; convert it to NIfTI"),
    (b"\x89HDF", "an HDF5 or MINC file; convert it to NIfTI"),
)


class Stream:
    """Reads an image file from start to end, plain or gzip by its content.

    Parameters
    ----------
    path : Path

    Raises
    ------
    ImageError
        There is no file to read, or its stream is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file_bytes = _size(path)
        try:
            self._file: BinaryIO = path.open("rb")
        except OSError as error:
            raise ImageError(f"{path}: cannot be read: {error.strerror}") from error
        self.compressed = self._file.read(2) == _GZIP
        self._file.seek(0)
        self._data = cast(
            "BinaryIO", gzip.GzipFile(fileobj=self._file) if self.compressed else self._file
        )

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self._data.close()
        self._file.close()

    @property
    def most_bytes(self) -> int:
        """The most that the file can hold once decompressed."""
        return self.file_bytes * (MAX_DEFLATE_RATIO if self.compressed else 1)

    def read(self, size: int) -> bytearray:
        """Read `size` bytes, or fewer where the file ends; memory grows with what is there."""
        out = bytearray()
        try:
            while len(out) < size:
                chunk = self._data.read(min(CHUNK_BYTES, size - len(out)))
                if not chunk:
                    break
                out += chunk
        except EOFError as error:
            raise ImageError(
                f"{self.path}: truncated: the gzip stream ends too early; copy the file again"
            ) from error
        except (gzip.BadGzipFile, zlib.error) as error:
            raise ImageError(
                f"{self.path}: damaged: {error}; copy the file again, or restore it"
            ) from error
        except OSError as error:
            raise ImageError(f"{self.path}: cannot be read: {error.strerror}") from error
        return out

    def finish(self) -> int:
        """Read what follows the voxels, so that the checksum is verified; return its length.

        Raises
        ------
        ImageError
            The checksum is wrong, or far more follows than the header tells of.
        """
        trailing = 0
        while chunk := self.read(CHUNK_BYTES):
            trailing += len(chunk)
            if trailing > MAX_TRAILING_BYTES:
                raise ImageError(
                    f"{self.path}: holds much more data than its header describes; "
                    "the header is wrong, convert the image again"
                )
        return trailing


def what_is(head: bytes) -> str:
    """Say what a file that is not NIfTI looks like, from its first bytes."""
    if head[128:132] == b"DICM":
        return "a DICOM file; convert it with dcm2niix"
    for start, what in _LOOKS:
        if start.lower() in head[:64].lower():
            return what
    if head and all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head):
        return "a text file, not an image"
    return "not a NIfTI-1 or NIfTI-2 file; convert it to NIfTI"


def _size(path: Path) -> int:
    """Size of a regular file, bytes; says what is wrong with anything else."""
    try:
        found = path.stat()
    except FileNotFoundError:
        if path.is_symlink():
            raise ImageError(f"{path}: dangling link to {path.readlink().name}") from None
        raise ImageError(f"{path}: no such file") from None
    except OSError as error:
        raise ImageError(f"{path}: cannot be read: {error.strerror}") from error
    if stat.S_ISDIR(found.st_mode):
        raise ImageError(f"{path}: is a folder, expected a NIfTI file")
    if not stat.S_ISREG(found.st_mode):
        raise ImageError(f"{path}: is not a regular file")
    if found.st_size == 0:
        raise ImageError(f"{path}: the file is empty (0 bytes); copy it again")
    if not os.access(path, os.R_OK):
        raise ImageError(f"{path}: no permission to read it")
    return found.st_size
