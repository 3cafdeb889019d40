"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import glob
import json
import math
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sct_lesion_losses.errors import OutputError

_TEMPORARY = ".tmp-"


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write to a temporary name in the target's folder; rename it to the target on success.

    The folder is made where it is missing. Whatever fails, an existing target stays untouched and
    the temporary file is removed.

    Yields
    ------
    Path
        A new empty file whose name ends like the target's; write to it.

    Raises
    ------
    OutputError
        The file system refuses: no permission, no room, a folder of that name.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            prefix=_TEMPORARY, suffix=_ending(path.name), dir=path.parent
        )
        os.close(handle)
    except OSError as error:
        raise OutputError(
            f"{path.parent}: cannot write here ({error.strerror}); choose another folder"
        ) from error
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        raise OutputError(
            f"{path}: cannot write this file ({error.strerror or error}); nothing was changed"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


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


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON object, indented, non-ASCII kept, NaN refused; whole or not at all."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def _ending(target: str) -> str:
    """End of the temporary names of a file; a long name leaves room for the rest."""
    return f"-{target}"[-40:] if target else ""


def _umask() -> int:
    """Permission bits that this process takes away from new files."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
