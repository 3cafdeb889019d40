"""Log lines, progress and closing lines of the commands; stdout carries what a script parses."""

from __future__ import annotations

import logging
import math
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path, PurePath
from typing import Any

import click

from sct_lesion_losses import logs

TYPED = __name__  # where the context of a command keeps what was typed
EVERY_S = 30.0  # between the lines on progress where there is no terminal
_OF_BUNDLES = ("-bundle", "-init")
_LEVELS = {0: logging.WARNING, 1: logging.INFO, 2: logging.DEBUG}

logger = logging.getLogger("sct_lesion_losses")


class _Line(logging.Formatter):
    """`WARNING: scan: message`; absolute folders are cut away unless everything is to be shown."""

    def __init__(self, args: Sequence[str]) -> None:
        super().__init__()
        self._args = args

    def format(self, record: logging.LogRecord) -> str:
        text = logs.with_scan(super().format(record))
        if record.levelno != logging.INFO:
            text = f"{record.levelname}: {text}"
        return without_typed_folders(text, self._args)


def without_typed_folders(text: str, args: Sequence[str] = ()) -> str:
    """Cut folders off the paths in a line, see `logs.without_folders`.

    Parameters
    ----------
    text : str
    args : sequence of str
        The command line: the folders on it may hold spaces.
    """
    paths = [Path(value) for arg in args for value in (arg, arg.partition("=")[2])]
    with suppress(OSError):  # the folder of the work may have been deleted
        paths.append(Path.cwd() / "file")
    paths.append(Path(os.path.expanduser("~/file")))  # noqa: PTH111 - never raises
    folders = {path.parent for path in paths if path.is_absolute()}
    folders |= {path for path in paths if path.is_absolute() and path.suffix == ""}
    return logs.without_folders(text, folders)


def open_closed_streams() -> None:
    """Open what was closed (`2>&-`), or the next file would be where others write messages."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        with suppress(OSError):
            os.fstat(number)
            continue
        os.open(os.devnull, os.O_RDWR)  # the lowest number that is free, this one
        setattr(sys, name, Path(os.devnull).open("r+", encoding="utf-8"))  # noqa: SIM115


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
    handler = logging.StreamHandler(sys.stderr)
    plain = logging.Formatter("%(levelname)s %(name)s: %(message)s")
    handler.setFormatter(plain if verbosity >= 2 else _Line(args))
    level, others = logger.level, logging.getLogger("py.warnings")
    logger.setLevel(_LEVELS[verbosity])
    logger.addHandler(handler)
    if verbosity >= 2:
        others.addHandler(handler)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        others.removeHandler(handler)
        logger.removeHandler(handler)
        logger.setLevel(level)


@contextmanager
def progress(label: str, unit: str = "scan") -> Iterator[Callable[..., None]]:
    """Show progress on stderr from verbosity 1 on: a bar on a terminal, else a line now and then.

    Parameters
    ----------
    label, unit : str
        What is done, and what is counted.

    Yields
    ------
    callable
        To be called with (done, total) and, optionally, a few words on where the work is; and again
        from the start for more work of the kind.
    """
    if not (sys.stderr.isatty() and logger.isEnabledFor(logging.INFO)):
        told, began, first, last = time.monotonic(), 0.0, 0, math.inf

        def tell(done: int, total: int, words: str = "") -> None:
            nonlocal told, began, first, last
            now = time.monotonic()
            if done < last:  # the time left is reckoned from here
                began, first = now, done
            last = done
            if now - told >= EVERY_S and first < done < total:
                told = now
                left = logs.duration((now - began) / (done - first) * (total - done))
                said = ", ".join(filter(None, [f"{done} of {total}", words, f"{left} left"]))
                logger.info("%s: %s", label, said)

        yield tell
        return
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    with logging_redirect_tqdm([logger]), ExitStack() as shown:
        bar: Any = None

        def show(done: int, total: int, words: str = "") -> None:
            nonlocal bar
            if bar is None or done < bar.n:  # the time left is reckoned from here
                shown.close()
                bar = shown.enter_context(
                    tqdm(desc=label, unit=unit, total=total, initial=done - 1, leave=False)
                )
            bar.total, bar.n = total, done
            bar.set_postfix_str(words)

        yield show


def view_hint(shown: Sequence[tuple[Path, Path]]) -> str:
    """Return the closing lines of an SCT command: how to look at images with their masks."""

    def quoted(path: Path) -> str:
        return shlex.quote(f"./{path}" if str(path).startswith("-") else str(path))

    lines = [
        f"fsleyes {quoted(image)} -cm greyscale {quoted(mask)} -cm red -a 70.0 &"
        for image, mask in shown
    ]
    return "\n".join(["", "Done! To view results, type:", *lines, ""])


def command_line(image: Path | None = None) -> str:
    """Return what was typed, as a shell would take it, with every path cut down to its base name.

    A bundle that was given by its folder is written ``./b``: ``b`` alone is a name, which may mean
    a packaged one.

    Parameters
    ----------
    image : Path, optional
        The scan that is at work: the others are left out.
    """
    context = click.get_current_context()
    typed: list[str] = context.meta[TYPED]
    if image is not None:
        kept = [pair for pair in zip(typed[::2], typed[1::2], strict=True) if pair[0] != "-i"]
        typed = ["-i", str(image), *(word for pair in kept for word in pair)]
    words = [str(context.command.name), *typed]
    return shlex.join(
        ("./" if option in _OF_BUNDLES and _is_path(word) else "") + _base(word)
        for option, word in zip(("", *words), words, strict=False)
    )


def _base(word: str) -> str:
    """Cut a path down to its base name, also that of ``name=path``."""
    name, equals, path = word.partition("=")
    if equals and "/" not in name:
        return f"{name}={_base(path)}"
    return PurePath(word).name if _is_path(word) else word


def _is_path(word: str) -> bool:
    """Tell whether a word of a command line leads through folders; not a sentence with a slash."""
    if PurePath(word).is_absolute() or word.startswith(("~/", "../", "./")):
        return True
    return "/" in word and " " not in word
