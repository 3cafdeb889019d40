"""Decision threshold of a bundle for one site, from a handful of the site's labelled scans."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from sct_lesion_losses.bundle import schema, store
from sct_lesion_losses.bundle.schema import (
    NAME_PATTERN,
    BundleInfo,
    SiteCalibration,
)
from sct_lesion_losses.bundle.store import Bundle
from sct_lesion_losses.cohorts import splits
from sct_lesion_losses.cohorts import table as cohorts
from sct_lesion_losses.cohorts.table import CohortScan
from sct_lesion_losses.errors import DataError, UsageError
from sct_lesion_losses.executor import Progress
from sct_lesion_losses.inference.cohort import IN_COHORT, content_of, refuse_seen
from sct_lesion_losses.inference.predict import InferenceSettings
from sct_lesion_losses.report import card
from sct_lesion_losses.report.figures import style
from sct_lesion_losses.thresholds import THRESHOLDS, Objective, ScanCounts
from sct_lesion_losses.thresholds.choice import WIDE
from sct_lesion_losses.thresholds.objectives import BETA, TIE, score
from sct_lesion_losses.thresholds.site import Curves, Recalibration, recalibrate
from sct_lesion_losses.training import warm_start
from sct_lesion_losses.workflows import tune

FEW_SUBJECTS = 5

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SiteSettings:
    """The new bundle, and how the site's scans are segmented for it.

    Attributes
    ----------
    site : str
        Name of the site, for the description and the card.
    folder : Path
        The bundle to write, named as the folder.
    inference : InferenceSettings
    limits : tuple of str
        Sentences to add to the bundle's limits.
    force : bool
        Replace a bundle that is there; refused otherwise.
    """

    site: str
    folder: Path
    inference: InferenceSettings = IN_COHORT
    limits: tuple[str, ...] = ()
    force: bool = False


def run(
    bundle: str | Path,
    data: Path,
    settings: SiteSettings,
    *,
    results: Path | None = None,
    jobs: int = 1,
    command: str | None = None,
    report: Progress | None = None,
) -> Recalibration:
    """Write a bundle like another one, but for a threshold that suits a site.

    The weights are those of the other bundle, and the objective is the one it was tuned for. See
    `thresholds.site` for how the site's scans and those of the other bundle are weighed.

    Parameters
    ----------
    bundle : str or Path
        Name or folder of the tuned bundle to start from; it stays as it is.
    data : Path
        BIDS folder or TSV of the site's labelled scans. Where it holds a split, only those of
        ``thr-optimization`` are looked at. Scans without a cord are left out, counted.
    settings : SiteSettings
    results : Path, optional
        Folder in whose ``scans`` the counts of each scan are kept; see `tune.run`.
    jobs : int
        Scans at a time, each in a process of its own.
    command : str, optional
        The command line that does this, for the model card; see `schema.command_line`.
    report : callable, optional
        Told of the scans that are computed.

    Returns
    -------
    Recalibration

    Raises
    ------
    BundleError
        There is no such bundle, or the folder exists and may not be replaced.
    DataError
        The bundle was trained or tuned on a scan, no scan holds lesions, or no threshold above 0 is
        any good.
    UsageError
        The bundle is untuned or one site's already, or site or folder make no names.
    """
    loaded = store.load(bundle)
    folder = settings.folder.absolute()
    _require(loaded, folder)
    draft = _draft(loaded, settings, command)
    folder = tune.target(loaded, folder, settings.force)
    cohort = cohorts.read(data)
    scans = splits.part_or_all(cohort, "thr-optimization", "then choose the threshold")
    refuse_seen([loaded], scans, "whose curves would count twice")
    counted = tune.counts(
        loaded, scans, cohort, settings.inference, results, jobs=jobs, report=report
    )
    shipped = loaded.info.operating_point
    objective = Objective(
        shipped.objective, shipped.beta or BETA, shipped.preset or "paper", shipped.specificity
    )
    curves = _curves(scans, counted, objective)
    found = recalibrate(
        curves,
        Curves(
            np.array([scan.values for scan in shipped.per_scan], dtype=np.float64),
            [scan.subject for scan in shipped.per_scan],
        ),
        shipped.thresholds,
        shipped.threshold,
        objective=objective,
        allowed=[value is not None for value in shipped.curve],
    )
    warnings = said(found, len(scans) - len(counted), shipped.lesions is not None)
    for warning in warnings:
        logger.warning("%s", warning)
    own = {content_of(scan) for scan in counted}
    point = tune.operating_point(
        found, curves.subjects, settings.inference.centerline, warnings
    ).model_copy(
        update={
            "tuned_on": tuple(sorted({*shipped.tuned_on, *own})),
            "site": SiteCalibration(
                name=settings.site,
                weight=found.weight,
                shipped_threshold=found.shipped_threshold,
                local_threshold=found.local_threshold,
                shipped_curve=tuple(found.shipped_curve.tolist()),
                local_curve=tuple(found.local_curve.tolist()),
                held_out_shipped=found.held_out_shipped,
            ),
        }
    )
    info = BundleInfo.model_validate(
        draft.model_copy(update={"operating_point": point}).model_dump()
    )
    store.save(
        folder, info, loaded.network, loaded.weights, card.text(info), overwrite=settings.force
    )
    return found


def said(found: Recalibration, refused: int = 0, had_filter: bool = False) -> tuple[str, ...]:
    """Return what has to be said of a site's threshold before it is relied on.

    Parameters
    ----------
    found : Recalibration
    refused : int
        Scans left out because no cord was found in them.
    had_filter : bool
        The bundle started from has a second operating point, per lesion.
    """
    low, high = found.interval
    warnings = []
    if found.n_subjects < FEW_SUBJECTS:
        warnings.append(
            f"few scans: {found.n_scans} with lesions, of "
            f"{style.counted(found.n_subjects, 'subject')}; label more of them"
        )
    if high - low > WIDE + TIE:
        warnings.append(f"the interval of the threshold is wide, {low:g} to {high:g}")
    if found.at_end:
        warnings.append("the optimum lies at an end of the grid")
    if np.isnan(found.leave_one_out):
        warnings.append(
            "with scans of one subject, nothing tells whether the site's threshold does better "
            "than the shipped one"
        )
    elif found.leave_one_out <= found.held_out_shipped:
        warnings.append(
            "on scans left out, the site's threshold does no better than the shipped one "
            f"({found.objective} {found.leave_one_out:.3f}, {found.held_out_shipped:.3f} at "
            f"{found.shipped_threshold:g}); the shipped bundle is the safer choice"
        )
    if refused:
        warnings.append(f"left out, because no cord was found: {refused} of the scans")
    if had_filter:
        warnings.append("the filter of predicted lesions belonged to the former threshold: dropped")
    return tuple(warnings)


def _require(loaded: Bundle, folder: Path) -> None:
    """Raise a UsageError where a bundle cannot be recalibrated into this folder."""
    point = loaded.info.operating_point
    if loaded.folder is None or not loaded.weights:
        raise UsageError(f"{loaded.name}: this model is not a bundle on disk; choose one that is")
    if point.kind == "untuned" or not point.per_scan:
        raise UsageError(
            f"bundle {loaded.name} was never tuned, so there is no curve to shrink to; run "
            "sct_tune_lesion without -site"
        )
    if point.site is not None:
        raise UsageError(
            f"bundle {loaded.name} is that of the site {point.site.name} already; start from the "
            f"one it came from ({loaded.info.provenance.ancestor})"
        )
    if point.thresholds != THRESHOLDS:
        raise UsageError(
            f"bundle {loaded.name} was tuned over other thresholds than the {len(THRESHOLDS)} from "
            "0 to 1 by 0.05; tune it anew first"
        )
    if folder.resolve() == loaded.folder.resolve():
        raise UsageError(
            f"-ofolder is the bundle {loaded.name} itself; choose a new folder for the site's"
        )


def _draft(loaded: Bundle, settings: SiteSettings, command: str | None) -> BundleInfo:
    """Describe the new bundle as far as it is known before a scan is read."""
    site = settings.site
    if not re.fullmatch(NAME_PATTERN, site):
        raise UsageError(
            f"-site is {site!r}, expected a name of letters, digits, dots, dashes and underscores"
        )
    before = loaded.info.provenance
    ancestor = warm_start.ancestor(loaded)
    if before.ancestor is not None:
        ancestor += f", whose training started from {before.ancestor}"
    own = f"its threshold is that of the site {site}; on other scans it was not measured"
    changes = {
        "name": settings.folder.absolute().name,
        "metrics": {},
        "limits": tuple(dict.fromkeys((*loaded.info.limits, own, *settings.limits))),
        "provenance": {
            **before.model_dump(),
            "ancestor": ancestor,
            "commands": before.commands if command is None else (*before.commands, command),
        },
    }
    try:
        return BundleInfo.model_validate({**loaded.info.model_dump(), **changes})
    except ValidationError as error:
        raise UsageError(
            f"the bundle cannot be described so: {schema.problems(error)}; choose another "
            "folder name"
        ) from error


def _curves(
    scans: Sequence[CohortScan], found: Mapping[CohortScan, ScanCounts], objective: Objective
) -> Curves:
    """Score the scans with lesions by the objective that the bundle was tuned for."""
    seen = [scan for scan in scans if scan in found]
    if not seen:
        raise DataError(
            f"no cord was found in any of the {len(scans)} scans; check them, or give centerlines "
            "with the cohort"
        )
    scored = score([found[scan] for scan in seen], objective)
    rows = np.flatnonzero(scored.bearing)
    return Curves(scored.scores[rows], [seen[row].subject for row in rows])
