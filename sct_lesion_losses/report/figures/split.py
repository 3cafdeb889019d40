"""A picture of a split: lesion number and volume of the scans of each part, as in the study."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sct_lesion_losses.cohorts.splits import PartLoad
from sct_lesion_losses.report import counted
from sct_lesion_losses.report.figures import style
from sct_lesion_losses.report.figures.evaluation import FROM, box

COLOURS = {
    "training": style.BLUE,
    "validation": style.ORANGE,
    "thr-optimization": style.GREEN,
    "unseen": style.PURPLE,
}
HEIGHT_INCH = 3.5
LOG_FROM = 30  # ratio of the largest to the smallest value from which the axis is logarithmic
_BOX, _CLOUD = 0.36, 0.62  # heights, of a row of 1
_GOLDEN = 0.6180339887498949


@style.drawing()
def figure(parts: Sequence[PartLoad]) -> Any:
    """Draw lesion number and lesion volume per scan, one row for each part.

    Every scan with lesions is a point; those without are counted in the label. A box spans the
    quartiles of the points, its line is their median, its whiskers reach the last point within 1.5
    box lengths, measured along the axis. Fewer than 5 points have the median alone.

    Parameters
    ----------
    parts : sequence of PartLoad
        From top to bottom.

    References
    ----------
    Hussein et al. 2023, figure 1.
    """
    made = style.sheet(HEIGHT_INCH, layout="constrained")
    number, volume = made.subplots(1, 2, sharey=True)
    lesions = [[scan.lesions for scan in part.bearing] for part in parts]
    volumes = [[scan.volume_mm3 for scan in part.bearing] for part in parts]
    _panel(number, "lesions per scan", parts, lesions)
    _panel(volume, "lesion volume per scan (mm³)", parts, volumes)
    number.set_yticks(range(len(parts)), [label(part) for part in parts])
    number.set_ylim(len(parts) - 0.45, -0.55)
    return made


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
    axes.set_xlabel(title)
    axes.tick_params(axis="y", length=0)
    style.plain(axes, "x")
    axes.spines["left"].set_visible(False)


def _row(
    axes: Any, row: int, values: npt.NDArray[np.float64], colour: str, logarithmic: bool
) -> None:
    """Draw the points of one part around the height `row`, and over them what sums them up."""
    # Multiples of the golden ratio spread neighbours in value as far apart as they can be.
    heights = row + _CLOUD * ((0.5 + np.arange(len(values)) * _GOLDEN) % 1 - 0.5)
    size = float(np.clip(1200 / len(values), 3, 14))
    boxed = len(values) >= FROM
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
