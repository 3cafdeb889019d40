"""The state of a training on disk, written after every epoch and never half."""

from __future__ import annotations

import json
import zipfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from sct_lesion_losses.errors import TrainingError
from sct_lesion_losses.files import replacing

Arrays = list[NDArray[Any]]


@dataclass(frozen=True)
class EpochLine:
    """One line of the training history: losses of an epoch (from 1), its rate and its seconds."""

    epoch: int
    loss: float
    val_loss: float
    rate: float
    seconds: float


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
    """

    history: tuple[EpochLine, ...] = ()
    best_epoch: int = 0
    best_loss: float = float("inf")
    waited: int = 0

    @property
    def epoch(self) -> int:
        """Finished epochs."""
        return len(self.history)


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """All that a training needs to go on after its last finished epoch.

    Attributes
    ----------
    settings : dict
        Recipe and data the training belongs to, as plain values.
    progress : Progress
    weights, best_weights, optimiser : list of array
        Network after the last epoch and after the best one, and the optimiser's variables.
    """

    settings: dict[str, Any]
    progress: Progress
    weights: Arrays = field(default_factory=list)
    best_weights: Arrays = field(default_factory=list)
    optimiser: Arrays = field(default_factory=list)


def of(
    model: keras.Model, settings: dict[str, Any], progress: Progress, best_weights: Arrays
) -> Checkpoint:
    """Return the checkpoint of a compiled model as it is now."""
    return Checkpoint(
        settings,
        progress,
        weights=model.get_weights(),
        best_weights=best_weights,
        optimiser=[np.asarray(v.value) for v in model.optimizer.variables],
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
        for group in ("weights", "best_weights", "optimiser")
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
                for group in ("weights", "best_weights", "optimiser")
            }
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise TrainingError(
            f"{path}: no readable checkpoint ({error}); start the training anew"
        ) from error
    plain = state["progress"]
    history = tuple(EpochLine(**line) for line in plain.pop("history"))
    return Checkpoint(state["settings"], Progress(history=history, **plain), **groups)
