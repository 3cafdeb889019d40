"""Which predicted lesions of a mask are kept: those of a high enough peak and volume.

A predicted lesion is a component of the mask at the tuned threshold. It is kept if its highest
probability is at least `peak` and its volume at least `volume_mm3`; the threshold of a voxel then
decides how far a lesion reaches, and this filter whether there is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sct_lesion_losses.errors import UsageError
from sct_lesion_losses.metrics import detection, lesion
from sct_lesion_losses.metrics.components import CONNECTIVITY, bounding_box, components
from sct_lesion_losses.metrics.detection import ROUNDING, Preset
from sct_lesion_losses.metrics.overlap import Overlap, overlap, sizes
from sct_lesion_losses.operating_point.binarize import binarize, compared
from sct_lesion_losses.operating_point.sweep import checked

BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class Filter:
    """What a predicted lesion must have to be kept.

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
class Counts:
    """Lesions of one scan after a filter, as `metrics.lesion.score` counts them."""

    n_truth: int
    n_predicted: int
    detected: int
    correct: int

    @property
    def sensitivity(self) -> float:
        """L-sensitivity; NaN where the scan holds no lesion."""
        return detection.scores(self.n_truth, self.n_predicted, self.detected, self.correct)[0]

    @property
    def f1(self) -> float:
        """L-F1; NaN where the scan holds no lesion."""
        return detection.scores(self.n_truth, self.n_predicted, self.detected, self.correct)[2]

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

    def counts(self, rule: Filter) -> Counts:
        """Count what is detected once a filter has been applied."""
        every = np.ones(len(self.table.truth_sizes), dtype=bool)
        table = self.table.only(every, self.kept(rule))
        table = detection.counted(table, self.preset, self.voxel_mm3)
        found, correct = detection.detected(table, self.preset)
        return Counts(len(found), len(correct), int(found.sum()), int(correct.sum()))


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
        A key of `metrics.detection.PRESETS`, or numbers of one's own; 18-neighbour, as the filter.

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
    rule = detection.find(preset)
    if rule.connectivity != CONNECTIVITY:
        raise UsageError(
            f"preset {rule.name} counts {rule.connectivity}-neighbour lesions, the filter keeps "
            f"{CONNECTIVITY}-neighbour ones; choose a preset of these"
        )
    lesions, _ = checked(truth, pmap, (threshold,))
    voxel_mm3 = lesion.voxel_volume_mm3(spacing_mm)
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
