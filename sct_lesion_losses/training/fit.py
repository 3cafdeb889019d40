"""Training a network by a recipe, from its random or given weights or where it ended."""

from __future__ import annotations

import gc
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from sct_lesion_losses import losses
from sct_lesion_losses.errors import UsageError
from sct_lesion_losses.images.atomic import remove_left_over
from sct_lesion_losses.preprocessing.sampler import TrainingTube
from sct_lesion_losses.training import callbacks as checkpoints
from sct_lesion_losses.training import devices, export, steps, unet
from sct_lesion_losses.training import devices as memory
from sct_lesion_losses.training.batches import PatchBatches
from sct_lesion_losses.training.callbacks import Checkpoint, Progress, write_log
from sct_lesion_losses.training.recipe import Recipe
from sct_lesion_losses.training.resident import ResidentBatches
from sct_lesion_losses.training.resuming import Data, resumable, settings
from sct_lesion_losses.training.running import CHECKPOINT, LOG, Keeper, Listener, Run, where
from sct_lesion_losses.training.steps import Machine

Model = keras.Model

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Fitted:
    """A trained network.

    Attributes
    ----------
    model : keras.Model
        With the weights of the best epoch.
    progress : Progress
        Its history.
    """

    model: keras.Model
    progress: Progress


def loss_numbers(recipe: Recipe) -> dict[str, Any]:
    """All the arguments of the recipe's loss, defaults included."""
    config = losses.get(recipe.loss, **recipe.loss_numbers).get_config()
    return {name: value for name, value in config.items() if name not in ("name", "reduction")}


def compiled(recipe: Recipe) -> keras.Model:
    """Build the recipe's network, compiled with its loss and optimiser."""
    model = unet.build(
        recipe.network, seed=recipe.seed, precision=recipe.precision, prior=recipe.prior
    )
    optimisers = {"adam": keras.optimizers.Adam, "adadelta": keras.optimizers.Adadelta}
    optimiser = optimisers[recipe.optimiser](recipe.rate)
    if recipe.precision == "mixed_float16":  # its gradients would vanish without
        optimiser = keras.optimizers.LossScaleOptimizer(optimiser)
    model.compile(
        optimizer=optimiser,
        loss=losses.get(recipe.loss, **recipe.loss_numbers),
        jit_compile=devices.jit_compile(),
    )
    return model


def check(recipe: Recipe, machine: Machine) -> None:
    """Refuse what this machine cannot do, before any scan is read.

    Raises
    ------
    UsageError
        It cannot compute in the recipe's precision or share a batch so, or the loss has no such
        numbers.
    """
    _check_loss(recipe)
    devices.require_several(machine.devices)
    steps.check(recipe.batch_size, machine)
    on_cpu = devices.backend() == "tensorflow" and devices.device() == "cpu"
    if on_cpu and recipe.precision == "mixed_float16" and len(recipe.filters) > 1:
        raise UsageError(
            "TensorFlow does not compute this network in mixed_float16 on a CPU; train in "
            "mixed_bfloat16 or float32 there, or on a GPU"
        )


def _check_loss(recipe: Recipe) -> None:
    """Raise a UsageError where the loss has no value for two voxels, lesion and none."""
    if loss_numbers(recipe).get("from_logits"):
        raise UsageError(
            f"loss {recipe.loss}: from_logits is for networks without a sigmoid at their end; this "
            "one gives probabilities, leave it out"
        )
    lesion = np.array([1.0, 0.0], np.float32).reshape(1, 2, 1, 1, 1)
    try:
        value = float(losses.get(recipe.loss, **recipe.loss_numbers)(lesion, lesion * 0.8))
    except (TypeError, ValueError) as error:
        raise UsageError(f"loss {recipe.loss}: {error}; change -loss_numbers") from error
    if math.isinf(value):
        raise UsageError(f"loss {recipe.loss}: it is {value} with {recipe.loss_numbers}")


