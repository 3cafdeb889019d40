"""Choice of the operating point from the curves of scans that were not trained on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from sct_lesion_losses.errors import DataError, UsageError
from sct_lesion_losses.metrics.statistics import BOOTSTRAPS, by_subject
from sct_lesion_losses.thresholds.curves import FloatArray, ScanCounts
from sct_lesion_losses.thresholds.objectives import TIE, Objective, Rows, score

logger = logging.getLogger(__name__)

PLATEAU = 0.02
STEP = 0.05
WIDE = 0.3  # an interval of the threshold as wide leaves it nearly open
FEW_SUBJECTS = 10  # fewer are warned of


@dataclass(frozen=True, eq=False, kw_only=True)
class Optimum:
    """The best threshold of a curve, and how firmly the scans decide it.

    Attributes
    ----------
    objective : Objective
        What the threshold makes best.
    thresholds : (T,) float64
        The grid.
    curve : (T,) float64
        The objective at each threshold; NaN where it does not allow the threshold.
    per_scan : (N, T) float64
        Scores of the scans with lesions.
    subjects : tuple of N hashable
        Whose scan each of these is.
    interval : tuple of float
        95 % bootstrap interval of the threshold, resampling subjects; NaN of one subject.
    leave_one_out : float
        The objective over all scans when each is scored at the threshold that the scans of the
        other subjects choose; NaN with one subject, and where the others alone cannot choose.
    """

    objective: Objective
    thresholds: FloatArray
    curve: FloatArray
    per_scan: FloatArray
    subjects: tuple[Hashable, ...]
    interval: tuple[float, float]
    leave_one_out: float

    @property
    def n_scans(self) -> int:
        """Scans with lesions, which decided."""
        return len(self.per_scan)

    @property
    def n_subjects(self) -> int:
        """Subjects of these scans."""
        return len(set(self.subjects))

    @property
    def threshold(self) -> float:
        """The operating point."""
        return float(self.thresholds[self._at])

    @property
    def best(self) -> float:
        """The objective at the threshold."""
        return float(np.nanmax(self.curve))

    @property
    def useful(self) -> bool:
        """The threshold does better than none, and than marking every voxel."""
        return self.threshold > 0 and self.best > TIE

    @property
    def at_end(self) -> bool:
        """The optimum lies at an end of the grid."""
        return self._at in (0, len(self.thresholds) - 1)

    @property
    def plateau(self) -> tuple[float, float]:
        """Ends of the unbroken range around the threshold that is within 2 % of the best."""
        least = (1 - PLATEAU) * self.curve[self._at]
        return plateau(self.curve, self.thresholds, self._at, least)

    @property
    def losses(self) -> tuple[float, float]:
        """Loss of the objective 0.05 below and above the threshold; NaN beyond the grid."""
        return self._lost(-STEP), self._lost(STEP)

    @property
    def _at(self) -> int:
        return best_of(self.curve, self.thresholds)

    def _lost(self, step: float) -> float:
        there = np.flatnonzero(np.abs(self.thresholds - (self.threshold + step)) < 1e-9)
        return float(self.curve[self._at] - self.curve[there[0]]) if there.size else float("nan")


@dataclass(frozen=True, eq=False, kw_only=True)
class Choice(Optimum):
    """The chosen threshold, and how firmly the scans decide it.

    Attributes
    ----------
    warnings : tuple of str
        What is doubtful about the choice.
    """

    warnings: tuple[str, ...] = ()


def choose(
    scans: Sequence[ScanCounts],
    subjects: Sequence[Hashable] | None = None,
    *,
    objective: str | Objective = "median_v_f1",
    bootstraps: int = BOOTSTRAPS,
) -> Choice:
    """Choose the threshold with the best objective over the scans that hold lesions.

    Ties within 1e-12 go to the threshold nearest to 0.5, then to the higher one. What is doubtful
    about the choice is logged as well.

    Parameters
    ----------
    scans : sequence of ScanCounts
        One per scan, all over the same thresholds; lesion-wise objectives need those of `count`.
        Lesion-free scans are left out, unless the objective asks for a specificity.
    subjects : sequence of hashable, optional
        Whose scan each is; by default every scan is a subject of its own.
    objective : str or Objective
        A key of `thresholds.OBJECTIVES`, or one with its numbers.
    bootstraps : int
        Resamplings of the subjects. One that draws no scan of a kind that the objective needs is
        drawn again.

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
    if not any(scan.n_truth for scan in scans):
        raise DataError("no scan holds lesions, so no threshold can be chosen; add scans that do")
    grid = scans[0].thresholds
    if any(not np.array_equal(scan.thresholds, grid) for scan in scans):
        raise UsageError("the curves are over different thresholds; sweep all scans alike")
    scored = score(scans, wanted)
    if not scored.bearing.any():
        raise DataError(f"no scan holds lesions that count by the preset {wanted.preset}; add some")
    scored.require_reachable([f"threshold {threshold:g}" for threshold in grid])
    rows = np.flatnonzero(scored.bearing | scored.lesion_free)
    groups = [rows[own] for own in by_subject([owners[row] for row in rows])]
    deciding = np.flatnonzero(scored.bearing)

    def best(others: list[Rows]) -> int | None:
        found = scored.curve(others)
        return None if found is None else best_of(found, grid)

    curve = scored.curve([rows])
    assert curve is not None  # there are scans of every kind
    found = Choice(
        objective=wanted,
        thresholds=grid,
        curve=curve,
        per_scan=scored.scores[deciding],
        subjects=tuple(owners[row] for row in deciding),
        interval=interval(scored.curve, [groups], grid, bootstraps),
        leave_one_out=float(wanted.summary(held_out(scored.scores, groups, best)[deciding])),
    )
    warnings = list(doubts(found, FEW_SUBJECTS))
    if all(scan.n_truth for scan in scans):
        warnings.append("no lesion-free scan: P-specificity at this threshold is not known")
    for warning in warnings:
        logger.warning("%s", warning)
    return replace(found, warnings=tuple(warnings))


