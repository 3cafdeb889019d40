"""The operating point of a bundle, chosen on scans: for a cohort, for a site, and per lesion."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import numpy.typing as npt

from sct_lesion_losses.bundle.schema import (
    DetectionLimit,
    FoundShare,
    LesionPoint,
    OperatingPoint,
    SiteCalibration,
    scan_curves,
)
from sct_lesion_losses.bundle.store import Bundle
from sct_lesion_losses.cohorts import table as cohorts
from sct_lesion_losses.cohorts.table import CohortScan
from sct_lesion_losses.errors import DataError, UsageError
from sct_lesion_losses.images import nifti
from sct_lesion_losses.metrics import lesionwise
from sct_lesion_losses.metrics.statistics import Interval, interval
from sct_lesion_losses.thresholds import THRESHOLDS, Choice, Objective, ScanCounts, choose
from sct_lesion_losses.thresholds.choice import FEW_SUBJECTS as FEW_OF_COHORT
from sct_lesion_losses.thresholds.choice import Optimum, doubts
from sct_lesion_losses.thresholds.lesion_filter import (
    PRESET,
    Candidates,
    Filter,
    FilteredChoice,
    LesionChoice,
    choose_both,
    choose_filter,
)
from sct_lesion_losses.thresholds.objectives import BETA, score
from sct_lesion_losses.thresholds.site import Curves, Recalibration, recalibrate

FEW_SUBJECTS = 5  # of a site
WITH_FILTER = THRESHOLDS[1:]  # at 0 everything is one lesion
CONTRASTS, VOLUMES_MM3 = (1.1, 1.2, 1.35, 1.5), (30.0, 100.0, 300.0)  # between ranges of implants

logger = logging.getLogger(__name__)


def of_cohort(
    counts: Sequence[ScanCounts], subjects: Sequence[str], objective: Objective
) -> tuple[Choice, OperatingPoint]:
    """Choose the threshold that is best on scans.

    Parameters
    ----------
    counts : sequence of ScanCounts
    subjects : sequence of str
        Whose scan each is.
    objective : Objective

    Raises
    ------
    DataError
        See `choose`, or no threshold above 0 is any good.
    """
    choice = choose(counts, subjects, objective=objective)
    return choice, _stored(choice, choice.warnings)


def of_site(
    name: str, bundle: Bundle, counts: Sequence[ScanCounts], subjects: Sequence[str]
) -> tuple[Recalibration, OperatingPoint]:
    """Choose the threshold for a site, by its own scans and those that tuned the bundle.

    See `thresholds.site` for how they are weighed.

    Parameters
    ----------
    name : str
        Of the site.
    bundle : Bundle
        One that `require_tuned` takes; the objective is the one that it was tuned for.
    counts : sequence of ScanCounts
        Of the site's scans.
    subjects : sequence of str
        Whose scan each is.

    Raises
    ------
    DataError
        No scan holds lesions, or no threshold above 0 is any good.
    """
    shipped = bundle.info.operating_point
    objective = Objective(
        shipped.objective, shipped.beta or BETA, shipped.preset or PRESET.name, shipped.specificity
    )
    scored = score(counts, objective)
    bearing = np.flatnonzero(scored.bearing).tolist()
    local = Curves(scored.scores[bearing], [subjects[scan] for scan in bearing])
    tuned_by = Curves(
        np.array([scan.values for scan in shipped.per_scan], dtype=np.float64),
        [scan.subject for scan in shipped.per_scan],
    )
    found = recalibrate(
        local,
        tuned_by,
        shipped.thresholds,
        shipped.threshold,
        objective=objective,
        allowed=[value is not None for value in shipped.curve],
    )
    warnings = site_doubts(found)
    for warning in warnings:
        logger.warning("%s", warning)
    calibration = SiteCalibration(
        name=name,
        weight=found.weight,
        shipped_threshold=found.shipped_threshold,
        local_threshold=found.local_threshold,
        shipped_curve=tuple(found.shipped_curve.tolist()),
        local_curve=tuple(found.local_curve.tolist()),
        held_out_shipped=found.held_out_shipped,
    )
    point = _stored(found, warnings)
    return found, point.model_copy(update={"site": calibration})


def require_tuned(bundle: Bundle) -> None:
    """Raise a UsageError where a bundle cannot be recalibrated to a site."""
    point = bundle.info.operating_point
    if point.kind == "untuned" or not point.per_scan:
        raise UsageError(
            f"bundle {bundle.name} was never tuned, so there is no curve to shrink to; run "
            "sct_tune_lesion without -site"
        )
    if point.site is not None:
        raise UsageError(
            f"bundle {bundle.name} is that of the site {point.site.name} already; start from the "
            f"one it came from ({bundle.info.provenance.ancestor})"
        )
    if point.specificity is not None and point.thresholds == WITH_FILTER:
        raise UsageError(
            f"the threshold of bundle {bundle.name} was chosen together with a filter of lesions, "
            "which -site does not choose anew; tune it with -lesion_point 0 first, or choose both "
            "by the site's scans alone: -objective l_f1_at_specificity -lesion_point 1"
        )
    if point.thresholds != THRESHOLDS:
        raise UsageError(
            f"bundle {bundle.name} was tuned over other thresholds than the {len(THRESHOLDS)} from "
            "0 to 1 by 0.05; tune it anew first"
        )


def site_doubts(found: Recalibration) -> tuple[str, ...]:
    """Say what is doubtful about the threshold of a site."""
    said = list(doubts(found, FEW_SUBJECTS))
    if math.isnan(found.leave_one_out):
        said.append(
            "with scans of one subject, nothing tells whether the site's threshold does better "
            "than the shipped one"
        )
    elif found.leave_one_out <= found.held_out_shipped:
        said.append(
            "on scans left out, the site's threshold does no better than the shipped one "
            f"({found.objective} {found.leave_one_out:.3f}, {found.held_out_shipped:.3f} at "
            f"{found.shipped_threshold:g}); the shipped bundle is the safer choice"
        )
    return tuple(said)


def _stored(found: Optimum, warnings: Sequence[str]) -> OperatingPoint:
    """Return a choice as a bundle stores it: scans and subjects numbered, not named."""
    if not found.useful:
        raise DataError(
            f"no threshold above 0 is any good on these scans ({found.objective} {found.best:.3g} "
            "at best): the bundle has learned nothing of use for them; train it longer, or on "
            "scans like them"
        )
    return OperatingPoint(
        kind="tuned",
        threshold=found.threshold,
        objective=found.objective.name,
        **found.objective.numbers,
        thresholds=tuple(found.thresholds.tolist()),
        curve=tuple(found.curve.tolist()),
        per_scan=scan_curves(found.subjects, found.per_scan),
        interval=None if math.isnan(found.interval[0]) else found.interval,
        plateau=found.plateau,
        loss_at_pm_0_05=found.losses,
        leave_one_out=found.leave_one_out,
        n_scans=found.n_scans,
        n_subjects=found.n_subjects,
        warnings=tuple(warnings),
    )


def of_lesions(
    noted: Sequence[Candidates], subjects: Sequence[str], threshold: float, specificity: float = 0.0
) -> tuple[LesionPoint, tuple[str, ...]]:
    """Choose which predicted lesions of a bundle are kept.

    Parameters
    ----------
    noted : sequence of Candidates
        Of the scans that chose the threshold, lesion-free ones with them.
    subjects : sequence of str
        Whose scan each is.
    threshold : float
        The tuned one.
    specificity : float
        Least P-specificity of the filter on these scans; 0 asks for none.

    Returns
    -------
    LesionPoint
    tuple of str
        What is doubtful about it; logged as well.

    Raises
    ------
    DataError
        See `lesion_filter.choose_filter`.
    """
    choice = choose_filter(noted, subjects, threshold, specificity=specificity)
    return _kept(choice, specificity)


def with_filter(
    noted: Sequence[Sequence[Candidates]], subjects: Sequence[str], objective: Objective
) -> tuple[FilteredChoice, OperatingPoint]:
    """Choose threshold and filter together, by the P-specificity that is reached with both.

    Parameters
    ----------
    noted : sequence of sequence of Candidates
        Of each scan, lesion-free ones with them, at each threshold of `WITH_FILTER`.
    subjects : sequence of str
        Whose scan each is.
    objective : Objective
        One with a specificity.

    Raises
    ------
    DataError
        See `lesion_filter.choose_both`, or no threshold is any good.
    """
    assert objective.specificity is not None
    found = choose_both(noted, subjects, WITH_FILTER, specificity=objective.specificity)
    choice = found.threshold
    said = tuple(doubts(choice, FEW_OF_COHORT))
    for warning in said:
        logger.warning("%s", warning)
    lesions, more = _kept(found.lesions, objective.specificity)
    return found, _stored(choice, (*said, *more)).model_copy(update={"lesions": lesions})


def _kept(choice: LesionChoice, specificity: float) -> tuple[LesionPoint, tuple[str, ...]]:
    """Return a filter as a bundle stores it, and what is doubtful about it."""
    said: tuple[str, ...] = ()
    if choice.peak == choice.volume_mm3 == 0:
        said = ("the filter of lesions keeps everything: it decides nothing on these scans",)
        logger.warning("%s", *said)
    return LesionPoint(preset=PRESET.name, specificity_asked=specificity, **asdict(choice)), said


def of_implants(
    point: OperatingPoint,
    found: FilteredChoice,
    noted: Sequence[Sequence[Candidates]],
    scans: Sequence[CohortScan],
) -> OperatingPoint:
    """Add the detection limit to an operating point, and how little it proves of few people.

    Parameters
    ----------
    point : OperatingPoint
    found : FilteredChoice
        Of `with_filter`.
    noted : sequence of sequence of Candidates
        What chose it.
    scans : sequence of CohortScan
        Of which they are, with cord masks.

    Raises
    ------
    LesionError
        A scan or its cord mask cannot be read.
    """
    contrasts = [lesion_contrasts(scan) for scan in scans]
    limit = detection_limit(noted, contrasts, [scan.subject for scan in scans], found)
    warnings = point.warnings
    if (n := limit.people) < FEW_SUBJECTS:
        bound = 1 - 0.05 ** (1 / n)  # of n people none has one
        warnings += (
            f"people whose scans chose: {n}, fewer than {FEW_SUBJECTS}, which proves little: even "
            f"with no false lesion in any of them, up to {bound:.0%} of people may have some (95 % "
            "bound)",
        )
        logger.warning("%s", warnings[-1])
    return point.model_copy(update={"detection_limit": limit, "warnings": warnings})


def lesion_contrasts(scan: CohortScan) -> npt.NDArray[np.float64]:
    """Contrast of each lesion of a scan's mask, the largest first; see `lesionwise.contrasts`.

    Raises
    ------
    DataError
        There is no cord mask beside the lesion mask.
    ImageError
        An image cannot be read.
    """
    image, cord = nifti.read(scan.scan), cohorts.cord_mask(scan)
    if cord is None:
        raise DataError(f"{scan.scan.name}: no cord mask to measure the contrast of lesions by")
    labels = lesionwise.components(cohorts.read_lesions(scan, image.grid).array)
    inside = nifti.read_mask(cord, like=image.grid).array
    return lesionwise.contrasts(labels, image.array, inside, image.grid.affine)


def detection_limit(
    noted: Sequence[Sequence[Candidates]],
    contrasts: Sequence[npt.NDArray[np.float64]],
    subjects: Sequence[str],
    found: FilteredChoice,
) -> DetectionLimit:
    """Measure which implants are found, by contrast and volume, and what else is marked.

    The scans of each person are read by the threshold and filter that the others choose, as long as
    they can, so that nobody's scans flatter the measure.

    Parameters
    ----------
    noted, subjects
        See `with_filter`.
    contrasts : sequence of (R,) float64
        Of the lesions of each scan's mask, the largest first; see `lesionwise.contrasts`.
    found : FilteredChoice
        What they chose.

    Returns
    -------
    DetectionLimit
        A lesion is found by the rule of L-sensitivity.
    """
    both = found.threshold.thresholds.tolist().index(found.threshold.threshold)
    chosen = both, Filter(found.lesions.peak, found.lesions.volume_mm3)
    held_out = None not in found.left_out
    used = [other if held_out and other else chosen for other in found.left_out]
    of_lesions, owners, false, free = [], [], [], []
    for own, contrast, subject, (at, rule) in zip(noted, contrasts, subjects, used, strict=True):
        scan = own[at]
        volumes = scan.table.truth_sizes * scan.voxel_mm3
        of_lesions.append(np.column_stack([contrast, volumes, scan.found(rule)]))
        owners += [subject] * len(volumes)
        if not len(volumes):
            false.append(scan.score(rule).n_predicted)
            free.append(subject)
    contrast, volume, is_found = np.concatenate(of_lesions).T
    marked = interval(false, free, np.mean)
    return DetectionLimit(
        people=len(set(subjects)),
        held_out=held_out,
        by_contrast=_by_range(contrast, CONTRASTS, is_found, owners),
        by_volume=_by_range(volume, VOLUMES_MM3, is_found, owners),
        untouched=marked.n,
        false_lesions=marked.value,
        false_interval=_bounds(marked),
    )


def _by_range(
    values: npt.NDArray[np.float64],
    edges: Sequence[float],
    found: npt.NDArray[np.float64],
    owners: Sequence[str],
) -> tuple[FoundShare, ...]:
    """Count lesions, and those found, in each range between edges, and below and above them."""
    shares = []
    for low, high in itertools.pairwise((0.0, *edges, math.inf)):
        inside = (low <= values) & (values < high)
        share = interval(found[inside], list(itertools.compress(owners, inside)), np.mean)
        shares.append(
            FoundShare(
                low=low,
                high=None if math.isinf(high) else high,
                n=share.n,
                found=int(found[inside].sum()),
                interval=_bounds(share),
            )
        )
    return tuple(shares)


def _bounds(found: Interval) -> tuple[float, float] | None:
    return None if math.isnan(found.low) else (found.low, found.high)
