"""Numbered lesions of a scan, by models at their thresholds; files that a challenge takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sct_lesion_losses import logs
from sct_lesion_losses.cohorts.table import CohortScan
from sct_lesion_losses.images import nifti
from sct_lesion_losses.images.atomic import write_text
from sct_lesion_losses.images.nifti import Scan
from sct_lesion_losses.inference.models import Model, read_scan
from sct_lesion_losses.inference.predict import InferenceSettings
from sct_lesion_losses.metrics import lesionwise
from sct_lesion_losses.metrics.froc import NEIGHBOURS, mean_probabilities
from sct_lesion_losses.metrics.repeat import PlacedLesions, place
from sct_lesion_losses.thresholds.lesion_filter import mask_at


@dataclass(frozen=True)
class InstanceTask:
    """A scan, and the models whose lesions in it are to be numbered.

    Attributes
    ----------
    scan : CohortScan
    thresholds : mapping of Model to float
    files : mapping of Model to Path
        Numbered masks to write, each with a table of the same name; empty writes nothing.
    placed : bool
        The lesions are to be returned.
    inference : InferenceSettings
    """

    scan: CohortScan
    thresholds: Mapping[Model, float]
    files: Mapping[Model, Path]
    placed: bool
    inference: InferenceSettings


def number(task: InstanceTask) -> dict[Model | None, PlacedLesions]:
    """Label the lesions of a scan, 26 neighbours each, the largest first.

    Returns
    -------
    dict of Model to PlacedLesions
        Those of the manual mask under None; empty where they are not asked for.

    Raises
    ------
    LesionError
        The scan or a model cannot be used, or a file cannot be written; the message names the scan.
    """
    placed: dict[Model | None, PlacedLesions] = {}
    with logs.about(task.scan.scan):
        found = read_scan(task.scan, task.inference)
        grid = found.image.grid
        if task.placed:
            truth = lesionwise.components(found.truth, NEIGHBOURS)
            placed[None] = place(truth, grid.affine)
        for model, threshold in task.thresholds.items():
            pmap, _ = model.pmap(found)
            mask, _, _ = mask_at(pmap, threshold, grid.voxel_volume_mm3, model.rule)
            labels = lesionwise.components(mask, NEIGHBOURS)
            if model in task.files:
                _write(task.files[model], labels, mean_probabilities(labels, pmap), found.image)
            if task.placed:
                placed[model] = place(labels, grid.affine)
    return placed


def _write(
    path: Path, labels: npt.NDArray[np.int32], probabilities: npt.NDArray[np.float64], like: Scan
) -> None:
    """Write a numbered mask and, beside it, the CSV of the probabilities."""
    rows = [f"{label},{p:.9g}" for label, p in enumerate(probabilities, 1)]
    write_text(path.with_name(f"{nifti.stem(path)[0]}.csv"), "\n".join(["label,p", *rows, ""]))
    many = len(probabilities) > np.iinfo(np.uint8).max
    nifti.write(path, labels, like, np.uint16 if many else np.uint8)
