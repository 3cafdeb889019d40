"""Scores over thresholds: V-F1 of every model, and lesions found against false ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sct_lesion_losses.bundle.schema import LesionPoint
from sct_lesion_losses.errors import DataError
from sct_lesion_losses.metrics import UNTUNED
from sct_lesion_losses.metrics.scores import ScanScore
from sct_lesion_losses.report import tables
from sct_lesion_losses.report.figures import style
from sct_lesion_losses.report.tables import Sweep

FROM = 5  # fewer points have no quartiles worth a box
WHISKER = 1.5  # box lengths


def _sweeps(rows: Iterable[ScanScore]) -> list[Sweep]:
    """Sweep of each model.

    Raises
    ------
    DataError
        No scan has lesions, so that V-F1 is defined nowhere.
    """
    found = tables.sweeps(rows)
    if not found:
        raise DataError("no scan has lesions, so that V-F1 is not defined; evaluate some that have")
    return found


def box(
    values: npt.NDArray[np.float64], logarithmic: bool = False
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


_ROW_INCH, _REST_INCH = 1.75, 0.5
_WIDEST, _OF_GAP = 0.034, 0.68  # width of a box, at most, and of the distance to the next
_FILL, _TUNED_FILL = "#BFD9EA", style.ORANGE
_MARK: dict[str, Any] = {
    "marker": "v",
    "color": style.ORANGE,
    "markeredgecolor": "black",
    "markeredgewidth": 0.6,
    "markersize": 5,
}
_POINTS = {True: "scan beyond the whiskers (1.5 box lengths)", False: "scan"}


@style.drawing()
def boxes(rows: Iterable[ScanScore]) -> Any:
    """Draw a box of the V-F1 of all scans with lesions at every threshold, tuned ones marked.

    Models without thresholds are left out. The axes are in the order of the models. The line
    collections ``whiskers`` and ``medians`` have a line for each threshold, and the polygons
    ``boxes`` one, where there are 5 scans or more.

    References
    ----------
    Hussein et al. 2023, figure 2.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    shown = [sweep for sweep in _sweeps(rows) if sweep.scores]
    if not shown:
        raise DataError("no model has thresholds; evaluate a bundle, or sct")
    n_rows, _ = style.shape(len(shown))
    made = style.sheet(_ROW_INCH * n_rows + _REST_INCH, layout="constrained")
    every = style.panels(made, len(shown), "decision threshold", "V-F1", sharex=True, sharey=True)
    for axes, sweep in zip(every, shown, strict=True):
        _panel(axes, sweep)
    boxed = any(sweep.n >= FROM for sweep in shown)
    said: list[Any] = [
        Line2D([], [], color="black", lw=1.4, label="median"),
        Line2D([], [], color=style.GREY, marker=".", ls="", label=_POINTS[boxed]),
    ]
    if any(sweep.tuned is not None for sweep in shown):
        said.append(Line2D([], [], label="tuned threshold", ls="", **_MARK))
    if boxed:
        said.insert(0, Patch(facecolor=_FILL, edgecolor="black", lw=0.6, label="quartiles"))
    made.legend(handles=said, loc="outside lower center", ncols=len(said))
    return made


def _panel(axes: Any, sweep: Sweep) -> None:
    from matplotlib.collections import LineCollection, PolyCollection

    lines: list[list[tuple[float, float]]] = []
    medians: list[list[tuple[float, float]]] = []
    polygons: list[list[tuple[float, float]]] = []
    fills: list[str] = []
    points: list[tuple[float, float]] = []
    for half, (x, scores) in zip(_halves(sweep), sweep.scores.items(), strict=True):
        low, first, middle, third, high = box(scores)
        medians.append([(x - half, middle), (x + half, middle)])
        if len(scores) < FROM:
            points += [(x, score) for score in scores]
            continue
        lines += [[(x, low), (x, first)], [(x, third), (x, high)]]
        polygons.append(
            [(x - half, first), (x + half, first), (x + half, third), (x - half, third)]
        )
        fills.append(_TUNED_FILL if x == sweep.tuned else _FILL)
        points += [(x, score) for score in scores if not low <= score <= high]
    thin = {"colors": "black", "linewidths": 0.6}
    axes.add_collection(LineCollection(lines, label="whiskers", zorder=2, **thin))
    axes.add_collection(
        PolyCollection(
            polygons, facecolors=fills, edgecolors="black", linewidths=0.6, label="boxes", zorder=3
        )
    )
    strong = {"colors": "black", "linewidths": 1.4, "capstyle": "butt"}
    axes.add_collection(LineCollection(medians, label="medians", zorder=4, clip_on=False, **strong))
    if points:
        axes.scatter(*np.transpose(points), s=3, color=style.GREY, lw=0, zorder=5, clip_on=False)
    if sweep.tuned is not None:
        axes.plot(sweep.tuned, 1.03, clip_on=False, label="tuned", **_MARK)
    axes.set_xlim(-0.03, 1.03)
    axes.set_ylim(0, 1)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "", "0.5", "", "1"])
    axes.set_title(_title(sweep), pad=7)
    style.plain(axes)


def _halves(sweep: Sweep) -> list[float]:
    """Half the width of the box at each threshold: a tuned one may lie off the grid."""
    at = np.concatenate([[-np.inf], sweep.thresholds, [np.inf]])
    gaps = np.minimum(np.diff(at)[:-1], np.diff(at)[1:])
    return [min(_WIDEST, _OF_GAP * gap) / 2 for gap in gaps]


