"""A picture of the free-response ROC curve: lesions found against false ones."""

from __future__ import annotations

from pathlib import Path

from sct_lesion_losses import files
from sct_lesion_losses.bundle.schema import LesionPoint
from sct_lesion_losses.report import figure

COLOUR = "#0072b2"  # Okabe and Ito 2008, told apart by everybody
CHOSEN = "#d55e00"
FORMATS = (".png", ".svg")


def draw(point: LesionPoint, stem: Path, title: str = "") -> list[Path]:
    """Draw the FROC curve of a bundle's second operating point, the chosen peak marked.

    Parameters
    ----------
    point : LesionPoint
    stem : Path
        Without suffix; ``.png`` and ``.svg`` are written.
    title : str
        Above the picture.

    Returns
    -------
    list of Path
        What was written.

    Raises
    ------
    OutputError
        Matplotlib is not installed, or a file cannot be written.
    """
    figure.require()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    curve = point.froc
    sheet = Figure(figsize=(5, 4), layout="constrained")
    FigureCanvasAgg(sheet)
    axes = sheet.subplots()
    axes.plot(curve.false_lesions, curve.sensitivity, "o-", color=COLOUR, markersize=3, lw=1.2)
    at = min(range(len(curve.peaks)), key=lambda k: abs(curve.peaks[k] - point.peak))
    axes.plot(
        curve.false_lesions[at],
        curve.sensitivity[at],
        "*",
        color=CHOSEN,
        markersize=14,
        markeredgecolor="white",
        label=f"least peak {point.peak:g}",
    )
    axes.set_xlim(left=0)
    axes.set_ylim(0, 1)
    axes.set_xlabel("false lesions per scan, mean over all scans")
    axes.set_ylabel("L-sensitivity, mean over scans with lesions")
    axes.set_title(title, fontsize=9)
    axes.legend(frameon=False, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    written = [stem.with_name(stem.name + suffix) for suffix in FORMATS]
    for path in written:
        with files.replacing(path) as temporary:
            sheet.savefig(temporary, format=path.suffix[1:], dpi=200)
    return written
