"""A threshold that scans have chosen, as a bundle stores it."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

from sct_lesion_losses.bundle.tuning import OperatingPoint, SiteCalibration, scan_curves
from sct_lesion_losses.errors import DataError
from sct_lesion_losses.operating_point.choose import Choice
from sct_lesion_losses.operating_point.objectives import Parameters
from sct_lesion_losses.operating_point.shrink import Recalibration


def operating_point(
    found: Choice | Recalibration,
    subjects: Sequence[Hashable],
    parameters: Parameters,
    leave_one_out: float,
    centerline: str,
    warnings: Sequence[str] = (),
    site: SiteCalibration | None = None,
) -> OperatingPoint:
    """Return a choice as a bundle stores it: scans and subjects numbered, not named.

    Parameters
    ----------
    found : Choice or Recalibration
    subjects : sequence of hashable
        Of the scans that decided, in the order of `found.per_scan`.
    parameters : Parameters
        Numbers that the objective depends on.
    leave_one_out : float
        Score of the choice where each subject is judged by what the others choose.
    centerline : str
        How the cord was found; see `OperatingPoint`.
    warnings : sequence of str
        What the choice was warned of.
    site : SiteCalibration, optional
        Where the threshold is one site's.

    Raises
    ------
    DataError
        No threshold above 0 is any good.
    """
    if not found.useful:
        raise DataError(
            f"no threshold above 0 is any good on these scans ({found.objective} {found.best:.3g} "
            "at best): the bundle has learned nothing of use for them; train it longer, or on "
            "scans like them"
        )
    return OperatingPoint(
        kind="tuned",
        threshold=found.threshold,
        objective=found.objective,
        beta=parameters.beta,
        preset=parameters.preset or "",
        specificity=parameters.specificity,
        thresholds=tuple(found.thresholds.tolist()),
        curve=tuple(found.curve.tolist()),
        per_scan=scan_curves(subjects, found.per_scan),
        interval=None if math.isnan(found.interval[0]) else found.interval,
        plateau=found.plateau,
        loss_at_pm_0_05=(found.loss_below, found.loss_above),
        leave_one_out=leave_one_out,
        n_scans=found.n_scans,
        n_subjects=found.n_subjects,
        centerline=centerline,
        warnings=tuple(warnings),
        site=site,
    )
