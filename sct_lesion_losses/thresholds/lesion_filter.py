"""Filter of predicted lesions: a second operating point, per lesion.

How many lesions are found at what number of false ones is told by the free-response ROC curve.

References
----------
Bunch et al. 1977, "A free response approach to the measurement and characterization of radiographic
observer performance", Proceedings of SPIE 127.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sct_lesion_losses.errors import DataError, UsageError
from sct_lesion_losses.metrics import lesionwise
from sct_lesion_losses.metrics.lesionwise import (
    CONNECTIVITY,
    ROUNDING,
    Overlap,
    Preset,
    bounding_box,
    components,
    overlap,
    sizes,
)
from sct_lesion_losses.thresholds.binarization import binarize, compared
from sct_lesion_losses.thresholds.curves import checked
from sct_lesion_losses.thresholds.objectives import TIE

# Finer towards 1: networks trained with overlap losses hardly give any other value inside a lesion.
PEAKS = (*(k / 20 for k in range(1, 20)), 0.96, 0.97, 0.98, 0.99, 0.995, 0.999)
VOLUMES_MM3 = (0.0, 1.0, 2.0, 3.0, 5.0, 10.0, 15.0, 20.0, 30.0, 50.0)

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]


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


@dataclass(frozen=True)
class LesionCounts:
    """Lesions of one scan after a filter, as `metrics.lesionwise.score` counts them."""

    n_truth: int
    n_predicted: int
    detected: int
    correct: int

    @property
    def sensitivity(self) -> float:
        """L-sensitivity; NaN where the scan holds no lesion."""
        return lesionwise.scores(self.n_truth, self.n_predicted, self.detected, self.correct)[0]

    @property
    def f1(self) -> float:
        """L-F1; NaN where the scan holds no lesion."""
        return lesionwise.scores(self.n_truth, self.n_predicted, self.detected, self.correct)[2]

    @property
    def false(self) -> int:
        """Predicted lesions that are not correct."""
        return self.n_predicted - self.correct


@dataclass(frozen=True, eq=False)
class Candidates:
    """The predicted lesions of one scan: what every filter's counts follow from.

    Attributes
    ----------
    preset : Preset
        The rule that decides which lesions are detected.
    table : Overlap
        Of the lesions of the manual mask and the predicted ones, the small ones with them.
    peaks : (T,) floating
        Highest probability of each predicted lesion, in the dtype of the p-map.
    voxel_mm3 : float
        Volume of a voxel.
    """

    preset: Preset
    table: Overlap
    peaks: NDArray[np.floating[Any]]
    voxel_mm3: float

    @property
    def lesion_free(self) -> bool:
        """Whether the manual mask is empty."""
        return not len(self.table.truth_sizes)

    def kept(self, rule: Filter) -> BoolArray:
        """Predicted lesions that a filter keeps, (T,)."""
        return _kept(self.table.predicted_sizes, self.peaks, self.voxel_mm3, rule)

    def counts(self, rule: Filter) -> LesionCounts:
        """Count what is detected once a filter has been applied."""
        every = np.ones(len(self.table.truth_sizes), dtype=bool)
        table = self.table.only(every, self.kept(rule))
        table = lesionwise.counted(table, self.preset, self.voxel_mm3)
        found, correct = lesionwise.detected(table, self.preset)
        return LesionCounts(len(found), len(correct), int(found.sum()), int(correct.sum()))


def candidates(
    truth: BoolArray,
    pmap: NDArray[np.floating[Any]],
    threshold: float,
    spacing_mm: Sequence[float],
    preset: str | Preset = "paper",
) -> Candidates:
    """Note of every predicted lesion of a scan what a filter asks for.

    Parameters
    ----------
    truth, pmap
        See `sweep`.
    threshold : float
        Of a voxel, in (0, 1].
    spacing_mm : 3 float
        Of their grid.
    preset : str or Preset
        A key of `metrics.lesionwise.PRESETS`, or numbers of one's own; 18-neighbour, as the filter.

    Returns
    -------
    Candidates

    Raises
    ------
    GeometryError
        The shapes differ, or the spacing is none.
    UsageError
        No preset has this name, or its lesions are others than those of the filter.
    """
    rule = lesionwise.find(preset)
    if rule.connectivity != CONNECTIVITY:
        raise UsageError(
            f"preset {rule.name} counts {rule.connectivity}-neighbour lesions, the filter keeps "
            f"{CONNECTIVITY}-neighbour ones; choose a preset of these"
        )
    lesions, _ = checked(truth, pmap, (threshold,))
    voxel_mm3 = lesionwise.voxel_volume_mm3(spacing_mm)
    mask = binarize(pmap, threshold)
    box = bounding_box(lesions | mask) or (slice(0), slice(0), slice(0))
    predicted = components(mask[box])
    table = overlap(components(lesions[box]), predicted)
    return Candidates(rule, table, _peaks(predicted, pmap[box]), voxel_mm3)


def apply(
    mask: BoolArray,
    pmap: NDArray[np.floating[Any]],
    voxel_mm3: float,
    rule: Filter,
) -> BoolArray:
    """Remove the lesions from a mask that a filter does not keep.

    Parameters
    ----------
    mask : (X, Y, Z) bool
        Of `binarize`.
    pmap : (X, Y, Z) floating, in [0, 1]
        What it was made from.
    voxel_mm3 : float
        Volume of a voxel.
    rule : Filter

    Returns
    -------
    (X, Y, Z) bool
    """
    labels = components(mask)
    kept = _kept(sizes(labels), _peaks(labels, pmap), voxel_mm3, rule)
    return np.asarray(np.concatenate([[False], kept])[labels])


def _kept(
    predicted_sizes: NDArray[np.int64],
    peaks: NDArray[np.floating[Any]],
    voxel_mm3: float,
    rule: Filter,
) -> BoolArray:
    """Lesions of at least the peak, compared as `binarize` compares, and at least the volume."""
    high = peaks >= compared(np.float64(rule.peak), peaks.dtype)
    return np.asarray(high & (predicted_sizes * voxel_mm3 >= rule.volume_mm3 * (1 - ROUNDING)))


def _peaks(labels: NDArray[np.int32], pmap: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    inside = labels > 0
    highest = np.zeros(int(labels.max(initial=0)), dtype=pmap.dtype)
    np.maximum.at(highest, labels[inside] - 1, pmap[inside])
    return highest


@dataclass(frozen=True, eq=False)
class FrocCurve:
    """Lesions found against false ones, over the least peak.

    Attributes
    ----------
    peaks : (K,) float64
        Rising; the first keeps every predicted lesion.
    sensitivity : (K,) float64
        Mean L-sensitivity over the scans with lesions.
    false_lesions : (K,) float64
        Predicted lesions that are not correct, mean over all scans, lesion-free ones with them.
    """

    peaks: FloatArray
    sensitivity: FloatArray
    false_lesions: FloatArray


@dataclass(frozen=True, eq=False)
class LesionChoice:
    """The chosen filter, and what it does on the scans that chose it.

    Attributes
    ----------
    filter : Filter
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

    filter: Filter
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
    counts = [[scan.counts(Filter(peak)) for peak in peaks] for scan in scans]
    found = np.array([[c.sensitivity for c in row] for row in counts if row[0].n_truth])
    false = np.array([[c.false for c in row] for row in counts])
    return FrocCurve(np.asarray(peaks, np.float64), found.mean(axis=0), false.mean(axis=0))


