"""A site's decision threshold: its own curve, shrunk towards the one a bundle is shipped with.

A handful of scans says little of the threshold that suits their site; the scans that a bundle was
tuned on say more, but of other scanners. Both are weighed:

    combined(t) = weight · local(t) + (1 − weight) · shipped(t)

where local and shipped are the curves of the objective, the median V-F1 for one.

The weight follows from a normal model of the curves of subjects, each the mean over the subject's
scans, less its own mean over the thresholds: a scan that is harder at every threshold says nothing
of which is best. With σ² the variance between the subjects of one group, δ² the variance of the
difference between a site and the shipped group (both averaged over the thresholds), n local and m
shipped subjects, and a flat prior for the curve of the shipped group, the posterior mean of the
site's curve has the weight

    weight(ρ) = (ρ + 1/m) / (ρ + 1/m + 1/n),  ρ = δ²/σ²,

which is the credibility n / (n + k) of Bühlmann (1967) with k = 1 / (ρ + 1/m). It goes to 0 with n
and to 1 as n grows. σ² is pooled within the two groups. ρ is not known: all that tells of it is one
difference between two mean curves, of mean square D², for which

    ν D² / (σ² (ρ + 1/m + 1/n)) ~ χ²(ν),

with ν = tr(Σ)² / tr(Σ²) independent directions in curves of covariance Σ (Satterthwaite 1946). So ρ
has the uniform shrinkage prior (Christiansen and Morris 1997; Daniels 1999): 1 / (1 + kρ) is
uniform in (0, 1) for k = `PRIOR_SUBJECTS`, the number of local subjects to which the prior gives
half of the weight, whatever m. The weight is the mean of weight(ρ) over the posterior of ρ.

References
----------
Bühlmann 1967, "Experience rating and credibility", ASTIN Bulletin 4.
Christiansen and Morris 1997, "Hierarchical Poisson regression modeling", Journal of the American
Statistical Association 92.
Daniels 1999, "A prior for the variance in hierarchical models", Canadian Journal of Statistics 27.
Satterthwaite 1946, "An approximate distribution of estimates of variance components", Biometrics
Bulletin 2.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sct_lesion_losses.errors import DataError, UsageError
from sct_lesion_losses.thresholds.choose import (
    BOOTSTRAPS,
    STEP,
    best_of,
    loss_at,
    plateau_of,
    rows_by_subject,
)
from sct_lesion_losses.thresholds.objectives import OBJECTIVES, TIE, FloatArray

PRIOR_SUBJECTS = 5
_NODES = (np.arange(200) + 0.5) / 200  # midpoints for the integral over the prior
_LEAST_VARIANCE = 1e-12

Rows = list[NDArray[np.int64]]
Summary = Callable[[FloatArray], FloatArray]


@dataclass(frozen=True, eq=False)
class Curves:
    """The objective of every scan of a group at every threshold.

    Attributes
    ----------
    scores : (N, T) float64
        Of scans with lesions; no NaN.
    subjects : (N,) sequence of hashable
        Whose scan each is.
    """

    scores: FloatArray
    subjects: Sequence[Hashable]


@dataclass(frozen=True, eq=False)
class Recalibration:
    """A site's threshold, and how firmly its scans decide it.

    Attributes
    ----------
    threshold : float
        The optimum of the combined curve.
    shipped_threshold, local_threshold : float
        The bundle's own, and the optimum of the local curve alone.
    weight : float
        Of the local curve, in (0, 1).
    objective : str
        A key of `objectives.OBJECTIVES`.
    thresholds : (T,) float64
    curve, local_curve, shipped_curve : (T,) float64
        The objective at each threshold: combined, of the local scans, of the shipped ones; NaN at
        thresholds that are not allowed.
    per_scan : (N, T) float64
        Of the local scans.
    interval : tuple of float
        95 % bootstrap interval of the threshold: the subjects of both groups are resampled, each
        group by itself, and the weight is found anew; NaN without resamplings, and with local scans
        of one subject.
    plateau : tuple of float
        Lowest and highest threshold around the chosen one, without a gap, at which the combined
        curve is within 2 % of its best.
    loss_below, loss_above : float
        What the combined curve loses 0.05 below and 0.05 above the threshold; NaN beyond the grid.
    held_out, held_out_shipped : float
        The objective over the local scans, each scored at the threshold that the shipped curve and
        the other local subjects give, and each scored at the shipped threshold. The first is NaN
        with one subject.
    n_scans, n_subjects : int
        Local scans with lesions, and their subjects.
    at_end : bool
        The optimum of the combined curve lies at an end of the grid.
    """

    threshold: float
    shipped_threshold: float
    local_threshold: float
    weight: float
    objective: str
    thresholds: FloatArray
    curve: FloatArray
    local_curve: FloatArray
    shipped_curve: FloatArray
    per_scan: FloatArray
    interval: tuple[float, float]
    plateau: tuple[float, float]
    loss_below: float
    loss_above: float
    held_out: float
    held_out_shipped: float
    n_scans: int
    n_subjects: int
    at_end: bool

    @property
    def best(self) -> float:
        """The best that a threshold does on the local scans."""
        return float(np.nanmax(self.local_curve))

    @property
    def useful(self) -> bool:
        """Whether it is not the one that marks every voxel, and any is good on the local scans."""
        return self.threshold > 0 and self.best > TIE


def recalibrate(
    local: Curves,
    shipped: Curves,
    thresholds: ArrayLike,
    shipped_threshold: float,
    *,
    objective: str = "median_v_f1",
    allowed: ArrayLike | None = None,
    bootstraps: int = BOOTSTRAPS,
    seed: int = 0,
) -> Recalibration:
    """Choose a site's threshold by its own curve and the shipped one together.

    Ties within 1e-12 go to the threshold nearest to 0.5, then to the higher one.

    Parameters
    ----------
    local, shipped : Curves
        Of the site's scans, and of those that the bundle was tuned on.
    thresholds : (T,) array_like
        Rising, in [0, 1]; those of both groups.
    shipped_threshold : float
        One of them.
    objective : str
        A key of `objectives.OBJECTIVES`, the one that both groups were scored by.
    allowed : (T,) array_like of bool, optional
        Thresholds to choose from: those that reach a P-specificity on the lesion-free scans that
        the bundle was tuned on, for one; all of them by default.
    bootstraps : int
        Resamplings of the subjects.
    seed : int
        Of the bootstrap.

    Returns
    -------
    Recalibration

    Raises
    ------
    DataError
        A group holds no scan.
    UsageError
        The objective is unknown, or the curves, subjects and thresholds do not belong together.
    """
    if objective not in OBJECTIVES:
        raise UsageError(f"no objective is named {objective!r}; choose from {sorted(OBJECTIVES)}")
    statistic = OBJECTIVES[objective].statistic
    grid = np.asarray(thresholds, dtype=np.float64)
    left_out = np.zeros(len(grid)) if allowed is None else np.where(allowed, 0.0, np.nan)

    def summary(scores: FloatArray) -> FloatArray:
        return np.asarray(statistic(scores, axis=0) + left_out)

    _check("local", local, grid)
    _check("shipped", shipped, grid)
    at_shipped = np.flatnonzero(np.abs(grid - shipped_threshold) < 1e-9)
    if not at_shipped.size:
        raise UsageError(f"the shipped threshold {shipped_threshold} is none of {grid.tolist()}")
    ours, theirs = _groups(local), _groups(shipped)
    mine, others = local.scores, shipped.scores
    weight, curve = _combined(mine, ours, others, theirs, summary)
    best = best_of(curve, grid)
    local_curve = summary(mine)
    held_out = np.full(len(mine), np.nan)
    for subject in ours if len(ours) > 1 else []:
        rest = [rows for rows in ours if rows is not subject]
        held_out[subject] = mine[
            subject, best_of(_combined(mine, rest, others, theirs, summary)[1], grid)
        ]
    return Recalibration(
        threshold=float(grid[best]),
        shipped_threshold=float(shipped_threshold),
        local_threshold=float(grid[best_of(local_curve, grid)]),
        weight=weight,
        objective=objective,
        thresholds=grid,
        curve=curve,
        local_curve=local_curve,
        shipped_curve=summary(others),
        per_scan=mine,
        interval=_interval(mine, ours, others, theirs, grid, summary, bootstraps, seed),
        plateau=plateau_of(curve, best, grid),
        loss_below=loss_at(curve, grid, best, -STEP),
        loss_above=loss_at(curve, grid, best, STEP),
        held_out=float(statistic(held_out, axis=0)),
        held_out_shipped=float(statistic(mine[:, at_shipped[0]], axis=0)),
        n_scans=len(mine),
        n_subjects=len(ours),
        at_end=best in (0, len(grid) - 1),
    )


def weight_of(local: FloatArray, shipped: FloatArray) -> float:
    """Weight of the local curve, from the curves of the subjects of both groups.

    Parameters
    ----------
    local : (n, T) float64
        One curve a subject.
    shipped : (m, T) float64

    Returns
    -------
    float, in (0, 1)
        With one subject in each group nothing tells of the variance: the weight of the prior.
    """
    local, shipped = (group - group.mean(axis=1, keepdims=True) for group in (local, shipped))
    n, m = len(local), len(shipped)
    if n + m <= 2:
        return credibility(n, m)
    apart = np.concatenate([group - group.mean(axis=0) for group in (local, shipped)])
    covariance = apart.T @ apart / (n + m - 2)
    total = float(np.trace(covariance))
    variance = total / len(covariance)
    if variance < _LEAST_VARIANCE:
        directions, variance = 1.0, _LEAST_VARIANCE
    else:
        directions = total**2 / float((covariance**2).sum())
    difference = float(((local.mean(axis=0) - shipped.mean(axis=0)) ** 2).mean())
    return credibility(n, m, difference / variance, directions)


def credibility(n: float, m: float, difference: float = 0.0, directions: float = 0.0) -> float:
    """Posterior mean of weight(ρ); the formulas are those of the module.

    Parameters
    ----------
    n, m : float
        Local and shipped subjects.
    difference : float
        D² / σ²: mean square of the difference between the groups, over the variance in them.
    directions : float
        ν; 0 leaves what the prior says.

    Returns
    -------
    float, in (0, 1)
    """
    ratio = (1 - _NODES) / (PRIOR_SUBJECTS * _NODES)
    spread = ratio + 1 / m + 1 / n
    log_likelihood = -directions / 2 * (np.log(spread) + difference / spread)
    posterior = np.exp(log_likelihood - log_likelihood.max())
    return float(posterior @ ((ratio + 1 / m) / spread) / posterior.sum())


def _groups(group: Curves) -> Rows:
    """Rows of each subject."""
    return rows_by_subject(np.arange(len(group.scores)), group.subjects)


def _check(name: str, group: Curves, grid: FloatArray) -> None:
    if len(group.scores) == 0:
        raise DataError(f"no {name} scan holds lesions, so no threshold can be chosen; add some")
    if group.scores.shape != (len(group.subjects), len(grid)):
        raise UsageError(
            f"the {name} curves have shape {group.scores.shape}, expected one of "
            f"{len(grid)} thresholds for each of {len(group.subjects)} scans"
        )
    if np.isnan(group.scores).any():
        raise UsageError(f"the {name} curves hold NaN; leave scans without lesions out")


def _combined(
    local: FloatArray, ours: Rows, shipped: FloatArray, theirs: Rows, summary: Summary
) -> tuple[float, FloatArray]:
    """Weight and combined curve of the scans that the rows of each group name."""
    weight = weight_of(_by_subject(local, ours), _by_subject(shipped, theirs))
    curves = summary(local[np.concatenate(ours)]), summary(shipped[np.concatenate(theirs)])
    return weight, weight * curves[0] + (1 - weight) * curves[1]


def _by_subject(scores: FloatArray, groups: Rows) -> FloatArray:
    return np.stack([scores[rows].mean(axis=0) for rows in groups])


def _interval(
    local: FloatArray,
    ours: Rows,
    shipped: FloatArray,
    theirs: Rows,
    grid: FloatArray,
    summary: Summary,
    bootstraps: int,
    seed: int,
) -> tuple[float, float]:
    if not bootstraps or len(ours) < 2:  # one site subject, resampled, is always the same
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    chosen = np.empty(bootstraps)
    for b in range(bootstraps):
        drawn, others = (
            [groups[g] for g in rng.integers(len(groups), size=len(groups))]
            for groups in (ours, theirs)
        )
        chosen[b] = grid[best_of(_combined(local, drawn, shipped, others, summary)[1], grid)]
    # Quantiles are thresholds of the grid, never values between two of them.
    low, high = np.quantile(chosen, (0.025, 0.975), method="inverted_cdf")
    return float(low), float(high)
