"""`sct_train_lesion`: train one bundle on a cohort."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sct_lesion_losses.cli import options, talk
from sct_lesion_losses.cli.parser import command, option


@command(
    "sct_train_lesion",
    help="Train a lesion segmentation network on one or more cohorts and write it as a model "
    "bundle. Every "
    "setting defaults to that of the study. Its threshold stays at 0.5 until sct_tune_lesion has "
    "chosen one.",
)
@options.COHORTS
@option("-ofolder <folder>", "Bundle to write.", dest="folder", mandatory=True)
@options.LOSS
@options.RECIPE
@options.COHORT_SHARES
@options.SPLIT_SEED
@options.SPLIT
@option(
    "-init <str>",
    "Start from the weights of this bundle, a name or a folder, to fit it to scans of one's own; "
    "or from sct, the toolbox's own lesion model. The network is then that of the start.",
    shown="random weights",
)
@option(
    "-c {t2,t2_ax,t2s}",
    "With -init sct: which of the toolbox's models.",
    dest="contrast",
    shown="t2",
)
@option(
    "-resume {0,1}", "Go on with a training that was interrupted; it ends as if it had not been."
)
@option("-force {0,1}", "Start anew, and lose the bundle or the training that is there already.")
@options.MACHINE
@option("-tensorboard {0,1}", "Write event files for TensorBoard beside the training's log.")
@option(
    "-cache <folder>",
    "Folder where prepared scans are kept, for every training on them. It may be deleted.",
    shown="training_cache beside the bundle",
)
@option("-jobs <int>", "Scans prepared at the same time.", default=1)
@option(
    "-tta {0,1}",
    "Test-time augmentation: wherever the bundle is used, the four patches that overlap at a voxel "
    "are mirrored in four ways and moved by 0.5 mm, which costs no time; within 18 mm of the ends "
    "of the cord fewer do. It needs a training with -mirrors 1.",
    shown="0; with -init that of the start",
)
@option(
    "-about <str>",
    "A sentence on the data, for the model card.",
    default="scans of the user's own",
    shown="",
)
@option(
    "-bundle_version <str>",
    "Version of the bundle, numbers with dots.",
    dest="version",
    default="1.0.0",
)
def main(
    data: tuple[Path, ...], folder: Path, init: str | None, contrast: str | None, **values: Any
) -> None:
    """Train and print the folder of the bundle."""
    train = options.training(options.chosen_device(values))
    from sct_lesion_losses.training import warm_start

    start = warm_start.load(init, contrast)
    names = ("resume", "force", "tensorboard", "cache", "jobs", "tta", "version", "about")
    settings = train.TrainSettings(
        rules=options.rules(values),
        init=start,
        command=talk.command_line(),
        **{name: values.pop(name) for name in names},
    )
    recipe = options.recipe(values, warm_start.entries(start))
    with talk.progress("preparing") as on_scan, talk.progress("training", "step") as on_step:
        written = train.run(data, folder, recipe, settings, on_scan=on_scan, on_step=on_step)
    click.echo(written)
