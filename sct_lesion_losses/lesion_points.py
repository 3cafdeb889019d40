"""A bundle's second operating point, per lesion, from the scans that chose its threshold."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from sct_lesion_losses import models, parallel
from sct_lesion_losses.bundle.schema import Froc, LesionPoint
from sct_lesion_losses.bundle.store import Bundle
from sct_lesion_losses.data.cohort import CohortScan
from sct_lesion_losses.judged import AS_IN_COHORT, judge
from sct_lesion_losses.operating_point.lesion_filter import Candidates, candidates
from sct_lesion_losses.operating_point.lesion_point import choose_filter
from sct_lesion_losses.parallel import Progress

PRESET = "paper"
_CONTRAST = "t2"  # as `judge` takes the scans

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """A scan whose predicted lesions are to be noted.

    Attributes
    ----------
    scan : CohortScan
    bundle : str
        Folder of the bundle.
    sha256 : str
        Of what its p-maps follow from; see `Bundle.pmap_sha256`.
    threshold : float
        Of a voxel.
    centerline : str
        See `judged.located`.
    engine, precision : str
        See `engine.load`.
    """

    scan: CohortScan
    bundle: str
    sha256: str
    threshold: float
    centerline: str
    engine: str
    precision: str


def note(task: Task) -> Candidates:
    """Note the predicted lesions of a scan.

    Raises
    ------
    LesionError
        The scan or the bundle cannot be used.
    """
    bundle, network = models.opened(
        task.bundle, _CONTRAST, task.engine, task.precision, task.sha256
    )
    found = judge(bundle, network, task.scan, task.centerline)
    return candidates(found.truth, found.pmap, task.threshold, found.spacing_mm, PRESET)


def noted(
    bundle: Bundle,
    scans: Sequence[CohortScan],
    threshold: float,
    *,
    centerline: str = AS_IN_COHORT,
    engine: str = "auto",
    precision: str = "float32",
    jobs: int = 1,
    report: Progress | None = None,
) -> list[Candidates]:
    """Note the predicted lesions of scans, of the masks at a bundle's threshold.

    No more is held of a scan than the sizes, the peaks and the overlaps of its lesions.

    Parameters
    ----------
    bundle : Bundle
        One on disk.
    scans : sequence of CohortScan
        With lesions and without; each shows a cord.
    threshold : float
        The tuned one.
    centerline : str
        See `judged.located`.
    engine, precision : str
        See `engine.load`.
    jobs : int
        Scans at a time, each in a process of its own.
    report : callable, optional
        Told of every scan.

    Raises
    ------
    LesionError
        The bundle or a scan cannot be used.
    """
    shared = (str(bundle.folder), bundle.pmap_sha256, threshold, centerline, engine, precision)
    tasks = [Task(scan, *shared) for scan in scans]
    return parallel.run(note, tasks, jobs, name=lambda task: task.scan.scan.name, progress=report)


def find(
    seen: Sequence[Candidates],
    subjects: Sequence[str],
    threshold: float,
    specificity: float = 0.0,
) -> LesionPoint:
    """Choose which predicted lesions of a bundle are kept.

    Parameters
    ----------
    seen : sequence of Candidates
        Of the scans that chose the threshold, lesion-free ones with them; see `noted`.
    subjects : sequence of str
        Whose scan each is.
    threshold : float
        The tuned one.
    specificity : float
        Least P-specificity of the filter on these scans; 0 asks for none.

    Raises
    ------
    DataError
        See `operating_point.lesion_point.choose_filter`.
    """
    choice = choose_filter(seen, subjects, threshold, specificity=specificity)
    return LesionPoint(
        peak=choice.filter.peak,
        volume_mm3=choice.filter.volume_mm3,
        preset=PRESET,
        specificity_asked=specificity,
        f1=choice.f1,
        f1_unfiltered=choice.f1_unfiltered,
        specificity=choice.specificity,
        specificity_unfiltered=choice.specificity_unfiltered,
        leave_one_out=choice.leave_one_out,
        froc=Froc(
            peaks=tuple(choice.froc.peaks.tolist()),
            sensitivity=tuple(choice.froc.sensitivity.tolist()),
            false_lesions=tuple(choice.froc.false_lesions.tolist()),
        ),
        n_scans=choice.n_scans,
        n_lesion_free=choice.n_lesion_free,
    )


def doubts(point: LesionPoint, threshold: float) -> tuple[str, ...]:
    """Say what is doubtful about the choice of which lesions are kept; it is logged as well.

    Parameters
    ----------
    point : LesionPoint
        From `find`.
    threshold : float
        The tuned one: no predicted lesion has a lower peak.
    """
    if point.peak > threshold or point.volume_mm3 > 0:
        return ()
    said = "the filter of lesions keeps everything: it decides nothing on these scans"
    logger.warning("%s", said)
    return (said,)
