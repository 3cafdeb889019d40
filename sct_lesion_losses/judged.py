"""A scan's manual mask beside a bundle's p-map of it: what tuning and evaluation look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sct_lesion_losses import engine as engines
from sct_lesion_losses import locate, notices, predict
from sct_lesion_losses.bundle.store import Bundle
from sct_lesion_losses.data import cohort as cohorts
from sct_lesion_losses.data import nifti
from sct_lesion_losses.data.cohort import CohortScan
from sct_lesion_losses.errors import DataError

AS_IN_COHORT = "cohort"


@dataclass(frozen=True, eq=False)
class Judged:
    """A scan's manual mask and the bundle's p-map of it, on the scan's own grid."""

    scan: CohortScan
    truth: npt.NDArray[np.bool_]
    pmap: npt.NDArray[np.float32]


def refuse_known(bundle: Bundle, scans: Sequence[CohortScan]) -> None:
    """Raise a DataError if the bundle was trained on one of the scans, whatever its name now."""
    known = set(bundle.info.provenance.trained_on)
    seen = [
        scan.scan.name
        for scan in scans
        if known and cohorts.content_hash(nifti.read(scan.scan).array) in known
    ]
    if seen:
        raise DataError(
            f"bundle {bundle.name} was trained on {len(seen)} of these scans ({seen[0]} first), "
            "which would flatter every threshold; give other scans, or the split.tsv that the "
            "training wrote beside the bundle"
        )


def judge(
    bundle: Bundle, network: engines.Network, scan: CohortScan, centerline: str = AS_IN_COHORT
) -> Judged:
    """P-map of a scan by the bundle, and the untouched manual mask."""
    image = nifti.read(scan.scan)
    truth = nifti.read_mask(scan.lesion_mask, like=image.grid).array
    with notices.about(scan.scan):
        if centerline == AS_IN_COHORT:
            line = locate.centerline(image.array, image.grid, file=scan.centerline)
        else:
            line = locate.centerline(image.array, image.grid, centerline)
        pmap = predict.pmap(bundle, image.array, image.grid, line, network=network)
    return Judged(scan, truth, pmap)
