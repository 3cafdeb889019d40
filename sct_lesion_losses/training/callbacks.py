"""The state of a training on disk, never half written."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from sct_lesion_losses.errors import TrainingError
from sct_lesion_losses.images.atomic import replacing, write_text


@dataclass(frozen=True)
class EpochLine:
    """One line of the training history: losses of an epoch (from 1), its rate and its seconds."""

    epoch: int
    loss: float
    val_loss: float
    rate: float
    seconds: float


@dataclass(frozen=True)
class Steps:
    """The part of an epoch that is done.

    Attributes
    ----------
    done : int
        Finished steps.
    loss_sum : float
        Sum of their losses.
    seconds : float
        Time they took.
    """

    done: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0

    @property
    def loss(self) -> float:
        """Mean loss of the finished steps; NaN before the first."""
        return self.loss_sum / self.done if self.done else float("nan")

    def plus(self, loss: float, seconds: float) -> Steps:
        """Return these steps and one more."""
        return Steps(self.done + 1, self.loss_sum + loss, self.seconds + seconds)


@dataclass(frozen=True)
class Progress:
    """How far a training has come.

    Attributes
    ----------
    history : tuple of EpochLine
        Finished epochs.
    best_epoch : int
        Epoch of the best validation loss so far, from 1; 0 before the first.
    best_loss : float
        That loss.
    waited : int
        Epochs since the last better validation loss or the last change of rate.
    steps : Steps
        What is done of the epoch under way.
    """

    history: tuple[EpochLine, ...] = ()
    best_epoch: int = 0
    best_loss: float = float("inf")
    waited: int = 0
    steps: Steps = field(default_factory=Steps)

    @property
    def epoch(self) -> int:
        """Finished epochs."""
        return len(self.history)

    def stepped(self, loss: float, seconds: float) -> Progress:
        """Return the progress after one more step."""
        return replace(self, steps=self.steps.plus(loss, seconds))

    def advanced(self, line: EpochLine) -> Progress:
        """Return the progress after one more epoch."""
        history = (*self.history, line)
        if line.val_loss < self.best_loss:
            return Progress(history, line.epoch, line.val_loss, 0)
        return Progress(history, self.best_epoch, self.best_loss, self.waited + 1)

    def without_patience(self) -> Progress:
        """Return the progress with the wait for a better validation loss begun anew."""
        return replace(self, waited=0)

    def ended(self, epochs: int, early_stop: int | None) -> bool:
        """Whether all epochs are done, or the last `early_stop` of them brought nothing better."""
        idle = self.epoch - self.best_epoch
        return self.epoch >= epochs or (early_stop is not None and idle >= early_stop)


def seconds_left(history: Sequence[EpochLine], epochs: int) -> float:
    """Time that the remaining epochs will take, at the median pace of the last five."""
    recent = sorted(line.seconds for line in history[-5:])
    return recent[len(recent) // 2] * (epochs - len(history)) if recent else float("nan")


def duration(seconds: float) -> str:
    """Write a time as people say it.

    >>> duration(42), duration(600), duration(31_300)
    ('42 s', '10 min', '8 h 42 min')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def write_log(progress: Progress, path: Path) -> None:
    """Write the history as a CSV table, one row per epoch, at once."""
    text = io.StringIO()
    table = csv.DictWriter(text, [f.name for f in fields(EpochLine)], lineterminator="\n")
    table.writeheader()
    table.writerows(asdict(line) for line in progress.history)
    write_text(path, text.getvalue())


Arrays = list[NDArray[Any]]
_GROUPS = ("weights", "best_weights", "optimiser")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """All that a training needs to go on after its last step.

    Random numbers need no state: those of a batch follow from the seed, the epoch and the step.

    Attributes
    ----------
    settings : dict
        Recipe and data the training belongs to, as plain values.
    progress : Progress
    weights, best_weights, optimiser : list of array
        Network after the last step and after the best epoch (empty before the first), and the
        optimiser's variables, its rate among them.
    """

    settings: dict[str, Any]
    progress: Progress
    weights: Arrays = field(default_factory=list)
    best_weights: Arrays = field(default_factory=list)
    optimiser: Arrays = field(default_factory=list)

    @property
    def finite(self) -> bool:
        """Whether every weight, and every number of the optimiser, is finite."""
        return all(np.isfinite(array).all() for array in (*self.weights, *self.optimiser))


def weights_of(model: keras.Model) -> Arrays:
    """Copy the weights of a model; what backends return may change with the next step."""
    return [np.array(array) for array in model.get_weights()]


def of(
    model: keras.Model, settings: dict[str, Any], progress: Progress, best_weights: Arrays
) -> Checkpoint:
    """Return the checkpoint of a compiled model as it is now."""
    return Checkpoint(
        settings,
        progress,
        weights=weights_of(model),
        best_weights=best_weights,
        optimiser=[np.array(v.numpy()) for v in model.optimizer.variables],
    )


def restore(checkpoint: Checkpoint, model: keras.Model) -> None:
    """Put weights and optimiser state into a compiled model of the same recipe."""
    model.optimizer.build(model.trainable_variables)
    variables = model.optimizer.variables
    if len(variables) != len(checkpoint.optimiser):
        raise TrainingError(
            f"the checkpoint holds {len(checkpoint.optimiser)} optimiser variables, this version "
            f"of Keras has {len(variables)}; start the training anew"
        )
    model.set_weights(checkpoint.weights)
    for variable, value in zip(variables, checkpoint.optimiser, strict=True):
        variable.assign(value)


def save(checkpoint: Checkpoint, path: Path) -> None:
    """Write the checkpoint so that a reader sees the old one or the new one, nothing between."""
    arrays = {
        f"{group}/{number:04d}": array
        for group in _GROUPS
        for number, array in enumerate(getattr(checkpoint, group))
    }
    text = json.dumps({"settings": checkpoint.settings, "progress": asdict(checkpoint.progress)})
    with replacing(path) as partial, partial.open("wb") as stream:
        np.savez(stream, state=np.array(text), **arrays)


def load(path: Path) -> Checkpoint:
    """Read a checkpoint; nothing in it is executed.

    Raises
    ------
    TrainingError
        The file is missing or damaged.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            state = json.loads(str(stored["state"]))
            groups = {
                group: [stored[key] for key in sorted(stored) if key.startswith(f"{group}/")]
                for group in _GROUPS
            }
        plain = state["progress"]
        history = tuple(EpochLine(**line) for line in plain.pop("history"))
        steps = Steps(**plain.pop("steps"))
        progress = Progress(history=history, steps=steps, **plain)
        return Checkpoint(state["settings"], progress, **groups)
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise TrainingError(
            f"{path}: no readable checkpoint ({error}); start the training anew by -force 1"
        ) from error
