"""Callbacks of a training: its state on disk, its rate and its end, its log and its progress."""

from __future__ import annotations

import csv
import io
import json
import logging
import math
import time
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from sct_lesion_losses.errors import OutputError, TrainingError, UsageError
from sct_lesion_losses.images.atomic import replacing, write_text

CHECKPOINT = "checkpoint.npz"
LOG = "training.csv"
DRAWN_EVERY_S = 60.0  # drawing takes a fraction of a second, a small epoch hardly more

Arrays = list[NDArray[Any]]
Logs = dict[str, Any] | None

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EpochLine:
    """One line of the training history: losses of an epoch (from 1), its rate and its seconds."""

    epoch: int
    loss: float
    val_loss: float
    rate: float
    seconds: float


@dataclass
class TrainingState:
    """All that a training needs to go on after its last epoch.

    Random numbers need no state: those of a batch follow from the seed, the epoch and the step.

    Attributes
    ----------
    settings : dict
        Recipe and data the training belongs to, as plain values.
    history : tuple of EpochLine
        Finished epochs.
    best_epoch, best_loss : int, float
        Epoch of the best validation loss so far, from 1, and that loss; 0 and inf before the first.
    waited : int
        Epochs since the last better validation loss or the last change of rate.
    weights, best_weights, optimiser : list of array
        Network after the last epoch and after the best one, and the optimiser's variables, its rate
        among them; empty before the first epoch.
    """

    settings: dict[str, Any]
    history: tuple[EpochLine, ...] = ()
    best_epoch: int = 0
    best_loss: float = math.inf
    waited: int = 0
    weights: Arrays = field(default_factory=list)
    best_weights: Arrays = field(default_factory=list)
    optimiser: Arrays = field(default_factory=list)

    @property
    def epoch(self) -> int:
        """Finished epochs."""
        return len(self.history)

    def add(self, line: EpochLine) -> None:
        """Take in one more epoch."""
        self.history = (*self.history, line)
        self.waited += 1
        if line.val_loss < self.best_loss:
            self.best_epoch, self.best_loss, self.waited = line.epoch, line.val_loss, 0

    def ended(self, epochs: int, patience: int | None) -> bool:
        """Whether all epochs are done, or the last `patience` of them brought nothing better."""
        idle = self.epoch - self.best_epoch
        return self.epoch >= epochs or (patience is not None and idle >= patience)

    def take(self, model: keras.Model) -> None:
        """Copy weights and optimiser of a model; what backends return may change with a step."""
        self.weights = [np.array(array) for array in model.get_weights()]
        self.optimiser = [np.array(v.numpy()) for v in model.optimizer.variables]

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


_ARRAYS = ("weights", "best_weights", "optimiser")


def save(state: TrainingState, path: Path) -> None:
    """Write the state so that a reader sees the old one or the new one, nothing between."""
    plain = {f.name: getattr(state, f.name) for f in fields(state) if f.name not in _ARRAYS}
    plain["history"] = [asdict(line) for line in state.history]
    arrays = {
        f"{group}/{number:04d}": array
        for group in _ARRAYS
        for number, array in enumerate(getattr(state, group))
    }
    with replacing(path) as partial, partial.open("wb") as stream:
        np.savez(stream, state=np.array(json.dumps(plain)), **arrays)


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
            arrays: dict[str, Any] = {
                group: [stored[key] for key in sorted(stored) if key.startswith(f"{group}/")]
                for group in _ARRAYS
            }
        history = tuple(EpochLine(**line) for line in plain.pop("history"))
        return TrainingState(history=history, **plain, **arrays)
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise TrainingError(
            f"{path}: no readable checkpoint ({error}); start the training anew by -force 1"
        ) from error


