"""Training a network by a recipe: rate schedule, best weights, log, and going on where it ended."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras

from sct_lesion_losses import losses
from sct_lesion_losses.data.drawing import TrainingTube
from sct_lesion_losses.errors import TrainingError
from sct_lesion_losses.files import remove_left_over
from sct_lesion_losses.model import checkpoint as checkpoints
from sct_lesion_losses.model import devices, export, unet
from sct_lesion_losses.model.batches import Batch, PatchBatches
from sct_lesion_losses.model.checkpoint import Checkpoint
from sct_lesion_losses.model.progress import (
    EpochLine,
    Progress,
    duration,
    seconds_left,
    write_log,
)
from sct_lesion_losses.model.recipe import Recipe, differences

CHECKPOINT = "checkpoint.npz"
LOG = "training.csv"
KEEP_EVERY_S = 60.0  # a kill loses no more than this of a training

Model = keras.Model

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepReport:
    """What is told of every step.

    Attributes
    ----------
    epoch : int
        Finished epochs.
    step, steps : int
        Finished steps of the epoch under way, and how many it has.
    loss : float
        Their mean loss.
    rate : float
        Learning rate.
    """

    epoch: int
    step: int
    steps: int
    loss: float
    rate: float


@dataclass(frozen=True)
class Listener:
    """Whom to tell: `step` after every step, `epoch` after every epoch."""

    step: Callable[[StepReport], None] = lambda _: None
    epoch: Callable[[Progress], None] = lambda _: None


@dataclass(frozen=True)
class Machine:
    """How the work is laid out; no entry changes the recipe.

    Attributes
    ----------
    devices : int
        Devices that share a batch; see `devices.shared_by` for what that means on TensorFlow.
    on_device : bool or None
        Keep the tubes in the memory of the device and cut the patches there. By default on a
        single GPU whose memory holds them, unless intensities are changed.
    keep_every_s : float
        Time after which the state is kept within an epoch, too.
    """

    devices: int = 1
    on_device: bool | None = None
    keep_every_s: float = KEEP_EVERY_S


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
        recipe.filters, seed=recipe.seed, precision=recipe.precision, prior=recipe.prior
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


def fit(
    training: Sequence[TrainingTube],
    validation: Sequence[TrainingTube],
    recipe: Recipe,
    folder: Path,
    *,
    data_hash: str = "",
    initial: bytes | None = None,
    resume: bool = False,
    machine: Machine = Machine(),
    listener: Listener = Listener(),
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
    data_hash : str
        Identifies the scans and their split; a resumed training must have the same.
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
    folder.mkdir(parents=True, exist_ok=True)
    remove_left_over(folder)
    stored = resumable(recipe, folder, data_hash=data_hash) if resume else None
    shown = PatchBatches(
        training,
        recipe.batch_size,
        patches_per_epoch=recipe.patches_per_epoch,
        lesion_share=recipe.lesion_share,
        augmentation=recipe.augmentation,
        seed=recipe.seed,
    )
    judged = PatchBatches(
        validation,
        recipe.batch_size,
        patches_per_epoch=recipe.validation_patches,
        lesion_share=None if recipe.validation_patches is None else recipe.lesion_share,
        seed=recipe.seed,
    )
    settings = _settings(recipe, data_hash)
    with devices.shared_by(machine.devices) as train_step:
        model = compiled(recipe)
        if stored is not None:
            checkpoints.restore(stored, model)
            logger.info("going on after %s", _where(stored.progress))
        elif initial is not None:
            export.import_weights(model, initial)
        run = _Run(
            model,
            recipe,
            shown,
            judged,
            train_step,
            _Keeper(folder, settings, machine.keep_every_s),
            listener,
            progress=Progress() if stored is None else stored.progress,
            best_weights=[] if stored is None else stored.best_weights,
        )
        run.to_the_end()
    model.set_weights(run.best_weights)
    return Fitted(model, run.progress)


def resumable(recipe: Recipe, folder: Path, *, data_hash: str = "") -> Checkpoint | None:
    """Checkpoint in a folder that a training by this recipe on these scans may go on from.

    Returns
    -------
    Checkpoint or None
        None where the folder has none.

    Raises
    ------
    TrainingError
        It belongs to another recipe or other scans, or has more epochs than are asked for.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    stored = checkpoints.load(path)
    changed = differences(
        _compared(stored.settings["recipe"], stored.settings["data"]),
        _compared(recipe.to_dict(), data_hash),
    )
    if changed:
        raise TrainingError(
            f"{path} belongs to another training ({'; '.join(changed)}); give the settings and "
            "the scans it was started with, or train into a new folder"
        )
    if stored.progress.epoch > recipe.epochs:
        raise TrainingError(
            f"{path} has {stored.progress.epoch} epochs, {recipe.epochs} were asked for; ask for "
            "at least as many, or train into a new folder"
        )
    return stored


def _settings(recipe: Recipe, data_hash: str) -> dict[str, Any]:
    return {"recipe": recipe.to_dict(), "data": data_hash}


def _compared(recipe: dict[str, Any], data_hash: str) -> dict[str, Any]:
    """Return what a resumed training must share: all settings but those that say when it ends."""
    return {**recipe, "data": data_hash, "epochs": None, "early_stop": None}


def _where(progress: Progress) -> str:
    done = f"step {progress.steps.done} of epoch {progress.epoch + 1}"
    return done if progress.steps.done else f"epoch {progress.epoch}"


