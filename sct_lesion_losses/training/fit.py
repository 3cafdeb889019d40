"""Training a network by a recipe, from its random or given weights or where it ended."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from sct_lesion_losses import losses
from sct_lesion_losses.bundle.schema import Recipe
from sct_lesion_losses.errors import TrainingError, UsageError
from sct_lesion_losses.images.atomic import remove_left_over
from sct_lesion_losses.preprocessing.cache import TrainingCrop
from sct_lesion_losses.training import callbacks, devices, export, unet
from sct_lesion_losses.training import recipe as recipes
from sct_lesion_losses.training.batches import PatchBatches
from sct_lesion_losses.training.callbacks import (
    CHECKPOINT,
    LOG,
    EpochLine,
    TrainingState,
)

# What is trained on, in its order: a name people know, and a hash of what a network sees of it.
Data = Sequence[tuple[str, str]]
EVENTS = "tensorboard"
_MOST_SHOWN = 5

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Watchers:
    """Callables that a training tells of its progress.

    Attributes
    ----------
    step : callable or None
        Told of every step: how many are done, and are in all epochs; the epoch and its mean loss in
        words.
    draw : callable or None
        Draws the history, once a minute at most and at the end.
    tensorboard : bool
        Write event files into the folder ``tensorboard``.
    """

    step: Callable[[int, int, str], None] | None = None
    draw: Callable[[Sequence[EpochLine]], None] | None = None
    tensorboard: bool = False


def loss_numbers(recipe: Recipe) -> dict[str, Any]:
    """All the arguments of the recipe's loss, defaults included."""
    config = losses.get(recipe.loss.name, **recipe.loss.numbers).get_config()
    return {name: value for name, value in config.items() if name not in ("name", "reduction")}


def compiled(recipe: Recipe) -> keras.Model:
    """Build the recipe's network, compiled with its loss and optimiser."""
    prior = 0.5 if recipe.prior is None else recipe.prior
    model = unet.build(recipe.network, seed=recipe.seed, precision=recipe.precision, prior=prior)
    optimisers = {"adam": keras.optimizers.Adam, "adadelta": keras.optimizers.Adadelta}
    optimiser = optimisers[recipe.optimiser](recipe.rate)
    if recipe.precision == "mixed_float16":  # its gradients would vanish without
        optimiser = keras.optimizers.LossScaleOptimizer(optimiser)
    model.compile(
        optimizer=optimiser,
        loss=losses.get(recipe.loss.name, **recipe.loss.numbers),
        jit_compile=devices.jit_compile(),
    )
    return model


def check(recipe: Recipe) -> None:
    """Refuse what cannot be trained here, before any scan is read.

    Raises
    ------
    UsageError
        The device cannot compute in the recipe's precision, or the loss has no such numbers or no
        value for two voxels, lesion and none.
    """
    name, numbers = recipe.loss.name, recipe.loss.numbers
    if loss_numbers(recipe).get("from_logits"):
        raise UsageError(
            f"loss {name}: from_logits is for networks without a sigmoid at their end; this one "
            "gives probabilities, leave it out"
        )
    lesion = np.array([1.0, 0.0], np.float32).reshape(1, 2, 1, 1, 1)
    try:
        value = float(losses.get(name, **numbers)(lesion, lesion * 0.8))
    except (TypeError, ValueError) as error:
        raise UsageError(f"loss {name}: {error}; change -loss_numbers") from error
    if not math.isfinite(value):
        raise UsageError(f"loss {name}: it is {value} with {numbers}; change -loss_numbers")
    on_cpu = devices.backend() == "tensorflow" and devices.device() == "cpu"
    if on_cpu and recipe.precision == "mixed_float16" and recipe.network.levels > 1:
        raise UsageError(
            "TensorFlow does not compute this network in mixed_float16 on a CPU; train in "
            "mixed_bfloat16 or float32 there, or on a GPU"
        )


