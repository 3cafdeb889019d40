"""Rows of an evaluation at many thresholds, for the figures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scan_rows import bearing, lesion_free

from sct_lesion_losses.metrics.scan_score import ScanScore

THRESHOLDS = tuple(k / 20 for k in range(21))


def f1(model: int, scan: int, threshold: float) -> float:
    """A V-F1 that depends on all of them."""
    return float((1 - abs(threshold - 0.2 * (1 + model))) * (0.5 + 0.05 * scan) / 1.1)


def sweep_rows(
    models: Sequence[str] = ("tversky", "bce"), scans: int = 7, free: int = 2, tuned: float = 0.35
) -> list[ScanScore]:
    """Rows of scans with lesions, and of those without, at 21 thresholds."""
    rows = []
    for m, model in enumerate(models):
        for t in THRESHOLDS:
            own = t == tuned
            for s in range(scans):
                measures = {"V-F1": f1(m, s, t)}
                rows.append(bearing(f"s{s}", model, t, own, measures, detected=int(s > 2 or own)))
            rows += [lesion_free(f"f{s}", model, t, own, n_predicted=s) for s in range(free)]
    return rows


def medians(model: int, scans: int = 7) -> list[float]:
    """Median V-F1 at each of the thresholds."""
    return [float(np.median([f1(model, s, t) for s in range(scans)])) for t in THRESHOLDS]