class Epochs(keras.callbacks.Callback):  # type: ignore[misc]
    """Turns the batches to each epoch and takes its losses into the state, first of all callbacks.

    Parameters
    ----------
    state : TrainingState
    go_to : callable
        Turns the batches to an epoch, counted from 0.
    scans : callable
        Names the scans of a batch of that epoch.
    folder : Path
        Of the training, for messages.

    Raises
    ------
    TrainingError
        A loss is not a number.
    """

    def __init__(
        self,
        state: TrainingState,
        go_to: Callable[[int], None],
        scans: Callable[[int], Iterable[str]],
        folder: Path,
    ) -> None:
        super().__init__()
        self._state = state
        self._go_to = go_to
        self._scans = scans
        self._folder = folder
        self._began = 0.0
        self._rate = 0.0

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Begin an epoch, counted from 0."""
        self._go_to(epoch)
        self._rate = float(self.model.optimizer.learning_rate)
        self._began = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Look at the mean loss so far: no number if that of a batch is none."""
        loss = float((logs or {})["loss"])
        if not math.isfinite(loss):
            scans = dict.fromkeys(self._scans(batch))
            raise broken(
                f"the loss is {loss} at batch {batch + 1} of epoch {self._state.epoch + 1} "
                f"(patches of {', '.join(scans)})",
                self._folder,
                self._state,
            )

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Take in the epoch."""
        loss, val_loss = (float((logs or {})[name]) for name in ("loss", "val_loss"))
        if not math.isfinite(val_loss):
            raise broken(
                f"the validation loss is {val_loss} after epoch {epoch + 1}",
                self._folder,
                self._state,
            )
        seconds = time.monotonic() - self._began
        self._state.add(EpochLine(epoch + 1, loss, val_loss, self._rate, seconds))


def broken(what: str, folder: Path, state: TrainingState) -> TrainingError:
    """Error for a training that cannot go on, with what is left of it."""
    path = folder / CHECKPOINT
    left = f"the last good state is in {path}" if path.exists() else "nothing was kept yet"
    half = state.settings["recipe"]["precision"] != "float32"
    wider = " or in float32" if half else ""
    return TrainingError(f"{what}; {left}; start anew by -force 1 with a lower -rate{wider}")


class RateOnPlateau(keras.callbacks.Callback):  # type: ignore[misc]
    """Lowers the rate where no epoch was better for so long."""

    def __init__(self, state: TrainingState, patience: int | None, factor: float) -> None:
        super().__init__()
        self._state = state
        self._patience = patience
        self._factor = factor

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Lower the rate, and wait anew."""
        if self._patience is not None and self._state.waited >= self._patience:
            self.model.optimizer.learning_rate = self._state.history[-1].rate * self._factor
            self._state.waited = 0


class EarlyStop(keras.callbacks.Callback):  # type: ignore[misc]
    """Ends a training where no epoch was better for so long."""

    def __init__(self, state: TrainingState, epochs: int, patience: int | None) -> None:
        super().__init__()
        self._state = state
        self._epochs = epochs
        self._patience = patience

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Stop after this epoch, or go on."""
        if self._state.ended(self._epochs, self._patience) and self._state.epoch < self._epochs:
            self.model.stop_training = True


class KeptState(keras.callbacks.Callback):  # type: ignore[misc]
    """Keeps the whole state on disk after every epoch, and its log.

    Raises
    ------
    TrainingError
        A weight is not finite; then the last state stays.
    """

    def __init__(self, state: TrainingState, folder: Path) -> None:
        super().__init__()
        self._state = state
        self._folder = folder

    def on_train_begin(self, logs: Logs = None) -> None:
        """Write the log anew: a kill may have come between the state and its log."""
        if self._state.history:
            self._write_log()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Keep the state."""
        state = self._state
        state.take(self.model)
        if not all(np.isfinite(array).all() for array in (*state.weights, *state.optimiser)):
            raise broken(f"a weight is not a number after epoch {epoch + 1}", self._folder, state)
        if state.best_epoch == state.epoch:
            state.best_weights = state.weights
        save(state, self._folder / CHECKPOINT)
        self._write_log()

    def _write_log(self) -> None:
        text = io.StringIO()
        table = csv.DictWriter(text, [f.name for f in fields(EpochLine)], lineterminator="\n")
        table.writeheader()
        table.writerows(asdict(line) for line in self._state.history)
        write_text(self._folder / LOG, text.getvalue())


