"""P-sensitivity against P-specificity of each model, untuned and tuned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sct_lesion_losses.errors import DataError
from sct_lesion_losses.metrics import scores as metric_scores
from sct_lesion_losses.metrics.patientwise import PatientScore
from sct_lesion_losses.metrics.scores import ByBundle, ScanScore
from sct_lesion_losses.report import tables
from sct_lesion_losses.report.figures import style

_MOST = 5  # panels side by side
_WIDEST_INCH, _LABELS_INCH, _REST_INCH = 2.4, 0.3, 0.6
_BEFORE: dict[str, Any] = {"marker": "o", "ms": 5.5, "mfc": "white", "mec": style.BLUE, "mew": 1.2}
_AFTER: dict[str, Any] = {
    "marker": "o",
    "ms": 5.5,
    "mfc": style.VERMILLION,
    "mec": "black",
    "mew": 0.7,
}
_OTHER: dict[str, Any] = {"marker": "o", "ms": 3, "mfc": "#AAAAAA", "mec": "#AAAAAA"}


@style.drawing()
def panels(rows: Iterable[ScanScore]) -> Any:
    """Draw P-sensitivity against P-specificity at 0.5 and tuned, a panel for each model.

    An arrow leads from one to the other; thin bars are 95 % Wilson intervals; pale points are the
    other models where they are tuned. The points are labelled ``0.5``, ``tuned``, or by the other
    model.
    """
    from matplotlib.lines import Line2D

    known = list(rows)
    at_half, at_tuned = metric_scores.untuned(known), metric_scores.tuned(known)
    before, after = _scores(at_half), _scores(at_tuned)
    names = list(dict.fromkeys(row.bundle for row in known if row.bundle in before | after))
    if not names:
        raise DataError(
            "P-sensitivity against P-specificity needs scans with lesions and scans without; "
            "evaluate both"
        )
    rows_of_panels, columns = style.shape(len(names), _MOST)
    side = min(style.WIDTH_INCH / columns, _WIDEST_INCH)
    height = (side + _LABELS_INCH) * rows_of_panels + _REST_INCH
    made = style.sheet(height, layout="constrained")
    every = style.panels(
        made, len(names), "P-specificity", "P-sensitivity", _MOST, sharex=True, sharey=True
    )
    for axes, name in zip(every, names, strict=True):
        others = {other: score for other, score in after.items() if other != name}
        _panel(axes, before.get(name), after.get(name), others)
        axes.set_title(_title(name, at_tuned))
    said = [
        Line2D([], [], ls="", label="threshold 0.5", **_BEFORE),
        Line2D([], [], ls="", label="tuned", **_AFTER),
        Line2D([], [], color=style.GREY, lw=0.8, label="95 % interval"),
        Line2D([], [], ls="", label="other models, tuned", **_OTHER),
    ]
    made.legend(handles=said[: 4 if len(after) > 1 else 3], loc="outside lower center", ncols=4)
    made.suptitle(_about(at_half or at_tuned), fontsize=style.POINTS)
    return made


def _scores(scores: ByBundle) -> dict[str, PatientScore]:
    """Scores of the models for which both shares are defined."""
    found = {name: metric_scores.patients(scans.values()) for name, scans in scores.items()}
    return {name: own for name, own in found.items() if own.sensitivity.n and own.specificity.n}


def _panel(
    axes: Any,
    before: PatientScore | None,
    after: PatientScore | None,
    others: Mapping[str, PatientScore],
) -> None:
    for name, score in others.items():
        place = score.specificity.value, score.sensitivity.value
        axes.plot(*place, label=name, ls="", zorder=1, clip_on=False, **_OTHER)
    for label, found, mark in (("0.5", before, _BEFORE), ("tuned", after, _AFTER)):
        if found is None:
            continue
        x, y = found.specificity, found.sensitivity
        bar = {"color": mark["mec"] if label == "0.5" else mark["mfc"], "lw": 0.8}
        bar |= {"zorder": 2, "clip_on": False}
        axes.plot([x.low, x.high], [y.value] * 2, **bar)
        axes.plot([x.value] * 2, [y.low, y.high], **bar)
        axes.plot(x.value, y.value, label=label, ls="", zorder=4, clip_on=False, **mark)
    if before is not None and after is not None:
        ends = [(s.specificity.value, s.sensitivity.value) for s in (before, after)]
        if ends[0] != ends[1]:
            arrow = {"arrowstyle": "-|>", "shrinkA": 3, "shrinkB": 3, "lw": 0.9, "color": "black"}
            axes.annotate("", ends[1], ends[0], arrowprops={"mutation_scale": 7, **arrow}, zorder=3)
    for limits in (axes.set_xlim, axes.set_ylim):
        limits(0, 1)
    for ticks in (axes.set_xticks, axes.set_yticks):
        ticks([0, 0.25, 0.5, 0.75, 1], ["0", "", "0.5", "", "1"])
    axes.set_box_aspect(1)
    style.plain(axes, "both")


def _title(name: str, tuned: ByBundle) -> str:
    if name not in tuned:
        return f"{name}\nuntuned"
    threshold = next(iter(tuned[name].values())).threshold
    own = "its own rule" if threshold is None else f"tuned: {tables.threshold_text(threshold)}"
    return f"{name}\n{own}"


def _about(scores: ByBundle) -> str:
    """Name the preset, and how many scans there are of either kind."""
    scans = next(iter(scores.values()))
    found = metric_scores.patients(scans.values())
    preset = next(iter(scans.values())).lesions.preset
    return (
        f"{found.sensitivity.n} scans with lesions, found where one of them is detected by the "
        f"preset {preset.name}; {found.specificity.n} without"
    )
