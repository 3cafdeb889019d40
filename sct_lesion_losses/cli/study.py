"""`sct_lesion_study`: split, train every loss, tune, evaluate, and one report of it all."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sct_lesion_losses.cli import options, talk
from sct_lesion_losses.cli.options import (
    COHORT,
    COHORT_CENTERLINE,
    CONTRAST,
    COUNT,
    ENGINE,
    LOSSES,
    PRESET,
    STUDY_LOSSES,
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
from sct_lesion_losses.cli.train import training_bar
from sct_lesion_losses.errors import UsageError

if TYPE_CHECKING:
    from sct_lesion_losses.study import Planned
    from sct_lesion_losses.study.stages import Estimate
    from sct_lesion_losses.training.recipe import Recipe

NAME = "sct_lesion_study"


@command(
    NAME,
    "The whole study on a cohort: split it, train a bundle with every loss, tune their decision "
    "thresholds, evaluate them on the unseen scans beside SCT's own model where SCT is found, and "
    "write tables, figures and a report that sets the published values beside the measured ones. "
    "What is done already in the output folder, and has not changed, is not done again; a training "
    "that was interrupted goes on. A loss whose training fails does not end the others.",
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
    shown=" ".join(STUDY_LOSSES),
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
    "Print what would be done, and how long it would take, by what was done before or by a few "
    "steps that are measured, and do nothing.",
    default=False,
)
@options.of_every_recipe
@of_split
@options.of_machine
@COHORT_CENTERLINE
@option(
    "-c",
    "contrast",
    CONTRAST,
    "Contrast of the scans: which of SCT's models is the baseline.",
    default="t2",
)
@option(
    "-preset",
    "preset",
    PRESET,
    "By which rule the tables count lesions as detected.",
    default="paper",
)
@ENGINE
@option(
    "-cache",
    "cache",
    FOLDER,
    "Folder where prepared scans are kept. It may be deleted.",
    shown="bundles/training_cache in the output folder",
)
@option("-jobs", "jobs", COUNT, "Scans prepared and evaluated at the same time.", default=1)
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
@option("-about", "data_text", TEXT, "A sentence on the data, for the model cards.", default="")
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
    devices: int,
    micro_batch: int | None,
    threads: int | None,
    jobs: int,
    scheduler: str | None,
    scheduler_file: Path | None,
    data_text: str,
    retune: bool,
    centerline: str,
    contrast: str | None,
    preset: str,
    engine: str,
    cache: Path | None,
    **entries: Any,
) -> int:
    """Make the study, and print the path of its report."""
    if losses and bundles:
        raise UsageError("-losses are trained, those of -bundle are not: give one of the two")
    if retune and not bundles:
        raise UsageError("-retune 1 goes with -bundle; what is trained here is tuned anyway")
    if scheduler and scheduler_file:
        raise UsageError("-scheduler and -scheduler_file name one cluster each: give one of them")
    if not bundles:
        options.choose(backend, device, threads)
    from sct_lesion_losses import study
    from sct_lesion_losses.cohorts.splits import Rules

    trained = () if bundles else losses or STUDY_LOSSES
    settings = study.Settings(
        recipes=tuple(options.recipe({**entries, "loss": loss}, {}) for loss in trained),
        bundles=bundles,
        retune=retune,
        rules=Rules(split_seed, lesion_free, lesion_free_tuning, unseen_sites),
        centerline=centerline,
        contrast=contrast or "t2",
        preset=preset,
        engine=engine,
        jobs=jobs,
        machine=study.Machine(devices, micro_batch, jobs, os.environ.get("KERAS_BACKEND")),
        cache=None if cache is None else cache.absolute(),
        data=data_text,
        command=talk.command_line(words()),
    )
    if dry_run:
        _print(study.planned(data, folder, settings, _measured))
        return 0
    elsewhere = None
    if scheduler or scheduler_file:
        elsewhere = study.Cluster(scheduler, scheduler_file)

    def before_training() -> None:
        options.training()
        from sct_lesion_losses.training.devices import require

        require(device)

    results = study.run(
        data,
        folder,
        settings,
        listener=study.Listener(
            scans=talk.progress,
            steps=training_bar,
        ),
        elsewhere=elsewhere,
        before_training=before_training,
    )
    click.echo(folder / study.PAGE)
    return FAILED if study.failures(results) else 0


def _measured(recipe: Recipe, data: Path) -> Estimate | None:
    from sct_lesion_losses import study

    options.training()
    return study.measured(recipe, data)


def _print(plan: Sequence[Planned]) -> None:
    """Print a line per stage, in columns, and the sum of what is known."""
    from sct_lesion_losses.training.callbacks import duration

    rows = [("stage", "would", "time", "because")]
    for one in plan:
        seconds, by = one.estimate.seconds, one.estimate.by
        time = "" if one.action == "skip" else by
        if one.action != "skip" and seconds is not None:
            time = f"{duration(seconds)}, by {by}"
        rows.append((one.stage, one.action, time, one.why))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())
    known = sum(one.estimate.seconds or 0.0 for one in plan)
    unknown = sum(one.estimate.seconds is None for one in plan)
    more = f", and {unknown} stages of unknown time" if unknown else ""
    click.echo(f"in all {duration(known)}{more}")
