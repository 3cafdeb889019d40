"""Training a network by a recipe: rate schedule, best weights, log, and going on where it ended."""

from __future__ import annotations

import csv
import io
import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import keras

from sct_lesion_losses import losses
from sct_lesion_losses.errors import TrainingError
from sct_lesion_losses.files import write_text
from sct_lesion_losses.model import checkpoint as checkpoints
from sct_lesion_losses.model import export, unet
from sct_lesion_losses.model.batches import PatchBatches, TrainingTube
from sct_lesion_losses.model.checkpoint import Checkpoint, EpochLine, Progress
from sct_lesion_losses.model.recipe import Recipe, differences

CHECKPOINT = "checkpoint.npz"
LOG = "training.csv"

# Called after each step: finished epochs, step of the epoch, steps per epoch, mean loss so far.
Report = Callable[[int, int, int, float], None]

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


def backend() -> str:
    """Name the backend that Keras runs on: ``tensorflow``, ``jax`` or ``torch``."""
    return str(keras.backend.backend())


def device() -> str:
    """Name the kind of device that Keras computes on: ``gpu`` where there is one, else ``cpu``."""
    if backend() == "torch":  # Keras lists no devices there
        return str(keras.ops.ones(()).device.type)
    kinds = {str(name).split(":")[0].lower() for name in keras.distribution.list_devices()}
    return next((kind for kind in ("gpu", "tpu") if kind in kinds), "cpu")


def loss_numbers(recipe: Recipe) -> dict[str, Any]:
    """All the arguments of the recipe's loss, defaults included."""
    config = losses.get(recipe.loss, **recipe.loss_numbers).get_config()
    return {name: value for name, value in config.items() if name not in ("name", "reduction")}


def compiled(recipe: Recipe) -> keras.Model:
    """Build the recipe's network, compiled with its loss and optimiser.

    XLA is left off: on a CPU it makes a step of this network several times slower.
    """
    model = unet.build(
        recipe.filters, seed=recipe.seed, precision=recipe.precision, prior=recipe.prior
    )
    optimisers = {"adam": keras.optimizers.Adam, "adadelta": keras.optimizers.Adadelta}
    model.compile(
        optimizer=optimisers[recipe.optimiser](recipe.rate),
        loss=losses.get(recipe.loss, **recipe.loss_numbers),
        jit_compile=False,
    )
    return model


