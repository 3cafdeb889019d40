"""Another mask from a stored p-map, at another decision threshold."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sct_lesion_losses import __version__
from sct_lesion_losses.errors import UsageError
from sct_lesion_losses.images import nifti
from sct_lesion_losses.images.atomic import write_json
from sct_lesion_losses.images.nifti import Scan
from sct_lesion_losses.images.outputs import Outputs
from sct_lesion_losses.metrics import lesionwise
from sct_lesion_losses.report import sidecar as lesion_table
from sct_lesion_losses.thresholds.binarize import binarize

logger = logging.getLogger(__name__)

_MAP_ENDINGS = ("_pmap", "_probseg")


@dataclass(frozen=True)
class Result:
    """What was found and written.

    Attributes
    ----------
    written : tuple of Path
        The mask first, the sidecar last.
    n_lesions : int
        18-neighbour components.
    load_mm3 : float
        Volume of the mask.
    """

    written: tuple[Path, ...]
    n_lesions: int
    load_mm3: float


def default_outputs(pmap: Path, threshold: float, folder: Path | None = None) -> Outputs:
    """Name the outputs after the p-map and the threshold, so that no other mask is overwritten.

    >>> default_outputs(Path("t2_lesionseg_pmap.nii.gz"), 0.2).mask.name
    't2_lesionseg_thr0.2.nii.gz'
    """
    stem, extension = nifti.stem(pmap)
    for ending in _MAP_ENDINGS:
        stem = stem.removesuffix(ending)
    return Outputs.beside((folder or Path()) / f"{stem}_thr{float(threshold)!r}{extension}")


def run(
    pmap: Path, threshold: float, outputs: Outputs, *, lesions: bool = False, command: str = ""
) -> Result:
    """Threshold a stored p-map.

    Parameters
    ----------
    pmap : Path
        Floating-point probabilities in [0, 1].
    threshold : float
        In (0, 1]; voxels with p >= threshold are in the mask.
    outputs : Outputs
        Existing files are replaced, each whole or not at all.
    lesions : bool
        Also write the lesion table and the numbered lesions.
    command : str
        What was typed, base names only, for the sidecar.

    Raises
    ------
    UsageError
        The threshold is outside (0, 1], or an output would overwrite the p-map.
    ImageError
        The file is no p-map.
    """
    if not 0 < threshold <= 1:
        raise UsageError(f"-thr is {threshold:g}, expected a number in (0, 1]")
    if pmap.resolve() in {outputs.mask.resolve(), outputs.labels.resolve()}:
        raise UsageError(f"{pmap}: the p-map would be overwritten; choose another name with -o")
    scan = nifti.read_pmap(pmap)
    mask = binarize(scan.array, threshold)
    labels = lesionwise.components(mask)
    count = int(labels.max())
    load_mm3 = float(np.count_nonzero(mask)) * scan.grid.voxel_volume_mm3
    notes = list(scan.notes)
    if not count:
        notes.append(f"the mask is empty; {_peak(scan)}")
        logger.warning("%s: %s", pmap.name, notes[-1])
    written = [outputs.mask]
    if lesions:
        nifti.write(outputs.labels, labels, scan, np.uint16)
        found = lesionwise.measures(labels, scan.array, scan.grid.affine)
        table = lesion_table.write(outputs.table, found)
        written += [outputs.labels, *table]
    nifti.write(outputs.mask, mask, scan, np.uint8)
    content = _sidecar(scan, threshold, count, load_mm3, notes, command)
    write_json(outputs.sidecar, content)
    return Result((*written, outputs.sidecar), count, load_mm3)


def _peak(scan: Scan) -> str:
    """Say how high the p-map gets, and where."""
    voxel = np.unravel_index(int(np.argmax(scan.array)), scan.array.shape)
    x, y, z = scan.grid.to_world(voxel)
    return f"highest probability {scan.array[voxel]:.3g} at ({x:.0f}, {y:.0f}, {z:.0f}) mm"


def _sidecar(
    scan: Scan, threshold: float, count: int, load_mm3: float, notes: list[str], command: str
) -> dict[str, Any]:
    """Contents of the JSON beside the mask; base names only."""
    return {
        "GeneratedBy": [{"Name": f"sct_lesion_losses: {command}", "Version": __version__}],
        "Type": "Lesion",
        "Sources": [scan.path.name],
        "Threshold": threshold,
        "LesionCount": count,
        "LesionVolumeMm3": round(load_mm3, 3),
        "HighestProbability": round(float(scan.array.max()), 4),
        "Warnings": notes,
        "Disclaimer": "Research software, not a medical device.",
    }
