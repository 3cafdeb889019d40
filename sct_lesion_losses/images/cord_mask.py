"""Cord masks that lesions are kept inside of: outside one, the lesion probability is zero."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sct_lesion_losses.errors import ImageError
from sct_lesion_losses.geometry.grid import Grid
from sct_lesion_losses.images import nifti
from sct_lesion_losses.images.nifti import Scan

CORD_MM2 = (20.0, 200.0)  # cross-section: from an atrophic cord to one with room to spare
LINE_VOX = 4  # voxels in a slice of a centerline image

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class CordMask:
    """Mask of the cord on the grid of a scan.

    Attributes
    ----------
    array : (X, Y, Z) bool
    name : str
        Base name of its file, or SCT's command that drew it.
    sha256 : str
        Hash of its voxels.
    """

    array: npt.NDArray[np.bool_]
    name: str
    sha256: str

    @classmethod
    def of(cls, mask: Scan, name: str) -> CordMask:
        """Take a mask that was read, unless it is empty.

        Raises
        ------
        ImageError
            It is.
        """
        if not mask.array.any():
            raise ImageError(f"{name}: the cord mask is empty; draw the cord, or leave out -cord")
        packed = np.packbits(mask.array)
        return cls(mask.array, name, hashlib.sha256(packed.tobytes()).hexdigest())

    def cut(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Set what lies outside the cord to zero.

        A p-map is cut before it is thresholded, and a filter of lesions comes after both. So a
        lesion that reaches beyond the cord keeps its part inside, is counted as what is left of it
        (as two where the border parts it), and is filtered by the peak and the volume of that: a
        bright place beside the cord does not pass the filter by a remnant that touches it. The
        masks at rising thresholds lie in each other as ever, and `sct_analyze_lesion -s`, which
        sets to zero what is outside the cord, finds the same lesions with the same volumes.

        Parameters
        ----------
        values : (X, Y, Z)
            P-map or mask.
        """
        return np.where(self.array, values, values.dtype.type(0))


def read(file: Path, grid: Grid) -> CordMask:
    """Read the cord mask of a scan on a grid.

    Raises
    ------
    ImageError
        It is missing, damaged, empty, or holds other values than 0 and 1.
    GeometryError
        It is on another grid.
    """
    mask = nifti.read_mask(file, like=grid, as_255=False)
    cord = CordMask.of(mask, file.name)
    warn_of_size(mask)
    reached = np.flatnonzero(mask.grid.to_rpi()[1].apply(mask.array).any(axis=(0, 1)))
    if gaps := int(np.ptp(reached)) + 1 - len(reached):
        logger.warning(
            "%s: empty in %d axial slices between others, where lesions are cut in two or dropped; "
            "fill the cord mask",
            *(mask.path.name, gaps),
        )
    return cord


def section_vox(mask: Scan) -> float:
    """Count the voxels of a mask in an axial slice: the median of those that it reaches."""
    counts = np.count_nonzero(mask.grid.to_rpi()[1].apply(mask.array), axis=(0, 1))
    return float(np.median(counts[counts > 0]))


def warn_of_size(mask: Scan, line: bool = False) -> None:
    """Warn of a mask whose cross-sections are not a cord's, nor a line's where it may be one."""
    rpi, usual = mask.grid.to_rpi()[0], section_vox(mask)
    area = usual * rpi.spacing_mm[0] * rpi.spacing_mm[1]
    small = area < CORD_MM2[0] and not (line and usual <= LINE_VOX)
    if area > CORD_MM2[1] or small:
        logger.warning(
            "%s: %.0f mm² in the middle of its axial slices, a cord has %g to %g: is it a mask of "
            "the cord?",
            *(mask.path.name, area, *CORD_MM2),
        )
