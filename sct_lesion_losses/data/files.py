"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from sct_lesion_losses.errors import OutputError

_ADVICE = {
    errno.ENOSPC: "the disk is full; free space or choose another -ofolder",
    errno.EDQUOT: "the disk quota is used up; free space or choose another -ofolder",
    errno.EACCES: "no permission to write here; choose another -ofolder",
    errno.EPERM: "no permission to write here; choose another -ofolder",
    errno.EROFS: "the file system is read-only; choose another -ofolder",
    errno.ENOENT: "the folder does not exist; create it first",
    errno.ENOTDIR: "its folder is a file; choose another -ofolder",
    errno.EISDIR: "a folder of that name exists; choose another name",
    errno.ENAMETOOLONG: "the name is too long for the file system; choose a shorter one",
}


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Write a file under a temporary name beside it and rename it when it is complete.

    Whatever goes wrong inside the block, a file already at `path` stays as it was and the
    temporary is removed.

    Yields
    ------
    binary file, open for writing

    Raises
    ------
    OutputError
        The file cannot be written: read-only folder, full disk, name too long, …
    """
    # The name is short and does not depend on the target's: that may be as long as is allowed.
    temporary = path.parent / f".sct-lesion-{secrets.token_hex(6)}.tmp"
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        try:
            # O_EXCL with mode 666 leaves the permissions to the user's umask.
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        _sync_folder(path.parent)
    except OSError as error:
        reason = _ADVICE.get(error.errno or 0, str(error))
        raise OutputError(f"{path}: cannot be written: {reason}") from error


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file whole or not at all."""
    with replacing(path) as file:
        file.write(text.encode())


def make_folder(folder: Path) -> None:
    """Create a folder and those above it; one that exists is fine.

    Raises
    ------
    OutputError
        It cannot be created, or a file has its name.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "a file of that name exists" if isinstance(error, FileExistsError) else None
        reason = reason or _ADVICE.get(error.errno or 0, str(error))
        raise OutputError(f"{folder}: the folder cannot be created: {reason}") from error


def _sync_folder(folder: Path) -> None:
    """Make the rename survive a power cut, where the file system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
