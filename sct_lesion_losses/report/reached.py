"""What a bundle reaches on scans neither trained nor tuned on, for its description and card."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sct_lesion_losses.bundle.schema import Metric
from sct_lesion_losses.metrics import summary, voxel
from sct_lesion_losses.operating_point import binarize


@dataclass(frozen=True)
class Use:
    """What the tuned bundle does on one unseen scan; F1 is NaN where there is no lesion.

    Attributes
    ----------
    subject : str
    f1, f1_untuned : float
        V-F1 at the tuned threshold and at 0.5.
    sensitivity, precision : float
        V-sensitivity and V-precision at the tuned threshold.
    n_lesions, n_found : int
        Lesions, and those of which at least 25 % is marked.
    marked : bool
        Any voxel is marked.
    """

    subject: str
    f1: float
    f1_untuned: float
    sensitivity: float
    precision: float
    n_lesions: int
    n_found: int
    marked: bool


def use(
    subject: str, truth: npt.NDArray[np.bool_], pmap: npt.NDArray[np.float32], threshold: float
) -> Use:
    """Score one unseen scan at the tuned threshold and at 0.5."""
    mask = binarize(pmap, threshold)
    tuned = voxel.score(truth, mask)
    untuned = voxel.score(truth, binarize(pmap, 0.5))
    found, there = summary.lesions_found(truth, mask)
    return Use(
        subject,
        tuned.f1,
        untuned.f1,
        tuned.sensitivity,
        tuned.precision,
        there,
        found,
        bool(mask.any()),
    )


def metrics(uses: Sequence[Use], refused: int = 0) -> dict[str, Metric]:
    """Return the bundle's `metrics`: medians over unseen scans with lesions, and shares.

    `refused` scans, in which no cord was found, have no scores; their share is a metric.
    """
    subjects = [u.subject for u in uses]

    def metric(
        values: list[float], statistic: Callable[[npt.NDArray[np.float64]], float], note: str
    ) -> Metric:
        found = summary.interval(values, subjects, statistic)
        return Metric(value=found.value, low=found.low, high=found.high, n=found.n, note=note)

    nan = float("nan")
    share = [u.n_found / u.n_lesions if u.n_lesions else nan for u in uses]
    clean = [nan if u.n_lesions else float(not u.marked) for u in uses]
    measured = {
        "v_f1_median": metric([u.f1 for u in uses], np.median, "at the tuned threshold"),
        "v_f1_mean": metric([u.f1 for u in uses], np.mean, "at the tuned threshold"),
        "v_f1_median_at_0.5": metric([u.f1_untuned for u in uses], np.median, "at threshold 0.5"),
        "v_sensitivity_median": metric([u.sensitivity for u in uses], np.median, "tuned"),
        "v_precision_median": metric([u.precision for u in uses], np.median, "tuned"),
        "lesions_found": metric(share, np.mean, "mean share of a scan's lesions marked to >= 25 %"),
        "lesion_free_unmarked": metric(clean, np.mean, "share of lesion-free scans left empty"),
    }
    scans = len(uses) + refused
    measured["scans_refused"] = Metric(
        value=refused / scans, n=scans, note="share of unseen scans in which no cord was found"
    )
    return {name: m for name, m in measured.items() if m.n}
