"""Scans as training sees them: intensities and lesion mask in a tube along the cord."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from sct_lesion_losses import logs
from sct_lesion_losses.bundle.schema import SctPreparation, StudyPreparation
from sct_lesion_losses.centerline import find
from sct_lesion_losses.cohorts import table as cohorts
from sct_lesion_losses.cohorts.table import CohortScan
from sct_lesion_losses.geometry.centerline import Centerline
from sct_lesion_losses.geometry.cord_crop import CordTube
from sct_lesion_losses.geometry.grid import Grid
from sct_lesion_losses.geometry.patches import PATCH_VOX, extract, patch_starts
from sct_lesion_losses.images import nifti
from sct_lesion_losses.preprocessing import intensity
from sct_lesion_losses.preprocessing.sampler import TrainingTube
from sct_lesion_losses.sct import lesion as sct_lesion

logger = logging.getLogger(__name__)

SPACING_MM = 0.5  # Hussein et al. 2023, section 2.1


class Prepared(Protocol):
    """What a network needs of a scan, and the way from its p-map back to the scan.

    Attributes
    ----------
    values : (48, 48, Z) float32
        Standardised intensities in the tube, at least one patch long.
    """

    @property
    def values(self) -> npt.NDArray[np.float32]:
        """Standardised intensities in the tube, (48, 48, Z)."""
        ...

    def normalise(self, patches: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Patches, (N, 48, 48, 48), as the network was trained on them."""
        ...

    def to_native(self, pmap: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """P-map of the tube, (48, 48, Z), on the grid of the stored image, (X, Y, Z)."""
        ...


@dataclass(frozen=True, eq=False)
class StudyPrepared:
    """A scan prepared as in the study (`StudyPreparation`).

    Attributes
    ----------
    values : (48, 48, Z) float32
        Tube at 0.5 mm, landmarks standardised, padded to one patch where it is shorter.
    tube : CordTube
    pad : int
        Slices added below the tube, and as many or one more above.
    native : Grid
        RPI grid of the image.
    undo : callable
        From RPI back to the stored axis order.
    """

    values: npt.NDArray[np.float32]
    tube: CordTube
    pad: int
    native: Grid
    undo: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]

    def normalise(self, patches: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Each patch, (N, 48, 48, 48), to zero mean and unit standard deviation."""
        return intensity.zscore(patches)

    def to_native(self, pmap: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """P-map of the tube, (48, 48, Z), on the grid of the stored image; zero off the tube."""
        inner = pmap[:, :, self.pad : self.pad + self.tube.length]
        return np.ascontiguousarray(self.undo(self.tube.uncut(inner, self.native)))


def cord_tube(centerline: Centerline) -> CordTube:
    """Tube of the study around a centerline: 48 x 48 voxels of 0.5 mm on each axial slice."""
    return CordTube.around(centerline, centerline.grid.resampled((SPACING_MM,) * 3))


def tube_values(
    image: npt.NDArray[Any], grid: Grid, centerline: Centerline
) -> tuple[CordTube, npt.NDArray[np.float32]]:
    """Tube of the study around a centerline, and the untouched intensities in it.

    Parameters
    ----------
    image : (X, Y, Z)
        Stored array, in any axis order.
    grid : Grid
        Its grid.
    centerline : Centerline
        On the image's RPI grid.

    Returns
    -------
    tube : CordTube
    values : (48, 48, Z) float32
    """
    rpi, reorientation = grid.to_rpi()
    tube = cord_tube(centerline)
    return tube, tube.cut(reorientation.apply(image), rpi)


def padded(values: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], int]:
    """Repeat the end slices of a tube shorter than one patch; return it and the slices below."""
    missing = max(PATCH_VOX - values.shape[2], 0)
    below = missing // 2
    if missing == 0:
        return values, 0
    return np.pad(values, ((0, 0), (0, 0), (below, missing - below)), mode="edge"), below


def stacked_patches(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """All the 75 % overlapping patches of a padded tube, (N, 48, 48, 48)."""
    return extract(values, patch_starts(values.shape[2]))


def scan(
    image: npt.NDArray[Any],
    grid: Grid,
    centerline: Centerline,
    preparation: StudyPreparation | SctPreparation,
) -> Prepared:
    """Prepare a scan as the bundle's network was trained on.

    Parameters
    ----------
    image : (X, Y, Z)
        Stored array, in any axis order.
    grid : Grid
        Its grid.
    centerline : Centerline
        On the image's RPI grid.
    preparation : StudyPreparation or SctPreparation
        Read from the bundle.
    """
    if isinstance(preparation, SctPreparation):
        return sct_lesion.prepare(image, grid, centerline, preparation)
    tube, raw = tube_values(image, grid, centerline)
    values, pad = padded(raw)
    if pad:
        logger.warning(
            "the cord is covered over %.1f mm only, the network sees %.0f mm at a time: "
            "the end slices are repeated, expect less than usual",
            raw.shape[2] * SPACING_MM,
            PATCH_VOX * SPACING_MM,
        )
    landmarks = intensity.Landmarks(preparation.percentiles, preparation.landmarks)
    patches = stacked_patches(values)
    if unlike := intensity.contrast_warning(patches, landmarks):
        logger.warning("%s", unlike)
    rpi, reorientation = grid.to_rpi()
    return StudyPrepared(
        intensity.standardise(values, landmarks, reference=patches),
        tube,
        pad,
        rpi,
        reorientation.undo,
    )


FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class RawTube:
    """A scan in its tube before standardisation.

    Attributes
    ----------
    values : (48 + 2M, 48 + 2M, Z) float32
        Intensities, M voxels wider on each side than a network sees.
    lesion : (48 + 2M, 48 + 2M, Z) bool
        Lesion mask on the same voxels.
    content : str
        Hash of the whole scan's voxels.
    """

    values: FloatArray
    lesion: npt.NDArray[np.bool_]
    content: str

    @property
    def seen(self) -> str:
        """Hash of what a network sees of the scan: intensities and lesion mask in the tube."""
        lesion = np.packbits(self.lesion)
        return cohorts.content_hash(self.values) + hashlib.sha256(lesion.tobytes()).hexdigest()[:32]

    def inner(self, margin: int) -> FloatArray:
        """Return the 48 x 48 window that a network sees in use, without the margin for shifts."""
        end = self.values.shape[0] - margin
        return self.values[margin:end, margin:end]


def cut(scan: CohortScan, margin: int = 0) -> RawTube:
    """Intensities and lesion mask of a scan in its tube, `margin` voxels wider on each side.

    The window without its margin is the one that `prepare.tube_values` cuts. The mask is sampled
    by nearest neighbour: a mask is never interpolated. Where the cohort has no centerline for the
    scan, it is found as in use.
    """
    with logs.about(scan.scan):
        image = nifti.read(scan.scan)
        lesion = nifti.read_mask(scan.lesion_mask, like=image.grid).array
        centerline = find.centerline(image.array, image.grid, file=scan.centerline)
        rpi, reorientation = image.grid.to_rpi()
        tube = cord_tube(centerline)
        wide = CordTube(tube.grid, tube.first, tube.starts - margin, tube.width + 2 * margin)
        values, _ = padded(wide.cut(reorientation.apply(image.array), rpi))
        mask, _ = padded(wide.cut(reorientation.apply(lesion), rpi, order=0))
        return RawTube(values, mask > 0.5, cohorts.content_hash(image.array))


def standardised(tube: RawTube, landmarks: intensity.Landmarks, margin: int) -> TrainingTube:
    """Standardise the tube as `prepare.scan` does, margin included."""
    reference = stacked_patches(tube.inner(margin))
    return TrainingTube(intensity.standardise(tube.values, landmarks, reference), tube.lesion)
