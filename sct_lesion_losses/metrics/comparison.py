"""Paired comparisons over a cohort: of thresholds of one bundle, and of bundles."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from sct_lesion_losses.metrics.scan_score import MEASURES, ByBundle, ScanScore
from sct_lesion_losses.metrics.summary import Interval, SignedRank, holm, interval, wilcoxon

ALPHA = 0.05


@dataclass(frozen=True)
class Comparison:
    """One measure of two models, or of one at two thresholds, over the scans both have.

    Attributes
    ----------
    measure : str
        A key of `MEASURES`.
    first, second : str
        Bundles.
    thresholds : (float or None, float or None)
        Of first and second.
    difference : Interval
        Median over the scans of second less first, its 95 % interval by resampling subjects, and
        the number of scans.
    test : SignedRank
        Of second against first.
    p_holm : float
        p of the test, corrected over all comparisons made with it; NaN without scans, and for a
        model beside itself at one threshold, which is not counted for the correction.
    """

    measure: str
    first: str
    second: str
    thresholds: tuple[float | None, float | None]
    difference: Interval
    test: SignedRank
    p_holm: float

    @property
    def significant(self) -> bool:
        """Corrected p below 0.05."""
        return self.p_holm < ALPHA


def between_thresholds(
    untuned: ByBundle, tuned: ByBundle, measures: Sequence[str] = tuple(MEASURES)
) -> tuple[Comparison, ...]:
    """Compare every bundle at its tuned threshold with itself at 0.5.

    Parameters
    ----------
    untuned, tuned : ByBundle
        From the functions of these names in `scan_score`; a bundle that is not in both is left out.
    measures : sequence of str

    Returns
    -------
    tuple of Comparison
        Bundle by bundle, corrected over those that were tuned to another threshold than 0.5.
    """
    pairs = ((untuned[bundle], rows) for bundle, rows in tuned.items() if bundle in untuned)
    return _corrected(_compared(pairs, measures))


def between_bundles(
    scores: ByBundle, measures: Sequence[str] = ("V-F1", "L-F1")
) -> tuple[Comparison, ...]:
    """Compare every two bundles.

    Parameters
    ----------
    scores : ByBundle
        From `scan_score.tuned` or `scan_score.untuned`.
    measures : sequence of str

    Returns
    -------
    tuple of Comparison
        Pair by pair, corrected over all of them.
    """
    return _corrected(_compared(combinations(scores.values(), 2), measures))


def _compared(
    pairs: Iterable[tuple[Mapping[str, ScanScore], Mapping[str, ScanScore]]],
    measures: Sequence[str],
) -> Iterator[Comparison]:
    for first, second in pairs:
        one, other = next(iter(first.values())), next(iter(second.values()))
        both = [scan for scan in first if scan in second]
        subjects = [first[scan].subject for scan in both]
        for measure in measures:
            value = MEASURES[measure]
            a = [value(first[scan]) for scan in both]
            b = [value(second[scan]) for scan in both]
            changes = [y - x for x, y in zip(a, b, strict=True)]
            test = wilcoxon(a, b)
            yield Comparison(
                measure,
                one.bundle,
                other.bundle,
                (one.threshold, other.threshold),
                interval(changes, subjects),
                test,
                test.p,
            )


def _corrected(found: Iterable[Comparison]) -> tuple[Comparison, ...]:
    listed = list(found)
    adjusted = holm([math.nan if _itself(c) else c.test.p for c in listed])
    return tuple(replace(c, p_holm=p) for c, p in zip(listed, adjusted, strict=True))


def _itself(comparison: Comparison) -> bool:
    """Whether the two sides are one model at one threshold."""
    first, second = comparison.thresholds
    return comparison.first == comparison.second and first == second
