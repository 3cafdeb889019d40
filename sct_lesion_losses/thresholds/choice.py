"""Choice of the operating point from the curves of scans that were not trained on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sct_lesion_losses.errors import DataError, UsageError
from sct_lesion_losses.thresholds.curves import Curve, ScanCounts
from sct_lesion_losses.thresholds.objectives import (
    TIE,
    FloatArray,
    Objective,
    Rows,
    Scored,
    score,
    voxels,
)

logger = logging.getLogger(__name__)

PLATEAU = 0.02
STEP = 0.05
BOOTSTRAPS = 2000
WIDE = 0.3  # an interval of the threshold as wide leaves it nearly open
FEW_SUBJECTS = 10  # fewer are warned of


@dataclass(frozen=True, eq=False, kw_only=True)
class Optimum:
    """The best threshold of a curve, and how firmly the scans decide it.

    Attributes
    ----------
    threshold : float
        The operating point.
    objective : Objective
        What the threshold makes best.
    thresholds : (T,) float64
        The grid.
    curve : (T,) float64
        The objective at each threshold; NaN where it does not allow the threshold.
    per_scan : (N, T) float64
        Scores of the scans with lesions.
    interval : tuple of float
        95 % bootstrap interval of the threshold, resampling subjects; NaN of one subject.
    plateau : tuple of float
        Lowest and highest threshold around the chosen one, without a gap, whose objective is
        within 2 % of the best.
    loss_below, loss_above : float
        What the objective loses 0.05 below and 0.05 above the threshold; NaN beyond the grid.
    leave_one_out : float
        The objective over all scans when each is scored at the threshold that the scans of the
        other subjects choose; NaN with one subject, and where the others alone cannot choose.
    n_scans, n_subjects : int
        Scans with lesions that decided, and their subjects.
    at_end : bool
        The optimum lies at an end of the grid.
    """

    threshold: float
    objective: Objective
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

    @property
    def best(self) -> float:
        """The objective at the threshold."""
        return float(np.nanmax(self.curve))

    @property
    def useful(self) -> bool:
        """Whether the threshold does better than none, and than marking every voxel."""
        return self.threshold > 0 and self.best > TIE


@dataclass(frozen=True, eq=False, kw_only=True)
class Choice(Optimum):
    """The chosen threshold, and how firmly the scans decide it.

    Attributes
    ----------
    deciding : tuple of N int
        Indices of the given scans that have a score: those with lesions.
    warnings : tuple of str
        What is doubtful about the choice.
    """

    deciding: tuple[int, ...]
    warnings: tuple[str, ...] = ()


def choose(
    scans: Sequence[Curve | ScanCounts],
    subjects: Sequence[Hashable] | None = None,
    *,
    objective: str | Objective = "median_v_f1",
    bootstraps: int = BOOTSTRAPS,
    seed: int = 0,
) -> Choice:
    """Choose the threshold with the best objective over the scans that hold lesions.

    Ties within 1e-12 go to the threshold nearest to 0.5, then to the higher one. What is doubtful
    about the choice is logged as well.

    Parameters
    ----------
    scans : sequence of Curve or ScanCounts
        One per scan, all over the same thresholds; lesion-wise objectives need `ScanCounts`. Those
        of lesion-free scans are left out, unless the objective asks for a specificity.
    subjects : sequence of hashable, optional
        Whose scan each is; by default every scan is a subject of its own.
    objective : str or Objective
        A key of `thresholds.OBJECTIVES`, or one with its numbers.
    bootstraps : int
        Resamplings of the subjects. One that draws no scan of a kind that the objective needs is
        drawn again.
    seed : int
        Of the bootstrap.

    Returns
    -------
    Choice

    Raises
    ------
    DataError
        No scan holds lesions, or no threshold has the specificity that is asked for.
    UsageError
        The objective is unknown, or the scans do not belong together.
    """
    wanted = Objective(objective) if isinstance(objective, str) else objective
    owners = list(range(len(scans))) if subjects is None else list(subjects)
    if len(owners) != len(scans):
        raise UsageError(f"{len(scans)} curves came with {len(owners)} subjects")
    curves = [voxels(scan) for scan in scans]
    if not any(curve.n_truth for curve in curves):
        raise DataError("no scan holds lesions, so no threshold can be chosen; add scans that do")
    grid = curves[0].thresholds
    if any(not np.array_equal(curve.thresholds, grid) for curve in curves):
        raise UsageError("the curves are over different thresholds; sweep all scans alike")
    scored = score(scans, wanted)
    if not scored.bearing.any():
        raise DataError(f"no scan holds lesions that count by the preset {wanted.preset}; add some")
    scored.require_reachable(grid)
    rows = np.flatnonzero(scored.bearing | scored.lesion_free)
    groups = rows_by_subject(rows, owners)
    deciding = np.flatnonzero(scored.bearing)

    def resampled(rng: np.random.Generator) -> FloatArray:
        drawn = np.concatenate(resample(groups, rng))
        while not scored.decide(drawn):
            drawn = np.concatenate(resample(groups, rng))
        return scored.values(drawn)

    found = Choice(
        **optimum(scored.values(rows), grid),
        objective=wanted,
        deciding=tuple(deciding.tolist()),
        per_scan=scored.scores[deciding],
        interval=interval(resampled, grid, bootstraps if len(groups) > 1 else 0, seed),
        leave_one_out=_leave_one_out(scored, groups, grid),
        n_scans=len(deciding),
        n_subjects=len({owners[row] for row in deciding}),
    )
    lesion_free = any(curve.n_truth == 0 for curve in curves)
    found = replace(found, warnings=tuple(_doubts(found, lesion_free)))
    for warning in found.warnings:
        logger.warning("%s", warning)
    return found


def _doubts(choice: Choice, lesion_free: bool) -> Iterator[str]:
    """Say what is doubtful about a choice; `lesion_free`: there were scans without lesions."""
    if choice.at_end:
        yield (
            f"the best threshold, {choice.threshold:g}, lies at an end of the grid: the network "
            "separates lesion poorly on these scans, or its probabilities are far from calibrated"
        )
    low, high = choice.interval
    if high - low > WIDE + TIE:
        yield (
            f"the 95 % interval of the threshold, {low:g} to {high:g}, is wider than {WIDE:g}: "
            "these scans leave it nearly open"
        )
    if choice.n_subjects < FEW_SUBJECTS:
        yield f"subjects that decided: {choice.n_subjects}, fewer than {FEW_SUBJECTS}"
    if not lesion_free:
        yield "no lesion-free scan: P-specificity at this threshold is not known"


def optimum(curve: FloatArray, grid: FloatArray) -> dict[str, Any]:
    """Return the entries of an `Optimum` that follow from its curve alone."""
    best = best_of(curve, grid)
    good = curve >= (1 - PLATEAU) * curve[best] - TIE
    first = last = best
    while first > 0 and good[first - 1]:
        first -= 1
    while last < len(grid) - 1 and good[last + 1]:
        last += 1
    return {
        "threshold": float(grid[best]),
        "thresholds": grid,
        "curve": curve,
        "plateau": (float(grid[first]), float(grid[last])),
        "loss_below": _loss_at(curve, grid, best, -STEP),
        "loss_above": _loss_at(curve, grid, best, STEP),
        "at_end": best in (0, len(grid) - 1),
    }


def best_of(curve: FloatArray, grid: FloatArray) -> int:
    """Index of the best threshold, NaN left aside; ties to the nearest to 0.5, then the higher."""
    tied = np.flatnonzero(curve >= np.nanmax(curve) - TIE)
    distance = np.round(np.abs(grid[tied] - 0.5), 12)  # 0.3 and 0.7 are equally far
    return int(tied[np.lexsort((-grid[tied], distance))[0]])


def _loss_at(curve: FloatArray, grid: FloatArray, best: int, offset: float) -> float:
    """Return what the curve loses at an offset from its best; NaN beyond the grid."""
    there = np.flatnonzero(np.abs(grid - (grid[best] + offset)) < 1e-9)
    return float(curve[best] - curve[there[0]]) if there.size else float("nan")


def rows_by_subject(rows: Rows, owners: Sequence[Hashable]) -> list[Rows]:
    """Group rows by the subject that owns them, in the order of their first ones."""
    by_subject: dict[Hashable, list[int]] = {}
    for row in rows.tolist():
        by_subject.setdefault(owners[row], []).append(row)
    return [np.array(group, dtype=np.int64) for group in by_subject.values()]


def resample(groups: list[Rows], rng: np.random.Generator) -> list[Rows]:
    """Draw the scans of as many subjects as there are, with replacement."""
    return [groups[g] for g in rng.integers(len(groups), size=len(groups))]


def interval(
    resampled: Callable[[np.random.Generator], FloatArray],
    grid: FloatArray,
    bootstraps: int,
    seed: int,
) -> tuple[float, float]:
    """95 % interval of the best threshold of resampled curves; NaN without resamplings."""
    if not bootstraps:
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    chosen = [grid[best_of(resampled(rng), grid)] for _ in range(bootstraps)]
    # Quantiles are thresholds of the grid, never values between two of them.
    low, high = np.quantile(chosen, (0.025, 0.975), method="inverted_cdf")
    return float(low), float(high)


def _leave_one_out(scored: Scored, groups: list[Rows], grid: FloatArray) -> float:
    held_out = np.full(len(scored.scores), np.nan)
    for rows in groups:
        others = np.concatenate([g for g in groups if g is not rows] or [rows[:0]])
        if not scored.decide(others):
            return float("nan")
        held_out[rows] = scored.scores[rows, best_of(scored.values(others), grid)]
    return float(scored.objective.summary(held_out[scored.bearing]))
