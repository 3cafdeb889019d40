"""What a model does on one scan at all thresholds: counts, from which every score follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sct_lesion_losses.errors import UsageError
from sct_lesion_losses.metrics import detection, lesion
from sct_lesion_losses.metrics.detection import PRESETS
from sct_lesion_losses.metrics.lesion import LesionScore
from sct_lesion_losses.metrics.voxel import VoxelScore
from sct_lesion_losses.operating_point.lesion_sweep import LesionCurve, sweep_lesions
from sct_lesion_losses.operating_point.sweep import THRESHOLDS, Curve, sweep

_SAME = 1e-9  # thresholds that differ by less are one


@dataclass(frozen=True, eq=False)
class Tally:
    """Voxel-wise and lesion-wise counts of one scan.

    Attributes
    ----------
    voxels : Curve
    lesions : mapping of str to LesionCurve
        By the name of the preset, over the same thresholds.
    voxel_mm3 : float
        Volume of a voxel.
    """

    voxels: Curve
    lesions: Mapping[str, LesionCurve]
    voxel_mm3: float

    def index(self, threshold: float) -> int:
        """Index of one of its thresholds.

        Raises
        ------
        UsageError
            It is not one of them.
        """
        there = np.flatnonzero(np.abs(self.voxels.thresholds - threshold) < _SAME)
        if not there.size:
            raise UsageError(
                f"threshold {threshold:g} is not among those that were swept; sweep it as well"
            )
        return int(there[0])

    def voxel_score(self, k: int) -> VoxelScore:
        """Score at the threshold of index k, as `metrics.voxel.score` gives it."""
        curve = self.voxels
        tp, fp = int(curve.tp[k]), int(curve.fp[k])
        shares = (float(values[k]) for values in (curve.sensitivity, curve.precision, curve.f1))
        return VoxelScore(curve.n_truth, tp + fp, tp, fp, curve.n_truth - tp, *shares)

    def lesion_score(self, preset: str, k: int) -> LesionScore:
        """Score at the threshold of index k, as `metrics.lesion.score` gives it."""
        curve, voxels = self.lesions[preset], self.voxels
        n_predicted, correct = int(curve.n_predicted[k]), int(curve.correct[k])
        counts = curve.n_truth, n_predicted, int(curve.found[k].sum()), correct
        return LesionScore(
            curve.preset,
            *counts,
            voxels.n_truth * self.voxel_mm3,
            int(voxels.tp[k] + voxels.fp[k]) * self.voxel_mm3,
            *detection.scores(*counts),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the counts in a form that JSON can hold; the numbers of the presets are not."""
        return {
            "thresholds": self.voxels.thresholds.tolist(),
            "tp": self.voxels.tp.tolist(),
            "fp": self.voxels.fp.tolist(),
            "n_truth": self.voxels.n_truth,
            "voxel_mm3": self.voxel_mm3,
            "lesions": {
                name: {
                    "n_predicted": curve.n_predicted.tolist(),
                    "correct": curve.correct.tolist(),
                    "found": curve.found.astype(int).tolist(),
                    "truth_sizes": curve.truth_sizes.tolist(),
                }
                for name, curve in self.lesions.items()
            },
        }


def tally(
    truth: NDArray[np.bool_],
    pmap: NDArray[np.floating[Any]],
    spacing_mm: Sequence[float],
    thresholds: ArrayLike = THRESHOLDS,
) -> Tally:
    """Count voxels, and lesions by every preset, at every threshold.

    Parameters
    ----------
    truth, pmap, thresholds
        See `sweep`.
    spacing_mm : 3 float
        Of their grid.

    Returns
    -------
    Tally

    Raises
    ------
    GeometryError, UsageError
        See `sweep` and `sweep_lesions`.
    """
    curves = {name: sweep_lesions(truth, pmap, spacing_mm, name, thresholds) for name in PRESETS}
    return Tally(sweep(truth, pmap, thresholds), curves, lesion.voxel_volume_mm3(spacing_mm))


def from_dict(stored: Mapping[str, Any]) -> Tally:
    """Return the tally that `Tally.to_dict` wrote.

    Raises
    ------
    KeyError, TypeError, ValueError
        It did not.
    """
    cuts = np.array(stored["thresholds"], dtype=np.float64)
    tp, fp = (_counts(stored[name], len(cuts)) for name in ("tp", "fp"))
    curves = {}
    for name, preset in PRESETS.items():
        own = stored["lesions"][name]
        n_truth = len(own["truth_sizes"])
        curves[name] = LesionCurve(
            preset,
            cuts,
            _counts(own["n_predicted"], len(cuts)),
            _counts(own["correct"], len(cuts)),
            np.array(own["found"], dtype=bool).reshape(len(cuts), n_truth),
            _counts(own["truth_sizes"], n_truth),
        )
    voxels = Curve(cuts, tp, fp, int(stored["n_truth"]))
    return Tally(voxels, curves, float(stored["voxel_mm3"]))


def _counts(stored: Sequence[int], n: int) -> NDArray[np.int64]:
    return np.array(stored, dtype=np.int64).reshape(n)
