"""Filter of predicted lesions: a second operating point, per lesion, or one with the threshold.

How many lesions are found at what number of false ones is told by the free-response ROC curve.

References
----------
Bunch et al. 1977, "A free response approach to the measurement and characterization of radiographic
observer performance", Proceedings of SPIE 127.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sct_lesion_losses.errors import DataError
from sct_lesion_losses.metrics import PRESETS, lesionwise
from sct_lesion_losses.metrics.lesionwise import LesionScore, Overlap
from sct_lesion_losses.metrics.statistics import BOOTSTRAPS, by_subject
from sct_lesion_losses.metrics.voxelwise import VoxelScore
from sct_lesion_losses.thresholds.binarization import BoolArray, binarize, compared
from sct_lesion_losses.thresholds.choice import Choice, best_of, interval
from sct_lesion_losses.thresholds.curves import FloatArray
from sct_lesion_losses.thresholds.objectives import TIE, Objective, Rows, Scored

PRESET = PRESETS["paper"]  # decides which lesions are detected; of the filter's neighbours, too
# Finer towards 1: networks trained with overlap losses hardly give any other value inside a lesion.
PEAKS = (*(k / 20 for k in range(1, 20)), 0.96, 0.97, 0.98, 0.99, 0.995, 0.999)
VOLUMES_MM3 = (0.0, 1.0, 2.0, 3.0, 5.0, 10.0, 15.0, 20.0, 30.0, 50.0)


@dataclass(frozen=True)
class Filter:
    """Least peak and volume of a predicted lesion that is kept.

    Attributes
    ----------
    peak : float
        Least highest probability, in [0, 1].
    volume_mm3 : float
        Least volume.
    """

    peak: float = 0.0
    volume_mm3: float = 0.0

    @property
    def words(self) -> str:
        """What a lesion that is kept has.

        >>> Filter(0.5, 3).words
        'a highest probability of at least 0.5 and at least 3 mm³'
        """
        volume = f" and at least {self.volume_mm3:g} mm³" if self.volume_mm3 else ""
        return f"a highest probability of at least {self.peak:g}{volume}"

    def keeps(
        self, sizes: NDArray[np.int64], peaks: NDArray[np.floating[Any]], voxel_mm3: float
    ) -> BoolArray:
        """Lesions of so many voxels that are kept; peaks are compared as `binarize` does."""
        high = peaks >= compared(np.float64(self.peak), peaks.dtype)
        return np.asarray(high & (sizes * voxel_mm3 >= self.volume_mm3 * (1 - lesionwise.ROUNDING)))


# By rising peak, then volume: of two that do the same the first is the laxer.
FILTERS = tuple(Filter(peak, volume) for peak in (0.0, *PEAKS) for volume in VOLUMES_MM3)


@dataclass(frozen=True, eq=False)
class Candidates:
    """The predicted lesions of one scan: what every filter's counts follow from.

    Attributes
    ----------
    table : Overlap
        Of the lesions of the manual mask and the predicted ones, the small ones with them.
    peaks : (T,) floating
        Highest probability of each predicted lesion, in the dtype of the p-map.
    voxel_mm3 : float
        Volume of a voxel.
    """

    table: Overlap
    peaks: NDArray[np.floating[Any]]
    voxel_mm3: float

    def to_dict(self) -> dict[str, Any]:
        """Return the lesions as plain values, for a file; see `from_dict`."""
        return {
            "table": self.table.to_dict(),
            "peaks": self.peaks.tolist(),
            "dtype": self.peaks.dtype.name,
            "voxel_mm3": self.voxel_mm3,
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Candidates:
        """Return the lesions that `to_dict` wrote.

        Raises
        ------
        KeyError, TypeError, ValueError
            It did not.
        """
        peaks = np.array(stored["peaks"], dtype=np.dtype(stored["dtype"]))
        return cls(Overlap.from_dict(stored["table"]), peaks, float(stored["voxel_mm3"]))

    def score(self, rule: Filter) -> LesionScore:
        """Score what is left once a filter has been applied."""
        return lesionwise.score_of(self._left(rule), PRESET, self.voxel_mm3)

    def voxel_score(self, rule: Filter) -> VoxelScore:
        """Score the voxels of what is left once a filter has been applied."""
        left = self._left(rule)
        n_truth, n_predicted = int(left.truth_sizes.sum()), int(left.predicted_sizes.sum())
        return VoxelScore(n_truth, n_predicted, int(left.voxels.sum()))

    def scores(self, rules: Sequence[Filter]) -> list[LesionScore]:
        """Score what each of many filters leaves; few of them differ on one scan."""
        known: dict[bytes, LesionScore] = {}
        found = []
        for rule in rules:
            kept = rule.keeps(self.table.predicted_sizes, self.peaks, self.voxel_mm3).tobytes()
            if kept not in known:
                known[kept] = self.score(rule)
            found.append(known[kept])
        return found

    def found(self, rule: Filter) -> BoolArray:
        """Tell which lesions of the manual mask, (R,), what a filter leaves detects."""
        return lesionwise.detected(self._left(rule), PRESET)[0]

    def _left(self, rule: Filter) -> Overlap:
        every = np.ones(len(self.table.truth_sizes), dtype=bool)
        kept = rule.keeps(self.table.predicted_sizes, self.peaks, self.voxel_mm3)
        return self.table.only(every, kept)


def candidates(
    truth: BoolArray,
    pmap: NDArray[np.floating[Any]],
    threshold: float,
    voxel_mm3: float,
) -> Candidates:
    """Note of every predicted lesion of a scan what a filter asks for.

    Parameters
    ----------
    truth, pmap
        See `sweep`.
    threshold : float
        Of a voxel, in (0, 1].
    voxel_mm3 : float
        Volume of a voxel.

    Returns
    -------
    Candidates

    Raises
    ------
    UsageError
        The threshold or the p-map cannot be used; see `binarization.binarize`.
    """
    mask = binarize(pmap, threshold)
    box = lesionwise.bounding_box(truth | mask)
    predicted = lesionwise.components(mask[box])
    return Candidates(
        lesionwise.overlap(lesionwise.components(truth[box]), predicted),
        _peaks(predicted, pmap[box]),
        voxel_mm3,
    )


def mask_at(
    pmap: NDArray[np.floating[Any]], threshold: float, voxel_mm3: float, rule: Filter | None
) -> tuple[BoolArray, int, int]:
    """Mask of a p-map: the lesions at a threshold that a filter keeps.

    Parameters
    ----------
    pmap : (X, Y, Z) floating, in [0, 1]
    threshold : float
        Of a voxel, in [0, 1]; see `binarization.binarize`.
    voxel_mm3 : float
        Volume of a voxel.
    rule : Filter or None
        None keeps everything.

    Returns
    -------
    mask : (X, Y, Z) bool
    predicted, removed : int
        Lesions at the threshold, and those of them that the filter does not keep; 0 without one.

    Raises
    ------
    UsageError
        The threshold or the p-map cannot be used; see `binarization.binarize`.
    """
    mask = binarize(pmap, threshold)
    if rule is None:
        return mask, 0, 0
    labels = lesionwise.components(mask)
    kept = rule.keeps(lesionwise.sizes(labels), _peaks(labels, pmap), voxel_mm3)
    mask = np.asarray(np.concatenate([[False], kept])[labels])
    return mask, len(kept), int(np.count_nonzero(~kept))


def stepped(
    pmap: NDArray[np.floating[Any]], thresholds: Sequence[float], voxel_mm3: float, rule: Filter
) -> NDArray[np.floating[Any]]:
    """Return a p-map whose masks are those of another one once a filter has been applied.

    A lesion that is kept lies, at any lower threshold, in one that is kept as well: it is no
    smaller, nor is its peak lower. So the filtered masks lie in each other as those of a p-map do.

    Parameters
    ----------
    pmap : (X, Y, Z) floating, in [0, 1]
    thresholds : sequence of float
        Those that the masks are made at, rising; 0 keeps everything.
    voxel_mm3 : float
        Volume of a voxel.
    rule : Filter

    Returns
    -------
    (X, Y, Z) floating
        The highest of the thresholds at which a voxel is in the filtered mask; 0 where none is.
    """
    steps = np.zeros_like(pmap)
    for cut in filter(None, thresholds):
        kept = mask_at(pmap, cut, voxel_mm3, rule)[0]
        steps[kept] = compared(np.float64(cut), pmap.dtype)
    return steps


def _peaks(labels: NDArray[np.int32], pmap: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    inside = labels > 0
    highest = np.zeros(int(labels.max(initial=0)), dtype=pmap.dtype)
    np.maximum.at(highest, labels[inside] - 1, pmap[inside])
    return highest


@dataclass(frozen=True)
class FrocCurve:
    """Lesions found against false ones, over the least peak.

    Attributes
    ----------
    peaks : tuple of K float
        Rising; the first keeps every predicted lesion.
    sensitivity : tuple of K float
        Mean L-sensitivity over the scans with lesions.
    false_lesions : tuple of K float
        Predicted lesions that are not correct, mean over all scans, lesion-free ones with them.
    """

    peaks: tuple[float, ...]
    sensitivity: tuple[float, ...]
    false_lesions: tuple[float, ...]


@dataclass(frozen=True)
class LesionChoice:
    """The chosen filter, and what it does on the scans that chose it.

    Attributes
    ----------
    peak, volume_mm3 : float
        Of the filter; 0 where peak or volume decides nothing, so that at a lower threshold, too,
        it drops nothing.
    f1, f1_unfiltered : float
        Median L-F1 over the scans with lesions, with the filter and without.
    specificity, specificity_unfiltered : float
        P-specificity; NaN without lesion-free scans.
    leave_one_out : float
        Median L-F1 where each scan is filtered as the other subjects choose; NaN where they cannot.
    froc : FrocCurve
        Of no least volume.
    n_scans, n_lesion_free : int
        Scans with lesions, and without.
    """

    peak: float
    volume_mm3: float
    f1: float
    f1_unfiltered: float
    specificity: float
    specificity_unfiltered: float
    leave_one_out: float
    froc: FrocCurve
    n_scans: int
    n_lesion_free: int


def froc(scans: Sequence[Candidates], peaks: Sequence[float]) -> FrocCurve:
    """Lesions found against false ones per scan, over the least peak (Bunch et al. 1977).

    Parameters
    ----------
    scans : sequence of Candidates
        With lesions and without.
    peaks : sequence of float
        Rising, in [0, 1].
    """
    scores = [[scan.score(Filter(peak)) for peak in peaks] for scan in scans]
    found = np.array([[s.sensitivity for s in row] for row in scores if row[0].n_truth])
    false = np.array([[s.n_predicted - s.correct for s in row] for row in scores])
    return FrocCurve(
        tuple(peaks), tuple(found.mean(axis=0).tolist()), tuple(false.mean(axis=0).tolist())
    )


@dataclass(frozen=True, eq=False)
class FilteredChoice:
    """Threshold and filter that were chosen together.

    Attributes
    ----------
    threshold : Choice
        Its curve is the objective with the filter that is best at each threshold.
    lesions : LesionChoice
        The filter at the chosen threshold. Its `leave_one_out` is of both.
    left_out : tuple of N (int, Filter) or None
        Index of the threshold, and the filter, that the scans of the other subjects choose for
        each scan; None where they cannot.
    """

    threshold: Choice
    lesions: LesionChoice
    left_out: tuple[tuple[int, Filter] | None, ...]


def choose_filter(
    scans: Sequence[Candidates],
    subjects: Sequence[Hashable],
    threshold: float,
    *,
    specificity: float = 0.0,
) -> LesionChoice:
    """Choose the filter with the highest median L-F1 at a threshold; see `choose_both`.

    Parameters
    ----------
    scans : sequence of Candidates
        With lesions and without, all at the tuned threshold.
    subjects, specificity
        See `choose_both`.
    threshold : float
        The tuned one: no lesion has a lower peak.

    Raises
    ------
    DataError
        See `choose_both`.
    """
    alone = [[scan] for scan in scans]
    return choose_both(alone, subjects, (threshold,), specificity=specificity, bootstraps=0).lesions


def choose_both(
    scans: Sequence[Sequence[Candidates]],
    subjects: Sequence[Hashable],
    thresholds: Sequence[float],
    *,
    specificity: float = 0.0,
    bootstraps: int = BOOTSTRAPS,
) -> FilteredChoice:
    """Choose threshold and filter with the highest median L-F1 over the scans that hold lesions.

    A low threshold with a high peak outlines well what is found, and marks little else. Ties within
    1e-12 go to the threshold as in `choose`; at one threshold to the laxer filter: the one that
    keeps more predicted lesions, then the one of the lower peak, then of the smaller volume.

    Parameters
    ----------
    scans : sequence of N sequences of T Candidates
        With lesions and without, each at every threshold.
    subjects : sequence of N hashable
        Whose scan each is.
    thresholds : sequence of T float
        Rising, above 0.
    specificity : float
        Least P-specificity: only what reaches it on these scans is chosen from. 0 asks for none.
    bootstraps : int
        Resamplings of the subjects for the interval of the threshold.

    Returns
    -------
    FilteredChoice

    Raises
    ------
    DataError
        No scan holds lesions; or a P-specificity is asked for, and there are no lesion-free scans
        or no filter reaches it.
    """
    pairs = _Pairs.of(scans, thresholds, specificity)
    scored, width = pairs.scored, len(FILTERS)
    groups, every = by_subject(subjects), np.arange(len(scans))
    found, column = pairs.curves(groups), pairs.best(groups)
    assert found is not None
    assert column is not None  # it is reachable
    by_others: list[int | None] = [None] * len(scans)
    for own in groups:
        of_others = pairs.best([rows for rows in groups if rows is not own])
        for row in own:
            by_others[row] = of_others
    bearing = np.flatnonzero(scored.bearing).tolist()
    held_out = [
        np.nan if (other := by_others[row]) is None else scored.scores[row, other]
        for row in bearing
    ]
    columns = [pairs.laxest(found[0], every, k) for k in range(len(thresholds))]
    threshold = Choice(
        objective=scored.objective,
        thresholds=pairs.grid,
        curve=found[1],
        per_scan=scored.scores[bearing][:, columns],
        subjects=tuple(subjects[row] for row in bearing),
        interval=interval(
            lambda drawn: None if (of := pairs.curves(drawn)) is None else of[1],
            [groups],
            pairs.grid,
            bootstraps,
        ),
        leave_one_out=float(np.median(held_out)),
    )
    at, chosen = divmod(column, width)
    both = [column, at * width]  # with the filter, and with the one that keeps everything
    clean = scored.specificity(every)[both] if scored.lesion_free.any() else [np.nan] * 2
    f1, f1_unfiltered = np.median(scored.scores[bearing][:, both], axis=0).tolist()
    peaks = (0.0, *(peak for peak in PEAKS if peak > thresholds[at]))
    lesions = LesionChoice(
        peak=FILTERS[chosen].peak,
        volume_mm3=FILTERS[chosen].volume_mm3,
        f1=f1,
        f1_unfiltered=f1_unfiltered,
        specificity=float(clean[0]),
        specificity_unfiltered=float(clean[1]),
        leave_one_out=threshold.leave_one_out,
        froc=froc([own[at] for own in scans], peaks),
        n_scans=len(bearing),
        n_lesion_free=int(scored.lesion_free.sum()),
    )
    left_out = [None if col is None else (col // width, FILTERS[col % width]) for col in by_others]
    return FilteredChoice(threshold, lesions, tuple(left_out))


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Every threshold with every filter: T x `FILTERS` columns to choose from.

    Attributes
    ----------
    grid : (T,) float64
        The thresholds.
    scored : Scored
    predicted : (N, columns) int64
        Predicted lesions of each scan that are left.
    """

    grid: FloatArray
    scored: Scored
    predicted: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        scans: Sequence[Sequence[Candidates]],
        thresholds: Sequence[float],
        specificity: float,
    ) -> _Pairs:
        """Score scans with every pair; refuse those that cannot choose, as `choose_both` says."""
        counts = [[score for at in own for score in at.scores(FILTERS)] for own in scans]
        predicted = np.array([[score.n_predicted for score in row] for row in counts])
        free = np.array([[row[0].truth_mm3 == 0] for row in counts])
        objective = Objective("median_l_f1")
        if specificity > 0:
            objective = Objective("l_f1_at_specificity", specificity=specificity)
        f1 = np.array([[score.f1 for score in row] for row in counts])
        scored = Scored(objective, f1, np.where(free, predicted == 0, np.nan))
        if not scored.bearing.any():
            raise DataError("no scan holds lesions, so no filter of them can be chosen; add some")
        scored.require_reachable(
            [
                f"threshold {threshold:g} with a peak of {max(rule.peak, threshold):g} and "
                f"{rule.volume_mm3:g} mm³"
                for threshold in thresholds
                for rule in FILTERS
            ]
        )
        return cls(np.asarray(thresholds, dtype=np.float64), scored, predicted)

    def curves(self, groups: Sequence[Rows]) -> tuple[FloatArray, FloatArray] | None:
        """Objective over groups of scans at every threshold, with each filter and with the best.

        (T, filters), -inf where the P-specificity is not reached, and (T,), NaN there. None where
        these scans cannot choose.
        """
        value = self.scored.curve(groups) if groups else None
        if value is None:
            return None
        filtered = np.where(np.isnan(value), -np.inf, value).reshape(len(self.grid), -1)
        best = filtered.max(axis=1)
        return filtered, np.where(np.isinf(best), np.nan, best)

    def laxest(self, filtered: FloatArray, rows: Rows, at: int) -> int:
        """Column of the best filter at a threshold, of the index `at`."""
        tied = np.flatnonzero(filtered[at] >= filtered[at].max() - TIE) + at * filtered.shape[1]
        return int(tied[np.argmax(self.predicted[rows][:, tied].sum(axis=0))])

    def best(self, groups: Sequence[Rows]) -> int | None:
        """Column of the best pair on groups of scans; None where they cannot choose."""
        found = self.curves(groups)
        if found is None or not self.scored.reaches(rows := np.concatenate(groups)):
            return None
        return self.laxest(found[0], rows, best_of(found[1], self.grid))
