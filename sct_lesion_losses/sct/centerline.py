"""SCT's own centerline command, run on a scan in memory."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from sct_lesion_losses.data import nifti
from sct_lesion_losses.data.nifti import Scan
from sct_lesion_losses.errors import SctError
from sct_lesion_losses.sct.install import Installation
from sct_lesion_losses.space.centerline import HOW_TO_GIVE
from sct_lesion_losses.space.grid import Grid

COMMAND = "sct_get_centerline"
_NIFTI_TYPES = ("uint8", "int16", "int32", "uint16", "float32", "float64")


def get(installation: Installation, image: NDArray[Any], grid: Grid, arguments: list[str]) -> Scan:
    """Centerline image that the command draws on a copy of the scan as it was read and repaired.

    Parameters
    ----------
    installation : Installation
    image : (X, Y, Z)
        Scan on its own axes.
    grid : Grid
        Its grid.
    arguments : list of str
        Options of the command, those of input and output left out.

    Returns
    -------
    Scan
        Its array is a mask with the line's voxels.

    Raises
    ------
    SctError
        The command is missing, fails, or writes nothing.
    """
    if not installation.has(COMMAND):
        raise SctError(
            f"{COMMAND} was not found in SCT's bin folder nor on the PATH; install SCT whole "
            "(https://spinalcordtoolbox.com), or use -centerline auto, embedded or file"
        )
    with tempfile.TemporaryDirectory(prefix="sct_lesion_losses_") as folder:
        scan, result = Path(folder) / "scan.nii", Path(folder) / "scan_centerline.nii.gz"
        known = image if image.dtype.name in _NIFTI_TYPES else image.astype(np.float32)
        copy = nib.Nifti1Image(known, grid.affine)
        copy.set_sform(grid.affine, code=1)
        copy.set_qform(grid.affine, code=1)
        nib.save(copy, scan)
        installation.run(
            [COMMAND, "-i", scan.name, *arguments, "-o", result.name, "-v", "0"], Path(folder)
        )
        if not result.exists():
            raise SctError(
                f"{COMMAND} wrote no centerline; run it by hand on the scan, then give its output "
                f"{HOW_TO_GIVE}"
            )
        return nifti.read_mask(result)
