"""Repeatability: the lesions of a person in two or more scans of one session.

The scans may lie on different grids. They are compared in the world, as their headers place them,
within what all of them show; nobody is registered, so that a person who moved in between counts
against the agreement.

Volume: the coefficient of variation of a session is the standard deviation of its volumes (n - 1
below) over their mean; that of many sessions is the root mean square of theirs. Lesions: one is
found again in another scan where the centre of a voxel of either lies in a voxel of the other.

References
----------
Glüer et al. 1995, "Accurate assessment of precision errors: how to measure the reproducibility of
bone densitometry techniques", Osteoporosis International 5; Bland and Altman 1996, "Measurement
error proportional to the mean", BMJ 313
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sct_lesion_losses.metrics.lesionwise import BoolArray, IntArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PlacedLesions:
    """The numbered lesions of a scan, and where its grid lies in the world.

    Attributes
    ----------
    shape : 3 int
        Of the grid.
    affine : (4, 4) float64
        Voxels to world mm.
    voxels : (N, 3) int64
        Of all lesions, in the order of the array.
    labels : (N,) int64
        The lesion of each, 1, 2, …
    """

    shape: tuple[int, ...]
    affine: FloatArray
    voxels: IntArray
    labels: IntArray

    @property
    def points_mm(self) -> FloatArray:
        """Centres of the voxels in the world, (N, 3)."""
        centres: FloatArray = self.voxels @ self.affine[:3, :3].T + self.affine[:3, 3]
        return centres

    @property
    def centres_mm(self) -> FloatArray:
        """Centre of each lesion in the world, (L, 3): the mean of its voxels'."""
        points = self.points_mm
        sums = [np.bincount(self.labels, along, minlength=1)[1:] for along in points.T]
        return np.stack(sums, axis=-1) / np.bincount(self.labels, minlength=1)[1:, None]

    @property
    def voxel_mm3(self) -> float:
        """Volume of a voxel."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    def at(self, points_mm: FloatArray) -> tuple[IntArray, BoolArray]:
        """Lesion at each point of the world, 0 outside, and whether the grid holds the point."""
        moved = (points_mm - self.affine[:3, 3]) @ np.linalg.inv(self.affine[:3, :3]).T
        nearest = np.floor(moved + 0.5).astype(np.int64)
        inside = np.asarray(((nearest >= 0) & (nearest < self.shape)).all(axis=-1))
        labels = np.zeros(len(points_mm), dtype=np.int64)
        if len(self.labels):
            codes = np.ravel_multi_index(tuple(self.voxels.T), self.shape)
            wanted = np.ravel_multi_index(tuple(nearest[inside].T), self.shape)
            place = np.minimum(np.searchsorted(codes, wanted), len(codes) - 1)
            labels[inside] = np.where(codes[place] == wanted, self.labels[place], 0)
        return labels, inside


def place(labels: NDArray[np.integer[Any]], affine: FloatArray) -> PlacedLesions:
    """Place the lesions of a labelled mask, (X, Y, Z), in the world."""
    inside = labels > 0
    return PlacedLesions(labels.shape, affine, np.argwhere(inside), labels[inside].astype(np.int64))


@dataclass(frozen=True)
class SessionRepeat:
    """Agreement of the scans of one session.

    Attributes
    ----------
    volumes_mm3 : tuple of float
        Lesion volume in each scan, within what all of them show.
    again : tuple of bool
        For every lesion of a scan whose centre another scan shows: found again there. One of three
        scans counts twice, once for each other scan.
    outside : int
        Those whose centre the other scan does not show.
    """

    volumes_mm3: tuple[float, ...]
    again: tuple[bool, ...]
    outside: int

    @property
    def cv(self) -> float:
        """Coefficient of variation of the volume; NaN where no scan has any."""
        mean = float(np.mean(self.volumes_mm3))
        return float(np.std(self.volumes_mm3, ddof=1)) / mean if mean else float("nan")


def repeat(scans: Sequence[PlacedLesions]) -> SessionRepeat:
    """Compare the lesions of two or more scans of one session."""
    volumes, again, outside = [], list[bool](), 0
    for own in scans:
        points = own.points_mm
        shared = np.ones(len(points), dtype=bool)
        for other in scans:
            shared &= other.at(points)[1]
        volumes.append(float(np.count_nonzero(shared)) * own.voxel_mm3)
    for own, other in permutations(scans, 2):
        centres = own.centres_mm
        found = np.zeros(len(centres) + 1, dtype=bool)  # the first one stands for no lesion
        found[own.labels[other.at(own.points_mm)[0] > 0]] = True
        found[own.at(other.points_mm)[0]] = True
        shown = other.at(centres)[1]
        again += found[1:][shown].tolist()
        outside += int(np.count_nonzero(~shown))
    return SessionRepeat(tuple(volumes), tuple(again), outside)


def root_mean_square(values: ArrayLike, axis: int | None = None) -> Any:
    """Root of the mean of the squares, along an axis."""
    return np.sqrt(np.mean(np.square(values), axis=axis))
