"""Paired comparisons over a cohort: of thresholds of one bundle, and of bundles."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from sct_lesion_losses.errors import DataError
from sct_lesion_losses.metrics import UNTUNED, patientwise, statistics
from sct_lesion_losses.metrics.lesionwise import LesionScore
from sct_lesion_losses.metrics.patientwise import PatientScore
from sct_lesion_losses.metrics.statistics import Interval, SignedRank, Spread
from sct_lesion_losses.metrics.voxelwise import VoxelScore


@dataclass(frozen=True)
class ScanScore:
    """Scores of one bundle on one scan at one threshold.

    Attributes
    ----------
    scan : str
        Its name, the same for every bundle: scans are paired by it.
    subject, site : str
        Site is empty where it is not known.
    bundle : str
    threshold : float or None
        None where masks come from a rule of the model's own, without a threshold.
    tuned : bool
        The threshold, or the rule, is the bundle's own operating point.
    voxels : VoxelScore
    lesions : LesionScore
    """

    scan: str
    subject: str
    site: str
    bundle: str
    threshold: float | None
    tuned: bool
    voxels: VoxelScore
    lesions: LesionScore


@dataclass(frozen=True)
class TruthLesion:
    """One lesion of a manual mask, and whether a bundle detects it at a threshold.

    Attributes
    ----------
    of : ScanScore
        Scores of its scan, by the rule that detects it or does not.
    label : int
        Its number in the mask.
    volume_mm3 : float
    detected : bool
    """

    of: ScanScore
    label: int
    volume_mm3: float
    detected: bool


MEASURES: dict[str, Callable[[ScanScore], float]] = {
    "V-F1": lambda row: row.voxels.f1,
    "V-sensitivity": lambda row: row.voxels.sensitivity,
    "V-precision": lambda row: row.voxels.precision,
    "L-F1": lambda row: row.lesions.f1,
    "L-sensitivity": lambda row: row.lesions.sensitivity,
    "L-precision": lambda row: row.lesions.precision,
}

# Rows by bundle, then by scan, both in the order in which they first appear.
ByBundle = dict[str, dict[str, ScanScore]]


def untuned(rows: Iterable[ScanScore]) -> ByBundle:
    """Choose the rows at threshold 0.5, of bundles that are tuned to it as well.

    Raises
    ------
    DataError
        See `tuned`.
    """
    return _by_bundle(row for row in rows if row.threshold == UNTUNED)


def tuned(rows: Iterable[ScanScore]) -> ByBundle:
    """Choose the rows at the operating point of each bundle.

    Raises
    ------
    DataError
        A bundle has two of them for one scan: by two lesion presets, or of two scans of one name.
    """
    return _by_bundle(row for row in rows if row.tuned)


def spread(rows: Iterable[ScanScore], measure: str) -> Spread:
    """Spread of a measure, a key of `MEASURES`, over the scans where it is defined."""
    return statistics.spread([MEASURES[measure](row) for row in rows])


def interval(rows: Sequence[ScanScore], measure: str) -> Interval:
    """Median of a measure over the same scans, its 95 % interval by resampling their subjects."""
    values = [MEASURES[measure](row) for row in rows]
    return statistics.interval(values, [row.subject for row in rows])


def patients(rows: Iterable[ScanScore]) -> PatientScore:
    """P-sensitivity and P-specificity; see `patientwise.score`."""
    return patientwise.score([row.lesions for row in rows])


def _by_bundle(rows: Iterable[ScanScore]) -> ByBundle:
    chosen: ByBundle = {}
    for row in rows:
        there = chosen.setdefault(row.bundle, {}).setdefault(row.scan, row)
        # A bundle that is tuned to 0.5 may have a row as tuned and one as untuned.
        if there is not row and there.tuned == row.tuned:
            raise DataError(
                f"bundle {row.bundle} has two rows for scan {row.scan}; choose the rows of one "
                "lesion preset, and give every scan of the cohort a name of its own"
            )
    return chosen


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
    def of_itself(self) -> bool:
        """One model at one threshold, beside itself."""
        return self.first == self.second and self.thresholds[0] == self.thresholds[1]

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
        From the functions of these names; a bundle that is not in both is left out.
    measures : sequence of str

    Returns
    -------
    tuple of Comparison
        Bundle by bundle, corrected over those that were tuned to another threshold than 0.5.
    """
    pairs = ((untuned[bundle], rows) for bundle, rows in tuned.items() if bundle in untuned)
    return _compared(pairs, measures)


def between_bundles(
    scores: ByBundle, measures: Sequence[str] = ("V-F1", "L-F1")
) -> tuple[Comparison, ...]:
    """Compare every two bundles.

    Parameters
    ----------
    scores : ByBundle
        From `tuned` or `untuned`.
    measures : sequence of str

    Returns
    -------
    tuple of Comparison
        Pair by pair, corrected over all of them.
    """
    return _compared(combinations(scores.values(), 2), measures)


def _compared(
    pairs: Iterable[tuple[Mapping[str, ScanScore], Mapping[str, ScanScore]]],
    measures: Sequence[str],
) -> tuple[Comparison, ...]:
    found = []
    for first, second in pairs:
        one, other = next(iter(first.values())), next(iter(second.values()))
        both = [scan for scan in first if scan in second]
        subjects = [first[scan].subject for scan in both]
        for measure in measures:
            a, b = ([MEASURES[measure](rows[scan]) for scan in both] for rows in (first, second))
            found.append(
                Comparison(
                    measure,
                    one.bundle,
                    other.bundle,
                    (one.threshold, other.threshold),
                    statistics.interval(np.subtract(b, a), subjects),
                    statistics.wilcoxon(a, b),
                    math.nan,
                )
            )
    counted = [math.nan if one.of_itself else one.test.p for one in found]
    return tuple(replace(c, p_holm=p) for c, p in zip(found, statistics.holm(counted), strict=True))
