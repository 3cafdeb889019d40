"""`sct_train_lesion`: train one bundle on a cohort."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
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
    from sct_lesion_losses.training.callbacks import StepReport


@contextmanager
def training_bar(epochs: int) -> Iterator[Callable[[StepReport], None] | None]:
    """One bar over all steps, with loss and time left, on stderr where that is a terminal."""
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
            bars[0].set_postfix(epoch=f"{now.epoch + 1}/{epochs}", loss=f"{now.loss:.4f}")

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
@option(
    "-about",
    "data_text",
    TEXT,
    "A sentence on the data, for the model card.",
    default="scans of the user's own",
    shown="",
)
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
    threads: int | None,
    tensorboard: bool,
    cache: Path | None,
    jobs: int,
    data_text: str,
    version: str,
    **entries: Any,
) -> int:
    """Train and print the folder of the bundle."""
    options.choose(backend, device, threads)
    train = options.training()
    from sct_lesion_losses.cohorts.splits import Rules
    from sct_lesion_losses.training import warm_start
    from sct_lesion_losses.training.devices import require

    require(device)
    start = warm_start.load(init, contrast)
    recipe = options.recipe(entries, warm_start.entries(start))
    settings = train.TrainSettings(
        rules=Rules(split_seed, lesion_free, lesion_free_tuning, unseen_sites),
        init=start,
        resume=resume,
        force=force,
        tensorboard=tensorboard,
        cache=cache,
        jobs=jobs,
        version=version,
        data=data_text,
        commands=(talk.command_line(words()),),
    )
    with talk.progress("preparing") as on_scan, training_bar(recipe.epochs_planned) as on_step:
        written = train.run(data, folder, recipe, settings, on_scan=on_scan, on_step=on_step)
    click.echo(written)
    return 0
