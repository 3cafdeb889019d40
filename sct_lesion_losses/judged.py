"""A scan's manual mask beside a bundle's p-map of it: what tuning and evaluation look at."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sct_lesion_losses import engine as engines
from sct_lesion_losses import locate, notices, predict
from sct_lesion_losses.bundle.store import Bundle
from sct_lesion_losses.data import cohort as cohorts
from sct_lesion_losses.data import nifti
from sct_lesion_losses.data.cohort import CohortScan
from sct_lesion_losses.data.nifti import Scan
from sct_lesion_losses.errors import DataError
from sct_lesion_losses.space.centerline import Centerline

AS_IN_COHORT = "cohort"
_REMEMBERED = 10_000  # hashes of scans


@dataclass(frozen=True, eq=False)
class Judged:
    """A scan's manual mask and the bundle's p-map of it, on the scan's own grid."""

    scan: CohortScan
    truth: npt.NDArray[np.bool_]
    pmap: npt.NDArray[np.float32]
    spacing_mm: tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Located:
    """A scan of a cohort as it is read: what every model takes.

    Attributes
    ----------
    scan : CohortScan
    image : Scan
    truth : (X, Y, Z) bool
        The untouched manual mask.
    line : Centerline
        On the image's RPI grid.
    """

    scan: CohortScan
    image: Scan
    truth: npt.NDArray[np.bool_]
    line: Centerline


def refuse_known(asked: Mapping[Bundle, Collection[CohortScan]]) -> None:
    """Raise a DataError if a bundle was trained on one of its scans, whatever that is called now.

    Parameters
    ----------
    asked : mapping of Bundle to collection of CohortScan
        The scans that each bundle is to see; none is read for one that does not say what it was
        trained on.
    """
    for bundle, names in trained_on(asked).items():
        if names:
            raise DataError(
                f"bundle {bundle.name} was trained on {len(names)} of these scans ({names[0]} "
                "first), which would flatter every threshold; give other scans, or the split.tsv "
                "that the training wrote beside the bundle"
            )


def refuse_seen(bundles: Collection[Bundle], scans: Collection[CohortScan], because: str) -> None:
    """Raise a DataError if a bundle was trained on one of the scans, or its threshold chosen on it.

    Parameters
    ----------
    bundles : collection of Bundle
    scans : collection of CohortScan
        None is read for a bundle that does not say what it was trained and tuned on.
    because : str
        Why those that chose the threshold are refused, for the message: ``which would …``.
    """
    refuse_known(dict.fromkeys(bundles, scans))
    for bundle in bundles:
        names = _named(bundle.info.operating_point.tuned_on, scans)
        if names:
            raise DataError(
                f"the threshold of bundle {bundle.name} was chosen on {len(names)} of these scans "
                f"({names[0]} first), {because}; give other scans"
            )


def trained_on(asked: Mapping[Bundle, Collection[CohortScan]]) -> dict[Bundle, list[str]]:
    """Name the scans that each bundle was trained on, of those it is asked about."""
    return {
        bundle: _named(bundle.info.provenance.trained_on, scans) for bundle, scans in asked.items()
    }


def _named(hashes: Collection[str], scans: Collection[CohortScan]) -> list[str]:
    """Name the scans whose voxels have one of these hashes; none is read where there is no hash."""
    known = set(hashes)
    return [scan.scan.name for scan in scans if known and content_of(scan) in known]


def content_of(scan: CohortScan) -> str:
    """Hash the voxels of a scan, see `cohort.content_hash`; a file that stays is read once.

    Raises
    ------
    ImageError
        The scan cannot be read.
    """
    file = scan.scan.resolve()
    state = file.stat() if file.exists() else None
    return _content(file, None if state is None else (state.st_mtime_ns, state.st_size))


@lru_cache(maxsize=_REMEMBERED)
def _content(file: Path, _state: tuple[int, int] | None) -> str:
    return cohorts.content_hash(nifti.read(file).array)


def located(scan: CohortScan, centerline: str = AS_IN_COHORT, contrast: str = "t2") -> Located:
    """Read a scan and its manual mask, and find the cord.

    Parameters
    ----------
    scan : CohortScan
    centerline : str
        ``cohort`` takes the cohort's own centerline where it has one; else a method of `locate`.
    contrast : {"t2", "t2_ax", "t2s"}
        Of the scan, for SCT's ways to find the cord.

    Raises
    ------
    NoCordError
        The scan shows no cord.
    LesionError
        The scan, its mask or its centerline cannot be used.
    """
    image = nifti.read(scan.scan)
    truth = nifti.read_mask(scan.lesion_mask, like=image.grid).array
    with notices.about(scan.scan):
        if centerline == AS_IN_COHORT:
            line = locate.centerline(
                image.array, image.grid, contrast=contrast, file=scan.centerline
            )
        else:
            line = locate.centerline(image.array, image.grid, centerline, contrast=contrast)
    return Located(scan, image, truth, line)


def line_for_sct(found: Located, centerline: str = AS_IN_COHORT) -> Centerline:
    """Return the centerline as SCT's lesion model takes it, which differs for one from a file.

    Parameters
    ----------
    found : Located
    centerline : str
        As it was given to `located`.
    """
    file = found.scan.centerline
    if centerline != AS_IN_COHORT or file is None:
        return found.line
    with notices.about(found.scan.scan):
        return locate.centerline(found.image.array, found.image.grid, file=file, as_sct=True)


def judge(
    bundle: Bundle, network: engines.Network, scan: CohortScan, centerline: str = AS_IN_COHORT
) -> Judged:
    """P-map of a scan by the bundle, and the untouched manual mask."""
    found = located(scan, centerline)
    with notices.about(scan.scan):
        pmap = predict.pmap(
            bundle, found.image.array, found.image.grid, found.line, network=network
        )
    return Judged(scan, found.truth, pmap, found.image.grid.spacing_mm)
