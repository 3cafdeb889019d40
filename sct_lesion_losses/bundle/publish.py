"""A bundle's folder appears whole or not at all, whoever else is writing."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from sct_lesion_losses.bundle.verify import INFO, MAX_BYTES, Files
from sct_lesion_losses.errors import BundleError, OutputError

LOCK = ".sct_lesion_bundles.lock"
LOCK_SECONDS = 60.0


def publish(folder: Path, files: Files, *, overwrite: bool = False) -> None:
    """Write `files` as the folder `folder`, at once.

    They are written to a hidden folder beside the target, which is then renamed. Writers wait for
    each other. A bundle that is replaced is set aside as `.NAME.previous` for the moment between
    two renames; a writer that finds it there without the bundle puts it back first.

    Raises
    ------
    BundleError
        The folder exists and `overwrite` is not set, or holds files of its own.
    OutputError
        The file system refuses, or another writer does not end.
    """
    folder = Path(os.path.abspath(folder))  # noqa: PTH100 - links are not followed
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / LOCK, timeout=LOCK_SECONDS):
            _recover(folder)
            check_replaceable(folder, overwrite)
            with _temporary(folder) as new:
                for name, content in files.items():
                    _write(new / name, content)
                _sync(new)
                _swap(new, folder)
            _sync(folder.parent)
    except Timeout as error:
        raise OutputError(
            f"{folder}: another process is writing here since {LOCK_SECONDS:.0f} s;"
            " wait for it to end, or choose another folder"
        ) from error
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot write this bundle ({error.strerror or error}); nothing was changed"
        ) from error


def set_aside(folder: Path) -> Path:
    """Where the former bundle lies while `folder` is being replaced."""
    return folder.parent / f".{folder.name}.previous"


def check_replaceable(folder: Path, overwrite: bool) -> None:
    """Refuse a folder that is there, unless it is a bundle and may be replaced, or is empty.

    Raises
    ------
    BundleError
    """
    if not folder.exists() and not folder.is_symlink():
        return
    if not folder.is_dir() or folder.is_symlink():
        raise BundleError(f"{folder}: exists and is not a folder; choose another name")
    names = {entry.name for entry in folder.iterdir()}
    if not names:
        return
    if not names <= set(MAX_BYTES) or INFO not in names:
        strange = sorted(names - set(MAX_BYTES)) or sorted(names)
        raise BundleError(
            f"{folder}: holds files that are not a bundle's ({', '.join(strange[:3])});"
            " choose another folder"
        )
    if not overwrite:
        raise BundleError(
            f"{folder}: this bundle exists; choose another name, or replace it with -force 1"
        )


@contextmanager
def _temporary(folder: Path) -> Iterator[Path]:
    """Yield a new hidden folder beside `folder`; what is left of it, or of a killed one, goes."""
    prefix = f".{folder.name}.new-"
    for left in folder.parent.iterdir():
        if left.name.startswith(prefix):
            shutil.rmtree(left)
    new = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
    try:
        new.chmod(0o777 & ~_umask())
        yield new
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _swap(new: Path, folder: Path) -> None:
    previous = set_aside(folder)
    try:
        if folder.exists():
            folder.rename(previous)
        new.rename(folder)
    finally:
        if previous.exists() and not folder.exists():
            previous.rename(folder)
    shutil.rmtree(previous, ignore_errors=True)


def _recover(folder: Path) -> None:
    """Finish what a killed writer left between its two renames."""
    previous = set_aside(folder)
    if not previous.exists():
        return
    if folder.exists():
        shutil.rmtree(previous)
    else:
        previous.rename(folder)


def _write(path: Path, content: bytes) -> None:
    with path.open("xb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
