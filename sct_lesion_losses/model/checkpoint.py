"""The state of a training on disk, never half written."""

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
from sct_lesion_losses.model.progress import EpochLine, Progress, Steps

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
