"""Callbacks of a training: its state on disk, its rate and its end, its log and its progress."""

from __future__ import annotations

import itertools
import json
import logging
import math
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tensorboardX import SummaryWriter

from sct_lesion_losses.bundle.schema import Epoch, Recipe
from sct_lesion_losses.errors import OutputError, TrainingError
from sct_lesion_losses.images.atomic import replacing, write_text
from sct_lesion_losses.logs import duration

CHECKPOINT = "checkpoint.npz"
LOG = "training.csv"
DRAWN_EVERY_S = 60.0  # drawing takes a fraction of a second, a small epoch hardly more

logger = logging.getLogger(__name__)


@dataclass
class TrainingState:
    """All that a training needs to go on after its last epoch.

    Random numbers need no state: those of a batch follow from the seed, the epoch and the step.

    Attributes
    ----------
    settings : dict
        Recipe and data the training belongs to, as plain values.
    history : tuple of Epoch
        Finished epochs, behind the start where the training began from given weights.
    weights, best_weights, optimiser : list of array
        Network after the last epoch and after the best one, and the optimiser's variables, its rate
        among them; empty before the first epoch.
    average : list of array
        The network's weights averaged over the steps, where the recipe asks for it: then the best
        ones are the average of the best epoch.
    """

    settings: dict[str, Any]
    history: tuple[Epoch, ...] = ()
    weights: list[NDArray[Any]] = field(default_factory=list)
    best_weights: list[NDArray[Any]] = field(default_factory=list)
    optimiser: list[NDArray[Any]] = field(default_factory=list)
    average: list[NDArray[Any]] = field(default_factory=list)

    @property
    def epoch(self) -> int:
        """Finished epochs."""
        return self.history[-1].epoch if self.history else 0

    @property
    def best_epoch(self) -> int:
        """The first epoch, from 1, with the least validation loss; 0 before the first.

        The start is none of them: who trains wants a network that was trained.
        """
        losses = [line.val_loss for line in self.history if line.epoch]
        return int(np.argmin(np.array(losses, dtype=np.float64))) + 1 if losses else 0

    @property
    def idle(self) -> int:
        """Epochs since the best one."""
        return self.epoch - self.best_epoch

    @property
    def waited(self) -> int:
        """Epochs since the best one, or at the present rate if those are fewer."""
        rates = [line.rate for line in reversed(self.history)]
        present = itertools.takewhile(lambda rate: rate == rates[0], rates)
        return min(self.idle, len(list(present)))

    def ended(self, recipe: Recipe) -> bool:
        """Say whether all epochs are done, or none was better for as long as the recipe allows."""
        patience = math.inf if recipe.stop_patience is None else recipe.stop_patience
        return self.epoch >= recipe.epochs_planned or self.idle >= patience

    def take(self, model: keras.Model) -> None:
        """Copy weights and optimiser of a model; what backends return may change with a step."""
        self.weights = [np.array(array) for array in model.get_weights()]
        self.optimiser = [np.array(v.numpy()) for v in model.optimizer.variables]
        if not self.idle:
            self.best_weights = self.average or self.weights

    def put(self, model: keras.Model) -> None:
        """Put weights and optimiser into a compiled model of the same recipe."""
        model.optimizer.build(model.trainable_variables)
        variables = model.optimizer.variables
        if len(variables) != len(self.optimiser):
            raise TrainingError(
                f"the checkpoint holds {len(self.optimiser)} optimiser variables, this version of "
                f"Keras has {len(variables)}; start the training anew"
            )
        model.set_weights(self.weights)
        for variable, value in zip(variables, self.optimiser, strict=True):
            variable.assign(value)


_ARRAYS = ("weights", "best_weights", "optimiser", "average")


def save(state: TrainingState, path: Path) -> None:
    """Write the state so that a reader sees the old one or the new one, nothing between."""
    history = [dict(line) for line in state.history]
    arrays = {
        f"{group}/{number:04d}": array
        for group in _ARRAYS
        for number, array in enumerate(getattr(state, group))
    }
    arrays["state"] = np.array(json.dumps({"settings": state.settings, "history": history}))
    with replacing(path) as partial, partial.open("wb") as stream:
        np.savez(stream, **arrays)


