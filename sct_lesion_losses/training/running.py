"""A training under way: step by step, epoch by epoch, its state kept."""

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

from sct_lesion_losses.errors import TrainingError
from sct_lesion_losses.training import callbacks as checkpoints
from sct_lesion_losses.training.batches import Batch, PatchBatches
from sct_lesion_losses.training.callbacks import (
    Checkpoint,
    EpochLine,
    Progress,
    duration,
    seconds_left,
    write_log,
)
from sct_lesion_losses.training.recipe import Recipe
from sct_lesion_losses.training.steps import Steps

CHECKPOINT = "checkpoint.npz"
LOG = "training.csv"

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


def where(progress: Progress) -> str:
    """Say how far a training has come."""
    done = f"step {progress.steps.done} of epoch {progress.epoch + 1}"
    return done if progress.steps.done else f"epoch {progress.epoch}"


class Keeper:
    """Writes the state of a training: after every epoch, and when it was last kept too long ago."""

    def __init__(self, folder: Path, settings: dict[str, Any], every_s: float) -> None:
        self.folder = folder
        self._settings = settings
        self._every_s = every_s
        self._kept_at = time.monotonic()
        self.last: Checkpoint | None = None

    @property
    def due(self) -> bool:
        """Whether the state should be kept within an epoch."""
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
            raise self.broken(f"a weight is not a number after {where(progress)}")
        checkpoints.save(state, self.folder / CHECKPOINT)
        self.last = state
        self._kept_at = time.monotonic()

    def broken(self, what: str, scans: Sequence[str] = ()) -> TrainingError:
        """Error for a training that cannot go on, with what is left of it."""
        path = self.folder / CHECKPOINT
        left = f"the last good state is in {path}" if path.exists() else "nothing was kept yet"
        shown = f" (patches of {', '.join(dict.fromkeys(scans))})" if scans else ""
        half = self._settings["recipe"]["precision"] != "float32"
        wider = " or in float32" if half else ""
        return TrainingError(
            f"{what}{shown}; {left}; start anew by -force 1 with a lower -rate{wider}"
        )


@dataclass
class Run:
    """A training under way: the one object here that changes."""

    model: keras.Model
    recipe: Recipe
    training: PatchBatches
    validation: PatchBatches
    steps: Steps
    keeper: Keeper
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
            self.best_weights = checkpoints.weights_of(self.model)
        if self.progress.waited >= self.recipe.patience:
            self.model.optimizer.learning_rate = line.rate * self.recipe.rate_factor
            self.progress = self.progress.without_patience()
        self.keeper.keep(self.model, self.progress, self.best_weights)
        write_log(self.progress, self.keeper.folder / LOG)
        self._tell(line)

    def _step(self, index: int, batch: Batch, began: float) -> None:
        loss = self.steps.train(*batch)
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
        found = [self.steps.test(*batch) for _, batch in _ahead(self.validation, 0)]
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
            logger.info("stopped: no better epoch in the last %d", self.recipe.early_stop)
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