def fit(
    training: list[TrainingTube],
    validation: list[TrainingTube],
    recipe: Recipe,
    folder: Path,
    *,
    data_hash: str = "",
    initial: bytes | None = None,
    resume: bool = False,
    report: Report | None = None,
) -> Fitted:
    """Train by a recipe; after each epoch the state is kept in `folder`.

    Parameters
    ----------
    training, validation : list of TrainingTube
        Scans to learn from, and those whose loss decides the rate and the weights kept.
    recipe : Recipe
    folder : Path
        Receives `checkpoint.npz` and `training.csv`.
    data_hash : str
        Identifies the scans and their split; a resumed training must have the same.
    initial : bytes, optional
        Weights to start from, as safetensors; random ones by default.
    resume : bool
        Go on after the last finished epoch in `folder`; start at the beginning where there is
        none. More epochs than before may be asked for.
    report : callable, optional
        Told of every step.

    Returns
    -------
    Fitted

    Raises
    ------
    TrainingError
        The checkpoint belongs to another recipe or other scans, or a loss is not finite.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stored = resumable(recipe, folder, data_hash=data_hash) if resume else None
    model = compiled(recipe)
    keeper = _Keeper(folder, _settings(recipe, data_hash), recipe, report)
    if stored is not None:
        keeper.go_on(model, stored)
    elif initial is not None:
        export.import_weights(model, initial)
    epoch = keeper.progress.epoch
    batches = PatchBatches(
        training,
        recipe.batch_size,
        patches_per_epoch=recipe.patches_per_epoch,
        lesion_share=recipe.lesion_share,
        augmentation=recipe.augmentation,
        seed=recipe.seed,
    )
    batches.go_to(epoch)
    judged = PatchBatches(
        validation,
        recipe.batch_size,
        patches_per_epoch=recipe.validation_patches,
        lesion_share=None if recipe.validation_patches is None else recipe.lesion_share,
        seed=recipe.seed,
    )
    if epoch < recipe.epochs:
        model.fit(
            batches,
            validation_data=judged,
            initial_epoch=epoch,
            epochs=recipe.epochs,
            shuffle=False,  # the batches draw their own order
            callbacks=[keeper],
            verbose=0,
        )
    model.set_weights(keeper.best_weights)
    return Fitted(model, keeper.progress)


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
    before, now = stored.settings, _settings(recipe, data_hash)
    changed = differences(
        {**before["recipe"], "data": before["data"], "epochs": None},
        {**now["recipe"], "data": now["data"], "epochs": None},
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


class _Keeper(keras.callbacks.Callback):  # type: ignore[misc]
    """Halves the rate, keeps the best weights, writes log and checkpoint after each epoch."""

    def __init__(
        self, folder: Path, settings: dict[str, Any], recipe: Recipe, report: Report | None
    ) -> None:
        super().__init__()
        self._folder = folder
        self._settings = settings
        self._recipe = recipe
        self._report = report
        self._began = 0.0
        self.progress = Progress()
        self.best_weights: checkpoints.Arrays = []

    def go_on(self, model: keras.Model, stored: Checkpoint) -> None:
        """Continue from a checkpoint."""
        checkpoints.restore(stored, model)
        self.progress, self.best_weights = stored.progress, stored.best_weights
        logger.info("going on after epoch %d", self.progress.epoch)

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._began = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        loss = float((logs or {})["loss"])
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss is {loss} at batch {batch + 1} of epoch {self.progress.epoch + 1}; "
                f"the last good state is in {self._folder / CHECKPOINT}; lower the rate, or train "
                "in float32"
            )
        if self._report is not None:
            self._report(self.progress.epoch, batch + 1, self.params["steps"], loss)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        logs = logs or {}
        optimiser = self.model.optimizer
        rate = float(optimiser.learning_rate)
        line = EpochLine(
            epoch + 1,
            float(logs["loss"]),
            float(logs["val_loss"]),
            rate,
            time.monotonic() - self._began,
        )
        if not math.isfinite(line.val_loss):
            raise TrainingError(
                f"the validation loss is {line.val_loss} after epoch {line.epoch}; the last good "
                f"state is in {self._folder / CHECKPOINT}; lower the rate, or train in float32"
            )
        self.progress = advanced(self.progress, line)
        if self.progress.best_epoch == line.epoch:
            self.best_weights = self.model.get_weights()
        if self.progress.waited >= self._recipe.patience:
            optimiser.learning_rate = rate * self._recipe.rate_factor
            self.progress = replace(self.progress, waited=0)
        checkpoints.save(
            checkpoints.of(self.model, self._settings, self.progress, self.best_weights),
            self._folder / CHECKPOINT,
        )
        write_log(self.progress, self._folder / LOG)
        logger.info(
            "epoch %d of %d: loss %.4f, validation %.4f%s, rate %.2g, %.0f s",
            line.epoch,
            self._recipe.epochs,
            line.loss,
            line.val_loss,
            " (best)" if self.progress.best_epoch == line.epoch else "",
            rate,
            line.seconds,
        )


def advanced(progress: Progress, line: EpochLine) -> Progress:
    """Return the progress after one more epoch."""
    history = (*progress.history, line)
    if line.val_loss < progress.best_loss:
        return Progress(history, line.epoch, line.val_loss, 0)
    return replace(progress, history=history, waited=progress.waited + 1)


def write_log(progress: Progress, path: Path) -> None:
    """Write the history as a CSV table, one row per epoch, at once."""
    text = io.StringIO()
    table = csv.DictWriter(text, [f.name for f in fields(EpochLine)], lineterminator="\n")
    table.writeheader()
    table.writerows(asdict(line) for line in progress.history)
    write_text(path, text.getvalue())
