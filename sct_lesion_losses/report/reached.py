"""What a bundle reaches on scans neither trained nor tuned on, for its description and card."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sct_lesion_losses.bundle.schema import Metric
from sct_lesion_losses.metrics import UNTUNED, patientwise, statistics
from sct_lesion_losses.metrics.statistics import Interval
from sct_lesion_losses.thresholds import ScanCounts
from sct_lesion_losses.thresholds.lesion_filter import Candidates, Filter

PRESET = "paper"


def metrics(
    counts: Sequence[ScanCounts], subjects: Sequence[str], threshold: float, refused: int = 0
) -> dict[str, Metric]:
    """Return the bundle's `metrics`: summaries over unseen scans with lesions, and shares.

    Parameters
    ----------
    counts : sequence of ScanCounts
        Of the unseen scans; `threshold` and 0.5 are among their thresholds.
    subjects : sequence of str
        Whose scan each is; the intervals of medians and means resample them.
    threshold : float
        The tuned one.
    refused : int
        Unseen scans in which no cord was found: they have no scores; their share is a metric.

    Returns
    -------
    dict of str to Metric
        Without those that no scan tells of.
    """
    at = [scan.index(threshold) for scan in counts]
    voxels = [scan.voxel_score(k) for scan, k in zip(counts, at, strict=True)]
    lesions = [scan.lesion_score(PRESET, k) for scan, k in zip(counts, at, strict=True)]
    untuned = [scan.voxel_score(scan.index(UNTUNED)) for scan in counts]

    def summarised(
        values: list[float], statistic: Callable[..., object], where: str = "tuned"
    ) -> Metric:
        return _metric(statistics.interval(values, subjects, statistic), where)

    by_rule = f"tuned, preset {PRESET}"
    patients = patientwise.score(lesions)
    measured = {
        "v_f1_median": summarised([s.f1 for s in voxels], np.median),
        "v_f1_mean": summarised([s.f1 for s in voxels], np.mean),
        "v_f1_median_at_0.5": summarised([s.f1 for s in untuned], np.median, "at threshold 0.5"),
        "v_f1_mean_at_0.5": summarised([s.f1 for s in untuned], np.mean, "at threshold 0.5"),
        "v_sensitivity_median": summarised([s.sensitivity for s in voxels], np.median),
        "v_precision_median": summarised([s.precision for s in voxels], np.median),
        "l_sensitivity_median": summarised([s.sensitivity for s in lesions], np.median, by_rule),
        "l_precision_median": summarised([s.precision for s in lesions], np.median, by_rule),
        "l_f1_median": summarised([s.f1 for s in lesions], np.median, by_rule),
        "p_sensitivity": _metric(
            patients.sensitivity, f"{by_rule}: scans with lesions in which one is detected"
        ),
        "p_specificity": _metric(
            patients.specificity, f"{by_rule}: lesion-free scans in which none is predicted"
        ),
        "scans_refused": _metric(
            patientwise.proportion(refused, len(counts) + refused),
            "unseen scans in which no cord was found",
        ),
    }
    return {name: metric for name, metric in measured.items() if metric.n}


def filtered(
    scans: Sequence[Candidates], subjects: Sequence[str], rule: Filter
) -> dict[str, Metric]:
    """Return what the second operating point, per lesion, reaches on unseen scans.

    Parameters
    ----------
    scans : sequence of Candidates
        The predicted lesions of the unseen scans, at the tuned threshold.
    subjects : sequence of str
        Whose scan each is.
    rule : Filter
        Which of them are kept.

    Returns
    -------
    dict of str to Metric
        By the names of `metrics` with ``_filtered``, without those that no scan tells of.
    """
    lesions = [scan.score(rule) for scan in scans]
    patients = patientwise.score(lesions)
    by_rule = (
        f"tuned, lesions of a peak of {rule.peak:g} and {rule.volume_mm3:g} mm³ or more, "
        f"preset {PRESET}"
    )
    measured = {
        "l_f1_median_filtered": _metric(
            statistics.interval([s.f1 for s in lesions], subjects), by_rule
        ),
        "p_sensitivity_filtered": _metric(
            patients.sensitivity, f"{by_rule}: scans with lesions in which one is detected"
        ),
        "p_specificity_filtered": _metric(
            patients.specificity, f"{by_rule}: lesion-free scans in which none is left"
        ),
    }
    return {name: metric for name, metric in measured.items() if metric.n}


def _metric(found: Interval, note: str) -> Metric:
    return Metric(value=found.value, low=found.low, high=found.high, n=found.n, note=note)
