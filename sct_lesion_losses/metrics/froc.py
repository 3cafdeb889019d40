"""Lesions found against false ones (FROC), as the MS-Multi-Spine challenge scores them.

A predicted lesion hits a reference lesion where the intersection of the two over their union is
above 0.2. It has a probability: the mean of the p-map inside it. As fewer probable lesions are
added, more of the reference is found, and more lesions are false, which hit nothing.

References
----------
Bunch et al. 1977, "A free response approach to the measurement and characterization of radiographic
observer performance", Proceedings of SPIE 127; MS-Multi-Spine challenge, MICCAI 2024,
https://portal.fli-iam.irisa.fr/ms-multi-spine (its own code counts an overlap of exactly 0.2 as a
hit, too)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sct_lesion_losses.metrics import Connectivity, lesionwise
from sct_lesion_losses.metrics.lesionwise import BoolArray, Overlap

NEIGHBOURS: Connectivity = 26
MIN_IOU = 0.2  # not reached by a hit, but passed
FALSE_LESIONS = (0.25, 0.5, 1.0, 2.0, 3.0)  # per scan

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ScoredLesions:
    """The lesions of a scan and those predicted, with their probabilities.

    Attributes
    ----------
    table : Overlap
    probabilities : (T,) float64
        Mean probability of each predicted lesion.
    """

    table: Overlap
    probabilities: FloatArray

    @property
    def found_at(self) -> FloatArray:
        """Probability at which each reference lesion, (R,), is found; -inf where none hits it."""
        found = np.full(len(self.table.truth_sizes), -np.inf)
        hits = self._hits
        np.maximum.at(found, self.table.truth[hits], self.probabilities[self.table.predicted[hits]])
        return found

    @property
    def false(self) -> FloatArray:
        """Probabilities of the predicted lesions that hit nothing."""
        hit = np.zeros(len(self.probabilities), dtype=bool)
        hit[self.table.predicted[self._hits]] = True
        return self.probabilities[~hit]

    @property
    def _hits(self) -> BoolArray:
        """Pairs of `table`, (P,), that overlap enough."""
        table = self.table
        both = table.truth_sizes[table.truth] + table.predicted_sizes[table.predicted]
        return np.asarray(table.voxels / (both - table.voxels) > MIN_IOU)

    def to_dict(self) -> dict[str, Any]:
        """Return the lesions as plain values, for a file; see `from_dict`."""
        return {"table": self.table.to_dict(), "probabilities": self.probabilities.tolist()}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> ScoredLesions:
        """Return the lesions that `to_dict` wrote.

        Raises
        ------
        KeyError, TypeError, ValueError
            It did not.
        """
        probabilities = np.array(stored["probabilities"], dtype=np.float64)
        return cls(Overlap.from_dict(stored["table"]), probabilities)


def scored_lesions(
    truth: BoolArray, prediction: BoolArray, pmap: NDArray[np.floating[Any]]
) -> ScoredLesions:
    """Label the lesions of two masks, 26 neighbours each, and score those predicted.

    Parameters
    ----------
    truth, prediction : (X, Y, Z) bool
        Manual and predicted mask.
    pmap : (X, Y, Z) floating, in [0, 1]
    """
    labels = lesionwise.components(prediction, NEIGHBOURS)
    table = lesionwise.overlap(lesionwise.components(truth, NEIGHBOURS), labels)
    return ScoredLesions(table, mean_probabilities(labels, pmap))


def mean_probabilities(
    labels: NDArray[np.integer[Any]], pmap: NDArray[np.floating[Any]]
) -> FloatArray:
    """Mean of a p-map inside the lesions 1, 2, … of a labelled mask, (T,)."""
    inside = labels > 0
    sums = np.bincount(labels[inside], pmap[inside].astype(np.float64), minlength=1)[1:]
    means: FloatArray = sums / lesionwise.sizes(labels)
    return means


@dataclass(frozen=True)
class FrocScore:
    """Sensitivity of a model at given numbers of false lesions.

    Attributes
    ----------
    false_lesions : tuple of K float
        Mean over all scans, rising, from 0, as the least probability of a lesion falls.
    sensitivity : tuple of K float
        Share of the reference lesions found there, mean over the scans that have some; from 0.
    with_probabilities : bool
        False for masks alone: they are one operating point, the last of the curve.
    n_scans, n_bearing : int
        Scans, and those of them with lesions.
    """

    false_lesions: tuple[float, ...]
    sensitivity: tuple[float, ...]
    with_probabilities: bool
    n_scans: int
    n_bearing: int

    def at(self, false_lesions: float) -> float:
        """Sensitivity at so many false lesions a scan, linear between the points of the curve.

        Beyond the last point, that of the whole masks, it is the sensitivity there. NaN for masks
        without probabilities, and without a scan with lesions.
        """
        if not (self.with_probabilities and self.n_bearing):
            return float("nan")
        return float(np.interp(false_lesions, self.false_lesions, self.sensitivity))

    @property
    def mean(self) -> float:
        """Mean of the sensitivities at `FALSE_LESIONS`, the challenge's score."""
        return float(np.mean([self.at(false) for false in FALSE_LESIONS]))


def froc(scans: Sequence[ScoredLesions], with_probabilities: bool = True) -> FrocScore:
    """Sweep the least probability of a predicted lesion over the scans of a cohort.

    Parameters
    ----------
    scans : sequence of ScoredLesions
        With lesions and without, at least one.
    with_probabilities : bool
        False for masks alone.
    """
    cuts = np.unique(np.concatenate([scan.probabilities for scan in scans]))[::-1]
    found = [scan.found_at for scan in scans if len(scan.table.truth_sizes)]
    shares = sum((_reached(own, cuts) / len(own) for own in found), np.zeros(len(cuts)))
    false = _reached(np.concatenate([scan.false for scan in scans]), cuts)
    sensitivity = shares / len(found) if found else np.full(len(cuts), np.nan)
    return FrocScore(
        (0.0, *(false / len(scans)).tolist()),
        (0.0, *sensitivity.tolist()),
        with_probabilities,
        len(scans),
        len(found),
    )


def _reached(values: FloatArray, cuts: FloatArray) -> NDArray[np.int64]:
    """Count the values that are at least as high as each cut."""
    return len(values) - np.searchsorted(np.sort(values), cuts)
