"""`sct_train_lesion`: train one bundle on a cohort."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from sct_lesion_losses.cli import accelerator, talk
from sct_lesion_losses.cli.common import (
    FILE,
    FLOAT,
    FOLDER,
    SWITCH,
    TEXT,
    Kind,
    choice,
    command,
    execute,
    int_range,
    leave,
    option,
    words,
)
from sct_lesion_losses.errors import UsageError

if TYPE_CHECKING:
    from sct_lesion_losses.model.running import StepReport

NAME = "sct_train_lesion"
# Those of `losses.LOSSES`, whose import would load Keras for the help.
LOSSES = (
    *("bce", "dice", "combo", "log_cosh_dice", "generalized_dice", "tversky", "focal_tversky"),
    *("dice_bce", "hytver", "asymmetric_focal_tversky", "blob"),
)
_SHARE = Kind("<float>", click.FloatRange(0, 1))
_COUNT = int_range(1)


@command(
    NAME,
    "Train a lesion segmentation network on a cohort and write it as a model bundle. Every setting "
    "defaults to that of the study. Its threshold stays at 0.5 until sct_tune_lesion has chosen "
    "one.",
)
@option(
    "-i",
    "data",
    FILE,
    "Cohort: a BIDS folder with derivatives/labels, or a TSV with the columns scan, lesion_mask, "
    "subject and, optionally, site, split, centerline.",
    mandatory=True,
)
@option("-ofolder", "folder", FOLDER, "Bundle to write.", mandatory=True)
@option("-loss", "loss", choice(*LOSSES), "Loss function.", default="tversky")
@option(
    "-loss_numbers",
    "loss_numbers",
    TEXT,
    "Numbers of the loss, fn_weight=0.8 for example.",
    shown="those of its paper",
    many=True,
)
@option("-epochs", "epochs", _COUNT, "Epochs of training.", shown="300")
@option("-batch", "batch_size", _COUNT, "Patches per step.", shown="8")
@option("-rate", "rate", FLOAT, "Learning rate at the start.", shown="0.0001; 1 for combo")
@option(
    "-patience",
    "patience",
    _COUNT,
    "Epochs without a better validation loss after which the rate is halved.",
    shown="15",
)
@option("-patches_per_epoch", "patches_per_epoch", _COUNT, "Patches drawn per epoch.", shown="all")
@option(
    "-lesion_share",
    "lesion_share",
    _SHARE,
    "Share of the drawn patches that hold lesion.",
    shown="as they come",
)
@option(
    "-validation_patches",
    "validation_patches",
    _COUNT,
    "Patches judged after each epoch.",
    shown="all",
)
@option(
    "-shift",
    "shift_mm",
    Kind("<float>", click.FloatRange(0, 10)),
    "Move the centerline by up to this, in mm (whole voxels of 0.5 mm), as augmentation.",
    shown="0",
)
@option(
    "-intensity",
    "intensity",
    _SHARE,
    "Probability of each change of intensity (gamma, bias, blur, noise) as augmentation.",
    shown="0",
)
@option(
    "-precision",
    "precision",
    choice("float32", "mixed_bfloat16", "mixed_float16"),
    "Precision of the network while it trains.",
    shown="float32",
)
@option(
    "-prior",
    "prior",
    FLOAT,
    "Lesion probability that the untrained network starts from; 0.02 saves many steps.",
    shown="0.5",
)
@option("-seed", "seed", int_range(0), "Seed of weights, patches and augmentation.", default=0)
@option(
    "-split_seed",
    "split_seed",
    int_range(0),
    "Seed of the split, where the cohort has none.",
    default=0,
)
@option(
    "-lesion_free",
    "lesion_free",
    _SHARE,
    "Share of the lesion-free subjects to train on; the others are unseen.",
    default=0.0,
)
@option(
    "-lesion_free_tuning",
    "lesion_free_tuning",
    _SHARE,
    "Share of the lesion-free subjects in thr-optimization, for sct_tune_lesion.",
    default=0.0,
)
@option("-unseen_sites", "unseen_sites", TEXT, "Sites that are never trained on.", many=True)
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
    choice("t2", "t2_ax", "t2s"),
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
@option(
    "-backend",
    "backend",
    choice(*accelerator.BACKENDS),
    "What Keras runs on.",
    shown="$KERAS_BACKEND, else the first that is installed",
)
@option(
    "-device",
    "device",
    choice(*accelerator.DEVICES),
    "auto: a GPU where there is one. $CUDA_VISIBLE_DEVICES says which.",
    default="auto",
)
@option(
    "-gpus",
    "devices",
    _COUNT,
    "GPUs that share each batch. On TensorFlow every one pools the loss over its own part.",
    default=1,
)
@option(
    "-micro_batch",
    "micro_batch",
    _COUNT,
    "Patches of a batch on the device at a time, with the result of the whole batch: for small "
    "memories. Halved by itself where the memory does not suffice.",
    shown="all",
)
@option("-threads", "threads", _COUNT, "CPU threads to compute with.", shown="all cores")
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
@option("-jobs", "jobs", _COUNT, "Scans prepared at the same time.", default=1)
@option("-about", "data_text", TEXT, "A sentence on the data, for the model card.")
def train_lesion(
    data: Path,
    folder: Path,
    loss: str,
    loss_numbers: tuple[str, ...],
    shift_mm: float | None,
    intensity: float | None,
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
    verbosity: int,
    **changes: Any,
) -> int:
    """Train and print the folder of the bundle."""
    numbers = dict(_number(word) for word in loss_numbers)
    accelerator.choose(backend, device, threads)
    train = accelerator.training()
    from sct_lesion_losses import warm_start
    from sct_lesion_losses.augment import Augmentation
    from sct_lesion_losses.bundle.schema import command_line
    from sct_lesion_losses.data.splits import Rules
    from sct_lesion_losses.model.devices import require
    from sct_lesion_losses.model.recipe import study
    from sct_lesion_losses.model.steps import Machine

    require(device)

    start = warm_start.load(init, contrast)
    given = {name: value for name, value in changes.items() if value is not None}
    recipe = study(
        loss,
        loss_numbers=numbers,
        **{**warm_start.entries(start), **given},
        augmentation=Augmentation(shift_mm=shift_mm or 0.0, intensity=intensity or 0.0),
    )
    about = train.About(name=folder.resolve().name, commands=(command_line([NAME, *words()]),))
    if data_text is not None:
        about = replace(about, data=data_text)
    shown = verbosity > 0
    preparing = talk.progress_bar("preparing", shown)
    with preparing as prepared, _progress(recipe.epochs, shown) as report:
        click.echo(
            train.run(
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
        )
    return 0


def _number(word: str) -> tuple[str, float | bool | str]:
    """Name and value of ``fn_weight=0.8``, ``squared=True`` or ``pooling=sample``."""
    name, equals, value = word.partition("=")
    if not (name.isidentifier() and equals and value):
        raise UsageError(f"-loss_numbers {word}: expected name=value, fn_weight=0.8 for example")
    if value in ("True", "False"):
        return name, value == "True"
    try:
        return name, float(value)
    except ValueError:
        return name, value


@contextmanager
def _progress(epochs: int, shown: bool) -> Iterator[Callable[[StepReport], None] | None]:
    """One bar over all steps, with loss, rate and time left, on stderr where that is a terminal."""
    if not (shown and sys.stderr.isatty()):
        yield None
        return
    from tqdm import tqdm

    with tqdm(desc="training", file=sys.stderr, leave=False, unit="step") as bar:

        def update(now: StepReport) -> None:
            done = now.epoch * now.steps + now.step
            if not bar.total:  # the time left is reckoned from here
                bar.reset(epochs * now.steps)
                bar.initial = done - 1
            bar.n = done
            bar.set_postfix(
                epoch=f"{now.epoch + 1}/{epochs}",
                loss=f"{now.loss:.4f}",
                rate=f"{now.rate:.2g}",
            )

        yield update


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    return execute(train_lesion, argv)


def run() -> NoReturn:
    """Run the command as a program."""
    leave(main)
