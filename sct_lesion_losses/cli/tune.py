"""`sct_tune_lesion`: choose a bundle's decision threshold on scans it was not trained on."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sct_lesion_losses.cli import talk
from sct_lesion_losses.cli.options import COHORT_CENTERLINE, ENGINE, JOBS, PRECISION, PRESET
from sct_lesion_losses.cli.parser import (
    FILE,
    FOLDER,
    SWITCH,
    TEXT,
    choice,
    command,
    float_range,
    option,
    words,
)
from sct_lesion_losses.errors import UsageError
from sct_lesion_losses.thresholds import OBJECTIVES

if TYPE_CHECKING:
    from sct_lesion_losses.thresholds.site import Recalibration

NAME = "sct_tune_lesion"
NOT_OF_A_SITE = (
    *("objective", "beta", "preset", "specificity", "measure"),
    *("lesion_point", "lesion_specificity", "froc", "seen", "about"),
)
logger = logging.getLogger(__name__)


@command(
    NAME,
    "Choose the decision threshold of a model bundle on scans that it was not trained on, and "
    "write it into the bundle together with the whole curve, its interval, and what the bundle "
    "then reaches on the unseen scans. A bundle of the package or of somebody else is not changed: "
    "a tuned copy of it is written.",
)
@option("-bundle", "bundle", TEXT, "Model bundle: a name or a folder.", mandatory=True)
@option(
    "-i",
    "data",
    FILE,
    "Cohort: a BIDS folder, or a TSV; with a column split (sct_train_lesion writes split.tsv), the "
    "scans of thr-optimization choose and those of unseen are measured.",
    mandatory=True,
)
@option(
    "-objective",
    "objective",
    choice(tuple(OBJECTIVES)),
    "What the threshold is to make best, over the scans with lesions: voxel- or lesion-wise F1, "
    "F-beta, or the median L-F1 where -specificity is reached on the lesion-free scans.",
    default="median_v_f1",
)
@option(
    "-beta",
    "beta",
    float_range(0, min_open=True),
    "How many times as much as precision sensitivity counts in F-beta.",
    default=2.0,
)
@PRESET
@option(
    "-specificity",
    "specificity",
    float_range(0, 1, min_open=True),
    "Share of the lesion-free scans that the threshold must leave without a lesion; for "
    "-objective l_f1_at_specificity.",
)
@COHORT_CENTERLINE
@option("-measure", "measure", SWITCH, "Measure the bundle on the unseen scans.", default=True)
@ENGINE
@PRECISION
@option(
    "-lesion_point",
    "lesion_point",
    SWITCH,
    "Also choose which predicted lesions are kept, by their highest probability and their volume; "
    "sct_deepseg_lesion_tuned -lesion_point 1 applies it.",
    default=False,
)
@option(
    "-lesion_specificity",
    "lesion_specificity",
    float_range(0, 1),
    "With -lesion_point 1: share of the lesion-free scans that has to be left without any lesion.",
    default=0.0,
)
@option(
    "-froc",
    "froc",
    FILE,
    "With -lesion_point 1: picture of the lesions found against the false ones, named without a "
    "suffix; .png and .svg are written.",
)
@option(
    "-seen",
    "seen",
    SWITCH,
    "Take scans that the bundle was trained on as well; they flatter it, and its card says so.",
    default=False,
)
@option(
    "-site",
    "site",
    TEXT,
    "Name of a site, whose labelled scans -i gives, a handful: a new bundle is written whose "
    "threshold suits them, their curve shrunk towards that of the scans that the bundle was tuned "
    "on. Needs -ofolder; the objective is the one that the bundle was tuned for.",
)
@option(
    "-ofolder",
    "folder",
    FOLDER,
    "The bundle to write, named as its folder.",
    shown="the bundle itself; for one that is not yours, NAME-tuned in "
    "~/.local/share/sct_lesion_losses/bundles",
)
@option("-force", "force", SWITCH, "Replace another bundle that is there.", default=False)
@option(
    "-about", "about", TEXT, "A sentence on the scans that choose, for the model card.", default=""
)
@option(
    "-limits",
    "limits",
    TEXT,
    "Sentences on where the bundle fails, for its model card.",
    many=True,
)
@option(
    "-results",
    "results",
    FOLDER,
    "Folder in which the counts of each scan are kept: tuning that was stopped, or another "
    "objective, computes only what is missing there, and so does sct_evaluate_lesion with it as "
    "-ofolder.",
)
@JOBS
def main(
    bundle: str,
    data: Path,
    site: str | None,
    folder: Path | None,
    force: bool,
    results: Path | None,
    jobs: int,
    froc: Path | None,
    **given: Any,
) -> int:
    """Tune, and print the threshold; where another bundle was written, its folder as well."""
    if site is not None and folder is None:
        raise UsageError("-site writes a new bundle: name its folder with -ofolder")
    refused = [f"-{name}" for name in NOT_OF_A_SITE if site is not None and f"-{name}" in words()]
    if refused:
        raise UsageError(
            f"{refused[0]} does not go with -site: the objective is the one that the bundle was "
            "tuned for, nothing is measured, no filter of lesions is chosen, and scans that it was "
            "trained on are refused"
        )
    if froc is not None and not given["lesion_point"]:
        raise UsageError("-froc draws what -lesion_point 1 finds: add it")
    from sct_lesion_losses.inference.predict import InferenceSettings
    from sct_lesion_losses.report.figures import style
    from sct_lesion_losses.thresholds import Objective
    from sct_lesion_losses.workflows import site as of_site
    from sct_lesion_losses.workflows import tune

    if froc is not None:
        style.require()  # known before any scan is read
    inference = InferenceSettings.taken_from(given)
    numbers = {name: given.pop(name) for name in ("beta", "preset", "specificity")}
    objective = Objective(given.pop("objective"), **numbers)
    work: dict[str, Any] = {
        "results": results,
        "jobs": jobs,
        "command": talk.command_line(words()),
    }
    if site is not None and folder is not None:
        settings = of_site.SiteSettings(site, folder, inference, given["limits"], force)
        with talk.progress("tuning") as progress:
            found = of_site.run(bundle, data, settings, **work, report=progress)
        _tell_site(found, site)
        click.echo(f"{found.threshold:g}")
        click.echo(folder)
        return 0
    with talk.progress("tuning") as progress:
        tuned = tune.run(
            bundle,
            data,
            tune.TuneSettings(objective, inference, **given),
            folder=folder,
            force=force,
            **work,
            report=progress,
        )
    choice_made, info = tuned.choice, tuned.bundle.info
    logger.info(
        "threshold %g (%s): %s %.3f over %s of %s",
        choice_made.threshold,
        _interval(choice_made.interval),
        choice_made.objective,
        choice_made.best,
        style.counted(choice_made.n_scans, "scan"),
        style.counted(choice_made.n_subjects, "subject"),
    )
    click.echo(f"{choice_made.threshold:g}")
    if tuned.elsewhere:
        click.echo(tuned.bundle.folder)
    if froc is not None and info.operating_point.lesions is not None:
        from sct_lesion_losses.report.figures import thresholds

        title = f"{info.name} {info.version}"
        for path in style.save_all(thresholds.froc(info.operating_point.lesions, title), froc):
            click.echo(path)
    return 0


def _interval(bounds: tuple[float, float]) -> str:
    """Say between which thresholds the subjects leave the choice; one subject does not tell."""
    low, high = bounds
    if math.isnan(low):
        return "interval unknown: one subject"
    return f"95 % interval {low:g} to {high:g}"


def _tell_site(found: Recalibration, site: str) -> None:
    """Log the threshold of a site and what it is worth."""
    from sct_lesion_losses.report.figures import style

    alone = math.isnan(found.leave_one_out)
    logger.info(
        "threshold %g for %s (%s); shipped %g, of the %s alone %g with weight %.2f; %s %s, at the "
        "shipped threshold %.3f",
        found.threshold,
        site,
        _interval(found.interval),
        found.shipped_threshold,
        style.counted(found.n_scans, "local scan"),
        found.local_threshold,
        found.weight,
        found.objective,
        "held out unknown: one subject" if alone else f"held out {found.leave_one_out:.3f}",
        found.held_out_shipped,
    )
