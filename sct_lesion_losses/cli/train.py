"""`sct_train_lesion`: train one bundle on a cohort."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sct_lesion_losses.cli import options, talk
from sct_lesion_losses.cli.options import COHORT, COUNT, of_split
from sct_lesion_losses.cli.parser import (
    FOLDER,
    SWITCH,
    TEXT,
    choice,
    command,
    option,
    words,
)

if TYPE_CHECKING:
    from sct_lesion_losses.training.running import StepReport


@contextmanager
def training_bar(epochs: int) -> Iterator[Callable[[StepReport], None] | None]:
    """One bar over all steps, with loss, rate and time left, on stderr where that is a terminal."""
    if not (sys.stderr.isatty() and talk.logger.isEnabledFor(logging.INFO)):
        yield None
        return
    from tqdm import tqdm

    with ExitStack() as stack:
        bars: list[Any] = []

        def update(now: StepReport) -> None:
            done = now.epoch * now.steps + now.step
            if not bars:  # the time left is reckoned from here
                total = epochs * now.steps
                bar = tqdm(
                    desc="training",
                    file=sys.stderr,
                    leave=False,
                    unit="step",
                    total=total,
                    initial=done - 1,
                )
                bars.append(stack.enter_context(bar))
            bars[0].n = done
            bars[0].set_postfix(
                epoch=f"{now.epoch + 1}/{epochs}",
                loss=f"{now.loss:.4f}",
                rate=f"{now.rate:.2g}",
            )

        yield update


NAME = "sct_train_lesion"


@command(
    NAME,
    "Train a lesion segmentation network on a cohort and write it as a model bundle. Every setting "
    "defaults to that of the study. Its threshold stays at 0.5 until sct_tune_lesion has chosen "
    "one.",
)
@COHORT
@option("-ofolder", "folder", FOLDER, "Bundle to write.", mandatory=True)
@options.of_recipe
@of_split
@option(
    "-init",
    "init",
    TEXT,
    "Start from the weights of this bundle, a name or a folder, to fit it to scans of one's own; "
    "or from sct, the toolbox's own lesion model. The network is then that of the start.",
    shown="random weights",
)
@option(
    "-c",
    "contrast",
    choice(("t2", "t2_ax", "t2s")),
    "With -init sct: which of the toolbox's models.",
    shown="t2",
)
@option(
    "-resume",
    "resume",
    SWITCH,
    "Go on with a training that was interrupted; it ends as if it had not been.",
    default=False,
)
@option(
    "-force",
    "force",
    SWITCH,
    "Start anew, and lose the bundle or the training that is there already.",
    default=False,
)
@options.of_machine
@option(
    "-tensorboard",
    "tensorboard",
    SWITCH,
    "Write event files for TensorBoard beside the training's log.",
    default=False,
)
@option(
    "-cache",
    "cache",
    FOLDER,
    "Folder where prepared scans are kept, for every training on them. It may be deleted.",
    shown="training_cache beside the bundle",
)
@option("-jobs", "jobs", COUNT, "Scans prepared at the same time.", default=1)
@option("-about", "data_text", TEXT, "A sentence on the data, for the model card.")
@option(
    "-bundle_version", "version", TEXT, "Version of the bundle, numbers with dots.", default="1.0.0"
)
def main(
    data: Path,
    folder: Path,
    split_seed: int,
    lesion_free: float,
    lesion_free_tuning: float,
    unseen_sites: tuple[str, ...],
    init: str | None,
    contrast: str | None,
    resume: bool,
    force: bool,
    backend: str | None,
    device: str,
    devices: int,
    micro_batch: int | None,
    threads: int | None,
    tensorboard: bool,
    cache: Path | None,
    jobs: int,
    data_text: str | None,
    version: str,
    **entries: Any,
) -> int:
    """Train and print the folder of the bundle."""
    options.choose(backend, device, threads)
    train = options.training()
    from sct_lesion_losses.cohorts.splits import Rules
    from sct_lesion_losses.training import warm_start
    from sct_lesion_losses.training.devices import require
    from sct_lesion_losses.training.steps import Machine

    require(device)

    start = warm_start.load(init, contrast)
    recipe = options.recipe(entries, warm_start.entries(start))
    about = train.About(folder.resolve().name, version, commands=(talk.command_line(words()),))
    if data_text is not None:
        about = replace(about, data=data_text)
    with talk.progress("preparing") as prepared, training_bar(recipe.epochs) as report:
        written = train.run(
            data,
            folder,
            recipe,
            about=about,
            rules=Rules(split_seed, lesion_free, lesion_free_tuning, unseen_sites),
            init=start,
            resume=resume,
            force=force,
            machine=Machine(devices, micro_batch=micro_batch),
            tensorboard=tensorboard,
            cache=cache,
            jobs=jobs,
            report=report,
            prepared=prepared,
        )
    click.echo(written)
    return 0
