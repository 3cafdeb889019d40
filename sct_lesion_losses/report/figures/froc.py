"""The free-response ROC curve of a bundle: lesions found against false ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sct_lesion_losses.bundle.schema import LesionPoint
from sct_lesion_losses.report.figures import style

_SIZE_INCH = 3.5  # one column of a page


def draw(point: LesionPoint, stem: Path, title: str = "") -> tuple[Path, ...]:
    """Draw the FROC curve of a bundle's second operating point, the chosen peak marked.

    Parameters
    ----------
    point : LesionPoint
    stem : Path
        The files' path without an ending.
    title : str
        Above the picture.

    Returns
    -------
    tuple of Path
        The files.

    Raises
    ------
    OutputError
        Matplotlib is not installed, or a file cannot be written.
    """
    with style.drawing():
        return style.save_all(figure(point, title), stem)


def figure(point: LesionPoint, title: str = "") -> Any:
    """Draw as `draw` does, into a figure of matplotlib."""
    curve = point.froc
    made = style.sheet(_SIZE_INCH, _SIZE_INCH, layout="constrained")
    axes = made.subplots()
    axes.plot(curve.false_lesions, curve.sensitivity, "o-", color=style.BLUE, ms=3, lw=1.2)
    at = min(range(len(curve.peaks)), key=lambda k: abs(curve.peaks[k] - point.peak))
    chosen = curve.false_lesions[at], curve.sensitivity[at]
    label = f"chosen: highest probability {point.peak:g} or more"
    axes.plot(*chosen, "o", color=style.VERMILLION, ms=7, mec="black", label=label, zorder=3)
    axes.set_xlim(left=0)
    axes.set_ylim(0, 1)
    axes.set_xlabel("false lesions per scan, mean over all scans")
    axes.set_ylabel("L-sensitivity, mean over scans with lesions")
    axes.set_title(title)
    axes.legend(loc="lower right")
    style.plain(axes, "both")
    return made
