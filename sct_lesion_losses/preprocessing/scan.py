"""Scan and centerline to the input of a network, for training and for use alike."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sct_lesion_losses.bundle.schema import SctPreparation, StudyPreparation
from sct_lesion_losses.geometry.centerline import Centerline
from sct_lesion_losses.geometry.cord_crop import CordCrop
from sct_lesion_losses.geometry.grid import Grid
from sct_lesion_losses.geometry.patches import (
    AS_IT_IS,
    FOUR_WAYS,
    PATCH_VOX,
    Way,
    extract,
    patch_starts,
    reach,
)
from sct_lesion_losses.geometry.signal import Signal
from sct_lesion_losses.preprocessing import intensity
from sct_lesion_losses.sct import lesion as sct_lesion

logger = logging.getLogger(__name__)

SPACING_MM = 0.5  # Hussein et al. 2023, section 2.1
FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class CroppedScan:
    """A scan around the cord at 0.5 mm, as it is, and the way back.

    Attributes
    ----------
    values : (48 + 2M, 48 + 2M, Z) float32
        Intensities, M voxels wider on each side than a network sees; the end slices are repeated
        where there are fewer than a patch has.
    crop : CordCrop
        The windows that a network sees, on the part of the scan that has signal.
    margin : int
        M.
    signal : Signal
        That part.
    undo : callable
        From RPI back to the stored axis order.
    """

    values: FloatArray
    crop: CordCrop
    margin: int
    signal: Signal
    undo: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]

    @property
    def pad(self) -> int:
        """Slices repeated below the crop; as many or one more are above it."""
        return int(self.values.shape[2] - self.crop.length) // 2

    def to_native(self, pmap: FloatArray) -> FloatArray:
        """P-map of the crop, (48, 48, Z), on the grid of the stored image; zero elsewhere."""
        inner = pmap[:, :, self.pad : self.pad + self.crop.length]
        part = self.crop.uncut(inner, self.signal.grid)
        return np.ascontiguousarray(self.undo(self.signal.uncrop(part)))


def crop(
    image: npt.NDArray[Any], grid: Grid, centerline: Centerline, margin: int = 0
) -> CroppedScan:
    """Cut a scan to the cord: 48 x 48 voxels of 0.5 mm on each axial slice that has signal.

    Parameters
    ----------
    image : (X, Y, Z)
        Stored array, in any axis order.
    grid : Grid
        Its grid.
    centerline : Centerline
        On the image's RPI grid. Gaps are bridged, but for slices without signal, which are left
        out as if they were not there.
    margin : int
        Voxels by which the values are wider on each side.
    """
    rpi, reorientation = grid.to_rpi()
    upright = reorientation.apply(image)
    signal = Signal.of(upright, rpi).along(upright, centerline.filled())
    line = signal.crop_line(centerline)
    windows = CordCrop.around(line, line.grid.resampled((SPACING_MM,) * 3))
    values = _sampled(signal.crop(upright), signal.grid, windows, margin)
    return CroppedScan(values, windows, margin, signal, reorientation.undo)


def crop_mask(mask: npt.NDArray[np.bool_], grid: Grid, like: CroppedScan) -> npt.NDArray[np.bool_]:
    """Mask of a scan on the voxels of the cropped scan, by nearest neighbour.

    Parameters
    ----------
    mask : (X, Y, Z) bool
        On the grid of the scan.
    grid : Grid
        That grid.
    like : CroppedScan

    Returns
    -------
    (48 + 2M, 48 + 2M, Z) bool
    """
    part = like.signal.crop(grid.to_rpi()[1].apply(mask))
    return _sampled(part, like.signal.grid, like.crop, like.margin, order=0) > 0.5


def stacked_patches(values: FloatArray) -> FloatArray:
    """All the 75 % overlapping patches of a crop, (N, 48, 48, 48), without its margin."""
    margin = (values.shape[0] - PATCH_VOX) // 2
    inner = values[margin : margin + PATCH_VOX, margin : margin + PATCH_VOX]
    return extract(inner, patch_starts(values.shape[2]))


def standardise(values: FloatArray, preparation: StudyPreparation) -> FloatArray:
    """Map the intensities of a crop onto landmarks, by the percentiles of its stacked patches.

    Parameters
    ----------
    values : (48 + 2M, 48 + 2M, Z) float32
        Crop, M voxels wider on each side than a patch; the patches are of its middle.
    preparation : StudyPreparation
        Percentiles, and the landmarks that they are mapped onto.

    Returns
    -------
    (48 + 2M, 48 + 2M, Z) float32
    """
    return intensity.standardise(values, preparation, stacked_patches(values))


@dataclass(frozen=True, eq=False)
class Prepared:
    """A scan as a network takes it, and the way from its p-map back to the scan.

    Attributes
    ----------
    values : (48 + 2M, 48 + 2M, Z) float32
        Standardised intensities around the cord, at least one patch long, M voxels wider on each
        side than a patch: the reach of `ways`.
    normalise : callable
        Patches, (N, 48, 48, 48), to what the network was trained on.
    to_native : callable
        P-map of the crop, (48, 48, Z), to the grid of the stored image, (X, Y, Z).
    ways : tuple of Way
        How the network sees the patches.
    """

    values: FloatArray
    normalise: Callable[[FloatArray], FloatArray]
    to_native: Callable[[FloatArray], FloatArray]
    ways: tuple[Way, ...] = AS_IT_IS


def prepare(
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
        return _as_sct(image, grid, centerline, preparation)
    ways = FOUR_WAYS if preparation.tta else AS_IT_IS
    cropped = crop(image, grid, centerline, reach(ways))
    if cropped.crop.length < PATCH_VOX:
        logger.warning(
            "the cord is covered over %.1f mm only, the network sees %.0f mm at a time: "
            "the end slices are repeated, expect less than usual",
            cropped.crop.length * SPACING_MM,
            PATCH_VOX * SPACING_MM,
        )
    intensity.warn_if_unlike(stacked_patches(cropped.values), preparation)
    standard = standardise(cropped.values, preparation)
    return Prepared(standard, intensity.zscore, cropped.to_native, ways)


def _as_sct(
    image: npt.NDArray[Any], grid: Grid, centerline: Centerline, preparation: SctPreparation
) -> Prepared:
    """Prepare the slices that have signal as SCT prepares a scan."""
    rpi, reorientation = grid.to_rpi()
    upright = reorientation.apply(image)
    # Columns stay: SCT's windows end where the image does.
    signal = Signal.of(upright, rpi).slices
    if centerline.grid.matches(rpi):
        line = signal.crop_line(centerline)
    else:  # on the grid of SCT's windows
        plane = sct_lesion.in_plane(sct_lesion.as_header(signal.grid))
        line = Centerline(plane, centerline.xy[signal.z], centerline.method)
    part = sct_lesion.prepare(signal.crop(upright), signal.grid, line, preparation)

    def to_native(pmap: FloatArray) -> FloatArray:
        return np.ascontiguousarray(reorientation.undo(signal.uncrop(part.to_native(pmap))))

    return Prepared(part.values, part.normalise, to_native)


def _sampled(
    array: npt.NDArray[Any],
    grid: Grid,
    windows: CordCrop,
    margin: int,
    order: Literal[0, 1] = 1,
) -> FloatArray:
    """Values in the windows, wider by a margin, their end slices repeated up to one patch."""
    wide = CordCrop(
        windows.grid, windows.first, windows.starts - margin, windows.width + 2 * margin
    )
    values = wide.cut(array, grid, order)
    missing = max(PATCH_VOX - values.shape[2], 0)
    if missing == 0:
        return values
    below = missing // 2
    return np.pad(values, ((0, 0), (0, 0), (below, missing - below)), mode="edge")
