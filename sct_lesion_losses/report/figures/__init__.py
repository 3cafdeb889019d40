"""All figures that follow from the rows of an evaluation."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from sct_lesion_losses.errors import DataError
from sct_lesion_losses.metrics.scores import ScanScore
from sct_lesion_losses.report.figures import patients, stability, style, thresholds

# By the name of the files.
_FIGURES: dict[str, Callable[[Sequence[ScanScore], Path], tuple[Path, ...]]] = {
    "figure2": thresholds.draw,
    "stability": stability.draw,
    "patients": patients.draw,
}

logger = logging.getLogger(__name__)


def write(rows: Sequence[ScanScore], folder: Path) -> tuple[Path, ...]:
    """Write the figures of an evaluation; those that its scans do not allow are left out.

    Parameters
    ----------
    rows : sequence of ScanScore
        By one lesion preset, at all thresholds.
    folder : Path
        Receives ``figure2``, ``stability`` and ``patients``, as PNG and as SVG. An earlier figure
        that these rows do not allow is removed.

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
    return tuple(path for name in _FIGURES for path in _written(name, rows, folder / name))


def _written(name: str, rows: Sequence[ScanScore], stem: Path) -> tuple[Path, ...]:
    try:
        return _FIGURES[name](rows, stem)
    except DataError as error:
        logger.info("no figure %s: %s", name, error)
        for path in style.paths_of(stem):
            path.unlink(missing_ok=True)
        return ()
