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

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from sct_lesion_losses.errors import DataError, UsageError
from sct_lesion_losses.metrics.statistics import BOOTSTRAPS, by_subject
from sct_lesion_losses.thresholds.choice import Optimum, best_of, held_out, interval
from sct_lesion_losses.thresholds.curves import FloatArray
from sct_lesion_losses.thresholds.objectives import Objective, Rows

PRIOR_SUBJECTS = 5
_NODES = (np.arange(200) + 0.5) / 200  # midpoints for the integral over the prior
_LEAST_VARIANCE = 1e-12


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


@dataclass(frozen=True, eq=False, kw_only=True)
class Recalibration(Optimum):
    """A site's threshold, and how firmly its scans decide it.

    The curve is the combined one, `per_scan` that of the local scans; the interval resamples the
    subjects of both groups, each by itself, and finds the weight anew. `leave_one_out` scores each
    local scan at the threshold that the shipped curve and the other local subjects give.

    Attributes
    ----------
    shipped_threshold, local_threshold : float
        The bundle's own, and the optimum of the local curve alone.
    weight : float
        Of the local curve, in (0, 1).
    local_curve, shipped_curve : (T,) float64
        The objective at each threshold, of the local scans and of the shipped ones; NaN at
        thresholds that are not allowed.
    held_out_shipped : float
        The objective over the local scans, each scored at the shipped threshold.
    """

    shipped_threshold: float
    local_threshold: float
    weight: float
    local_curve: FloatArray
    shipped_curve: FloatArray
    held_out_shipped: float

    @property
    def best(self) -> float:
        """The best that a threshold does on the local scans."""
        return float(np.nanmax(self.local_curve))


def recalibrate(
    local: Curves,
    shipped: Curves,
    thresholds: ArrayLike,
    shipped_threshold: float,
    *,
    objective: Objective = Objective(),  # noqa: B008 (frozen)
    allowed: ArrayLike | None = None,
    bootstraps: int = BOOTSTRAPS,
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
    objective : Objective
        The one that both groups were scored by.
    allowed : (T,) array_like of bool, optional
        Thresholds to choose from: those that reach a P-specificity on the lesion-free scans that
        the bundle was tuned on, for one; all of them by default.
    bootstraps : int
        Resamplings of the subjects.

    Returns
    -------
    Recalibration

    Raises
    ------
    DataError
        A group holds no scan.
    UsageError
        The shipped curves have gaps.
    """
    if len(local.scores) == 0:
        raise DataError("no local scan holds lesions, so no threshold can be chosen; add some")
    if np.isnan(shipped.scores).any():
        raise UsageError("the shipped curves hold NaN; tune the bundle anew")
    grid = np.asarray(thresholds, dtype=np.float64)
    forbidden = np.zeros(len(grid)) if allowed is None else np.where(allowed, 0.0, np.nan)
    at_shipped = np.abs(grid - shipped_threshold).argmin()
    ours, theirs = by_subject(local.subjects), by_subject(shipped.subjects)

    def summary(scores: FloatArray) -> FloatArray:
        return objective.summary(scores) + forbidden

    def combined(our_rows: list[Rows], their_rows: list[Rows]) -> tuple[float, FloatArray]:
        groups = ((local.scores, our_rows), (shipped.scores, their_rows))
        weight = weight_of(*(np.stack([s[r].mean(axis=0) for r in rows]) for s, rows in groups))
        own, other = (summary(scores[np.concatenate(rows)]) for scores, rows in groups)
        return weight, weight * own + (1 - weight) * other

    weight, curve = combined(ours, theirs)
    local_curve = summary(local.scores)
    left_out = held_out(
        local.scores, ours, lambda others: best_of(combined(others, theirs)[1], grid)
    )
    return Recalibration(
        objective=objective,
        thresholds=grid,
        curve=curve,
        per_scan=local.scores,
        subjects=tuple(local.subjects),
        interval=interval(lambda *drawn: combined(*drawn)[1], [ours, theirs], grid, bootstraps),
        leave_one_out=float(objective.summary(left_out)),
        shipped_threshold=float(shipped_threshold),
        local_threshold=float(grid[best_of(local_curve, grid)]),
        weight=weight,
        local_curve=local_curve,
        shipped_curve=summary(shipped.scores),
        held_out_shipped=float(objective.summary(local.scores[:, at_shipped])),
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
    variance = max(total / len(covariance), _LEAST_VARIANCE)
    directions = total**2 / float((covariance**2).sum()) if variance > _LEAST_VARIANCE else 1.0
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