def fit(
    training: Sequence[TrainingTube],
    validation: Sequence[TrainingTube],
    recipe: Recipe,
    folder: Path,
    *,
    data: Data = (),
    initial: bytes | None = None,
    resume: bool = False,
    machine: Machine = Machine(),  # noqa: B008 (frozen)
    listener: Listener = Listener(),  # noqa: B008 (frozen)
) -> Fitted:
    """Train by a recipe; the state is kept in `folder`, after each epoch and every minute.

    Killed at any moment and resumed, a training on one CPU ends with the weights, to the bit, of
    one that was not.

    Parameters
    ----------
    training, validation : sequence of TrainingTube
        Scans to learn from, and those whose loss decides the rate and the weights kept.
    recipe : Recipe
    folder : Path
        Receives `checkpoint.npz` and `training.csv`.
    data : sequence of (str, str)
        What is trained on, by name, and a hash of each; a resumed training must have the same.
    initial : bytes, optional
        Weights to start from, as safetensors; random ones by default.
    resume : bool
        Go on after the last step that is kept in `folder`; start at the beginning where there is
        none. More epochs than before may be asked for.
    machine : Machine
    listener : Listener

    Returns
    -------
    Fitted

    Raises
    ------
    TrainingError
        The checkpoint belongs to another recipe or other scans, or a loss is not finite.
    """
    check(recipe, machine)
    folder.mkdir(parents=True, exist_ok=True)
    remove_left_over(folder)
    stored = resumable(recipe, folder, data) if resume else None
    if stored is None:
        if resume:
            logger.info("no state in %s yet: starting at the beginning", folder.name)
        (folder / CHECKPOINT).unlink(missing_ok=True)  # given up, and not to be taken for ours
        (folder / LOG).unlink(missing_ok=True)
    machine = steps.laid_out(
        machine, recipe.batch_size, [*training, *validation], recipe.augmentation
    )
    keeper = Keeper(folder, settings(recipe, data), machine.keep_every_s)
    while True:
        try:
            start = keeper.last or stored
            return _fitted(training, validation, recipe, keeper, start, initial, machine, listener)
        except Exception as error:
            if not memory.exhausted(error):
                raise
            machine = steps.smaller(machine, recipe.batch_size)
        gc.collect()  # here nothing holds on to the tensors of the failed step any more


def _fitted(
    training: Sequence[TrainingTube],
    validation: Sequence[TrainingTube],
    recipe: Recipe,
    keeper: Keeper,
    start: Checkpoint | None,
    initial: bytes | None,
    machine: Machine,
    listener: Listener,
) -> Fitted:
    """Train from a state, else from initial weights, else from random ones."""
    kind = ResidentBatches if machine.on_device else PatchBatches
    shown = kind(
        training,
        recipe.batch_size,
        patches_per_epoch=recipe.patches_per_epoch,
        lesion_share=recipe.lesion_share,
        augmentation=recipe.augmentation,
        seed=recipe.seed,
    )
    judged = kind(
        validation,
        recipe.batch_size,
        patches_per_epoch=recipe.validation_patches,
        lesion_share=None if recipe.validation_patches is None else recipe.lesion_share,
        seed=recipe.seed,
    )
    with devices.shared_by(machine.devices) as train_step:
        model = compiled(recipe)
        logger.info(
            "training on %s by %s, %d steps of %d patches an epoch",
            devices.described(machine.devices),
            devices.backend(),
            len(shown),
            recipe.batch_size,
        )
        if start is not None:
            checkpoints.restore(start, model)
            logger.info("going on after %s", where(start.progress))
            if start.progress.history:  # a kill may have come before they were told of
                write_log(start.progress, keeper.folder / LOG)
                listener.epoch(start.progress)
        elif initial is not None:
            export.import_weights(model, initial)
        run = Run(
            model,
            recipe,
            shown,
            judged,
            steps.of(model, train_step, machine),
            keeper,
            listener,
            progress=Progress() if start is None else start.progress,
            best_weights=[] if start is None else start.best_weights,
        )
        run.to_the_end()
    model.set_weights(run.best_weights)
    return Fitted(model, run.progress)
