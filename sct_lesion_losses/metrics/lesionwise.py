"""Lesion-wise agreement of two masks, and measures of single lesions.

A lesion is a connected component of a mask. A lesion r of the manual mask is detected by the
lesions t of the prediction in two steps:

1. The share of r that is covered by any t is at least `Preset.min_overlap`, and above 0.
2. The t are visited by falling overlap with r (of equal ones the larger first) until those visited
   make up `Preset.reach` of the overlap. None of them lies outside all lesions of the manual mask
   by more than `Preset.max_outside` of itself.

A predicted lesion is correct by the same rule with the roles of the masks exchanged. Where
`Preset.reach` is None, the rule is read literally: a predicted lesion that covers `min_overlap` of
some r by itself, and lies outside by no more than `max_outside`, is correct, and r is detected.

References
----------
Hussein et al. 2023, section 2.6; Commowick et al. 2018, "Objective evaluation of multiple sclerosis
lesion segmentation using a data management and processing infrastructure" (animaSegPerfAnalyzer)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sct_lesion_losses.errors import GeometryError, UsageError
from sct_lesion_losses.metrics import CONNECTIVITY, PRESETS, Connectivity, Preset

Box = tuple[slice, slice, slice]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

ROUNDING = 1e-6  # a spacing read from a float32 header is off by up to 6e-8 of itself
_RANK = {6: 1, 18: 2, 26: 3}


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
    """

    preset: Preset
    n_truth: int
    n_predicted: int
    detected: int
    correct: int
    truth_mm3: float
    predicted_mm3: float

    @property
    def sensitivity(self) -> float:
        """L-sensitivity; NaN where the manual mask has no lesion."""
        return self.detected / self.n_truth if self.n_truth else float("nan")

    @property
    def precision(self) -> float:
        """L-precision; NaN where the manual mask has no lesion, 0 where nothing is predicted."""
        return self.correct / max(self.n_predicted, 1) if self.n_truth else float("nan")

    @property
    def f1(self) -> float:
        """L-F1, their harmonic mean; NaN where the manual mask has no lesion."""
        total = self.sensitivity + self.precision
        return 2 * self.sensitivity * self.precision / total if total else 0.0