def doubts(found: Optimum, few: int) -> Iterator[str]:
    """Say what is doubtful about a threshold: the grid's end, a wide interval, few subjects.

    Parameters
    ----------
    found : Optimum
    few : int
        Fewer subjects are warned of.
    """
    if found.at_end:
        yield (
            f"the best threshold, {found.threshold:g}, lies at an end of the grid: the network "
            "separates lesion poorly on these scans, or its probabilities are far from calibrated"
        )
    low, high = found.interval
    if high - low > WIDE + TIE:
        yield (
            f"the 95 % interval of the threshold, {low:g} to {high:g}, is wider than {WIDE:g}: "
            "these scans leave it nearly open"
        )
    if found.n_subjects < few:
        yield f"subjects that decided: {found.n_subjects}, fewer than {few}"


def best_of(curve: FloatArray, grid: FloatArray) -> int:
    """Index of the best threshold, NaN left aside; ties to the nearest to 0.5, then the higher."""
    tied = np.flatnonzero(curve >= np.nanmax(curve) - TIE)
    distance = np.round(np.abs(grid[tied] - 0.5), 12)  # 0.3 and 0.7 are equally far
    return int(tied[np.lexsort((-grid[tied], distance))[0]])


def plateau(curve: FloatArray, grid: FloatArray, at: int, least: float) -> tuple[float, float]:
    """Return the ends of the unbroken range around a threshold in which a curve is not less."""
    runs, _ = ndimage.label(curve >= least - TIE)
    range_ = grid[runs == runs[at]]
    return float(range_[0]), float(range_[-1])


def interval(
    curve: Callable[..., FloatArray | None],
    cohorts: Sequence[list[Rows]],
    grid: FloatArray,
    bootstraps: int,
) -> tuple[float, float]:
    """95 % interval of the best threshold, resampling the subjects of every cohort.

    Parameters
    ----------
    curve : callable
        Told of the rows of the subjects drawn, a list a cohort: their curve; None where they
        cannot choose, then others are drawn.
    cohorts : sequence of list of int arrays
        Rows of each subject. NaN is returned if the first cohort is of one subject, which
        resampled is always the same.
    grid : (T,) float64
    bootstraps : int
    """
    if not bootstraps or len(cohorts[0]) < 2:
        return float("nan"), float("nan")
    rng = np.random.default_rng(0)
    chosen: list[float] = []
    while len(chosen) < bootstraps:
        picks = [rng.integers(len(groups), size=len(groups)) for groups in cohorts]
        drawn = [[groups[k] for k in own] for groups, own in zip(cohorts, picks, strict=True)]
        if (found := curve(*drawn)) is not None:
            chosen.append(grid[best_of(found, grid)])
    # Quantiles are thresholds of the grid, never values between two of them.
    low, high = np.quantile(chosen, (0.025, 0.975), method="inverted_cdf")
    return float(low), float(high)


def held_out(
    scores: FloatArray, groups: list[Rows], best: Callable[[list[Rows]], int | None]
) -> FloatArray:
    """Score the scans of each subject at what those of the others choose, (N,).

    Parameters
    ----------
    scores : (N, T) float64
        Of the scans at everything that is chosen from.
    groups : list of int arrays
        Rows of each subject; others are NaN in the result.
    best : callable
        Told of the rows of other subjects: the column that they choose, None where they cannot.

    Returns
    -------
    (N,) float64
        NaN throughout with one subject, and where the others of some cannot choose.
    """
    found = np.full(len(scores), np.nan)
    for rows in groups if len(groups) > 1 else ():
        column = best([others for others in groups if others is not rows])
        if column is None:
            return np.full(len(scores), np.nan)
        found[rows] = scores[rows, column]
    return found
