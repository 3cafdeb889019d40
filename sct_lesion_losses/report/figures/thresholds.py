"""Figure 2 of the study: V-F1 at every threshold, a panel for each model."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sct_lesion_losses.errors import DataError
from sct_lesion_losses.metrics.scores import ScanScore
from sct_lesion_losses.report import tables
from sct_lesion_losses.report.figures import stability, style
from sct_lesion_losses.report.figures.stability import Sweep

FROM = 5  # fewer points have no quartiles worth a box
WHISKER = 1.5  # box lengths


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


def draw(rows: Iterable[ScanScore], stem: Path) -> tuple[Path, ...]:
    """Draw a box of the V-F1 of all scans with lesions at every threshold, tuned ones marked.

    Parameters
    ----------
    rows : iterable of ScanScore
        At all thresholds, by any lesion presets; a model without thresholds is left out.
    stem : Path
        As by `patients.draw`, whose files it returns.

    Raises
    ------
    DataError
        No scan has lesions, or no model has thresholds.
    OutputError
        Matplotlib is not installed, or a file cannot be written.

    References
    ----------
    Hussein et al. 2023, figure 2.
    """
    with style.drawing():
        return style.save_all(figure(rows), stem)


def figure(rows: Iterable[ScanScore]) -> Any:
    """Figure of `draw`.

    The axes are in the order of the models. The line collections ``whiskers`` and ``medians`` have
    a line for each threshold, and the polygons ``boxes`` one, where there are 5 scans or more.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    shown = [sweep for sweep in stability.of(rows) if len(sweep.thresholds)]
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
    for x, half, scores in zip(sweep.thresholds, _halves(sweep), sweep.scores, strict=True):
        if not len(scores):
            continue
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
