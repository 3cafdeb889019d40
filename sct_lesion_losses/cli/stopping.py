"""SIGTERM as an exception, and as a flag for where an import or a callback swallows it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Terminated(BaseException):
    """SIGTERM arrived: unwinds the work, so that temporary files are removed."""


_ARRIVED = threading.Event()


def stop_if_terminated() -> None:
    """Raise :class:`Terminated` where SIGTERM arrived and something swallowed the exception."""
    if _ARRIVED.is_set():
        raise Terminated


def terminated() -> bool:
    """Whether SIGTERM arrived."""
    return _ARRIVED.is_set()


@contextmanager
def sigterm() -> Iterator[None]:
    """Raise :class:`Terminated` on SIGTERM for the length of the block."""

    def stop(_signal: int, _frame: object) -> None:
        _ARRIVED.set()
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _ARRIVED.clear()
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