def fit(
    training: Sequence[TrainingCrop],
    validation: Sequence[TrainingCrop],
    recipe: Recipe,
    folder: Path,
    *,
    data: Data = (),
    initial: bytes | None = None,
    resume: bool = False,
    watchers: Watchers = Watchers(),
) -> tuple[keras.Model, TrainingState]:
    """Train by a recipe; the whole state is kept in `folder` after each epoch.

    Killed at any moment and resumed, a training on a CPU ends with the weights, to the bit, of one
    that was not.

    Parameters
    ----------
    training, validation : sequence of TrainingCrop
        Scans to learn from, and those whose loss decides the rate and the weights kept.
    recipe : Recipe
    folder : Path
        Receives `checkpoint.npz` and `training.csv`.
    data : sequence of (str, str)
        What is trained on, by name, and a hash of each; a resumed training must have the same.
    initial : bytes, optional
        Weights to start from, as safetensors; random ones by default.
    resume : bool
        Go on after the last epoch that is kept in `folder`; start at the beginning where there is
        none. More epochs than before may be asked for.
    watchers : Watchers

    Returns
    -------
    model : keras.Model
        With the weights of the best epoch.
    state : TrainingState
        With the history.

    Raises
    ------
    TrainingError
        The checkpoint belongs to another recipe or other scans, a loss is not finite, or the device
        has too little memory.
    """
    check(recipe)
    folder.mkdir(parents=True, exist_ok=True)
    remove_left_over(folder)
    state = resumable(recipe, folder, data) if resume else None
    model = compiled(recipe)
    if state is not None:
        state.put(model)
        logger.info("going on after epoch %d", state.epoch)
    else:
        if resume:
            logger.info("no state in %s yet: starting at the beginning", folder.name)
        (folder / CHECKPOINT).unlink(missing_ok=True)  # given up, and not to be taken for ours
        (folder / LOG).unlink(missing_ok=True)
        if initial is not None:
            export.import_weights(model, initial)
        state = TrainingState(_settings(recipe, data))
    shown = PatchBatches(
        training,
        recipe.batch_size,
        patches_per_epoch=recipe.patches_per_epoch,
        lesion_share=recipe.lesion_share,
        augmentation=recipes.augmentation(recipe),
        seed=recipe.seed,
    )
    held_out = PatchBatches(
        validation,
        recipe.batch_size,
        patches_per_epoch=recipe.validation_patches,
        lesion_share=None if recipe.validation_patches is None else recipe.lesion_share,
        seed=recipe.seed,
    )
    logger.info(
        "training on %s by %s; steps an epoch: %d, patches a step: %d",
        "the CPU" if devices.device() == "cpu" else f"a {devices.device().upper()}",
        devices.backend(),
        len(shown),
        recipe.batch_size,
    )
    epochs, patience = recipe.epochs_planned, recipe.stop_patience
    shown.go_to(state.epoch)
    try:
        model.fit(
            shown,
            validation_data=held_out,
            initial_epoch=state.epoch,
            epochs=state.epoch if state.ended(epochs, patience) else epochs,
            callbacks=[
                callbacks.Epochs(state, shown.go_to, shown.scans, folder),
                callbacks.RateOnPlateau(state, recipe.patience, recipe.rate_factor),
                callbacks.EarlyStop(state, epochs, patience),
                callbacks.KeptState(state, folder),
                callbacks.EpochMessages(state, epochs),
                *_watching(watchers, state, folder),
            ],
            shuffle=False,  # the batches are drawn anew in every epoch
            verbose=0,
        )
    except Exception as error:
        if not devices.exhausted(error):
            raise
        raise TrainingError(
            f"the device has too little memory for batches of {recipe.batch_size} patches; close "
            "what else uses it, train with -device cpu, or start anew by -force 1 with a smaller "
            "-batch, fewer -filters or a half -precision"
        ) from error
    model.set_weights(state.best_weights)
    return model, state


def _watching(
    watchers: Watchers, state: TrainingState, folder: Path
) -> list[keras.callbacks.Callback]:
    found = []
    if watchers.step is not None:
        found.append(callbacks.StepReports(watchers.step))
    if watchers.draw is not None:
        found.append(callbacks.LearningCurves(state, watchers.draw))
    if watchers.tensorboard:
        found.append(callbacks.EventFiles(state, folder / EVENTS))
    return found


def _settings(recipe: Recipe, data: Data) -> dict[str, Any]:
    """Return what a state keeps of the training it belongs to."""
    return {
        "recipe": recipes.settings(recipe),
        "data": [list(entry) for entry in data],
        "backend": devices.backend(),
    }


def resumable(recipe: Recipe, folder: Path, data: Data | None = None) -> TrainingState | None:
    """Return the state in a folder that a training by this recipe on these scans may go on from.

    The number of epochs and the early stop may differ: they say when a training ends. Without
    `data` only the recipe is compared.

    Returns
    -------
    TrainingState or None
        None where the folder has none.

    Raises
    ------
    TrainingError
        It belongs to another recipe or other scans, or has more epochs than are asked for.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    state = callbacks.load(path)
    changed = recipes.differences(state.settings["recipe"], recipes.settings(recipe))
    if data is not None:
        changed += changed_data([(name, seen) for name, seen in state.settings["data"]], data)
    if changed:
        raise TrainingError(
            f"{path} belongs to another training ({'; '.join(changed)}); give the settings and "
            "the scans it was started with, or train into a new folder"
        )
    if state.epoch > recipe.epochs_planned:
        raise TrainingError(
            f"{path} has {state.epoch} epochs, {recipe.epochs_planned} were asked for; ask for at "
            "least as many, or train into a new folder"
        )
    if (before := state.settings["backend"]) != devices.backend():
        logger.warning(
            "the training was begun on %s and goes on on %s: its weights will differ in rounding "
            "from those of one that ran through",
            before,
            devices.backend(),
        )
    return state


def changed_data(before: Data, after: Data) -> list[str]:
    """Say what of the data is new, missing or changed, the first few of it by name.

    >>> changed_data([("a", "1"), ("b", "2")], [("b", "3"), ("c", "4")])
    ['a is missing', 'b has changed', 'c is new']
    """
    if list(before) == list(after):
        return []
    then, now = dict(before), dict(after)
    found = []
    for name in sorted(then.keys() | now.keys()):
        if name not in now:
            found.append(f"{name} is missing")
        elif name not in then:
            found.append(f"{name} is new")
        elif then[name] != now[name]:
            found.append(f"{name} has changed")
    if len(found) > _MOST_SHOWN:
        return [*found[:_MOST_SHOWN], f"and {len(found) - _MOST_SHOWN} more"]
    return found or ["the scans come in another order"]
