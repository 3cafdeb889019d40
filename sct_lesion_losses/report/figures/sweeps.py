"""V-F1 of each model over its thresholds, from the rows of an evaluation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sct_lesion_losses.errors import DataError
from sct_lesion_losses.metrics.scan_score import ScanScore


@dataclass(frozen=True, eq=False)
class Sweep:
    """V-F1 of one model on the scans with lesions.

    Attributes
    ----------
    model : str
    thresholds : (T,) float64
        Rising; empty where masks come from a rule of the model's own.
    scores : tuple of (N,) float64
        At each threshold, the scans in one order; those where V-F1 is not defined are left out.
    tuned : float or None
        The model's own threshold.
    by_rule : (N,) float64
        Where there are no thresholds, by its rule.
    """

    model: str
    thresholds: npt.NDArray[np.float64]
    scores: tuple[npt.NDArray[np.float64], ...]
    tuned: float | None
    by_rule: npt.NDArray[np.float64]

    @property
    def medians(self) -> npt.NDArray[np.float64]:
        """Median V-F1 at each threshold, (T,); NaN where no scan has one."""
        return np.array([np.median(own) if len(own) else np.nan for own in self.scores])

    @property
    def n(self) -> int:
        """Number of scans."""
        return max(map(len, (*self.scores, self.by_rule)))


def of(rows: Iterable[ScanScore]) -> list[Sweep]:
    """Sweep of each model, in the order in which they first appear.

    Parameters
    ----------
    rows : iterable of ScanScore
        By any lesion presets: V-F1 is the same by all.

    Raises
    ------
    DataError
        No scan has lesions, so that V-F1 is defined nowhere.
    """
    found: dict[str, dict[float | None, dict[str, float]]] = {}
    tuned: dict[str, float] = {}
    for row in rows:
        scans = found.setdefault(row.bundle, {}).setdefault(row.threshold, {})
        if not np.isnan(row.voxels.f1):
            scans[row.scan] = row.voxels.f1
        if row.tuned and row.threshold is not None:
            tuned[row.bundle] = row.threshold
    sweeps = []
    for model, by_threshold in found.items():
        known = sorted(threshold for threshold in by_threshold if threshold is not None)
        scores = tuple(np.array([*by_threshold[threshold].values()]) for threshold in known)
        rule = np.array([*by_threshold.get(None, {}).values()])
        sweeps.append(Sweep(model, np.array(known), scores, tuned.get(model), rule))
    if not any(sweep.n for sweep in sweeps):
        raise DataError("no scan has lesions, so that V-F1 is not defined; evaluate some that have")
    return sweeps
