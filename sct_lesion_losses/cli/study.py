"""`sct_lesion_study`: split, train every loss, tune, evaluate, and one report of it all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sct_lesion_losses.cli import options, talk
from sct_lesion_losses.cli.parser import FAILED, choice, command, option
from sct_lesion_losses.losses import LOSSES, STUDY


@command(
    "sct_lesion_study",
    help="The whole study on a cohort: split it, train a bundle with every loss, tune their "
    "decision thresholds, evaluate them on the unseen scans beside SCT's own model where SCT is "
    "found, and write tables, figures and a report that sets the published values beside the "
    "measured ones. What is done already in the output folder is not done again; a training that "
    "was interrupted goes on. A loss whose training fails does not end the others.",
)
@options.COHORT
@option(
    "-ofolder <folder>",
    "Where to write report.html, the split, the bundles and their evaluation.",
    dest="folder",
    mandatory=True,
)
@option(
    "-losses <str> [<str> ...]",
    "Losses to train with.",
    kind=choice(tuple(LOSSES)),
    shown=" ".join(STUDY),
)
@option(
    "-bundle <str> [<str> ...]",
    "Take these bundles, names or folders, in place of training, with their own thresholds.",
    dest="bundles",
)
@option(
    "-dry_run {0,1}",
    "Print what is done already in the output folder and what is missing, and do nothing.",
)
@options.RECIPE
@options.SPLIT_SEED
@options.SPLIT
@options.MACHINE
@options.COHORT_CENTERLINE
@options.CONTRAST
@options.PRESET
@options.ENGINE
@option(
    "-cache <folder>",
    "Folder where prepared scans are kept. It may be deleted.",
    shown="bundles/training_cache in the output folder",
)
@options.JOBS
@option(
    "-scheduler <str>",
    "Train on the workers of this cluster of dask.distributed, tcp://host:8786 for example, all "
    "losses at the same time. The workers see the files by the same paths.",
    shown="here, one loss after the other",
)
@options.SCHEDULER_FILE
@option("-about <str>", "A sentence on the data, for the model cards.", default="")
def main(
    cohort: Path,
    folder: Path,
    losses: tuple[str, ...],
    bundles: tuple[str, ...],
    dry_run: bool,
    **values: Any,
) -> int:
    """Make the study, and print the path of its report."""
    cluster = options.cluster(values)
    trained = losses or (() if bundles else STUDY)
    device = options.chosen_device(values) if trained else ""
    from sct_lesion_losses.inference.predict import InferenceSettings
    from sct_lesion_losses.workflows import study
    from sct_lesion_losses.workflows.evaluate import EvaluateSettings

    names = ("centerline", "contrast", "engine")
    inference = InferenceSettings(**{name: values.pop(name) for name in names})
    evaluation = EvaluateSettings(
        inference, values.pop("preset"), values.pop("jobs"), talk.command_line()
    )
    cache, workers = values.pop("cache"), cluster or 1
    settings = study.StudySettings(
        bundles=bundles,
        rules=options.rules(values),
        evaluation=evaluation,
        workers=workers,
        cache=None if cache is None else cache.absolute(),
        about=values.pop("about"),
        recipes=tuple(options.recipe({**values, "loss": loss}, {}) for loss in trained),
    )
    if dry_run:
        for step, state in study.listed(folder, settings):
            click.echo(f"{step}: {state}")
        return 0
    if trained and workers == 1:
        options.training(device)
    failures = study.run(cohort, folder, settings, talk.progress)
    click.echo(folder / study.PAGE)
    return FAILED if failures else 0
