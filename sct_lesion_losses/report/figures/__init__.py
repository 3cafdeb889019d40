"""Figures of an evaluation and of a study.

A new one is a function in a module here, and its entry in `FIGURES`: it is then shown with its
caption in the report of a study, and written with every evaluation if its rows are all it needs.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sct_lesion_losses.errors import DataError, OutputError
from sct_lesion_losses.report.figures import style

if TYPE_CHECKING:  # scipy.stats comes with it, which drawing one scan does without
    from sct_lesion_losses.metrics.scores import ScanScore

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReportFigure:
    """A figure of the report.

    Attributes
    ----------
    section : str
        Anchor of the part of the report that shows it, of `report.page.SECTIONS`.
    drawn_by : str
        ``module.function`` in this folder. It returns a figure of matplotlib, and raises a
        DataError where what it is given does not allow one.
    caption : str
    of_rows : bool
        The function takes the rows of an evaluation, by one lesion preset, at all thresholds.
    """

    section: str
    drawn_by: str
    caption: str
    of_rows: bool = False


FIGURES = {  # by the name of the files
    "figure1": ReportFigure(
        "cohort",
        "split.figure",
        "Figure 1. Lesions and lesion volume of every scan with lesions, by part of the split. A "
        "box spans the quartiles, its line is the median, its whiskers reach the last scan within "
        "1.5 box lengths.",
    ),
    "figure2": ReportFigure(
        "thresholds",
        "evaluation.boxes",
        "Figure 2. V-F1 of the unseen scans with lesions at every threshold, a panel for each "
        "model. A box spans the quartiles, its line is the median.",
        of_rows=True,
    ),
    "figure3": ReportFigure(
        "scores",
        "scan.comparison",
        "Figure 3. The sagittal slice with most lesion of the unseen scan whose lesion volume is "
        "the median: the scan, the manual mask, and each model at its threshold. Green: true "
        "positive; white: false negative; red, hatched: false positive.",
    ),
    "patients": ReportFigure(
        "scores",
        "evaluation.patients",
        "P-sensitivity against P-specificity of every model on the unseen scans, at 0.5 and at its "
        "tuned threshold, with 95 % intervals.",
        of_rows=True,
    ),
    "froc": ReportFigure(
        "scores",
        "evaluation.froc_curves",
        "FROC of every model at its own threshold: lesions found against false ones, as fewer "
        "probable lesions are added. Masks without probabilities are a point.",
    ),
    "stability": ReportFigure(
        "thresholds",
        "evaluation.lines",
        "Median V-F1 of the unseen scans over the thresholds, a line for each model. A flat line "
        "is a model whose threshold matters little.",
        of_rows=True,
    ),
    "learning_curves": ReportFigure(
        "thresholds",
        "learning.figure",
        "Learning curves: training and validation loss, and below them the learning rate, a panel "
        "for each training. Stars mark the lowest validation loss. Losses differ in scale.",
    ),
}


def draw(name: str, folder: Path, *content: Any) -> tuple[Path, ...]:
    """Draw a figure as PNG and as SVG, the same for the same content.

    Parameters
    ----------
    name : str
        A key of `FIGURES`.
    folder : Path
        Where to write. An earlier figure that the content does not allow is removed.
    *content
        Of the figure; see the function that draws it.

    Returns
    -------
    tuple of Path
        The files; none where the content does not allow the figure.

    Raises
    ------
    OutputError
        Matplotlib is not installed, or a file cannot be written.
    """
    module, function = FIGURES[name].drawn_by.split(".")
    draws = getattr(importlib.import_module(f"{__name__}.{module}"), function)
    try:
        return style.save_all(draws(*content), folder / name)
    except DataError as error:
        logger.info("no figure %s: %s", name, error)
        for path in style.paths_of(folder / name):
            path.unlink(missing_ok=True)
        return ()


def write(rows: Sequence[ScanScore], folder: Path, **others: Any) -> tuple[Path, ...]:
    """Write the figures of an evaluation; those that its scans do not allow are left out.

    Parameters
    ----------
    rows : sequence of ScanScore
        By one lesion preset, at all thresholds.
    folder : Path
        See `draw`.
    **others
        Content of figures that are not of rows, by their names.

    Returns
    -------
    tuple of Path
        The files; none where matplotlib is not installed.

    Raises
    ------
    OutputError
        A file cannot be written.
    """
    try:
        style.require()
    except OutputError as error:
        logger.info("no figures: %s", error)
        return ()
    content = {name: rows for name, figure in FIGURES.items() if figure.of_rows} | others
    return tuple(path for name, own in content.items() for path in draw(name, folder, own))