class EpochMessages(keras.callbacks.Callback):  # type: ignore[misc]
    """Logs a line for every epoch, with the time left."""

    def __init__(self, state: TrainingState, epochs: int) -> None:
        super().__init__()
        self._state = state
        self._epochs = epochs

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Log the line."""
        line, last = self._state.history[-1], epoch + 1 >= self._epochs
        left = duration(seconds_left(self._state.history, self._epochs))
        logger.info(
            "epoch %d of %d: loss %.4f, validation %.4f%s, rate %.2g, %s%s",
            line.epoch,
            self._epochs,
            line.loss,
            line.val_loss,
            " (best)" if self._state.best_epoch == line.epoch else "",
            line.rate,
            duration(line.seconds),
            "" if last else f", {left} left",
        )
        if self.model.stop_training:
            idle = self._state.epoch - self._state.best_epoch
            logger.info("stopped: no better epoch in the last %d", idle)


def seconds_left(history: Sequence[EpochLine], epochs: int) -> float:
    """Time that the remaining epochs will take, at the median pace of the last five."""
    recent = sorted(line.seconds for line in history[-5:])
    return recent[len(recent) // 2] * (epochs - len(history)) if recent else math.nan


def duration(seconds: float) -> str:
    """Write a time as people say it.

    >>> duration(42), duration(600), duration(31_300)
    ('42 s', '10 min', '8 h 42 min')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


class StepReports(keras.callbacks.Callback):  # type: ignore[misc]
    """Tells a function of every step, a progress bar for one; see `fit.Watchers`."""

    def __init__(self, tell: Callable[[int, int, str], None]) -> None:
        super().__init__()
        self._tell = tell
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Note the epoch."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Tell of the step."""
        steps, epochs = int(self.params["steps"]), int(self.params["epochs"])
        words = f"epoch {self._epoch + 1} of {epochs}, loss {float((logs or {})['loss']):.4f}"
        self._tell(self._epoch * steps + batch + 1, epochs * steps, words)


class LearningCurves(keras.callbacks.Callback):  # type: ignore[misc]
    """Draws the history, once a minute at most and at the end.

    Parameters
    ----------
    draw : callable
        Draws the lines of a history; an `OutputError` of it is warned of and ends no training.
    """

    def __init__(self, state: TrainingState, draw: Callable[[Sequence[EpochLine]], None]) -> None:
        super().__init__()
        self._state = state
        self._draw = draw
        self._drawn = -math.inf

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Draw where the last drawing is a minute old."""
        if time.monotonic() - self._drawn >= DRAWN_EVERY_S:
            self._redraw()

    def on_train_end(self, logs: Logs = None) -> None:
        """Draw the whole history."""
        self._redraw()

    def _redraw(self) -> None:
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

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Write the epoch; what an earlier call wrote of later ones is not shown."""
        line = self._state.history[-1]
        if self._writer is None:
            suffix = f".from{line.epoch:05d}"
            self._writer = event_writer()(
                str(self._folder), purge_step=line.epoch, filename_suffix=suffix
            )
        self._writer.add_scalar("loss/training", line.loss, line.epoch)
        self._writer.add_scalar("loss/validation", line.val_loss, line.epoch)
        self._writer.add_scalar("rate", line.rate, line.epoch)
        self._writer.flush()

    def on_train_end(self, logs: Logs = None) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()


def event_writer() -> Any:
    """Return the class that writes event files.

    Raises
    ------
    UsageError
        tensorboardX is not installed.
    """
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise UsageError(
            "TensorBoard's event files need tensorboardX: pip install tensorboardX"
        ) from error
    return SummaryWriter