def _title(sweep: Sweep) -> str:
    own = "untuned" if sweep.tuned is None else f"tuned: {tables.threshold_text(sweep.tuned)}"
    return f"{sweep.model}\nn = {sweep.n}, {own}"


_HEIGHT_INCH = 4.2
_APART = 0.048  # between the labels, in V-F1
_KNEE, _SAMPLE, _LABELS_AT = 1.015, (1.04, 1.095), 1.105  # of the way to a label, in thresholds


@style.drawing()
def lines(rows: Iterable[ScanScore]) -> Any:
    """Draw the median V-F1 of each model against the threshold, tuned thresholds marked.

    A model without thresholds is a level line. Each line has the name of its model as label.
    """
    from matplotlib.lines import Line2D

    shown = _sweeps(rows)
    looks = style.looks(sweep.model for sweep in shown)
    made = style.sheet(_HEIGHT_INCH, layout="constrained")
    axes = made.subplots()
    axes.axvline(UNTUNED, color=style.GREY, lw=0.8, ls=(0, (1, 2)), zorder=1)
    axes.text(UNTUNED + 0.008, 0.985, f"{UNTUNED:g}, untuned", color=style.GREY, va="top")
    for sweep in shown:
        _line(axes, sweep, looks[sweep.model])
    heights = _spread([_heights(sweep) for sweep in shown])
    for sweep, height in zip(shown, heights, strict=True):
        _label(axes, sweep, height, looks[sweep.model])
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_xlabel("decision threshold")
    axes.set_ylabel(f"median V-F1 ({_numbers(shown)} with lesions)")
    style.plain(axes, "both")
    said = [Line2D([], [], color=style.GREY, marker="o", ls="", mec="black", label="tuned")]
    if any(sweep.tuned is not None for sweep in shown):
        axes.legend(handles=said, loc="upper left")
    return made


def _line(axes: Any, sweep: Sweep, look: style.Look) -> None:
    if len(sweep.thresholds):
        across, up = sweep.thresholds, sweep.medians
    else:
        across, up = np.array([0.0, 1.0]), np.repeat(np.median(sweep.by_rule), 2)
    style_of = {"color": look.colour, "ls": look.dashes}
    axes.plot(across, up, label=sweep.model, lw=1.5, zorder=3, clip_on=False, **style_of)
    if sweep.tuned is not None:
        at = float(up[across == sweep.tuned][0])
        dot = {"color": look.colour, "mec": "black", "mew": 0.7, "ms": 6.5}
        axes.plot(sweep.tuned, at, "o", zorder=5, clip_on=False, **dot)


def _end(sweep: Sweep) -> tuple[float, float]:
    """Point of a line that its label belongs to: at the last threshold below 1.

    At 1, next to nothing is predicted by any model, and all lines come together.
    """
    below = np.flatnonzero(sweep.thresholds < 1)
    if not len(sweep.thresholds):
        return 1.0, float(np.median(sweep.by_rule))
    last = below[-1] if len(below) else 0
    return float(sweep.thresholds[last]), float(sweep.medians[last])


def _heights(sweep: Sweep) -> tuple[float, ...]:
    """Height of the end of a line, and of its points before it, which break ties."""
    at, end = _end(sweep)
    return (end, *sweep.medians[sweep.thresholds < at][::-1])


def _spread(lines: Sequence[tuple[float, ...]]) -> list[float]:
    """Heights of labels: near the ends of the lines, in their order, apart from each other."""
    order = sorted(range(len(lines)), key=lambda k: lines[k])
    apart = _APART * np.arange(len(lines))
    wanted = np.array([lines[k][0] for k in order]) - apart
    # The nearest heights that do not fall: isotonic regression, by its min-max formula.
    means = [
        max(min(wanted[i : j + 1].mean() for j in range(k, len(lines))) for i in range(k + 1))
        for k in range(len(lines))
    ]
    placed = dict(zip(order, np.maximum(means, 0) + apart, strict=True))
    return [float(placed[k]) for k in range(len(lines))]


def _label(axes: Any, sweep: Sweep, height: float, look: style.Look) -> None:
    at, end = _end(sweep)
    line: dict[str, Any] = {"color": look.colour, "clip_on": False, "zorder": 2}
    axes.plot([at, _KNEE, _SAMPLE[0]], [end, end, height], lw=0.5, **line)
    axes.plot(_SAMPLE, [height, height], lw=1.5, ls=look.dashes, **line)
    axes.text(_LABELS_AT, height, sweep.model, color=look.colour, va="center", clip_on=False)


def _numbers(shown: Sequence[Sweep]) -> str:
    """How many scans the models have: one number where they have the same.

    >>> one = Sweep("a", np.array([]), (), None, np.array([0.1, 0.2]))
    >>> _numbers([one, one])
    '2 scans'
    """
    low, high = min(s.n for s in shown), max(s.n for s in shown)
    return style.counted(low, "scan") if low == high else f"{low} to {high} scans"


_SIZE_INCH = 3.5  # one column of a page


@style.drawing()
def froc(point: LesionPoint, title: str = "") -> Any:
    """Draw the FROC curve of a bundle's second operating point, the chosen peak marked.

    Parameters
    ----------
    point : LesionPoint
    title : str
        Above the picture.
    """
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
