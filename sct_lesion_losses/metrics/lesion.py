"""Lesions of a mask: what is measured on each, and how well a prediction finds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from sct_lesion_losses.errors import GeometryError
from sct_lesion_losses.metrics import detection
from sct_lesion_losses.metrics.components import (
    CONNECTIVITY,
    Connectivity,
    bounding_box,
    components,
)
from sct_lesion_losses.metrics.detection import Preset
from sct_lesion_losses.metrics.overlap import overlap

__all__ = [
    "CONNECTIVITY",
    "Connectivity",
    "Lesion",
    "LesionScore",
    "components",
    "measures",
    "score",
    "voxel_volume_mm3",
]


@dataclass(frozen=True)
class Lesion:
    """One connected component of a mask.

    Attributes
    ----------
    label : int
        Its number, 1 for the largest.
    volume_mm3 : float
    length_mm : float
        Extent along the voxel axis nearest to superior-inferior, whole voxels.
    centre_mm : (x, y, z)
        Mean of its voxel centres, world mm (x to the right, y to the front, z up).
    mean_probability, highest_probability : float
        Of the p-map inside it.
    """

    label: int
    volume_mm3: float
    length_mm: float
    centre_mm: tuple[float, float, float]
    mean_probability: float
    highest_probability: float

    @property
    def vanishes_above(self) -> float:
        """Highest threshold at which a voxel of it is left: its highest probability.

        `p >= t` keeps that voxel at this threshold and drops it at any above.
        """
        return self.highest_probability


@dataclass(frozen=True)
class LesionScore:
    """Lesion-wise scores of one scan; see `score`.

    Attributes
    ----------
    preset : Preset
        The rule that decided.
    n_truth, n_predicted : int
        Lesions of the manual mask and of the prediction.
    detected : int
        Lesions of the manual mask that the prediction finds.
    correct : int
        Predicted lesions that are found by the manual mask.
    truth_mm3, predicted_mm3 : float
        Volumes of both masks, with the lesions that are too small for the preset.
    sensitivity, precision, f1 : float
        L-sensitivity, L-precision and L-F1; NaN where the manual mask has no lesion.
    """

    preset: Preset
    n_truth: int
    n_predicted: int
    detected: int
    correct: int
    truth_mm3: float
    predicted_mm3: float
    sensitivity: float
    precision: float
    f1: float


def measures(
    labels: npt.NDArray[np.integer[Any]],
    pmap: npt.NDArray[np.floating[Any]],
    affine: npt.NDArray[np.float64],
) -> list[Lesion]:
    """Measure each lesion of a labelled mask.

    Parameters
    ----------
    labels : (X, Y, Z) int
        From :func:`components`.
    pmap : (X, Y, Z) floating, in [0, 1]
    affine : (4, 4) float64
        Voxels to world mm.

    Returns
    -------
    list of Lesion
        By label; empty for an empty mask.

    Raises
    ------
    GeometryError
        The two arrays differ in shape.
    """
    if labels.shape != pmap.shape:
        raise GeometryError(f"labels {labels.shape} and p-map {pmap.shape} are on different grids")
    steps = np.asarray(affine, dtype=np.float64)[:3, :3]
    spacing_mm = np.linalg.norm(steps, axis=0)
    axis = int(np.argmax(np.abs(steps[2] / spacing_mm)))
    voxel_mm3 = float(abs(np.linalg.det(steps)))
    lesions = []
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None:
            continue
        inside = labels[box] == label
        probabilities = pmap[box][inside]
        start = np.array([side.start for side in box])
        centre = steps @ (start + np.argwhere(inside).mean(axis=0)) + affine[:3, 3]
        lesions.append(
            Lesion(
                label=label,
                volume_mm3=probabilities.size * voxel_mm3,
                length_mm=float((box[axis].stop - box[axis].start) * spacing_mm[axis]),
                centre_mm=(float(centre[0]), float(centre[1]), float(centre[2])),
                mean_probability=float(probabilities.mean(dtype=np.float64)),
                highest_probability=float(probabilities.max()),
            )
        )
    return lesions


def score(
    truth: npt.NDArray[np.bool_],
    prediction: npt.NDArray[np.bool_],
    spacing_mm: Sequence[float],
    preset: str | Preset = "paper",
) -> LesionScore:
    """Lesion-wise sensitivity, precision and F1 of a prediction.

    Parameters
    ----------
    truth, prediction : (X, Y, Z) bool
        Manual mask and predicted mask on the native grid.
    spacing_mm : 3 float
        Of that grid.
    preset : str or Preset
        A key of `detection.PRESETS`, or numbers of one's own.

    Returns
    -------
    LesionScore
        Scores are NaN where the manual mask has no lesion, 0 where only the prediction has none.

    Raises
    ------
    GeometryError
        The masks are not on one grid of three axes, or the spacing is none.
    UsageError
        No preset has this name.
    """
    rule = detection.find(preset)
    if truth.shape != prediction.shape or truth.ndim != 3:
        raise GeometryError(
            f"the manual mask has shape {truth.shape} and the prediction {prediction.shape}, "
            "expected one grid of three axes"
        )
    voxel_mm3 = voxel_volume_mm3(spacing_mm)
    truth, prediction = truth.astype(bool, copy=False), prediction.astype(bool, copy=False)
    box = bounding_box(truth | prediction) or (slice(0), slice(0), slice(0))
    truth, prediction = truth[box], prediction[box]
    table = overlap(components(truth, rule.connectivity), components(prediction, rule.connectivity))
    table = detection.counted(table, rule, voxel_mm3)
    found, correct = detection.detected(table, rule)
    counts = len(found), len(correct), int(found.sum()), int(correct.sum())
    return LesionScore(
        rule,
        *counts,
        np.count_nonzero(truth) * voxel_mm3,
        np.count_nonzero(prediction) * voxel_mm3,
        *detection.scores(*counts),
    )


def voxel_volume_mm3(spacing_mm: Sequence[float]) -> float:
    """Volume of a voxel.

    Raises
    ------
    GeometryError
        The spacing is not three positive numbers.
    """
    spacing = np.asarray(spacing_mm, dtype=np.float64)
    if spacing.shape != (3,) or not (np.isfinite(spacing) & (spacing > 0)).all():
        raise GeometryError(f"the spacing is {spacing.tolist()} mm, expected 3 positive numbers")
    return float(spacing.prod())