def load(path: Path) -> TrainingState:
    """Read a state; nothing in it is executed.

    Raises
    ------
    TrainingError
        The file is missing or damaged.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            plain = json.loads(str(stored["state"]))
            arrays = [
                [stored[key] for key in sorted(stored) if key.startswith(f"{group}/")]
                for group in _ARRAYS
            ]
        history = tuple(Epoch(**line) for line in plain["history"])
        return TrainingState(plain["settings"], history, *arrays)
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise TrainingError(
            f"{path}: no readable checkpoint ({error}); start the training anew by -force 1"
        ) from error


class EpochBatches(Protocol):
    """Batches of a training that differ from epoch to epoch."""

    def go_to(self, epoch: int) -> None:
        """Make the batches those of an epoch, counted from 0."""

    def scans(self, index: int) -> list[str]:
        """Names of the scans that the patches of a batch come from."""


class Averaging(keras.callbacks.Callback):  # type: ignore[misc]
    """Averages the weights over the steps of a training, and lets validation score the average.

    After step n, from 0, the average a of the weights w becomes d · a + (1 - d) · w with
    d = min(momentum, (1 + n) / (10 + n)): without the second term it would hold the first, random
    weights for long. The moving statistics of batch normalisation are averaged in the same way,
    for those of the last weights do not fit averaged ones.

    Parameters
    ----------
    state : TrainingState
        Holds the average.
    momentum : float, in (0, 1)

    References
    ----------
    Polyak & Juditsky 1992, "Acceleration of stochastic approximation by averaging"; d is that of
    TensorFlow's ``ExponentialMovingAverage`` with its ``num_updates``.
    """

    def __init__(self, state: TrainingState, momentum: float) -> None:
        super().__init__()
        self._state = state
        self._momentum = momentum
        self._own: list[NDArray[Any]] = []

    def on_train_begin(self, logs: Any = None) -> None:
        """Begin with the weights of the start, unless the training goes on."""
        if not self._state.average:
            self._state.average = self._weights()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Take the weights after the step in."""
        if keras.backend.backend() == "jax":  # which keeps them elsewhere until the epoch ends
            self.model.jax_state_sync()
        steps = self._state.epoch * self.params["steps"] + batch
        new = 1 - min(self._momentum, (1 + steps) / (10 + steps))
        pairs = zip(self._state.average, self._weights(), strict=True)
        self._state.average = [average + new * (own - average) for average, own in pairs]

    def on_test_begin(self, logs: Any = None) -> None:
        """Put the average in the place of the weights."""
        self._own = self._weights()
        self.model.set_weights(self._state.average)

    def on_test_end(self, logs: Any = None) -> None:
        """Put the weights back."""
        self.model.set_weights(self._own)

    def _weights(self) -> list[NDArray[Any]]:
        return [np.array(array) for array in self.model.get_weights()]


