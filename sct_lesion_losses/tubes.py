"""Scans as training sees them: intensities and lesion mask in a tube along the cord."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sct_lesion_losses import intensity, locate, notices, prepare
from sct_lesion_losses.data import cohort as cohorts
from sct_lesion_losses.data import nifti
from sct_lesion_losses.data.cohort import CohortScan
from sct_lesion_losses.data.drawing import TrainingTube
from sct_lesion_losses.space.tube import CordTube

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
    with notices.about(scan.scan):
        image = nifti.read(scan.scan)
        lesion = nifti.read_mask(scan.lesion_mask, like=image.grid).array
        centerline = locate.centerline(image.array, image.grid, file=scan.centerline)
        rpi, reorientation = image.grid.to_rpi()
        tube = prepare.cord_tube(centerline)
        wide = CordTube(tube.grid, tube.first, tube.starts - margin, tube.width + 2 * margin)
        values, _ = prepare.padded(wide.cut(reorientation.apply(image.array), rpi))
        mask, _ = prepare.padded(wide.cut(reorientation.apply(lesion), rpi, order=0))
        return RawTube(values, mask > 0.5, cohorts.content_hash(image.array))


def standardised(tube: RawTube, landmarks: intensity.Landmarks, margin: int) -> TrainingTube:
    """Standardise the tube as `prepare.scan` does, margin included."""
    reference = prepare.stacked_patches(tube.inner(margin))
    return TrainingTube(intensity.standardise(tube.values, landmarks, reference), tube.lesion)
