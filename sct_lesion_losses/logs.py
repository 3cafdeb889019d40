"""Log lines and errors as they are said: of which scan, without folders; durations."""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path

from sct_lesion_losses.errors import LesionError

_PACKAGE = "sct_lesion_losses"
_BEFORE = r"(?<![^\s'\"(\[<=,;])"  # a path begins here; "sub-*/anat/" and "~/data/" go on
_FOLDERS = r"/(?:[^\s/:'\",;()]+/)+"
_scan: ContextVar[str] = ContextVar("scan", default="")


@contextmanager
def about(scan: Path) -> Iterator[None]:
    """Let the errors and the log lines of the block say which scan they are about.

    A `LesionError` begins with the scan's name, unless it holds it; `with_scan` does the same for
    a line of the log.
    """
    token = _scan.set(scan.name)
    try:
        yield
    except LesionError as error:
        if scan.name in str(error):
            raise
        raise type(error)(f"{scan.name}: {error}") from error
    finally:
        _scan.reset(token)


def with_scan(text: str) -> str:
    """Text of a log line, behind the name of the scan that is at work if it does not hold it."""
    scan = _scan.get()
    return f"{scan}: {text}" if scan and scan not in text else text


def without_folders(text: str, folders: Iterable[Path] = ()) -> str:
    """Cut absolute folders, and some given ones, off the paths in a text, so that it can be shared.

    Parameters
    ----------
    text : str
    folders : iterable of Path
        They may be relative, or hold spaces.

    >>> without_folders("/home/me/study/bundles/dice: cannot write here")
    'dice: cannot write here'
    """
    known = [f"{re.escape(str(folder))}/" for folder in folders if folder != Path("/")]
    return re.sub(f"{_BEFORE}(?:{'|'.join([*sorted(known, key=len)[::-1], _FOLDERS])})", "", text)


class _Collector(logging.Handler):
    """Keeps log records; `logging.handlers` has such a one, and loads sockets with it."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


class _TextCollector(_Collector):
    """Keeps log records as texts with the name of their scan, fit for another process."""

    def emit(self, record: logging.LogRecord) -> None:
        text = copy.copy(record)
        text.msg, text.args = with_scan(self.format(record)), None
        text.exc_info = text.exc_text = text.stack_info = None
        super().emit(text)


def level() -> int:
    """Level from which on the package logs."""
    return logging.getLogger(_PACKAGE).getEffectiveLevel()


@contextmanager
def collected(level: int) -> Iterator[list[logging.LogRecord]]:
    """Collect what the package logs and what Python warns of, each with the name of its scan.

    Parameters
    ----------
    level : int
        The package logs from this level on for the length of the block.
    """
    collector = _TextCollector(level)
    package = logging.getLogger(_PACKAGE)
    before = package.level
    with ExitStack() as stack:
        for logger in (package, logging.getLogger("py.warnings")):
            logger.addHandler(collector)
            stack.callback(logger.removeHandler, collector)
        stack.callback(package.setLevel, before)
        package.setLevel(level)
        yield collector.records


@contextmanager
def collected_warnings() -> Iterator[list[logging.LogRecord]]:
    """Collect what the package warns of, for the sidecar."""
    collector = _Collector(logging.WARNING)
    package = logging.getLogger(_PACKAGE)
    package.addHandler(collector)
    try:
        yield collector.records
    finally:
        package.removeHandler(collector)


def duration(seconds: float) -> str:
    """Write a time as people say it.

    >>> duration(42), duration(600), duration(31_300)
    ('42 s', '10 min', '8 h 42 min')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
