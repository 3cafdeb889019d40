"""A picture of a split: lesion number and volume of the scans of each part, as in the study."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sct_lesion_losses import files
from sct_lesion_losses.data.lesion_load import PartLoad
from sct_lesion_losses.errors import OutputError
from sct_lesion_losses.report import figure

FORMATS = (".png", ".svg")
# Okabe and Ito 2008: told apart with any colour vision.
COLOURS = {
    "training": "#0072B2",
    "validation": "#E69F00",
    "thr-optimization": "#009E73",
    "unseen": "#CC79A7",
}
SIZE_INCH = (7.2, 3.5)  # across both columns of a page
DPI = 300
BOX_FROM = 5  # fewer points have no quartiles worth a box
WHISKER = 1.5  # box lengths
LOG_FROM = 30  # ratio of the largest to the smallest value from which the axis is logarithmic
_BOX, _CLOUD = 0.36, 0.62  # heights, of a row of 1
_GOLDEN = 0.6180339887498949


def draw(parts: Sequence[PartLoad], path: Path) -> None:
    """Draw lesion number and lesion volume per scan, one row for each part.

    Every scan with lesions is a point; those without are counted in the label. A box spans the
    quartiles of the points, its line is their median, its whiskers reach the last point within 1.5
    box lengths, measured along the axis. Fewer than 5 points have the median alone. The same parts
    give the same file.

    Parameters
    ----------
    parts : sequence of PartLoad
        From top to bottom.
    path : Path
        Ends in .png or .svg.

    Raises
    ------
    OutputError
        Matplotlib is not installed, the name has another ending, or the file cannot be written.

    References
    ----------
    Hussein et al. 2023, figure 1.
    """
    kind = path.suffix.lower()
    if kind not in FORMATS:
        raise OutputError(f"{path}: expected a name that ends in {' or '.join(FORMATS)}")
    figure.require()
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made = Figure(figsize=SIZE_INCH, layout="constrained")
    FigureCanvasAgg(made)
    number, volume = made.subplots(1, 2, sharey=True)
    _panel(number, "lesions per scan", parts, [[s.lesions for s in p.bearing] for p in parts])
    _panel(
        volume,
        "lesion volume per scan (mm³)",
        parts,
        [[s.volume_mm3 for s in p.bearing] for p in parts],
    )
    number.set_yticks(range(len(parts)), [label(part) for part in parts])
    number.set_ylim(len(parts) - 0.45, -0.55)
    metadata = {"Software": None} if kind == ".png" else {"Date": None}
    with files.replacing(path) as temporary, rc_context({"svg.hashsalt": "split"}):
        made.savefig(temporary, format=kind[1:], dpi=DPI, metadata=metadata)


def label(part: PartLoad) -> str:
    """Name of a part, and how many scans and subjects it has, and how many scans without lesions.

    >>> print(label(PartLoad("validation", subjects=0, sites=0, loads=())))
    validation
    0 scans, 0 subjects
    """
    lines = [part.name, f"{counted(len(part.loads), 'scan')}, {counted(part.subjects, 'subject')}"]
    if part.lesion_free:
        lines.append(f"{part.lesion_free} without lesions")
    return "\n".join(lines)


def counted(number: int, noun: str) -> str:
    """Return a number with its noun.

    >>> counted(1, "scan"), counted(2, "scan")
    ('1 scan', '2 scans')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"


def box(
    values: npt.NDArray[np.float64], logarithmic: bool
) -> tuple[float, float, float, float, float]:
    """Lower whisker, quartile, median, quartile and upper whisker of some values.

    Parameters
    ----------
    values : (N,) float64
        Above 0 where `logarithmic`.
    logarithmic : bool
        The 1.5 box lengths of a whisker are factors, not differences.
    """
    low, middle, high = np.percentile(values, (25, 50, 75))
    if logarithmic:
        reach = (high / low) ** WHISKER
        inside = values[(values >= low / reach) & (values <= high * reach)]
    else:
        reach = WHISKER * (high - low)
        inside = values[(values >= low - reach) & (values <= high + reach)]
    # No whisker ends inside the box, where interpolated quartiles leave no point beyond it.
    ends = min(inside.min(), low), max(inside.max(), high)
    return float(ends[0]), float(low), float(middle), float(high), float(ends[1])


def _panel(
    axes: Any, title: str, parts: Sequence[PartLoad], values: Sequence[Sequence[float]]
) -> None:
    """Draw one quantity of every part."""
    everything = [value for own in values for value in own]
    whole = all(isinstance(value, int) for value in everything)
    logarithmic = bool(everything) and max(everything) >= LOG_FROM * min(everything)
    if logarithmic:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    else:
        axes.xaxis.get_major_locator().set_params(integer=whole)
        axes.set_xlim(0, 1.05 * max(everything, default=1))
    for row, (part, own) in enumerate(zip(parts, values, strict=True)):
        if own:
            _row(axes, row, np.sort(np.array(own, dtype=float)), COLOURS[part.name], logarithmic)
    axes.set_xlabel(title, fontsize=9)
    axes.tick_params(axis="both", labelsize=8)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _row(
    axes: Any, row: int, values: npt.NDArray[np.float64], colour: str, logarithmic: bool
) -> None:
    """Draw the points of one part around the height `row`, and over them what sums them up."""
    # Multiples of the golden ratio spread neighbours in value as far apart as they can be.
    heights = row + _CLOUD * ((0.5 + np.arange(len(values)) * _GOLDEN) % 1 - 0.5)
    size = float(np.clip(1200 / len(values), 3, 14))
    boxed = len(values) >= BOX_FROM
    over = 2 if boxed else 4  # a line alone would hide a point alone
    axes.scatter(values, heights, s=size, color=colour, alpha=0.75, linewidths=0, zorder=over)
    low, first, middle, third, high = box(values, logarithmic)
    top, bottom = row - _BOX / 2, row + _BOX / 2
    axes.plot([middle] * 2, [top, bottom], color="black", lw=1.8, zorder=3, solid_capstyle="butt")
    if not boxed:
        return
    edges = ([first, third, third, first, first], [top, top, bottom, bottom, top])
    axes.plot(*edges, color="black", lw=0.9, zorder=3)
    for end, start in ((low, first), (high, third)):
        axes.plot([end, start], [row, row], color="black", lw=0.9, zorder=3)
        axes.plot([end, end], [row - _BOX / 4, row + _BOX / 4], color="black", lw=0.9, zorder=3)
