"""Another mask from a stored p-map, at another decision threshold."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sct_lesion_losses.errors import DataError, UsageError
from sct_lesion_losses.images import atomic, nifti
from sct_lesion_losses.images.outputs import Outputs
from sct_lesion_losses.metrics import lesionwise
from sct_lesion_losses.report import columns, sidecar
from sct_lesion_losses.report.columns import PREDICTED_LESIONS
from sct_lesion_losses.report.sidecar import Filtered, Found
from sct_lesion_losses.thresholds.binarization import binarize
from sct_lesion_losses.thresholds.lesion_filter import Filter, apply

logger = logging.getLogger(__name__)

_MAP_ENDINGS = ("_pmap", "_probseg")


@dataclass(frozen=True)
class Rethresholded:
    """Lesions of a mask, and its files.

    Attributes
    ----------
    written : tuple of Path
        The mask first, the sidecar last.
    found : Found
        Number and volume of the lesions.
    """

    written: tuple[Path, ...]
    found: Found


def default_outputs(pmap: Path, threshold: float, folder: Path | None = None) -> Outputs:
    """Name the outputs after the p-map and the threshold, so that no other mask is overwritten.

    >>> default_outputs(Path("t2_lesionseg_pmap.nii.gz"), 0.2).mask.name
    't2_lesionseg_thr0.2.nii.gz'
    """
    stem, extension = nifti.stem(pmap)
    for ending in _MAP_ENDINGS:
        stem = stem.removesuffix(ending)
    return Outputs.beside((folder or Path()) / f"{stem}_thr{float(threshold)!r}{extension}")


def rethreshold(
    pmap: Path,
    threshold: float,
    outputs: Outputs,
    *,
    lesion_point: bool | None = None,
    lesions: bool = False,
    command: str = "",
) -> Rethresholded:
    """Threshold a stored p-map, as segmenting its scan would.

    Parameters
    ----------
    pmap : Path
        Floating-point probabilities in [0, 1].
    threshold : float
        In (0, 1]; voxels with p >= threshold are in the mask.
    outputs : Outputs
        Existing files are replaced, each whole or not at all.
    lesion_point : bool, optional
        Keep those predicted lesions only that the filter of the p-map's bundle lets through, which
        the JSON beside the p-map tells: where there is one, by default; True demands it.
    lesions : bool
        Also write the lesion table and the numbered lesions.
    command : str
        What was typed, base names only, for the sidecar.

    Raises
    ------
    UsageError
        The threshold is outside (0, 1], an output would overwrite the p-map, or no filter is known
        that is demanded.
    ImageError
        The file is no p-map.
    DataError
        The JSON beside it cannot be read.
    """
    if not 0 < threshold <= 1:
        raise UsageError(f"-thr is {threshold:g}, expected a number in (0, 1]")
    if pmap.resolve() in {outputs.mask.resolve(), outputs.labels.resolve()}:
        raise UsageError(f"{pmap}: the p-map would be overwritten; choose another name with -o")
    outputs.require_own()
    scan = nifti.read_pmap(pmap)
    mask, filtered = binarize(scan.array, threshold), None
    stored = None if lesion_point is False else _stored_filter(pmap)
    if stored is not None:
        rule, tuned = stored
        every, mask = mask, apply(mask, scan.array, scan.grid.voxel_volume_mm3, rule)
        filtered = Filtered.of(rule, tuned, every, mask)
        logger.info("%s: %s", pmap.name, filtered.sentence)
    elif lesion_point:
        raise UsageError(
            f"{pmap}: no JSON beside it tells of a lesion filter of its bundle; leave out "
            "-lesion_point, or segment with a bundle that sct_tune_lesion -lesion_point 1 tuned"
        )
    labels = lesionwise.components(mask)
    found = Found.of(labels, scan.array, scan.grid)
    notes = list(scan.notes)
    if not found.lesions:
        notes.append(f"the mask is empty{found.peak}")
        logger.warning("%s: %s", pmap.name, notes[-1])
    entries = {
        "Sources": [scan.path.name],
        "Threshold": threshold,
        "LesionFilter": filtered and filtered.entry,
        **found.entries,
    }
    files = [outputs.mask]
    with atomic.together():
        if lesions:
            nifti.write(outputs.labels, labels, scan, np.uint16)
            measured = lesionwise.measures(labels, scan.array, scan.grid.affine)
            files += [outputs.labels, *columns.write(outputs.table, PREDICTED_LESIONS, measured)]
        atomic.write_json(outputs.sidecar, sidecar.of_mask(command, entries, notes))
        nifti.write(outputs.mask, mask, scan, np.uint8)
    return Rethresholded((*files, outputs.sidecar), found)


def _stored_filter(pmap: Path) -> tuple[Filter, float] | None:
    """Filter of the bundle that made a p-map, and the threshold that it was chosen at."""
    file = pmap.with_name(f"{nifti.stem(pmap)[0]}.json")
    if not file.exists():
        logger.info("%s is not there to tell of a lesion filter: every lesion is kept", file.name)
        return None
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        point = told.get("TunedLesionFilter")
        if point is None:
            return None
        rule = Filter(float(point["LeastPeak"]), float(point["LeastVolumeMm3"]))
        return rule, float(told["TunedThreshold"])
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{file}: cannot be read as what segmenting wrote beside the p-map ({error}); "
            "restore it, or add -lesion_point 0"
        ) from error
