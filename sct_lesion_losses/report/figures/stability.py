"""How much each model depends on its threshold: median V-F1 of all models in one panel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from sct_lesion_losses.errors import DataError
from sct_lesion_losses.metrics.scores import UNTUNED, ScanScore
from sct_lesion_losses.report.figures import style
from sct_lesion_losses.report.tables import Published


@dataclass(frozen=True, eq=False)
class Sweep:
    """V-F1 of one model on the scans with lesions.

    Attributes
    ----------
    model : str
    thresholds : (T,) float64
        Rising; empty where masks come from a rule of the model's own.
    scores : tuple of (N,) float64
        At each threshold, the scans in one order; those where V-F1 is not defined are left out.
    tuned : float or None
        The model's own threshold.
    by_rule : (N,) float64
        Where there are no thresholds, by its rule.
    """

    model: str
    thresholds: npt.NDArray[np.float64]
    scores: tuple[npt.NDArray[np.float64], ...]
    tuned: float | None
    by_rule: npt.NDArray[np.float64]

    @property
    def medians(self) -> npt.NDArray[np.float64]:
        """Median V-F1 at each threshold, (T,); NaN where no scan has one."""
        return np.array([np.median(own) if len(own) else np.nan for own in self.scores])

    @property
    def n(self) -> int:
        """Number of scans."""
        return max(map(len, (*self.scores, self.by_rule)))


def of(rows: Iterable[ScanScore]) -> list[Sweep]:
    """Sweep of each model, in the order in which they first appear.

    Parameters
    ----------
    rows : iterable of ScanScore
        By any lesion presets: V-F1 is the same by all.

    Raises
    ------
    DataError
        No scan has lesions, so that V-F1 is defined nowhere.
    """
    found: dict[str, dict[float | None, dict[str, float]]] = {}
    tuned: dict[str, float] = {}
    for row in rows:
        scans = found.setdefault(row.bundle, {}).setdefault(row.threshold, {})
        if not np.isnan(row.voxels.f1):
            scans[row.scan] = row.voxels.f1
        if row.tuned and row.threshold is not None:
            tuned[row.bundle] = row.threshold
    sweeps = []
    for model, by_threshold in found.items():
        known = sorted(threshold for threshold in by_threshold if threshold is not None)
        scores = tuple(np.array([*by_threshold[threshold].values()]) for threshold in known)
        rule = np.array([*by_threshold.get(None, {}).values()])
        sweeps.append(Sweep(model, np.array(known), scores, tuned.get(model), rule))
    if not any(sweep.n for sweep in sweeps):
        raise DataError("no scan has lesions, so that V-F1 is not defined; evaluate some that have")
    return sweeps


_HEIGHT_INCH = 4.2
_APART = 0.048  # between the labels, in V-F1
_KNEE, _SAMPLE, _LABELS_AT = 1.015, (1.04, 1.095), 1.105  # of the way to a label, in thresholds
_NONE: Mapping[str, Published] = MappingProxyType({})


def draw(
    rows: Iterable[ScanScore], stem: Path, published: Mapping[str, Published] = _NONE
) -> tuple[Path, ...]:
    """Draw the median V-F1 of each model against the threshold, tuned thresholds marked.

    Parameters
    ----------
    rows : iterable of ScanScore
        At all thresholds, by any lesion presets. A model without thresholds is a level line.
    stem : Path
        The files' path without an ending.
    published : mapping of str to Published
        What is reported of models, by their names here; drawn at the published tuned threshold.

    Returns
    -------
    tuple of Path
        The files: PNG and SVG, the same for the same rows.

    Raises
    ------
    DataError
        No scan has lesions.
    OutputError
        Matplotlib is not installed, or a file cannot be written.
    """
    with style.drawing():
        return style.save_all(figure(rows, published), stem)


def figure(rows: Iterable[ScanScore], published: Mapping[str, Published] = _NONE) -> Any:
    """Figure of `draw`; each model's line has its name as label."""
    from matplotlib.lines import Line2D

    shown = [sweep for sweep in of(rows) if sweep.n]
    looks = style.looks(sweep.model for sweep in shown)
    made = style.sheet(_HEIGHT_INCH, layout="constrained")
    axes = made.subplots()
    axes.axvline(UNTUNED, color=style.GREY, lw=0.8, ls=(0, (1, 2)), zorder=1)
    axes.text(UNTUNED + 0.008, 0.985, f"{UNTUNED:g}, untuned", color=style.GREY, va="top")
    for sweep in shown:
        _line(axes, sweep, looks[sweep.model], published.get(sweep.model))
    heights = _spread([_heights(sweep) for sweep in shown])
    for sweep, height in zip(shown, heights, strict=True):
        _label(axes, sweep, height, looks[sweep.model])
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_xlabel("decision threshold")
    axes.set_ylabel(f"median V-F1 ({_numbers(shown)} with lesions)")
    style.plain(axes, "both")
    said = [Line2D([], [], color=style.GREY, marker="o", ls="", mec="black", label="tuned")]
    if any(sweep.model in published for sweep in shown):
        said.append(Line2D([], [], color=style.GREY, label="tuned, published", **_REPORTED))
    if any(sweep.tuned is not None for sweep in shown):
        axes.legend(handles=said, loc="upper left")
    return made


_REPORTED: dict[str, Any] = {"marker": "D", "ls": "", "mfc": "white", "ms": 4.5}


def _line(axes: Any, sweep: Sweep, look: style.Look, reported: Published | None) -> None:
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
    if reported is not None:
        if sweep.tuned is not None:  # marks of one colour are told apart by where they lead
            ends = [sweep.tuned, reported.threshold], [at, reported.v_f1]
            axes.plot(*ends, color=look.colour, lw=0.5, ls=look.dashes, zorder=2)
        axes.plot(reported.threshold, reported.v_f1, color=look.colour, zorder=4, **_REPORTED)


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
    # Neighbours that overlap form blocks around the mean of what their labels want.
    blocks: list[list[float]] = []
    for height in (lines[k][0] for k in order):
        blocks.append([height])
        while len(blocks) > 1 and _bottom(blocks[-1]) < _bottom(blocks[-2]) + _APART * len(
            blocks[-2]
        ):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    placed = np.concatenate([_bottom(b) + _APART * np.arange(len(b)) for b in blocks])
    found = dict(zip(order, placed, strict=True))
    return [float(found[k]) for k in range(len(lines))]


def _bottom(block: Sequence[float]) -> float:
    """Height of the lowest label of a block, not below the axis."""
    return max(float(np.mean(block)) - _APART * (len(block) - 1) / 2, 0.0)


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
