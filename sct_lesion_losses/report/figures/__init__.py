"""The figures of an evaluation, each registered by the function that draws it.

A new one is a module here with a function of the rows, decorated by `register`: it is then written
by an evaluation, and shown with its caption in the report of a study.
"""

from __future__ import annotations

import importlib
import logging
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from sct_lesion_losses.errors import DataError
from sct_lesion_losses.report.figures import style

if TYPE_CHECKING:  # scipy.stats comes with it, which drawing one scan does without
    from sct_lesion_losses.metrics.scores import ScanScore

SECTIONS = ("scores", "thresholds")  # of the report
FIGURES: dict[str, EvaluationFigure] = {}  # by the name of the files; see `registered`

logger = logging.getLogger(__name__)

Drawing: TypeAlias = "Callable[[Sequence[ScanScore]], Any]"


@dataclass(frozen=True)
class EvaluationFigure:
    """A figure that follows from the rows of an evaluation.

    Attributes
    ----------
    name : str
        Of its files, without an ending.
    section : {"scores", "thresholds"}
        Part of the report that shows it.
    caption : str
    draw : callable
        Takes rows by one lesion preset at all thresholds, returns a figure of matplotlib, and
        raises a DataError where the rows do not allow one.
    """

    name: str
    section: str
    caption: str
    draw: Drawing


def register(name: str, section: str, caption: str) -> Callable[[Drawing], Drawing]:
    """Register the decorated function; see `EvaluationFigure`."""
    if section not in SECTIONS:
        raise ValueError(f"section is {section!r}, expected one of {', '.join(SECTIONS)}")

    def registered_as(draw: Drawing) -> Drawing:
        FIGURES[name] = EvaluationFigure(name, section, caption, draw)
        return draw

    return registered_as


def registered() -> Mapping[str, EvaluationFigure]:
    """Return `FIGURES` with those of every module of this folder."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return FIGURES


def write(rows: Sequence[ScanScore], folder: Path) -> tuple[Path, ...]:
    """Write the figures of an evaluation; those that its scans do not allow are left out.

    Parameters
    ----------
    rows : sequence of ScanScore
        By one lesion preset, at all thresholds.
    folder : Path
        Receives every registered figure as PNG and as SVG, the same for the same rows. An earlier
        figure that these rows do not allow is removed.

    Returns
    -------
    tuple of Path
        The files; none where matplotlib is not installed.

    Raises
    ------
    OutputError
        A file cannot be written.
    """
    if not style.available():
        logger.info("no figures: pip install 'sct_lesion_losses[report]' for matplotlib")
        return ()
    return tuple(path for one in registered().values() for path in _written(one, rows, folder))


def _written(figure: EvaluationFigure, rows: Sequence[ScanScore], folder: Path) -> tuple[Path, ...]:
    try:
        with style.drawing():
            return style.save_all(figure.draw(rows), folder / figure.name)
    except DataError as error:
        logger.info("no figure %s: %s", figure.name, error)
        for path in style.paths_of(folder / figure.name):
            path.unlink(missing_ok=True)
        return ()