class Epochs(keras.callbacks.Callback):  # type: ignore[misc]
    """Takes a training from epoch to epoch: its batches, rate, state, log and end.

    Parameters
    ----------
    state : TrainingState
        Takes in each epoch.
    batches : EpochBatches
        Of the training.
    recipe : Recipe
    folder : Path
        Receives the state and the log.

    Raises
    ------
    TrainingError
        A loss or a weight is not a number; then the last state stays.
    """

    def __init__(
        self, state: TrainingState, batches: EpochBatches, recipe: Recipe, folder: Path
    ) -> None:
        super().__init__()
        self._state = state
        self._batches = batches
        self._recipe = recipe
        self._folder = folder
        self._began = 0.0

    def on_train_begin(self, logs: Any = None) -> None:
        """Write the log anew: a kill may have come between the state and its log."""
        if self._state.history:
            self._write_log()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Turn the batches to an epoch, counted from 0."""
        self._batches.go_to(epoch)
        self._began = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Look at the mean loss so far: no number if that of a batch is none."""
        if not math.isfinite(logs["loss"]):
            scans = dict.fromkeys(self._batches.scans(batch))
            raise self._broken(
                f"the loss is {logs['loss']} at batch {batch + 1} of epoch {self._state.epoch + 1} "
                f"(patches of {', '.join(scans)})"
            )

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Take in the epoch, lower the rate where nothing was better for long, keep the state."""
        seconds = time.monotonic() - self._began
        state, recipe = self._state, self._recipe
        if not math.isfinite(logs["val_loss"]):
            raise self._broken(f"the validation loss is {logs['val_loss']} after epoch {epoch + 1}")
        rate = float(self.model.optimizer.learning_rate)
        losses = {name: float(logs[name]) for name in ("loss", "val_loss")}
        line = Epoch(epoch=epoch + 1, **losses, rate=rate, seconds=seconds)
        state.history += (line,)
        if recipe.patience is not None and state.waited >= recipe.patience:
            self.model.optimizer.learning_rate = rate * recipe.rate_factor
        state.take(self.model)
        if not all(np.isfinite(array).all() for array in (*state.weights, *state.optimiser)):
            raise self._broken(f"a weight is not a number after epoch {epoch + 1}")
        save(state, self._folder / CHECKPOINT)
        self._write_log()
        left = seconds_left(state.history, recipe.epochs_planned)
        logger.info(
            "epoch %d of %d: loss %.4f, validation %.4f%s, rate %.2g, %s%s",
            line.epoch,
            recipe.epochs_planned,
            line.loss,
            line.val_loss,
            "" if state.idle else " (best)",
            line.rate,
            duration(seconds),
            f", {duration(left)} left" if line.epoch < recipe.epochs_planned else "",
        )
        if state.ended(recipe) and line.epoch < recipe.epochs_planned:
            logger.info("stopped: no better epoch in the last %d", state.idle)
            self.model.stop_training = True

    def _write_log(self) -> None:
        table = pd.DataFrame(map(dict, self._state.history))
        text = table.to_csv(index=False, lineterminator="\n")
        write_text(self._folder / LOG, text)

    def _broken(self, what: str) -> TrainingError:
        """Error for a training that cannot go on, with what is left of it."""
        path = self._folder / CHECKPOINT
        left = f"the last good state is in {path}" if path.exists() else "nothing was kept yet"
        wider = "" if self._recipe.precision == "float32" else " or in float32"
        return TrainingError(f"{what}; {left}; start anew by -force 1 with a lower -rate{wider}")


def seconds_left(history: Sequence[Epoch], epochs: int) -> float:
    """Time that the remaining epochs will take, at the median pace of the last five."""
    lasted = [line.seconds for line in history if line.epoch]
    return float(np.median(lasted[-5:])) * (epochs - len(lasted))


class StepReports(keras.callbacks.Callback):  # type: ignore[misc]
    """Tells a function of every step, a progress bar for one.

    Parameters
    ----------
    state : TrainingState
    tell : callable
        Told how many steps are done, and are in all epochs; the epoch and its mean loss in words.
    """

    def __init__(self, state: TrainingState, tell: Callable[[int, int, str], None]) -> None:
        super().__init__()
        self._state = state
        self._tell = tell

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Tell of the step."""
        epoch, steps, epochs = self._state.epoch, self.params["steps"], self.params["epochs"]
        words = f"epoch {epoch + 1} of {epochs}, loss {logs['loss']:.4f}"
        self._tell(epoch * steps + batch + 1, epochs * steps, words)


class LearningCurves(keras.callbacks.Callback):  # type: ignore[misc]
    """Draws the history, once a minute at most and at the end.

    Parameters
    ----------
    state : TrainingState
    draw : callable
        Draws the lines of a history; an `OutputError` of it is warned of and ends no training.
    """

    def __init__(self, state: TrainingState, draw: Callable[[Sequence[Epoch]], None]) -> None:
        super().__init__()
        self._state = state
        self._draw = draw
        self._drawn = -math.inf

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Draw where the last drawing is a minute old."""
        if time.monotonic() - self._drawn >= DRAWN_EVERY_S:
            self._draw_all()

    def on_train_end(self, logs: Any = None) -> None:
        """Draw the whole history."""
        self._draw_all()

    def _draw_all(self) -> None:
        try:
            self._draw(self._state.history)
        except OutputError as error:
            logger.warning("no picture of the learning curves: %s", error)
        self._drawn = time.monotonic()


class EventFiles(keras.callbacks.Callback):  # type: ignore[misc]
    """Writes both losses and the rate of every epoch as event files for TensorBoard."""

    def __init__(self, state: TrainingState, folder: Path) -> None:
        super().__init__()
        self._state = state
        self._folder = folder
        self._writer: Any = None

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Write the epoch; what an earlier call wrote of later ones is not shown."""
        line = self._state.history[-1]
        if self._writer is None:
            self._writer = SummaryWriter(
                str(self._folder),
                purge_step=line.epoch,
                filename_suffix=f".from{line.epoch:05d}",
            )
        self._writer.add_scalar("loss/training", line.loss, line.epoch)
        self._writer.add_scalar("loss/validation", line.val_loss, line.epoch)
        self._writer.add_scalar("rate", line.rate, line.epoch)
        self._writer.flush()

    def on_train_end(self, logs: Any = None) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
