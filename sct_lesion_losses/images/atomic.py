"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import glob
import json
import math
import os
import secrets
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from sct_lesion_losses.errors import BusyError, OutputError

LOCK = ".lock"  # of a folder in which one process works at a time
_TEMPORARY = ".tmp-"
# Writers of every kind end in `replacing`; the set that their files belong to is not passed down.
_together: ContextVar[dict[Path, Path] | None] = ContextVar("together", default=None)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write to a temporary name in the target's folder; rename it to the target on success.

    The folder is made where it is missing. Whatever fails, an existing target stays untouched and
    the temporary file is removed. Inside `together` the file is renamed with the others.

    Yields
    ------
    Path
        A new empty file whose name ends like the target's; write to it.

    Raises
    ------
    OutputError
        The file system refuses: no permission, no room, a folder of that name.
    """
    temporary = path.with_name(f"{_TEMPORARY}{secrets.token_hex(4)}{_ending(path.name)}")
    others = _together.get()
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.touch(exist_ok=False)
        except OSError as error:
            raise OutputError(
                f"{path.parent}: cannot write here ({error.strerror}); choose another folder"
            ) from error
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        if others is None:
            temporary.replace(path)
        else:
            others[temporary] = path
    except OSError as error:
        raise OutputError(
            f"{path}: cannot write this file ({error.strerror or error}); nothing was changed"
        ) from error
    finally:
        if others is None or temporary not in others:
            _remove(temporary)


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Let the files written in the block appear at its end, all of them or none.

    They are written to temporary names, and renamed when all are there, in the order in which they
    were written. Until then every old file stays, and nothing new can be read.

    Raises
    ------
    OutputError
        A file cannot be renamed. Those written after it are not, either.
    """
    written: dict[Path, Path] = {}
    token = _together.set(written)
    try:
        yield
        _rename(written)
    finally:
        _together.reset(token)
        for temporary in written:
            _remove(temporary)


def _rename(written: Mapping[Path, Path]) -> None:
    for target in written.values():
        if target.is_dir():
            raise OutputError(f"{target}: is a folder; nothing was changed")
    new: list[str] = []
    try:
        for temporary, target in written.items():
            temporary.replace(target)
            new.append(target.name)
    except OSError as error:
        changed = f"new are {', '.join(new)}" if new else "nothing was changed"
        raise OutputError(
            f"{target}: cannot write this file ({error.strerror or error}); {changed}"
        ) from error


def _remove(temporary: Path) -> None:
    with contextlib.suppress(OSError):
        temporary.unlink()


def remove_left_over(folder: Path, target: str = "", before: float = math.inf) -> None:
    """Remove the temporary files of killed processes, where nobody else is writing.

    Parameters
    ----------
    folder : Path
    target : str
        Only those of this file; nobody else writes it at this moment.
    before : float
        Only those last written before this time, in seconds since 1970.
    """
    for file in folder.glob(f"{_TEMPORARY}*{glob.escape(_ending(target))}"):
        with contextlib.suppress(OSError):
            if file.stat().st_mtime < before:
                file.unlink()


def require_writable(folder: Path) -> None:
    """Raise an OutputError where files could not be written into a folder, or it not be made."""
    there = folder.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        raise OutputError(f"{folder}: {there.name} is not a folder; choose another one")
    if not os.access(there, os.W_OK | os.X_OK):
        raise OutputError(f"{folder}: cannot write here; choose another folder")


@contextlib.contextmanager
def locked(lock: Path, busy: str, seconds: float = 0.0, *, remove: bool = False) -> Iterator[None]:
    """Hold a lock file for the length of the block.

    Parameters
    ----------
    lock : Path
        Its folder is made where it is missing.
    busy : str
        Message of the error where another process holds it.
    seconds : float
        Time to wait for that process.
    remove : bool
        Leave no lock file behind.

    Raises
    ------
    BusyError
        Another process holds the lock.
    OutputError
        There can be none.
    """
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        held = FileLock(lock).acquire(seconds)
    except Timeout as error:
        raise BusyError(busy) from error
    except OSError as error:
        raise OutputError(
            f"{lock.parent}: cannot write here ({error.strerror}); choose another folder"
        ) from error
    with held:
        try:
            yield
        finally:
            if remove:
                _remove(lock)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file, whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON object, indented, non-ASCII kept, NaN refused; whole or not at all."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def _ending(target: str) -> str:
    """End of the temporary names of a file; a long name leaves room for the rest."""
    return f"-{target}"[-40:] if target else ""
