"""The figures of an evaluation's rows, and those of a bundle: FROC curve and detection limit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sct_lesion_losses.bundle.schema import DetectionLimit, LesionPoint
from sct_lesion_losses.errors import DataError
from sct_lesion_losses.metrics import UNTUNED, scores
from sct_lesion_losses.metrics.froc import FALSE_LESIONS, FrocScore
from sct_lesion_losses.metrics.patientwise import PatientScore
from sct_lesion_losses.metrics.scores import ByBundle, ScanScore
from sct_lesion_losses.report import counted
from sct_lesion_losses.report.figures import style
from sct_lesion_losses.report.tables import threshold_text

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
    low, middle, high = map(float, np.percentile(values, (25, 50, 75)))
    if logarithmic:
        reach = (high / low) ** WHISKER
        inside = values[(values >= low / reach) & (values <= high * reach)]
    else:
        reach = WHISKER * (high - low)
        inside = values[(values >= low - reach) & (values <= high + reach)]
    # No whisker ends inside the box, where interpolated quartiles leave no point beyond it.
    return min(float(inside.min()), low), low, middle, high, max(float(inside.max()), high)


@dataclass(frozen=True, eq=False)
class Sweep:
    """V-F1 of one model on the scans with lesions.

    Attributes
    ----------
    model : str
    scores : dict of float to (N,) float64
        By threshold, rising; empty where masks come from a rule of the model's own.
    tuned : float or None
        The model's own threshold.
    by_rule : (N,) float64
        Where there are no thresholds, by its rule.
    """

    model: str
    scores: dict[float, npt.NDArray[np.float64]]
    tuned: float | None
    by_rule: npt.NDArray[np.float64]

    @property
    def n(self) -> int:
        """Number of scans."""
        return max(map(len, (*self.scores.values(), self.by_rule)))

    @property
    def thresholds(self) -> npt.NDArray[np.float64]:
        """Thresholds, (T,), rising."""
        return np.array([*self.scores])

    @property
    def medians(self) -> npt.NDArray[np.float64]:
        """Median V-F1 at each threshold, (T,)."""
        return np.array([np.median(own) for own in self.scores.values()])


def sweeps(rows: Iterable[ScanScore]) -> list[Sweep]:
    """Sweep of each model with a scan that has lesions, in the order of the rows.

    Parameters
    ----------
    rows : iterable of ScanScore
        By any lesion presets: V-F1 is the same by all.

    Raises
    ------
    DataError
        No scan has lesions.
    """
    found: dict[str, dict[float | None, dict[str, float]]] = {}
    tuned: dict[str, float | None] = {}
    for row in (row for row in rows if not np.isnan(row.voxels.f1)):
        scans = found.setdefault(row.bundle, {}).setdefault(row.threshold, {})
        scans[row.scan] = row.voxels.f1
        if row.tuned:
            tuned[row.bundle] = row.threshold
    made = []
    for model, by_threshold in found.items():
        values = {at: np.array([*scans.values()]) for at, scans in by_threshold.items()}
        swept = {at: values[at] for at in sorted(at for at in values if at is not None)}
        made.append(Sweep(model, swept, tuned.get(model), values.get(None, np.array([]))))
    if not made:
        raise DataError("no scan has lesions, so that V-F1 is not defined; evaluate some that have")
    return made


def _quarters(axes: Any, *which: str) -> None:
    """Let an axis reach from 0 to 1, and label its halves."""
    for axis in which:
        ticks = {f"{axis}ticks": [0, 0.25, 0.5, 0.75, 1]}
        axes.set(**ticks, **{f"{axis}ticklabels": ["0", "", "0.5", "", "1"], f"{axis}lim": (0, 1)})


_ROW_INCH, _REST_INCH = 1.75, 0.5
_WIDEST, _OF_GAP = 0.034, 0.68  # width of a box, at most, and of the distance to the next
_FILL, _TUNED_FILL = "#BFD9EA", style.ORANGE
_MARK: dict[str, Any] = {
    **{"marker": "v", "color": style.ORANGE, "markersize": 5},
    **{"markeredgecolor": "black", "markeredgewidth": 0.6},
}
_POINTS = {True: "scan beyond the whiskers (1.5 box lengths)", False: "scan"}


@style.drawing()
def boxes(rows: Sequence[ScanScore]) -> Any:
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

    shown = [sweep for sweep in sweeps(rows) if sweep.scores]
    if not shown:
        raise DataError("no model has thresholds; evaluate a bundle, or sct")
    n_rows, _ = style.shape(len(shown))
    made = style.sheet(_ROW_INCH * n_rows + _REST_INCH, layout="constrained")
    every = style.panels(made, len(shown), "decision threshold", "V-F1", sharex=True, sharey=True)
    for axes, sweep in zip(every, shown, strict=True):
        _draw_boxes(axes, sweep)
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


def _draw_boxes(axes: Any, sweep: Sweep) -> None:
    from matplotlib.collections import PolyCollection

    x, boxed = sweep.thresholds, sweep.n >= FROM
    # A tuned threshold may lie off the grid, nearer to its neighbours than these to each other.
    gaps = np.diff(np.concatenate([[-np.inf], x, [np.inf]]))
    half = np.minimum(_WIDEST, _OF_GAP * np.minimum(gaps[:-1], gaps[1:])) / 2
    low, first, middle, third, high = np.transpose([box(own) for own in sweep.scores.values()])
    strong = {"colors": "black", "linewidths": 1.4, "capstyle": "butt", "clip_on": False}
    axes.hlines(middle, x - half, x + half, label="medians", zorder=4, **strong)
    if boxed:
        thin = {"colors": "black", "linewidths": 0.6, "zorder": 2}
        axes.vlines([*x, *x], [*low, *third], [*first, *high], label="whiskers", **thin)
        across, up = [x - half, x + half, x + half, x - half], [first, first, third, third]
        fills = [_TUNED_FILL if at == sweep.tuned else _FILL for at in x]
        frame: dict[str, Any] = {"edgecolors": "black", "linewidths": 0.6, "zorder": 3}
        corners = np.transpose([across, up], (2, 1, 0))
        axes.add_collection(PolyCollection(list(corners), facecolors=fills, label="boxes", **frame))
    points = [
        (at, score)
        for at, own, least, most in zip(x, sweep.scores.values(), low, high, strict=True)
        for score in own
        if not (boxed and least <= score <= most)
    ]
    if points:
        axes.scatter(*np.transpose(points), s=3, color=style.GREY, lw=0, zorder=5, clip_on=False)
    if sweep.tuned is not None:
        axes.plot(sweep.tuned, 1.03, clip_on=False, label="tuned", **_MARK)
    _quarters(axes, "y")
    axes.set_xlim(-0.03, 1.03)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
    own = "untuned" if sweep.tuned is None else f"tuned: {threshold_text(sweep.tuned)}"
    axes.set_title(f"{sweep.model}\nn = {sweep.n}, {own}", pad=7)
    style.plain(axes)


_HEIGHT_INCH = 4.2
_APART = 0.048  # between the labels, in V-F1
_KNEE, _SAMPLE, _LABELS_AT = 1.015, (1.04, 1.095), 1.105  # of the way to a label, in thresholds


@style.drawing()
def lines(rows: Sequence[ScanScore]) -> Any:
    """Draw the median V-F1 of each model against the threshold, tuned thresholds marked.

    A model without thresholds is a level line. Each line has the name of its model as label.
    """
    from matplotlib.lines import Line2D

    shown = sweeps(rows)
    looks = style.looks(sweep.model for sweep in shown)
    made = style.sheet(_HEIGHT_INCH, layout="constrained")
    axes = made.subplots()
    axes.axvline(UNTUNED, color=style.GREY, lw=0.8, ls=(0, (1, 2)), zorder=1)
    axes.text(UNTUNED + 0.008, 0.985, f"{UNTUNED:g}, untuned", color=style.GREY, va="top")
    ends = []
    for sweep in shown:
        across, up = sweep.thresholds, sweep.medians
        if not len(across):
            across, up = np.array([0.0, 1.0]), np.repeat(np.median(sweep.by_rule), 2)
        axes.plot(
            across, up, label=sweep.model, lw=1.5, zorder=3, clip_on=False, **looks[sweep.model]
        )
        if sweep.tuned is not None:
            dot = {"color": looks[sweep.model]["color"], "mec": "black", "mew": 0.7, "ms": 6.5}
            axes.plot(sweep.tuned, up[across == sweep.tuned], "o", zorder=5, clip_on=False, **dot)
        # At 1, next to nothing is predicted by any model, and all lines come together: a label
        # belongs to the last point before it.
        last = max(int(np.sum(sweep.thresholds < 1)) - 1, 0) if sweep.scores else 1
        ends.append((across[last], up[last::-1]))
    for sweep, (at, up), height in zip(shown, ends, _spread([up for _, up in ends]), strict=True):
        line = {**looks[sweep.model], "clip_on": False, "zorder": 2}
        axes.plot([at, _KNEE, _SAMPLE[0]], [up[0], up[0], height], **{**line, "lw": 0.5, "ls": "-"})
        axes.plot(_SAMPLE, [height, height], lw=1.5, **line)
        colour = looks[sweep.model]["color"]
        axes.text(_LABELS_AT, height, sweep.model, color=colour, va="center", clip_on=False)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_xlabel("decision threshold")
    few, most = min(s.n for s in shown), max(s.n for s in shown)
    number = counted(few, "scan") if few == most else f"{few} to {most} scans"
    axes.set_ylabel(f"median V-F1 ({number} with lesions)")
    style.plain(axes, "both")
    said = [Line2D([], [], color=style.GREY, marker="o", ls="", mec="black", label="tuned")]
    if any(sweep.tuned is not None for sweep in shown):
        axes.legend(handles=said, loc="upper left")
    return made


def _spread(lines: Sequence[npt.NDArray[np.float64]]) -> list[float]:
    """Heights of labels: near the ends of the lines, in their order, apart from each other.

    Parameters
    ----------
    lines : sequence of (T,) float64
        Backwards from the end: the points before it break ties.
    """
    order = sorted(range(len(lines)), key=lambda k: tuple(lines[k]))
    apart = _APART * np.arange(len(lines))
    wanted = np.array([lines[k][0] for k in order]) - apart
    # The nearest heights that do not fall: isotonic regression, by its min-max formula.
    means = [
        max(min(wanted[i : j + 1].mean() for j in range(k, len(lines))) for i in range(k + 1))
        for k in range(len(lines))
    ]
    placed = dict(zip(order, np.maximum(means, 0) + apart, strict=True))
    return [float(placed[k]) for k in range(len(lines))]


_MOST = 5  # panels side by side
_WIDEST_INCH, _LABELS_INCH, _MORE_INCH = 2.4, 0.3, 0.6
_BEFORE: dict[str, Any] = {"marker": "o", "ms": 5.5, "mfc": "white", "mec": style.BLUE, "mew": 1.2}
_AFTER = {**_BEFORE, "mfc": style.VERMILLION, "mec": "black", "mew": 0.7}
_OTHER: dict[str, Any] = {"marker": "o", "ms": 3, "mfc": "#AAAAAA", "mec": "#AAAAAA"}


@style.drawing()
def patients(rows: Sequence[ScanScore]) -> Any:
    """Draw P-sensitivity against P-specificity at 0.5 and tuned, a panel for each model.

    An arrow leads from one to the other; thin bars are 95 % Wilson intervals; pale points are the
    other models where they are tuned. The points are labelled ``0.5``, ``tuned``, or by the other
    model.
    """
    from matplotlib.lines import Line2D

    at_half, at_tuned = scores.untuned(rows), scores.tuned(rows)
    before, after = _patients(at_half), _patients(at_tuned)
    names = list(dict.fromkeys(row.bundle for row in rows if row.bundle in before | after))
    if not names:
        raise DataError(
            "P-sensitivity against P-specificity needs scans with lesions and scans without; "
            "evaluate both"
        )
    n_rows, columns = style.shape(len(names), _MOST)
    side = min(style.WIDTH_INCH / columns, _WIDEST_INCH)
    made = style.sheet((side + _LABELS_INCH) * n_rows + _MORE_INCH, layout="constrained")
    every = style.panels(
        made, len(names), "P-specificity", "P-sensitivity", _MOST, sharex=True, sharey=True
    )
    for axes, name in zip(every, names, strict=True):
        for other, score in after.items():
            if other != name:
                axes.plot(*_place(score), label=other, ls="", zorder=1, clip_on=False, **_OTHER)
        _draw_patients(axes, before.get(name), after.get(name))
        own = "untuned"
        if name in at_tuned:
            threshold = next(iter(at_tuned[name].values())).threshold
            own = "its own rule" if threshold is None else f"tuned: {threshold_text(threshold)}"
        axes.set_title(f"{name}\n{own}")
    said = [
        Line2D([], [], ls="", label="threshold 0.5", **_BEFORE),
        Line2D([], [], ls="", label="tuned", **_AFTER),
        Line2D([], [], color=style.GREY, lw=0.8, label="95 % interval"),
        Line2D([], [], ls="", label="other models, tuned", **_OTHER),
    ]
    made.legend(handles=said[: 4 if len(after) > 1 else 3], loc="outside lower center", ncols=4)
    scans = next(iter((at_half or at_tuned).values())).values()
    found = scores.patients(scans)
    made.suptitle(
        f"{found.sensitivity.n} scans with lesions, found where one of them is detected by the "
        f"preset {rows[0].lesions.preset.name}; {found.specificity.n} without",
        fontsize=style.POINTS,
    )
    return made


def _patients(by_bundle: ByBundle) -> dict[str, PatientScore]:
    """Scores of the models for which both shares are defined."""
    found = {name: scores.patients(scans.values()) for name, scans in by_bundle.items()}
    return {name: own for name, own in found.items() if own.sensitivity.n and own.specificity.n}


def _place(score: PatientScore) -> tuple[float, float]:
    return score.specificity.value, score.sensitivity.value


def _draw_patients(axes: Any, before: PatientScore | None, after: PatientScore | None) -> None:
    marks = (("0.5", before, _BEFORE, style.BLUE), ("tuned", after, _AFTER, style.VERMILLION))
    for label, found, mark, colour in marks:
        if found is None:
            continue
        x, y = found.specificity, found.sensitivity
        bar: dict[str, Any] = {"color": colour, "lw": 0.8, "zorder": 2, "clip_on": False}
        axes.plot([x.low, x.high], [y.value] * 2, **bar)
        axes.plot([x.value] * 2, [y.low, y.high], **bar)
        axes.plot(*_place(found), label=label, ls="", zorder=4, clip_on=False, **mark)
    if before is not None and after is not None and _place(before) != _place(after):
        arrow = {"arrowstyle": "-|>", "shrinkA": 3, "shrinkB": 3, "lw": 0.9, "color": "black"}
        arrow["mutation_scale"] = 7
        axes.annotate("", _place(after), _place(before), arrowprops=arrow, zorder=3)
    _quarters(axes, "x", "y")
    axes.set_box_aspect(1)
    style.plain(axes, "both")


_SIZE_INCH = 3.5  # one column of a page


@style.drawing()
def froc(point: LesionPoint, title: str) -> Any:
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


_FROC_INCH = 4.0


@style.drawing()
def froc_curves(found: Mapping[str, FrocScore]) -> Any:
    """Draw the lesions found against the false ones, a line for each model, a point for masks.

    Parameters
    ----------
    found : mapping of str to FrocScore
        Of each model at its own threshold.
    """
    if not any(own.n_bearing for own in found.values()):
        raise DataError("no scan has lesions that could be found; evaluate some that have")
    looks = style.looks(found)
    made = style.sheet(_FROC_INCH, layout="constrained")
    axes = made.subplots()
    for model, own in found.items():
        last = own.false_lesions[-1], own.sensitivity[-1]
        if own.with_probabilities:
            axes.plot(own.false_lesions, own.sensitivity, label=model, lw=1.5, **looks[model])
        colour = looks[model]["color"]
        label = "_" if own.with_probabilities else model
        axes.plot(*last, "o", color=colour, mec="black", mew=0.7, ms=6, label=label, zorder=3)
    axes.set_xticks(FALSE_LESIONS, [f"{false:g}" for false in FALSE_LESIONS])
    masks = [own.false_lesions[-1] for own in found.values() if not own.with_probabilities]
    axes.set_xlim(0, 1.05 * max([FALSE_LESIONS[-1], *masks]))
    axes.set_ylim(0, 1)
    axes.set_xlabel("false lesions per scan, mean over all scans")
    axes.set_ylabel("sensitivity, mean over scans with lesions")
    style.plain(axes, "both")
    made.legend(loc="outside right upper")
    return made


_LIMIT_INCH = 3.0


@style.drawing()
def detection_limit(limit: DetectionLimit, title: str) -> Any:
    """Draw the share of implants found against their contrast and their volume.

    A point a range, with the number of implants below it and the 95 % interval by people; ranges
    without any implant have none.

    Parameters
    ----------
    limit : DetectionLimit
    title : str
        Above the picture.
    """
    made = style.sheet(_LIMIT_INCH, layout="constrained")
    both = style.panels(
        made,
        2,
        "",
        "share of implants found",
        sharey=True,
        width_ratios=(len(limit.by_contrast), len(limit.by_volume)),
    )
    measures = (("contrast", limit.by_contrast), ("volume, mm³", limit.by_volume))
    for axes, (name, shares) in zip(both, measures, strict=True):
        for at, share in enumerate(shares):
            if not share.n:
                continue
            if share.interval is not None:
                axes.plot([at, at], share.interval, color=style.BLUE, lw=1.2, zorder=2)
            part = share.found / share.n
            axes.plot(at, part, "o", color=style.BLUE, mec="black", mew=0.7, ms=6, zorder=3)
        axes.set_xticks(range(len(shares)), [f"{share}\nn = {share.n}" for share in shares])
        axes.set_xlim(-0.5, len(shares) - 0.5)
        axes.set_xlabel(name)
        _quarters(axes, "y")
        axes.set_ylim(-0.03, 1.03)
        style.plain(axes)
    false = f"{limit.false_lesions:.2g} false lesions a scan"
    people = "1 person" if limit.people == 1 else f"{limit.people} people"
    said = f"implants, not patients' lesions, in scans of {people}; {false} in the untouched ones"
    made.suptitle(f"{title}\n{said}", fontsize=style.POINTS)
    return made
