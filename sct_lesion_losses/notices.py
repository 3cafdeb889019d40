"""Warnings and errors of one scan: collected for its sidecar, and said with its name."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sct_lesion_losses.errors import CenterlineError, EngineError, GeometryError


@contextmanager
def named(image: Path) -> Iterator[None]:
    """Let an error that does not say which scan it is about begin with its name."""
    try:
        yield
    except (CenterlineError, GeometryError, EngineError) as error:
        if image.name in str(error):
            raise
        raise type(error)(f"{image.name}: {error}") from error


class _Collector(logging.Handler):
    """Keeps the text of every warning."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


@contextmanager
def collected_warnings() -> Iterator[list[str]]:
    """Collect what the package warns of, for the sidecar."""
    collector = _Collector()
    package = logging.getLogger("sct_lesion_losses")
    package.addHandler(collector)
    try:
        yield collector.texts
    finally:
        package.removeHandler(collector)
