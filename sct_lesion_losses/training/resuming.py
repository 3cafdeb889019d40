"""Whether a training may go on from a checkpoint: by the same recipe, on the same scans."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sct_lesion_losses.errors import TrainingError
from sct_lesion_losses.training import callbacks as checkpoints
from sct_lesion_losses.training import devices
from sct_lesion_losses.training.callbacks import Checkpoint
from sct_lesion_losses.training.recipe import Recipe, differences
from sct_lesion_losses.training.running import CHECKPOINT

# What is trained on, in its order: a name people know, and a hash of what a network sees of it.
Data = Sequence[tuple[str, str]]
MOST_SHOWN = 5

logger = logging.getLogger(__name__)


def settings(recipe: Recipe, data: Data) -> dict[str, Any]:
    """Return what a checkpoint keeps of the training it belongs to."""
    return {
        "recipe": recipe.to_dict(),
        "data": [list(entry) for entry in data],
        "backend": devices.backend(),
    }


def resumable(recipe: Recipe, folder: Path, data: Data | None = None) -> Checkpoint | None:
    """Checkpoint in a folder that a training by this recipe on these scans may go on from.

    The number of epochs and the early stop may differ: they say when a training ends. Without
    `data` only the recipe is compared.

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
    ends = {"epochs": None, "early_stop": None}
    changed = differences({**stored.settings["recipe"], **ends}, {**recipe.to_dict(), **ends})
    if data is not None:
        changed += changed_data([(name, seen) for name, seen in stored.settings["data"]], data)
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
    if (before := stored.settings["backend"]) != devices.backend():
        logger.warning(
            "the training was begun on %s and goes on on %s: its weights will differ in rounding "
            "from those of one that ran through",
            before,
            devices.backend(),
        )
    return stored


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
    if len(found) > MOST_SHOWN:
        return [*found[:MOST_SHOWN], f"and {len(found) - MOST_SHOWN} more"]
    return found or ["the scans come in another order"]
