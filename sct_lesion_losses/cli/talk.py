"""What a command says while it works: log lines and a progress bar, both on stderr."""

from __future__ import annotations

import logging
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from sct_lesion_losses import logs

if TYPE_CHECKING:
    from typing import TextIO

    _Stream = logging.StreamHandler[TextIO]
else:
    _Stream = logging.StreamHandler  # generic from Python 3.11 on

PACKAGE = "sct_lesion_losses"
_LEVELS = {0: logging.WARNING, 1: logging.INFO, 2: logging.DEBUG}
_FOLDERS = re.compile(r"(?<![\w./:])/(?:[^\s/:'\",;()]+/)+")


class _Line(logging.Formatter):
    """`WARNING: scan: message`; absolute folders are cut away unless everything is to be shown."""

    def __init__(self, args: Sequence[str]) -> None:
        super().__init__()
        self._args = args

    def format(self, record: logging.LogRecord) -> str:
        text = logs.with_scan(super().format(record))
        if record.levelno != logging.INFO:
            text = f"{record.levelname}: {text}"
        return without_folders(text, self._args)


class _BesideBars(_Stream):
    """Writes lines above the progress bars that are shown, not into them."""

    def emit(self, record: logging.LogRecord) -> None:
        bars = sys.modules.get("tqdm")  # where it is not loaded there is no bar
        if bars is None:
            super().emit(record)
            return
        with bars.tqdm.external_write_mode(file=self.stream):
            super().emit(record)


def without_folders(text: str, args: Sequence[str] = ()) -> str:
    """Cut the folders of absolute paths away, so that a log can be shared.

    Parameters
    ----------
    text : str
    args : sequence of str
        The command line: the folders on it may hold spaces.
    """
    for folder in sorted(_folders(args), key=len, reverse=True):
        text = text.replace(folder, "")
    return _FOLDERS.sub("", text)


@contextmanager
def logged(verbosity: int, args: Sequence[str] = ()) -> Iterator[None]:
    """Send the package's log to stderr for the length of the block.

    Parameters
    ----------
    verbosity : int
        0: warnings; 1: also what is done; 2: everything, with module names, full paths and the
        Python warnings of other libraries.
    args : sequence of str
        The command line: the folders of the absolute paths on it are left out of the lines below
        verbosity 2, so that a log can be shared.
    """
    logger = logging.getLogger(PACKAGE)
    handler = _BesideBars(sys.stderr)
    if verbosity < 2:
        handler.setFormatter(_Line(args))
    else:
        handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    level, others = logger.level, logging.getLogger("py.warnings")
    others_handler = handler if verbosity >= 2 else logging.NullHandler()
    others_propagate, others.propagate = others.propagate, False
    logger.setLevel(_LEVELS[verbosity])
    logger.addHandler(handler)
    others.addHandler(others_handler)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        others.removeHandler(others_handler)
        others.propagate = others_propagate
        logger.removeHandler(handler)
        logger.setLevel(level)


def _folders(args: Sequence[str]) -> list[str]:
    """Folders of the absolute paths of a command line, of the user and of the work."""
    paths = [Path(value) for arg in args for value in (arg, arg.partition("=")[2])]
    folders = {path.parent for path in paths if path.is_absolute()}
    folders |= {path for path in paths if path.is_absolute() and path.suffix == ""}
    folders |= {Path.cwd(), Path(os.path.expanduser("~"))}  # noqa: PTH111 - never raises
    return [f"{folder}/" for folder in folders if folder != Path("/")]


@contextmanager
def progress_bar(
    label: str, shown: bool = True, unit: str = "scan"
) -> Iterator[Callable[[int, int], None] | None]:
    """Progress on stderr, only where that is a terminal.

    Parameters
    ----------
    label, unit : str
        What is done, and what is counted.
    shown : bool

    Yields
    ------
    callable or None
        To be called with (done, total), and again from the start for more work of the kind; None
        where nothing is to be shown.
    """
    if not (shown and sys.stderr.isatty()):
        yield None
        return
    from tqdm import tqdm

    bars: list[tqdm[NoReturn]] = []

    def update(done: int, total: int) -> None:
        if not bars:
            bars.append(
                tqdm(
                    desc=label,
                    total=total,
                    initial=done,
                    file=sys.stderr,
                    leave=False,
                    unit=unit,
                )
            )
        bars[0].n = done
        bars[0].refresh()
        if done == total:
            bars.pop().close()

    try:
        yield update
    finally:
        for bar in bars:
            bar.close()


def view_hint(shown: Sequence[tuple[Path, Path]]) -> str:
    """Return the closing lines of an SCT command: how to look at images with their masks."""
    quoted = [(shlex.quote(str(image)), shlex.quote(str(mask))) for image, mask in shown]
    lines = [f"fsleyes {i} -cm greyscale {m} -cm red -a 70.0 &" for i, m in quoted]
    return "\n".join(["", "Done! To view results, type:", *lines, ""])


def command_line(name: str, typed: Sequence[tuple[str, str]], image: Path) -> str:
    """Return what was typed for one of the scans, base names only, for its sidecar.

    >>> command_line("sct_x", [("-i", "/data/a.nii"), ("-thr", "0.3")], Path("a.nii"))
    'sct_x -i a.nii -thr 0.3'
    """
    words = [name, "-i", image.name]
    for option, value in typed:
        if option != "-i":
            words += [option, Path(value).name if "/" in value else value]
    return shlex.join(words)
