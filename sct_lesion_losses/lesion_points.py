"""A bundle's second operating point, per lesion, from the scans that chose its threshold."""

from __future__ import annotations

from collections.abc import Sequence

from sct_lesion_losses import engine as engines
from sct_lesion_losses.bundle.schema import Froc, LesionPoint
from sct_lesion_losses.bundle.store import Bundle
from sct_lesion_losses.data.cohort import CohortScan
from sct_lesion_losses.judged import AS_IN_COHORT, judge
from sct_lesion_losses.operating_point.lesion_point import candidates, choose_filter
from sct_lesion_losses.parallel import Progress

PRESET = "paper"


def find(
    bundle: Bundle,
    network: engines.Network,
    scans: Sequence[CohortScan],
    threshold: float,
    *,
    centerline: str = AS_IN_COHORT,
    specificity: float = 0.0,
    report: Progress | None = None,
) -> LesionPoint:
    """Choose which predicted lesions of a bundle are kept, of the masks at its threshold.

    The scans are segmented one by one, and no more is held of one than the sizes, the peaks and the
    overlaps of its lesions.

    Parameters
    ----------
    bundle : Bundle
    network : Network
        The bundle's, in an engine.
    scans : sequence of CohortScan
        Those that chose the threshold, lesion-free ones with them; each shows a cord.
    threshold : float
        The tuned one.
    centerline : str
        See `judged.located`.
    specificity : float
        Least P-specificity of the filter on these scans; 0 asks for none.
    report : callable, optional
        Told of every scan.

    Raises
    ------
    DataError
        See `operating_point.lesion_point.choose_filter`.
    """
    seen = []
    for number, scan in enumerate(scans, start=1):
        found = judge(bundle, network, scan, centerline)
        noted = candidates(found.truth, found.pmap, threshold, found.spacing_mm, PRESET)
        seen.append((scan.subject, noted))
        if report is not None:
            report(number, len(scans))
    choice = choose_filter(
        [noted for _, noted in seen],
        [subject for subject, _ in seen],
        threshold,
        specificity=specificity,
    )
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
