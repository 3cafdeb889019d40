"""`sct_tune_lesion`: choose a bundle's decision threshold on scans it was not trained on."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from sct_lesion_losses.cli import options, talk
from sct_lesion_losses.cli.parser import choice, command, float_range, int_range, option
from sct_lesion_losses.errors import UsageError
from sct_lesion_losses.thresholds import OBJECTIVES

if TYPE_CHECKING:
    from sct_lesion_losses.bundle.schema import BundleInfo
    from sct_lesion_losses.thresholds.choice import Optimum

APART = {  # parameters that do not go with each way to tune, and why
    "-i": ("cords variants seed figure", "it is for implants in scans of -healthy people"),
    "-healthy": (
        "data site objective beta preset measure lesion_point lesion_specificity",
        "implants in these scans choose threshold and filter of lesions together, by the best L-F1 "
        "at a -specificity",
    ),
    "-site": (
        "objective beta preset specificity measure lesion_point lesion_specificity froc seen about",
        "the objective is the one that the bundle was tuned for, nothing is measured, no filter of "
        "lesions is chosen, and scans that it was trained on are refused",
    ),
}
SPECIFICITY = 0.9  # of the healthy
logger = logging.getLogger(__name__)


@command(
    "sct_tune_lesion",
    help="Choose the decision threshold of a model bundle on scans that it was not trained on, and "
    "write it into the bundle together with the whole curve, its interval, and what the bundle "
    "then reaches on the unseen scans. A bundle of the package or of somebody else is not changed: "
    "a tuned copy of it is written.",
)
@option("-bundle <str>", "Model bundle: a name or a folder.", mandatory=True)
@option(
    "-i <file>",
    "Cohort: a BIDS folder, or a TSV; with a column split (sct_train_lesion writes split.tsv), the "
    "scans of thr-optimization choose and those of unseen are measured.",
    dest="data",
)
@option(
    "-healthy <file> [<file> ...]",
    "A site without labelled scans: in place of -i, scans of its healthy people, or one BIDS "
    "folder of them, none of whom the bundle was trained on. Lesions are implanted into them, as "
    "by sct_implant_lesion; these and the scans as they are choose threshold and filter of "
    "lesions, by the best L-F1 with a P-specificity of at least -specificity, into a new bundle "
    "(-ofolder). Its card tells which implants it finds, by contrast and volume, and how many "
    "false lesions it marks. The cord is found as in other scans, unless by -centerline.",
)
@option(
    "-cord <file> [<file> ...]",
    "With -healthy: cord masks, one for each scan; see sct_implant_lesion.",
    dest="cords",
    shown="those of a BIDS folder, else estimated",
)
@option(
    "-n <int>",
    "With -healthy: scans made of each one, the first without lesions.",
    kind=int_range(2),
    dest="variants",
    default=5,
)
@option("-seed <int>", "With -healthy: seed of the implants.", kind=int_range(0), default=1)
@option(
    "-figure <file>",
    "With -healthy: picture of the implants found, by contrast and by volume, named without a "
    "suffix; .png and .svg are written.",
)
@option(
    "-objective <str>",
    "What the threshold is to make best, over the scans with lesions: voxel- or lesion-wise F1, "
    "F-beta, or the median L-F1 where -specificity is reached on the lesion-free scans.",
    kind=choice(tuple(OBJECTIVES)),
    default="median_v_f1",
)
@option(
    "-beta <float>",
    "How many times as much as precision sensitivity counts in F-beta.",
    kind=float_range(0, min_open=True),
    default=2.0,
)
@options.PRESET
@option(
    "-specificity <float>",
    "Share of the lesion-free scans that must be left without a lesion, for -objective "
    "l_f1_at_specificity: by the threshold, or, with -lesion_point 1, by threshold and filter, "
    "which are chosen together.",
    kind=float_range(0, 1, min_open=True),
    shown=f"{SPECIFICITY:g} with -healthy",
)
@options.COHORT_CENTERLINE
@option("-measure {0,1}", "Measure the bundle on the unseen scans.", default=True)
@options.ENGINE
@options.PRECISION
@option(
    "-lesion_point {0,1}",
    "Also choose which predicted lesions are kept, by their highest probability and their volume; "
    "sct_deepseg_lesion_tuned then drops the others, unless its -lesion_point 0 says otherwise.",
)
@option(
    "-lesion_specificity <float>",
    "With -lesion_point 1: share of the lesion-free scans that has to be left without any lesion.",
    kind=float_range(0, 1),
    default=0.0,
)
@option(
    "-froc <file>",
    "With -lesion_point 1: picture of the lesions found against the false ones, named without a "
    "suffix; .png and .svg are written.",
)
@option(
    "-seen {0,1}",
    "Take scans that the bundle was trained on as well; they flatter it, and its card says so.",
)
@option(
    "-site <str>",
    "Name of a site, whose labelled scans -i gives, a handful: a new bundle is written whose "
    "threshold suits them, their curve shrunk towards that of the scans that the bundle was tuned "
    "on. Needs -ofolder; the objective is the one that the bundle was tuned for.",
)
@option(
    "-ofolder <folder>",
    "The bundle to write, named as its folder.",
    dest="folder",
    shown="the bundle itself; for one that is not yours, NAME-tuned in "
    "~/.local/share/sct_lesion_losses/bundles",
)
@option("-force {0,1}", "Replace another bundle that is there.")
@option("-about <str>", "A sentence on the scans that choose, for the model card.", default="")
@option("-limits <str> [<str> ...]", "Sentences on where the bundle fails, for its model card.")
@option(
    "-results <folder>",
    "Folder in which the counts of each scan are kept: tuning that was stopped, or another "
    "objective, computes only what is missing there, and so does sct_evaluate_lesion with it as "
    "-ofolder, which segments the scans once more where a lesion filter was chosen.",
)
@options.JOBS
def main(
    healthy: tuple[Path, ...],
    site: str | None,
    folder: Path | None,
    froc: Path | None,
    figure: Path | None,
    **values: Any,
) -> None:
    """Tune, and print the threshold; where another bundle was written, its folder as well."""
    cords, variants, seed = (values.pop(name) for name in ("cords", "variants", "seed"))
    _refuse("-healthy" if healthy else "-i")
    if not healthy and values["data"] is None:
        raise UsageError("give a cohort with -i, or scans of healthy people with -healthy")
    if site is not None:
        _refuse("-site")
    if healthy:
        values |= {"objective": "l_f1_at_specificity", "lesion_point": True, "measure": False}
        values["specificity"] = values["specificity"] or SPECIFICITY
        if not _is_given("centerline"):
            values["centerline"] = "auto"  # as where the bundle will be used: no mask is there
    if froc is not None and not values["lesion_point"]:
        raise UsageError("-froc draws what -lesion_point 1 finds: add it")
    from sct_lesion_losses.inference.predict import InferenceSettings
    from sct_lesion_losses.report.figures import style
    from sct_lesion_losses.thresholds import Objective
    from sct_lesion_losses.workflows import tune
    from sct_lesion_losses.workflows.implant import ImplantSettings

    if froc is not None or figure is not None:
        style.require()  # known before any scan is read
    names = ("objective", "beta", "preset", "specificity")
    objective = Objective(*(values.pop(name) for name in names))
    bundle, data = values.pop("bundle"), values.pop("data")
    inference = InferenceSettings.taken_from(values)
    settings = tune.TuneSettings(
        objective,
        inference,
        site=site,
        healthy=bool(healthy),
        folder=folder,
        command=talk.command_line(),
        **values,
    )
    with talk.progress("tuning") as report:
        if healthy:
            # With all of them without lesions, one is left the host as it is, and the others
            # get some: a second copy would tell nothing.
            implants = ImplantSettings(variants, seed, free=1.0)
            tuned = tune.run_healthy(bundle, healthy, cords, settings, implants, report)
        else:
            tuned = tune.run(bundle, data, settings, report)
    _log(tuned.choice, site)
    click.echo(f"{tuned.choice.threshold:g}")
    if tuned.elsewhere:
        click.echo(folder or tuned.bundle.folder)
    _draw(tuned.bundle.info, froc, figure)


def _refuse(way: str) -> None:
    """Raise a UsageError where an option was given that does not go with a way to tune."""
    names, because = APART[way]
    options = {one.name: one.opts[0] for one in click.get_current_context().command.params}
    for name in filter(_is_given, names.split()):
        raise UsageError(f"{options[name]} does not go with {way}: {because}")


def _is_given(name: str) -> bool:
    """Tell whether an option is on the command line."""
    source = click.get_current_context().get_parameter_source(name)
    return source is ParameterSource.COMMANDLINE


def _draw(info: BundleInfo, froc: Path | None, figure: Path | None) -> None:
    """Draw what was chosen, and print the files."""
    from sct_lesion_losses.report.figures import evaluation, style

    point, title = info.operating_point, f"{info.name} {info.version}"
    made: list[Path] = []
    if froc is not None and point.lesions is not None:
        made += style.save_all(evaluation.froc(point.lesions, title), froc)
    if figure is not None and point.detection_limit is not None:
        made += style.save_all(evaluation.detection_limit(point.detection_limit, title), figure)
    for path in made:
        click.echo(path)


def _log(found: Optimum, site: str | None) -> None:
    """Log a threshold and what it is worth; one subject leaves its interval unknown."""
    from sct_lesion_losses.report import counted
    from sct_lesion_losses.thresholds.site import Recalibration

    alone, (low, high) = found.n_subjects == 1, found.interval
    logger.info(
        "threshold %g (95 %% interval %s): %s %.3f over %s of %s",
        found.threshold,
        "unknown: one subject" if alone else f"{low:g} to {high:g}",
        found.objective,
        found.best,
        counted(found.n_scans, "scan"),
        counted(found.n_subjects, "subject"),
    )
    if isinstance(found, Recalibration):
        held_out = "unknown: one subject" if alone else f"{found.leave_one_out:.3f}"
        logger.info(
            "for %s: shipped %g, of the local scans alone %g with weight %.2f; %s held out %s, at "
            "the shipped threshold %.3f",
            *(site, found.shipped_threshold, found.local_threshold, found.weight),
            *(found.objective, held_out, found.held_out_shipped),
        )
