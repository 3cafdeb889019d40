"""Manual masks beside those that this package wrote: which differ, and by how much."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sct_lesion_losses.cohorts.table import CohortScan
from sct_lesion_losses.errors import LesionError
from sct_lesion_losses.images import bids, nifti
from sct_lesion_losses.metrics.voxelwise import score

logger = logging.getLogger(__name__)


def say(scans: Sequence[CohortScan]) -> None:
    """Log how the masks of a cohort differ from what this package wrote into its BIDS derivatives.

    Where it has written none, nothing is said or read. A mask that cannot be compared is passed
    over: whoever uses the masks says what is wrong with them.

    Parameters
    ----------
    scans : sequence of CohortScan
        Those inside a BIDS folder count.
    """
    same, changed = 0, 0
    for folder, own in _by_derivatives(scans).items():
        try:
            before = bids.find_labels(folder, {s.scan: s.name for s in own}, (bids.LESION_MASKS,))
        except LesionError as error:
            logger.info("not compared with what this package marked: %s", error)
            continue
        for scan in own:
            if scan.scan not in before:
                continue
            try:
                if before[scan.scan].samefile(scan.lesion_mask):
                    continue
                mask = nifti.read_mask(scan.lesion_mask)
                marked = nifti.read_mask(before[scan.scan], like=mask.grid).array
            except (LesionError, OSError) as error:  # of a link, the file may not be fetched
                logger.info("not compared with what this package marked: %s", error)
                continue
            found = score(mask.array, marked)
            if np.array_equal(mask.array, marked):
                same += 1
                continue
            changed += 1
            voxel_mm3 = mask.grid.voxel_volume_mm3
            dice = 2 * found.tp / (found.n_truth + found.n_predicted)
            logger.info(
                "%s: differs from what this package marked, Dice %.3f, %.1f mm³ to %.1f mm³",
                *(scan.name, dice, found.n_predicted * voxel_mm3, found.n_truth * voxel_mm3),
            )
    if same or changed:
        logger.info(
            "%d of %d masks differ from what this package marked; %d are as it left them, and "
            "favour it if nobody looked at them",
            *(changed, same + changed, same),
        )


def _by_derivatives(scans: Sequence[CohortScan]) -> dict[Path, list[CohortScan]]:
    """Group scans by the derivatives of this package in their BIDS folder, where there are some."""
    found: dict[Path, list[CohortScan]] = {}
    for scan in scans:
        parents = scan.scan.absolute().parents
        roots = [folder.parent for folder in parents if folder.name.startswith("sub-")]
        if roots and (folder := roots[0] / bids.DERIVATIVES).is_dir():
            found.setdefault(folder, []).append(scan)
    return found