def choose_filter(
    scans: Sequence[Candidates],
    subjects: Sequence[Hashable],
    threshold: float,
    *,
    specificity: float = 0.0,
) -> LesionChoice:
    """Choose the filter with the highest median L-F1 over the scans that hold lesions.

    Ties within 1e-12 go to the laxer filter: the one that keeps more predicted lesions, then the
    one of the lower peak, then of the smaller volume.

    Parameters
    ----------
    scans : sequence of Candidates
        With lesions and without, all at the tuned threshold.
    subjects : sequence of hashable
        Whose scan each is.
    threshold : float
        The tuned one: no lesion has a lower peak.
    specificity : float
        Least P-specificity: only filters that reach it on these scans are chosen from.

    Returns
    -------
    LesionChoice

    Raises
    ------
    DataError
        No scan holds lesions; or a P-specificity is asked for, and there are no lesion-free scans
        or no filter reaches it.
    UsageError
        There are not as many subjects as scans.
    """
    if len(subjects) != len(scans):
        raise UsageError(f"{len(scans)} scans came with {len(subjects)} subjects")
    peaks = (threshold, *(peak for peak in PEAKS if peak > threshold))
    filters = [Filter(peak, volume) for peak in peaks for volume in VOLUMES_MM3]
    counts = [[scan.counts(rule) for rule in filters] for scan in scans]
    bearing = np.array([row[0].n_truth > 0 for row in counts], dtype=bool)
    free = np.array([scan.lesion_free for scan in scans], dtype=bool)
    if not bearing.any():
        raise DataError("no scan holds lesions, so no filter of them can be chosen; add some")
    f1 = np.array([[c.f1 for c in row] for row in counts])
    predicted = np.array([[c.n_predicted for c in row] for row in counts])

    def best(used: BoolArray) -> int:
        """Index of the best filter on some scans; -1 where none reaches the specificity."""
        clean = _clean(predicted[used & free])
        allowed = clean >= specificity - TIE if specificity > 0 else np.ones(len(filters), bool)
        if not allowed.any():
            return -1
        value = np.where(allowed, np.median(f1[used & bearing], axis=0), -1.0)
        tied = np.flatnonzero(value >= value.max() - TIE)
        return int(tied[np.argmax(predicted[used][:, tied].sum(axis=0))])

    clean = _clean(predicted[free])
    if specificity > 0 and not free.any():
        raise DataError(
            f"a P-specificity of {specificity:g} is asked for, and no scan is free of lesions; add "
            "some that are, or ask for none"
        )
    chosen = best(np.ones(len(scans), dtype=bool))
    if chosen < 0:
        raise DataError(
            f"no filter of predicted lesions reaches a P-specificity of {specificity:g} on these "
            f"scans ({clean.max():.2f} at most); ask for less"
        )
    return LesionChoice(
        filter=filters[chosen],
        f1=float(np.median(f1[bearing, chosen])),
        f1_unfiltered=float(np.median(f1[bearing, 0])),
        specificity=float(clean[chosen]),
        specificity_unfiltered=float(clean[0]),
        leave_one_out=_leave_one_out(f1, bearing, subjects, best),
        froc=froc(scans, peaks),
        n_scans=int(bearing.sum()),
        n_lesion_free=int(free.sum()),
    )


def _clean(predicted: NDArray[np.int64]) -> FloatArray:
    """P-specificity of every filter, (K,): the share of lesion-free scans left empty."""
    if not len(predicted):
        return np.full(predicted.shape[1], np.nan)
    return np.asarray((predicted == 0).mean(axis=0))


def _leave_one_out(
    f1: FloatArray,
    bearing: BoolArray,
    subjects: Sequence[Hashable],
    best: Callable[[BoolArray], int],
) -> float:
    """Median L-F1 of scans that are filtered as the other subjects choose."""
    held_out = np.full(len(f1), np.nan)
    for owner in dict.fromkeys(subjects):
        own = np.array([subject == owner for subject in subjects], dtype=bool)
        if not (bearing & ~own).any():
            return float("nan")
        if (bearing & own).any():
            chosen = best(~own)
            if chosen < 0:
                return float("nan")
            held_out[own] = f1[own, chosen]
    return float(np.median(held_out[bearing]))
