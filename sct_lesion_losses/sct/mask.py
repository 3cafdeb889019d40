"""Masks that SCT's commands draw on a scan in memory, that of the cord among them."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from sct_lesion_losses.errors import SctError
from sct_lesion_losses.geometry.grid import Grid
from sct_lesion_losses.images import nifti
from sct_lesion_losses.images.cord_mask import CordMask
from sct_lesion_losses.images.nifti import Scan
from sct_lesion_losses.sct import install
from sct_lesion_losses.sct.install import Installation

NIFTI_TYPES = ("uint8", "int16", "int32", "uint16", "float32", "float64")
CORD = ("sct_deepseg", "spinalcord")
OLDEST = 7  # SCT that segments the cord by it
CORD_REMEDY = "give a mask of the cord with -cord <file>"


def drawn(
    image: NDArray[Any], grid: Grid, command: Sequence[str], remedy: str, name: str = "mask"
) -> Scan:
    """Run a command on a copy of the scan as it was read and repaired; read the mask it writes.

    Parameters
    ----------
    image : (X, Y, Z)
        Scan on its own axes.
    grid : Grid
        Its grid.
    command : sequence of str
        The command and its options, those of input and output left out.
    remedy : str
        What to do where it fails; see `Installation.run`.
    name : str
        What it draws, in the name of its output.

    Raises
    ------
    SctError
        The command is missing, fails, or writes nothing.
    """
    with tempfile.TemporaryDirectory(prefix="sct_lesion_losses_") as folder:
        scan, result = Path(folder) / "scan.nii", Path(folder) / f"scan_{name}.nii.gz"
        known = image if image.dtype.name in NIFTI_TYPES else image.astype(np.float32)
        copy = nib.Nifti1Image(known, grid.affine)
        copy.set_sform(grid.affine, code=1)
        copy.set_qform(grid.affine, code=1)
        nib.save(copy, scan)
        called = [*command, "-i", scan.name, "-o", result.name, "-v", "0"]
        install.require(remedy).run(called, Path(folder), remedy)
        if not result.exists():
            raise SctError(f"SCT's command {command[0]} wrote no {name}; {remedy}")
        return nifti.read_mask(result)


def require_cord() -> Installation:
    """Return the SCT that segments the cord.

    Raises
    ------
    SctError
        SCT, or its command, is missing, or SCT is older than its command's `spinalcord`.
    """
    found = install.require(CORD_REMEDY)
    if not found.has(CORD[0]):
        raise SctError(f"SCT's command {CORD[0]} was not found; {CORD_REMEDY}")
    major = re.match(r"\d+(?=\.)", found.version or "")
    if major and int(major[0]) < OLDEST:
        raise SctError(
            f"SCT {found.version} has no {' '.join(CORD)}, expected {OLDEST} or newer; "
            f"{CORD_REMEDY}"
        )
    return found


def cord(image: NDArray[Any], grid: Grid) -> CordMask:
    """Segment the cord by `sct_deepseg spinalcord` of SCT 7 and newer.

    Raises
    ------
    SctError
        See `drawn`; or the mask is on another grid.
    ImageError
        SCT finds no cord.
    """
    name, mask = " ".join(CORD), drawn(image, grid, CORD, CORD_REMEDY, "cord")
    if not mask.grid.matches(grid, tolerance_mm=min(grid.spacing_mm) / 10):
        raise SctError(
            f"SCT's command {name} drew the cord on another grid (shape {mask.grid.shape}, "
            f"orientation {mask.grid.orientation}) than the scan's ({grid.shape}, "
            f"{grid.orientation}); {CORD_REMEDY}"
        )
    return CordMask.of(mask, name)


def cord_identity() -> str:
    """Identify the command and the SCT that segment a cord.

    Raises
    ------
    SctError
        SCT, or its command, is missing.
    """
    found = require_cord()
    return " ".join([*CORD, str(found.bin), str(found.version)])
