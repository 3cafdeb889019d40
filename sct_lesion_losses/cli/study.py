"""`sct_lesion_study`: split, train every loss, tune, evaluate, and one report of it all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sct_lesion_losses.cli import options, talk
from sct_lesion_losses.cli.options import (
    COHORT,
    COHORT_CENTERLINE,
    CONTRAST,
    ENGINE,
    JOBS,
    LOSSES,
    PRESET,
    of_split,
)
from sct_lesion_losses.cli.parser import (
    FAILED,
    FILE,
    FOLDER,
    SWITCH,
    TEXT,
    choice,
    command,
    option,
    words,
)
from sct_lesion_losses.errors import UsageError
from sct_lesion_losses.losses import STUDY

NAME = "sct_lesion_study"


@command(
    NAME,
    "The whole study on a cohort: split it, train a bundle with every loss, tune their decision "
    "thresholds, evaluate them on the unseen scans beside SCT's own model where SCT is found, and "
    "write tables, figures and a report that sets the published values beside the measured ones. "
    "What is done already in the output folder is not done again; a training that was interrupted "
    "goes on. A loss whose training fails does not end the others.",
)
@COHORT
@option(
    "-ofolder",
    "folder",
    FOLDER,
    "Where to write report.html, the split, the bundles and their evaluation.",
    mandatory=True,
)
@option(
    "-losses",
    "losses",
    choice(LOSSES),
    "Losses to train with.",
    shown=" ".join(STUDY),
    many=True,
)
@option(
    "-bundle",
    "bundles",
    TEXT,
    "Take these bundles, names or folders, in place of training, with their own thresholds.",
    many=True,
)
@option(
    "-retune",
    "retune",
    SWITCH,
    "With -bundle: tune copies of the bundles on this cohort.",
    default=False,
)
@option(
    "-dry_run",
    "dry_run",
    SWITCH,
    "Print what is done already in the output folder and what is missing, and do nothing.",
    default=False,
)
@options.of_every_recipe
@of_split
@options.of_machine
@COHORT_CENTERLINE
@CONTRAST
@PRESET
@ENGINE
@option(
    "-cache",
    "cache",
    FOLDER,
    "Folder where prepared scans are kept. It may be deleted.",
    shown="bundles/training_cache in the output folder",
)
@JOBS
@option(
    "-scheduler",
    "scheduler",
    TEXT,
    "Train on the workers of this cluster of dask.distributed, tcp://host:8786 for example, all "
    "losses at the same time. The workers see the files by the same paths.",
    shown="here, one loss after the other",
)
@option(
    "-scheduler_file",
    "scheduler_file",
    FILE,
    "The same, by the file that dask scheduler --scheduler-file writes.",
)
@option("-about", "about", TEXT, "A sentence on the data, for the model cards.", default="")
def main(
    data: Path,
    folder: Path,
    losses: tuple[str, ...],
    bundles: tuple[str, ...],
    dry_run: bool,
    split_seed: int,
    lesion_free: float,
    lesion_free_tuning: float,
    unseen_sites: tuple[str, ...],
    backend: str | None,
    device: str,
    threads: int | None,
    jobs: int,
    scheduler: str | None,
    scheduler_file: Path | None,
    about: str,
    retune: bool,
    centerline: str,
    contrast: str,
    engine: str,
    preset: str,
    cache: Path | None,
    **entries: Any,
) -> int:
    """Make the study, and print the path of its report."""
    if scheduler and scheduler_file:
        raise UsageError("-scheduler and -scheduler_file name one cluster each: give one of them")
    if not bundles:
        options.choose(backend, device, threads)
    from sct_lesion_losses.cohorts.splits import Rules
    from sct_lesion_losses.inference.predict import InferenceSettings
    from sct_lesion_losses.workflows import study
    from sct_lesion_losses.workflows.evaluate import EvaluateSettings

    trained = losses or (() if bundles else STUDY)
    inference = InferenceSettings(centerline, contrast, engine=engine)
    settings = study.StudySettings(
        recipes=tuple(options.recipe({**entries, "loss": loss}, {}) for loss in trained),
        bundles=bundles,
        retune=retune,
        rules=Rules(split_seed, lesion_free, lesion_free_tuning, unseen_sites),
        evaluation=EvaluateSettings(inference, preset),
        cache=None if cache is None else cache.absolute(),
        about=about,
        command=talk.command_line(words()),
    )
    if dry_run:
        for step, state in study.listed(folder, settings):
            click.echo(f"{step}: {state}")
        return 0
    workers = scheduler or scheduler_file or 1
    if trained and workers == 1:
        options.training()
        from sct_lesion_losses.training.devices import require

        require(device)
    failures = study.run(
        data,
        folder,
        settings,
        jobs=jobs,
        workers=workers,
        progress=talk.progress,
    )
    click.echo(folder / study.PAGE)
    return FAILED if failures else 0
