"""Statistics over the scans of a cohort: summaries, intervals, paired tests."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sct_lesion_losses.errors import UsageError

BOOTSTRAPS = 2000
EXACT_PAIRS = 16  # up to here the test counts every assignment of signs, ties or not
_DIGITS = 12  # 0.75 - 0.7 and 0.45 - 0.4 are one difference; as floats they are two


@dataclass(frozen=True)
class Interval:
    """A summary value with its 95 % bootstrap interval and the scans behind it.

    The bounds are NaN for fewer than 2 subjects.
    """

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Spread:
    """Middle and width of the scores of `n` scans; `std` has n - 1 below, NaN for one scan."""

    median: float
    mean: float
    std: float
    n: int


@dataclass(frozen=True)
class SignedRank:
    """Outcome of a two-sided Wilcoxon signed-rank test of b against a.

    Attributes
    ----------
    statistic : float
        The smaller of the rank sums of rising and of falling pairs.
    p : float
    n : int
        Effective pairs: those that differ.
    rank_biserial : float
        Effect size in [-1, 1]: rank sum of rising less that of falling pairs, over their total.
    """

    statistic: float
    p: float
    n: int
    rank_biserial: float


def interval(
    values: ArrayLike,
    subjects: Sequence[Hashable],
    statistic: Callable[..., Any] = np.median,
    *,
    bootstraps: int = BOOTSTRAPS,
    seed: int = 0,
) -> Interval:
    """Summarise scans by a statistic, with a 95 % interval from resampling whole subjects.

    Parameters
    ----------
    values : (N,) array_like
        One per scan; NaN is left out.
    subjects : sequence of N hashable
        Whose scan each is.
    statistic : callable
        `np.median`, or another that takes an array and an axis, as it does.
    bootstraps, seed : int

    Returns
    -------
    Interval
        NaN throughout where no scan is left; bounds of NaN where those left are of one subject.
    """
    numbers = np.asarray(values, dtype=np.float64)
    known = ~np.isnan(numbers)
    numbers = numbers[known]
    groups = by_subject(list(compress(subjects, known)))
    value = float(statistic(numbers, axis=0)) if len(numbers) else float("nan")
    if len(groups) < 2:  # one subject resampled is always the same
        return Interval(value, float("nan"), float("nan"), len(numbers))
    counts = np.array([len(rows) for rows in groups])
    scans = np.full((len(groups), counts.max()), np.nan)  # of each subject, filled up with NaN
    for own, rows in zip(scans, groups, strict=True):
        own[: len(rows)] = numbers[rows]
    chosen = np.random.default_rng(seed).integers(len(groups), size=(bootstraps, len(groups)))
    sizes = counts[chosen].sum(axis=1)
    drawn = np.empty(bootstraps)
    for size in np.unique(sizes):  # resamplings of as many scans are one array
        resampled = scans[chosen[sizes == size]]
        rows_of_scans = resampled[~np.isnan(resampled)].reshape(-1, size)
        drawn[sizes == size] = statistic(rows_of_scans, axis=1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Interval(value, float(low), float(high), len(numbers))


def by_subject(subjects: Sequence[Hashable]) -> list[NDArray[np.int64]]:
    """Rows of each subject, in the order in which the subjects first appear."""
    rows: dict[Hashable, list[int]] = {}
    for row, subject in enumerate(subjects):
        rows.setdefault(subject, []).append(row)
    return [np.array(own, dtype=np.int64) for own in rows.values()]


def spread(values: ArrayLike) -> Spread:
    """Median, mean and standard deviation of the scores that are not NaN.

    Parameters
    ----------
    values : (N,) array_like
    """
    numbers = np.asarray(values, dtype=np.float64)
    numbers = numbers[~np.isnan(numbers)]
    n = len(numbers)
    return Spread(
        median=float(np.median(numbers)) if n else float("nan"),
        mean=float(np.mean(numbers)) if n else float("nan"),
        std=float(np.std(numbers, ddof=1)) if n > 1 else float("nan"),
        n=n,
    )


def wilcoxon(a: ArrayLike, b: ArrayLike) -> SignedRank:
    """Two-sided Wilcoxon signed-rank test of b against a, paired by position.

    Pairs with NaN are dropped, then pairs without a difference. Differences within 1e-12 are equal.

    Parameters
    ----------
    a, b : (N,) array_like
        Scores of the same scans.

    Returns
    -------
    SignedRank
        p is 1 and n is 0 where no pair differs; p is NaN where there is no pair at all.

    Raises
    ------
    UsageError
        The two differ in length.

    Notes
    -----
    With at most 16 effective pairs p is exact, with ties too. With more it is that of
    `scipy.stats.wilcoxon`: exact without ties, up to 50 pairs, and normal otherwise.

    References
    ----------
    Wilcoxon 1945, "Individual comparisons by ranking methods"; Kerby 2014, "The simple difference
    formula: an approach to teaching nonparametric correlation" (rank-biserial correlation)
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1:
        raise UsageError(
            f"scores have the shapes {first.shape} and {second.shape}, expected two lists over the "
            "same scans"
        )
    differences = np.round(second - first, _DIGITS)
    differences = differences[~np.isnan(differences)]
    if len(differences) == 0:
        return SignedRank(float("nan"), float("nan"), 0, float("nan"))
    differences = differences[differences != 0]
    n = len(differences)
    if n == 0:
        return SignedRank(0.0, 1.0, 0, 0.0)
    from scipy import stats  # takes long to load, and resampling does without

    ranks = stats.rankdata(np.abs(differences))
    rising, falling = float(ranks[differences > 0].sum()), float(ranks[differences < 0].sum())
    smaller = min(rising, falling)
    tied = len(np.unique(ranks)) < n
    if tied and n <= EXACT_PAIRS:
        p = _exact(ranks, smaller)
    else:
        p = float(stats.wilcoxon(differences).pvalue)
    return SignedRank(smaller, p, n, (rising - falling) / (rising + falling))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust the p-values of one table for being many; NaN stays NaN and is not counted.

    Parameters
    ----------
    p_values : sequence of float

    Returns
    -------
    list of float
        In the order given, at most 1.

    References
    ----------
    Holm 1979, "A simple sequentially rejective multiple test procedure"
    """
    p = np.asarray(p_values, dtype=np.float64)
    rising = np.argsort(p)[: np.count_nonzero(~np.isnan(p))]  # NaN comes last
    times = np.arange(len(rising), 0, -1)
    adjusted = np.full(len(p), np.nan)
    adjusted[rising] = np.minimum(1, np.maximum.accumulate(times * p[rising]))
    return adjusted.tolist()


def _exact(ranks: NDArray[np.float64], smaller: float) -> float:
    """Two-sided p of a rank sum, from all 2^n assignments of signs to the ranks."""
    doubled = np.rint(2 * ranks).astype(int)  # ties halve ranks
    ways = np.zeros(doubled.sum() + 1)
    ways[0] = 1
    for rank in doubled:
        ways[rank:] = ways[rank:] + ways[:-rank]
    return float(min(1.0, 2 * ways[: round(2 * smaller) + 1].sum() / ways.sum()))
