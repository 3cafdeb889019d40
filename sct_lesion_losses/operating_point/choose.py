"""Choosing the operating point from the curves of scans that were not trained on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sct_lesion_losses.errors import DataError, UsageError
from sct_lesion_losses.operating_point.sweep import Curve

logger = logging.getLogger(__name__)

TIE = 1e-12
PLATEAU = 0.02
STEP = 0.05
BOOTSTRAPS = 2000

FloatArray = NDArray[np.float64]
Summary = Callable[[FloatArray], FloatArray]


def _median(scores: FloatArray) -> FloatArray:
    return np.asarray(np.median(scores, axis=0))


def _mean(scores: FloatArray) -> FloatArray:
    return np.asarray(np.mean(scores, axis=0))


OBJECTIVES: dict[str, Summary] = {
    "median_v_f1": _median,  # Hussein et al. 2023, section 2.5
    "mean_v_f1": _mean,
}


@dataclass(frozen=True, eq=False)
class Choice:
    """The chosen threshold and how firmly the scans decide it.

    Attributes
    ----------
    threshold : float
        The operating point.
    objective : str
        A key of `OBJECTIVES`.
    thresholds : (T,) float64
        The grid.
    curve : (T,) float64
        The objective at each threshold.
    per_scan : (N, T) float64
        V-F1 of every scan with lesions.
    interval : tuple of float
        95 % bootstrap interval of the threshold, resampling subjects.
    plateau : tuple of float
        Lowest and highest threshold around the chosen one, without a gap, whose objective is
        within 2 % of the best.
    loss_below, loss_above : float
        What the objective loses 0.05 below and 0.05 above the threshold; NaN beyond the grid.
    leave_one_out : float
        The objective over all scans when each is scored at the threshold that the scans of the
        other subjects choose; NaN with one subject.
    n_scans, n_subjects : int
        Scans with lesions that decided, and their subjects.
    at_end : bool
        The optimum lies at an end of the grid.
    """

    threshold: float
    objective: str
    thresholds: FloatArray
    curve: FloatArray
    per_scan: FloatArray
    interval: tuple[float, float]
    plateau: tuple[float, float]
    loss_below: float
    loss_above: float
    leave_one_out: float
    n_scans: int
    n_subjects: int
    at_end: bool


def choose(
    curves: Sequence[Curve],
    subjects: Sequence[Hashable] | None = None,
    *,
    objective: str = "median_v_f1",
    bootstraps: int = BOOTSTRAPS,
    seed: int = 0,
) -> Choice:
    """Choose the threshold with the best objective over the scans that hold lesions.

    Ties within 1e-12 go to the threshold nearest to 0.5, then to the higher one.

    Parameters
    ----------
    curves : sequence of Curve
        One per scan, all over the same thresholds; those of lesion-free scans are left out.
    subjects : sequence of hashable, optional
        Whose scan each is; by default every scan is a subject of its own.
    objective : {"median_v_f1", "mean_v_f1"}
    bootstraps : int
        Resamplings of the subjects.
    seed : int
        Of the bootstrap.

    Returns
    -------
    Choice

    Raises
    ------
    DataError
        No scan holds lesions.
    UsageError
        The objective is unknown, or the curves do not belong together.
    """
    if objective not in OBJECTIVES:
        raise UsageError(f"no objective is named {objective!r}; choose from {sorted(OBJECTIVES)}")
    owners = list(range(len(curves))) if subjects is None else list(subjects)
    if len(owners) != len(curves):
        raise UsageError(f"{len(curves)} curves came with {len(owners)} subjects")
    used = [(c, s) for c, s in zip(curves, owners, strict=True) if c.n_truth > 0]
    if not used:
        raise DataError("no scan holds lesions, so no threshold can be chosen; add scans that do")
    grid = used[0][0].thresholds
    if any(not np.array_equal(c.thresholds, grid) for c, _ in used):
        raise UsageError("the curves are over different thresholds; sweep all scans alike")
    scores = np.stack([c.f1 for c, _ in used])
    groups = _rows_by_subject([s for _, s in used])
    summary = OBJECTIVES[objective]
    curve = summary(scores)
    best = _best(curve, grid)
    at_end = best in (0, len(grid) - 1)
    if at_end:
        logger.warning(
            "the best threshold, %g, lies at an end of the grid: the network separates lesion "
            "poorly on these scans, or its probabilities are far from calibrated",
            grid[best],
        )
    return Choice(
        threshold=float(grid[best]),
        objective=objective,
        thresholds=grid,
        curve=curve,
        per_scan=scores,
        interval=_interval(scores, groups, grid, summary, bootstraps, seed),
        plateau=_plateau(curve, best, grid),
        loss_below=_loss(curve, grid, best, -STEP),
        loss_above=_loss(curve, grid, best, STEP),
        leave_one_out=_leave_one_out(scores, groups, grid, summary),
        n_scans=len(used),
        n_subjects=len(groups),
        at_end=at_end,
    )


def _best(curve: FloatArray, grid: FloatArray) -> int:
    tied = np.flatnonzero(curve >= curve.max() - TIE)
    distance = np.round(np.abs(grid[tied] - 0.5), 12)  # 0.3 and 0.7 are equally far
    return int(tied[np.lexsort((-grid[tied], distance))[0]])


def _rows_by_subject(owners: Sequence[Hashable]) -> list[NDArray[np.int64]]:
    rows: dict[Hashable, list[int]] = {}
    for row, owner in enumerate(owners):
        rows.setdefault(owner, []).append(row)
    return [np.array(group, dtype=np.int64) for group in rows.values()]


def _interval(
    scores: FloatArray,
    groups: list[NDArray[np.int64]],
    grid: FloatArray,
    summary: Summary,
    bootstraps: int,
    seed: int,
) -> tuple[float, float]:
    rng = np.random.default_rng(seed)
    chosen = np.empty(bootstraps)
    for b in range(bootstraps):
        drawn = rng.integers(len(groups), size=len(groups))
        rows = np.concatenate([groups[g] for g in drawn])
        chosen[b] = grid[_best(summary(scores[rows]), grid)]
    if not bootstraps:
        return float("nan"), float("nan")
    # Quantiles are thresholds of the grid, never values between two of them.
    low, high = np.quantile(chosen, (0.025, 0.975), method="inverted_cdf")
    return float(low), float(high)


def _plateau(curve: FloatArray, best: int, grid: FloatArray) -> tuple[float, float]:
    good = curve >= (1 - PLATEAU) * curve[best] - TIE
    first = last = best
    while first > 0 and good[first - 1]:
        first -= 1
    while last < len(grid) - 1 and good[last + 1]:
        last += 1
    return float(grid[first]), float(grid[last])


def _loss(curve: FloatArray, grid: FloatArray, best: int, offset: float) -> float:
    there = np.flatnonzero(np.abs(grid - (grid[best] + offset)) < 1e-9)
    return float(curve[best] - curve[there[0]]) if there.size else float("nan")


def _leave_one_out(
    scores: FloatArray,
    groups: list[NDArray[np.int64]],
    grid: FloatArray,
    summary: Summary,
) -> float:
    if len(groups) < 2:
        return float("nan")
    held_out = np.empty(len(scores))
    for rows in groups:
        others = np.setdiff1d(np.arange(len(scores)), rows)
        held_out[rows] = scores[rows, _best(summary(scores[others]), grid)]
    return float(summary(held_out[:, None])[0])