class _Keeper:
    """Writes the state of a training: after every epoch, and when it was last kept too long ago."""

    def __init__(self, folder: Path, settings: dict[str, Any], every_s: float) -> None:
        self.folder = folder
        self._settings = settings
        self._every_s = every_s
        self._kept_at = time.monotonic()

    @property
    def due(self) -> bool:
        return time.monotonic() - self._kept_at >= self._every_s

    def keep(self, model: keras.Model, progress: Progress, best: checkpoints.Arrays) -> None:
        """Write the state, unless a weight is no number any more: then the last one stays.

        Raises
        ------
        TrainingError
            A weight is not finite.
        """
        state = checkpoints.of(model, self._settings, progress, best)
        if not state.finite:
            raise self.broken(f"a weight is not a number after {_where(progress)}")
        checkpoints.save(state, self.folder / CHECKPOINT)
        self._kept_at = time.monotonic()

    def broken(self, what: str, scans: Sequence[str] = ()) -> TrainingError:
        """Error for a training that cannot go on, with what is left of it."""
        path = self.folder / CHECKPOINT
        left = f"the last good state is in {path}" if path.exists() else "nothing was kept yet"
        shown = f" (patches of {', '.join(dict.fromkeys(scans))})" if scans else ""
        return TrainingError(f"{what}{shown}; {left}; lower the rate, or train in float32")


@dataclass
class _Run:
    """A training under way: the one object here that changes."""

    model: keras.Model
    recipe: Recipe
    training: PatchBatches
    validation: PatchBatches
    train_step: devices.TrainStep
    keeper: _Keeper
    listener: Listener
    progress: Progress
    best_weights: checkpoints.Arrays = field(default_factory=list)

    def to_the_end(self) -> None:
        """Train until all epochs are done, or the recipe's early stop."""
        while not self._ended():
            self._epoch()

    def _ended(self) -> bool:
        return self.progress.ended(self.recipe.epochs, self.recipe.early_stop)

    def _epoch(self) -> None:
        """Finish the epoch under way, judge it, and keep the state."""
        self.training.go_to(self.progress.epoch)
        began = time.monotonic()
        for index, batch in _ahead(self.training, self.progress.steps.done):
            self._step(index, batch, began)
            began = time.monotonic()
        before, steps = self.progress, self.progress.steps
        val_loss = self._validation_loss()
        seconds = steps.seconds + time.monotonic() - began
        line = EpochLine(before.epoch + 1, steps.loss, val_loss, self._rate(), seconds)
        self.progress = before.advanced(line)
        if self.progress.best_epoch == line.epoch:
            self.best_weights = self.model.get_weights()
        if self.progress.waited >= self.recipe.patience:
            self.model.optimizer.learning_rate = line.rate * self.recipe.rate_factor
            self.progress = self.progress.without_patience()
        self.keeper.keep(self.model, self.progress, self.best_weights)
        write_log(self.progress, self.keeper.folder / LOG)
        self._tell(line)

    def _step(self, index: int, batch: Batch, began: float) -> None:
        loss = self.train_step(self.model, *batch)
        if not math.isfinite(loss):
            raise self.keeper.broken(
                f"the loss is {loss} at batch {index + 1} of epoch {self.progress.epoch + 1}",
                self.training.scans(index),
            )
        self.progress = self.progress.stepped(loss, time.monotonic() - began)
        if self.keeper.due:
            self.keeper.keep(self.model, self.progress, self.best_weights)
        done, steps = self.progress.steps, len(self.training)
        self.listener.step(
            StepReport(self.progress.epoch, done.done, steps, done.loss, self._rate())
        )

    def _validation_loss(self) -> float:
        found = [float(self.model.test_on_batch(*batch)) for _, batch in _ahead(self.validation, 0)]
        loss = math.fsum(found) / len(found)
        if not math.isfinite(loss):
            raise self.keeper.broken(
                f"the validation loss is {loss} after epoch {self.progress.epoch + 1}"
            )
        return loss

    def _rate(self) -> float:
        return float(self.model.optimizer.learning_rate)

    def _tell(self, line: EpochLine) -> None:
        left = seconds_left(self.progress.history, self.recipe.epochs)
        logger.info(
            "epoch %d of %d: loss %.4f, validation %.4f%s, rate %.2g, %s%s",
            line.epoch,
            self.recipe.epochs,
            line.loss,
            line.val_loss,
            " (best)" if self.progress.best_epoch == line.epoch else "",
            line.rate,
            duration(line.seconds),
            f", {duration(left)} left" if line.epoch < self.recipe.epochs else "",
        )
        if line.epoch < self.recipe.epochs and self._ended():
            logger.info("stopped: %d epochs without a better one", self.recipe.early_stop)
        self.listener.epoch(self.progress)


def _ahead(batches: PatchBatches, first: int) -> Iterator[tuple[int, Batch]]:
    """Batches from the number `first` on; the next one is made while one is in use."""
    numbers = range(first, len(batches))
    with ThreadPoolExecutor(1) as worker:
        coming = deque(worker.submit(batches.__getitem__, number) for number in numbers[:1])
        for number in numbers:
            if number + 1 in numbers:
                coming.append(worker.submit(batches.__getitem__, number + 1))
            yield number, coming.popleft().result()
