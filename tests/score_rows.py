"""Rows of an evaluation's long table, with scores as the tests want them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sct_lesion_losses.metrics import PRESETS
from sct_lesion_losses.metrics.lesionwise import LesionScore
from sct_lesion_losses.metrics.scores import ScanScore
from sct_lesion_losses.metrics.voxelwise import VoxelScore

NAN = float("nan")
SCORE = 0.4  # of every measure that a test does not give
THRESHOLDS = tuple(k / 20 for k in range(21))


@dataclass(frozen=True)
class GivenVoxels(VoxelScore):
    """Scores as a test gives them, whatever the counts."""

    sensitivity: float = SCORE
    precision: float = SCORE
    f1: float = SCORE


@dataclass(frozen=True)
class GivenLesions(LesionScore):
    """Scores as a test gives them, whatever the counts."""

    sensitivity: float = SCORE
    precision: float = SCORE
    f1: float = SCORE


def bearing(
    scan: str,
    bundle: str = "tversky",
    threshold: float | None = 0.5,
    tuned: bool = False,
    measures: Mapping[str, float] | None = None,
    *,
    subject: str = "",
    site: str = "",
    detected: int = 1,
    n_predicted: int = 2,
    preset: str = "paper",
) -> ScanScore:
    """A scan with two lesions; `measures` by their names in the tables."""
    given = measures or {}
    voxel, lesion = (
        [given.get(f"{kind}-{name}", SCORE) for name in ("sensitivity", "precision", "F1")]
        for kind in "VL"
    )
    return ScanScore(
        scan,
        subject or scan,
        site,
        bundle,
        threshold,
        tuned,
        GivenVoxels(20, 20, 8, *voxel),
        GivenLesions(PRESETS[preset], 2, n_predicted, detected, 1, 20.0, 20.0, *lesion),
    )


def lesion_free(scan: str, *args: Any, n_predicted: int = 0, **given: Any) -> ScanScore:
    """A scan without lesions; bundle, threshold and the rest as for the others."""
    lesions = LesionScore(PRESETS["paper"], 0, n_predicted, 0, 0, 0.0, float(n_predicted))
    row = bearing(scan, *args, **given)
    return replace(row, voxels=VoxelScore(0, n_predicted, 0), lesions=lesions)


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