def score(
    truth: NDArray[np.bool_],
    prediction: NDArray[np.bool_],
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
        A key of `PRESETS`, or numbers of one's own.

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
    rule = find(preset)
    if truth.shape != prediction.shape or truth.ndim != 3:
        raise GeometryError(
            f"the manual mask has shape {truth.shape} and the prediction {prediction.shape}, "
            "expected one grid of three axes"
        )
    voxel_mm3 = voxel_volume_mm3(spacing_mm)
    truth, prediction = truth.astype(bool, copy=False), prediction.astype(bool, copy=False)
    box = bounding_box(truth | prediction)
    labels = (components(mask[box], rule.connectivity) for mask in (truth, prediction))
    return score_of(overlap(*labels), rule, voxel_mm3)


def score_of(table: Overlap, preset: Preset, voxel_mm3: float) -> LesionScore:
    """Score the lesions of a table, the small ones with them, in voxels of this volume."""
    found, correct = detected(counted(table, preset, voxel_mm3), preset)
    return LesionScore(
        preset,
        len(found),
        len(correct),
        int(found.sum()),
        int(correct.sum()),
        int(table.truth_sizes.sum()) * voxel_mm3,
        int(table.predicted_sizes.sum()) * voxel_mm3,
    )


def find(preset: str | Preset) -> Preset:
    """Look up a preset by its name; one that is a preset already is returned as it is.

    Raises
    ------
    UsageError
        No preset has this name.
    """
    if isinstance(preset, Preset):
        return preset
    if preset not in PRESETS:
        raise UsageError(
            f"no lesion-wise preset is named {preset!r}; choose from {sorted(PRESETS)}"
        )
    return PRESETS[preset]


def components(mask: NDArray[Any], connectivity: Connectivity = CONNECTIVITY) -> NDArray[np.int32]:
    """Label the connected components of a mask, the largest as 1.

    Components of one size keep the order of their first voxels.

    Parameters
    ----------
    mask : (X, Y, Z) bool, or {0, 1}
    connectivity : 6, 18 or 26
        Neighbours of a voxel: by faces; also by edges; also by corners.

    Returns
    -------
    (X, Y, Z) int32
        0 outside; 1, 2, … inside.
    """
    found = np.asarray(mask, dtype=bool)
    labels = np.zeros(found.shape, dtype=np.int32)
    box = bounding_box(found)
    structure = ndimage.generate_binary_structure(3, _RANK[connectivity])
    part, count = ndimage.label(found[box], structure=structure)
    sizes = np.bincount(part.ravel(), minlength=count + 1)[1:]
    rank = np.zeros(count + 1, dtype=np.int32)
    rank[1 + np.argsort(-sizes, kind="stable")] = np.arange(1, count + 1)
    labels[box] = rank[part]
    return labels


def bounding_box(mask: NDArray[np.bool_]) -> Box:
    """Smallest box that holds an (X, Y, Z) mask; one without voxels for an empty mask."""
    x = _range(mask.any(axis=(1, 2)))
    y = _range(mask[x].any(axis=(0, 2)))  # each axis leaves the next one less to look at
    z = _range(mask[x, y].any(axis=(0, 1)))
    return x, y, z


def _range(held: Any) -> slice:
    """From the first to the last of a line that holds; nothing where none does."""
    where = np.flatnonzero(held)
    return slice(int(where[0]), int(where[-1]) + 1) if where.size else slice(0)


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


@dataclass(frozen=True, eq=False)
class Overlap:
    """Sizes of the lesions of two masks, and what each pair of them has in common.

    Pairs without a common voxel are left out: a noisy mask has thousands of components, and nearly
    all of its pairs are empty. Lesions are counted from 0, in the order of their labels.

    Attributes
    ----------
    truth_sizes : (R,) int64
        Voxels of each lesion of the manual mask.
    predicted_sizes : (T,) int64
        Voxels of each predicted lesion.
    truth, predicted : (P,) int64
        The two lesions of each overlapping pair.
    voxels : (P,) int64
        What they have in common, at least 1.
    """

    truth_sizes: IntArray
    predicted_sizes: IntArray
    truth: IntArray
    predicted: IntArray
    voxels: IntArray

    def swapped(self) -> Overlap:
        """Return the table with the roles of manual mask and prediction exchanged."""
        return Overlap(
            self.predicted_sizes, self.truth_sizes, self.predicted, self.truth, self.voxels
        )

    def only(self, truth: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> Overlap:
        """Return the table of these lesions alone, (R,) and (T,) bool, in the same order."""
        kept = truth[self.truth] & predicted[self.predicted]
        return Overlap(
            self.truth_sizes[truth],
            self.predicted_sizes[predicted],
            (np.cumsum(truth) - 1)[self.truth[kept]],
            (np.cumsum(predicted) - 1)[self.predicted[kept]],
            self.voxels[kept],
        )

    def to_dict(self) -> dict[str, list[int]]:
        """Return the table as plain values, for a file; see `from_dict`."""
        return {name: values.tolist() for name, values in vars(self).items()}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Overlap:
        """Return the table that `to_dict` wrote.

        Raises
        ------
        KeyError, TypeError, ValueError
            It did not.
        """
        return cls(**{name: np.array(own, dtype=np.int64) for name, own in stored.items()})


def overlap(truth: NDArray[np.integer[Any]], prediction: NDArray[np.integer[Any]]) -> Overlap:
    """Count the voxels that each pair of lesions has in common.

    Parameters
    ----------
    truth, prediction : (X, Y, Z) int
        Labels 1, 2, … of the lesions of both masks, 0 outside.

    Returns
    -------
    Overlap
    """
    truth_sizes, predicted_sizes = sizes(truth), sizes(prediction)
    both = (truth > 0) & (prediction > 0)
    n = max(len(predicted_sizes), 1)
    codes = (truth[both].astype(np.int64) - 1) * n + prediction[both] - 1
    pairs, voxels = np.unique(codes, return_counts=True)
    return Overlap(truth_sizes, predicted_sizes, pairs // n, pairs % n, voxels.astype(np.int64))


def sizes(labels: NDArray[np.integer[Any]]) -> IntArray:
    """Voxels of the lesions 1, 2, … of a labelled mask."""
    return np.bincount(labels[labels > 0], minlength=1)[1:].astype(np.int64)


def counted(table: Overlap, preset: Preset, voxel_mm3: float) -> Overlap:
    """Return the table without the lesions that are too small for the preset."""
    ignored_vox = preset.min_volume_mm3 / voxel_mm3 * (1 + ROUNDING)
    return table.only(table.truth_sizes > ignored_vox, table.predicted_sizes > ignored_vox)


def detected(table: Overlap, preset: Preset) -> tuple[BoolArray, BoolArray]:
    """Apply the rule both ways.

    Parameters
    ----------
    table : Overlap
        Of the lesions that are counted, numbered by falling size as `components` does.
    preset : Preset

    Returns
    -------
    (R,) bool
        Lesions of the manual mask that are detected.
    (T,) bool
        Predicted lesions that are correct.
    """
    if preset.reach is None:
        return _alone(table, preset)
    return _together(table, preset, preset.reach), _together(table.swapped(), preset, preset.reach)


def _alone(table: Overlap, preset: Preset) -> tuple[BoolArray, BoolArray]:
    """Find lesions with a predicted one that covers enough of them alone, and those predicted."""
    share = table.voxels / table.truth_sizes[table.truth]
    good = _enough(share, preset) & ~_leaks(table, preset)[table.predicted]
    found = np.zeros(len(table.truth_sizes), dtype=bool)
    correct = np.zeros(len(table.predicted_sizes), dtype=bool)
    found[table.truth[good]] = True
    correct[table.predicted[good]] = True
    return found, correct


def _together(table: Overlap, preset: Preset, reach: float) -> BoolArray:
    """Apply the two steps to every lesion of the manual mask."""
    total = np.zeros(len(table.truth_sizes), dtype=np.int64)
    np.add.at(total, table.truth, table.voxels)
    covered = _enough(total / table.truth_sizes, preset) & (total > 0)
    # Of equal overlaps the larger lesion comes first: it has the lower label.
    order = np.lexsort((table.predicted, -table.voxels, table.truth))
    row, voxels = table.truth[order], table.voxels[order]
    # What a lesion's tested ones before this one hold of the overlap with it.
    before = np.cumsum(voxels) - voxels - (np.cumsum(total) - total)[row]
    visited = before / total[row] < reach
    failed = visited & _leaks(table, preset)[table.predicted[order]]
    covered[row[failed]] = False
    return covered


def _enough(share: NDArray[np.float64], preset: Preset) -> BoolArray:
    return share > preset.min_overlap if preset.strict else share >= preset.min_overlap


def _leaks(table: Overlap, preset: Preset) -> BoolArray:
    """Predicted lesions that lie outside all lesions of the manual mask by more than allowed."""
    outside = table.predicted_sizes.copy()
    np.subtract.at(outside, table.predicted, table.voxels)
    return np.asarray(outside / table.predicted_sizes > preset.max_outside)


@dataclass(frozen=True)
class MeasuredLesion:
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
        Of the p-map inside it; the highest is the last threshold at which a voxel of it is left.
    """

    label: int
    volume_mm3: float
    length_mm: float
    centre_mm: tuple[float, float, float]
    mean_probability: float
    highest_probability: float


def measures(
    labels: NDArray[np.integer[Any]],
    pmap: NDArray[np.floating[Any]],
    affine: NDArray[np.float64],
) -> list[MeasuredLesion]:
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
    list of MeasuredLesion
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
    axis = _upwards(affine)
    voxel_mm3 = float(abs(np.linalg.det(steps)))
    lesions = []
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        inside = labels[box] == label
        probabilities = pmap[box][inside]
        start = np.array([side.start for side in box])
        centre = steps @ (start + np.argwhere(inside).mean(axis=0)) + affine[:3, 3]
        lesions.append(
            MeasuredLesion(
                label=label,
                volume_mm3=probabilities.size * voxel_mm3,
                length_mm=float((box[axis].stop - box[axis].start) * spacing_mm[axis]),
                centre_mm=(float(centre[0]), float(centre[1]), float(centre[2])),
                mean_probability=float(probabilities.mean(dtype=np.float64)),
                highest_probability=float(probabilities.max()),
            )
        )
    return lesions


_AWAY_MM = 1.0  # nearer to a lesion, partial volume and blur brighten the cord


def contrasts(
    labels: NDArray[np.integer[Any]],
    image: NDArray[Any],
    cord: NDArray[np.bool_],
    affine: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Contrast of each lesion of a labelled mask: its mean over the median of the cord beside it.

    Parameters
    ----------
    labels : (X, Y, Z) int
        From :func:`components`.
    image : (X, Y, Z)
    cord : (X, Y, Z) bool
        Cord mask.
    affine : (4, 4) float64
        Voxels to world mm.

    Returns
    -------
    (R,) float64
        The cord beside a lesion is that of its axial slices, more than 1 mm away from all lesions;
        where there is none, all of the cord outside lesions. NaN where there is none either.

    Raises
    ------
    GeometryError
        The arrays differ in shape.
    """
    if not labels.shape == image.shape == cord.shape:
        raise GeometryError(
            f"labels {labels.shape}, image {image.shape} and cord mask {cord.shape} are on "
            "different grids"
        )
    spacing_mm = np.linalg.norm(np.asarray(affine, dtype=np.float64)[:3, :3], axis=0)
    axis, healthy = _upwards(affine), cord & (labels == 0)
    away = healthy & (ndimage.distance_transform_edt(labels == 0, spacing_mm) > _AWAY_MM)
    found = []
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        slices = tuple(side if k == axis else slice(None) for k, side in enumerate(box))
        near = image[slices][away[slices]]
        beside = near if near.size else image[healthy]
        level = np.median(beside) if beside.size else np.nan
        found.append(float(image[box][labels[box] == label].mean(dtype=np.float64) / level))
    return np.array(found)


def _upwards(affine: NDArray[np.float64]) -> int:
    """Voxel axis nearest to superior-inferior."""
    steps = np.asarray(affine, dtype=np.float64)[:3, :3]
    return int(np.argmax(np.abs(steps[2] / np.linalg.norm(steps, axis=0))))
