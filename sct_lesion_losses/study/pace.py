"""How long a training will take that no epoch is known of: a few of its steps, measured."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import nibabel as nib
import numpy as np

from sct_lesion_losses.cohorts import splits
from sct_lesion_losses.cohorts import table as cohorts
from sct_lesion_losses.cohorts.table import CohortScan
from sct_lesion_losses.errors import LesionError
from sct_lesion_losses.geometry.grid import Grid
from sct_lesion_losses.geometry.patches import PATCH_VOX, patch_starts
from sct_lesion_losses.study.stages import Estimate
from sct_lesion_losses.training.recipe import Recipe

MEASURED_STEPS = 3
_WORKING_MM = 0.5


def measured(recipe: Recipe, data: Path) -> Estimate | None:
    """Estimate a training by a few steps on noise; what validation takes is not in it.

    Parameters
    ----------
    recipe : Recipe
    data : Path
        The cohort; with a split, its training part counts, else the share that would be trained on.

    Returns
    -------
    Estimate or None
        None where the patches of the cohort cannot be counted.
    """
    try:
        count = recipe.epochs * steps(recipe, cohorts.read(data))
    except (LesionError, OSError, ValueError):
        return None
    return Estimate(
        count * _seconds(recipe.filters, recipe.architecture, recipe.batch_size, recipe.precision),
        f"{count} steps, a few of which were measured",
    )


def steps(recipe: Recipe, scans: Sequence[CohortScan]) -> int:
    """Count the steps of an epoch: the most there can be, should no centerline end early."""
    patches: float | None = recipe.patches_per_epoch
    if patches is None:
        split = any(scan.split for scan in scans)
        used = splits.part(scans, "training") if split else list(scans)
        patches = sum(_patches(scan.scan) for scan in used)
        if not split:
            patches *= splits.SHARES["training"] / sum(splits.SHARES.values())
    return math.ceil(patches / recipe.batch_size)


def _patches(scan: Path) -> int:
    """Patches of a scan, by its header."""
    image = nib.load(scan)
    rpi, _ = Grid(image.shape[:3], np.asarray(image.affine)).to_rpi()
    length = round(rpi.shape[2] * rpi.spacing_mm[2] / _WORKING_MM)
    return len(patch_starts(max(length, PATCH_VOX)))


@functools.cache
def _seconds(filters: tuple[int, ...], architecture: str, batch: int, precision: str) -> float:
    """Seconds of one step of a training, whatever its loss."""
    from sct_lesion_losses.training import fit

    recipe = Recipe(
        filters=filters, architecture=architecture, batch_size=batch, precision=precision
    )
    model = fit.compiled(recipe)
    rng = np.random.default_rng(0)
    patches = rng.standard_normal((batch, *(PATCH_VOX,) * 3, 1)).astype(np.float32)
    lesions = (patches > 2).astype(np.float32)
    took = []
    for _ in range(1 + MEASURED_STEPS):
        began = time.monotonic()
        model.train_on_batch(patches, lesions)
        took.append(time.monotonic() - began)
    return median(took[1:])  # the first compiles
