"""The operating point of a bundle, chosen on scans: for a cohort, for one site, and per lesion."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from sct_lesion_losses.bundle.schema import (
    LesionPoint,
    OperatingPoint,
    SiteCalibration,
    scan_curves,
)
from sct_lesion_losses.bundle.store import Bundle
from sct_lesion_losses.errors import DataError, UsageError
from sct_lesion_losses.thresholds import THRESHOLDS, Choice, Objective, ScanCounts, choose
from sct_lesion_losses.thresholds.choice import Optimum, doubts
from sct_lesion_losses.thresholds.lesion_filter import PRESET, Candidates, choose_filter
from sct_lesion_losses.thresholds.objectives import BETA, score
from sct_lesion_losses.thresholds.site import Curves, Recalibration, recalibrate

FEW_SUBJECTS = 5  # of a site

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
    said: tuple[str, ...] = ()
    if choice.peak <= threshold and choice.volume_mm3 == 0:  # no predicted lesion has a lower peak
        said = ("the filter of lesions keeps everything: it decides nothing on these scans",)
        logger.warning("%s", *said)
    return LesionPoint(preset=PRESET.name, specificity_asked=specificity, **asdict(choice)), said
