"""Summaries over the scans of a cohort, with intervals that resample subjects."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sct_lesion_losses.metrics.components import components

FOUND = 0.25  # share of a lesion that must be covered; Hussein et al. 2023, section 2.6
BOOTSTRAPS = 2000


@dataclass(frozen=True)
class Interval:
    """A summary value with its 95 % bootstrap interval and the scans behind it."""

    value: float
    low: float
    high: float
    n: int


def lesions_found(
    truth: NDArray[np.bool_], prediction: NDArray[np.bool_], share: float = FOUND
) -> tuple[int, int]:
    """How many lesions of the manual mask are covered by at least a share, and how many there are.

    Parameters
    ----------
    truth, prediction : (X, Y, Z) bool
    share : float

    Returns
    -------
    tuple of int
        Lesions found, lesions there are (18-neighbour components).
    """
    labels = components(truth)
    sizes = np.bincount(labels[labels > 0], minlength=int(labels.max()) + 1)[1:]
    covered = np.bincount(labels[prediction & (labels > 0)], minlength=len(sizes) + 1)[1:]
    return int(np.count_nonzero(covered >= share * sizes)), len(sizes)


def interval(
    values: Sequence[float],
    subjects: Sequence[Hashable],
    statistic: Callable[[NDArray[np.float64]], Any] = np.median,
    *,
    bootstraps: int = BOOTSTRAPS,
    seed: int = 0,
) -> Interval:
    """Summarise scans by a statistic, with a 95 % interval from resampling whole subjects.

    Parameters
    ----------
    values : sequence of N float
        One per scan; NaN is left out.
    subjects : sequence of N hashable
        Whose scan each is.
    statistic : callable
        From a (n,) array to a number.
    bootstraps, seed : int

    Returns
    -------
    Interval
        NaN throughout where no scan is left.
    """
    kept = [(v, s) for v, s in zip(values, subjects, strict=True) if not np.isnan(v)]
    if not kept:
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    numbers = np.array([v for v, _ in kept], dtype=np.float64)
    owners = list(dict.fromkeys(s for _, s in kept))
    rows = [np.flatnonzero([s == owner for _, s in kept]) for owner in owners]
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(bootstraps):
        chosen = np.concatenate([rows[i] for i in rng.integers(len(rows), size=len(rows))])
        drawn.append(statistic(numbers[chosen]))
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Interval(float(statistic(numbers)), float(low), float(high), len(numbers))
