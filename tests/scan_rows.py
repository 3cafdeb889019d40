"""Rows of an evaluation's long table, with scores as the tests want them."""

from __future__ import annotations

from collections.abc import Mapping

from sct_lesion_losses.metrics.lesionwise import PRESETS, LesionScore
from sct_lesion_losses.metrics.scores import ScanScore
from sct_lesion_losses.metrics.voxelwise import VoxelScore

NAN = float("nan")
SCORE = 0.4  # of every measure that a test does not give


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
        VoxelScore(20, 20, 8, 12, 12, *voxel),
        LesionScore(PRESETS[preset], 2, n_predicted, detected, 1, 20.0, 20.0, *lesion),
    )


def lesion_free(
    scan: str,
    bundle: str = "tversky",
    threshold: float | None = 0.5,
    tuned: bool = False,
    *,
    site: str = "",
    n_predicted: int = 0,
) -> ScanScore:
    """A scan without lesions."""
    return ScanScore(
        scan,
        scan,
        site,
        bundle,
        threshold,
        tuned,
        VoxelScore(0, n_predicted, 0, n_predicted, 0, NAN, NAN, NAN),
        LesionScore(PRESETS["paper"], 0, n_predicted, 0, 0, 0.0, float(n_predicted), NAN, NAN, NAN),
    )
