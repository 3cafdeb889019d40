"""One training of a study: begun anew, gone on with, or estimated."""

from __future__ import annotations

import csv
import json
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sct_lesion_losses.bundle.check import WEIGHTS
from sct_lesion_losses.errors import LesionError
from sct_lesion_losses.images import atomic
from sct_lesion_losses.study import damage, hashes
from sct_lesion_losses.study.stages import Estimate, Facts, Results
from sct_lesion_losses.training.callbacks import EpochLine, seconds_left
from sct_lesion_losses.training.recipe import Recipe

if TYPE_CHECKING:
    from sct_lesion_losses.training.running import StepReport

# Names within the folder of a training's state, which `train.run` keeps beside the bundle.
WORK_SUFFIX, LOG, CHECKPOINT = ".training", "training.csv", "checkpoint.npz"
BEGUN = "study.json"
PARTS = ("training", "validation")
BACKEND = "KERAS_BACKEND"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Machine:
    """What a training runs on; see `model.Machine`."""

    devices: int = 1
    micro_batch: int | None = None
    jobs: int = 1
    backend: str | None = None


@dataclass(frozen=True)
class Training:
    """A training, complete: it can be sent to another process.

    Attributes
    ----------
    table : Path
        The cohort with its split.
    folder : Path
        The bundle to write.
    recipe : Recipe
    machine : Machine
    cache : Path
        Folder of prepared scans, shared by all trainings of a study.
    data : str
        A sentence on the scans, for the model card; empty for none.
    commands : tuple of str
        Command lines that train like this, for the model card.
    """

    table: Path
    folder: Path
    recipe: Recipe
    machine: Machine
    cache: Path
    data: str = ""
    commands: tuple[str, ...] = ()

    @property
    def work(self) -> Path:
        """Folder of the training's state."""
        return self.folder.with_name(self.folder.name + WORK_SUFFIX)

    @property
    def weights(self) -> Path:
        """What a training makes, and tuning leaves as it is."""
        return self.folder / WEIGHTS


def run(training: Training, tell: Callable[[StepReport], None] | None = None) -> None:
    """Train, or go on where an earlier call of the same training ended.

    A training by another recipe, or on other scans, that is there in its place is lost, and so is
    a bundle that does not load.

    Raises
    ------
    LesionError
        See `train.run`.
    """
    if training.machine.backend is not None:  # heeded where Keras is not loaded yet
        os.environ[BACKEND] = training.machine.backend
    from sct_lesion_losses.training.description import About
    from sct_lesion_losses.training.steps import Machine as Layout
    from sct_lesion_losses.workflows import train

    about: dict[str, Any] = {"name": training.folder.name, "commands": training.commands}
    if training.data:
        about["data"] = training.data
    anew = _is_other(training)
    damage.clear(training.folder)
    if anew:
        logger.info("%s: its recipe or its scans have changed, begun anew", training.folder.name)
    # Where nothing says whose state it is, the training itself refuses to go on with another's.
    if anew or not training.work.exists():
        atomic.write_json(training.work / BEGUN, _marker(training))
    train.run(
        training.table,
        training.folder,
        training.recipe,
        about=About(**about),
        resume=not anew,
        force=anew,
        machine=Layout(training.machine.devices, micro_batch=training.machine.micro_batch),
        cache=training.cache,
        jobs=training.machine.jobs,
        report=tell,
    )
    atomic.write_json(training.work / BEGUN, _marker(training))


def facts(recipe: Recipe) -> Facts:
    """Return a recipe as facts that a stage follows from."""
    plain = recipe.to_dict()
    return {
        f"recipe.{name}": value if isinstance(value, str | int | float) else json.dumps(value)
        for name, value in plain.items()
    }


def is_begun(training: Training) -> bool:
    """Whether a run would go on with a state that is there."""
    return (training.work / CHECKPOINT).is_file() and not _is_other(training)


def estimate(training: Training) -> Estimate | None:
    """Time left by the pace of its own epochs, else by that of the study's other trainings."""
    own = [] if _is_other(training) else history(training.work)
    if own:
        return Estimate(seconds_left(own, training.recipe.epochs), "its epochs so far")
    others = [
        lines
        for folder in sorted(training.folder.parent.glob(f"*{WORK_SUFFIX}"))
        if (lines := history(folder))
    ]
    if not others:
        return None
    slowest = max(seconds_left(lines, len(lines) + 1) for lines in others)
    return Estimate(slowest * training.recipe.epochs, "the epochs of other losses")


def history(work: Path) -> list[EpochLine]:
    """Read the epochs of a training that are done; none where there is no good log."""
    try:
        with (work / LOG).open(encoding="utf-8", newline="") as stream:
            return [
                EpochLine(
                    int(row["epoch"]),
                    float(row["loss"]),
                    float(row["val_loss"]),
                    float(row["rate"]),
                    float(row["seconds"]),
                )
                for row in csv.DictReader(stream)
            ]
    except (OSError, KeyError, TypeError, ValueError):
        return []


def task(training: Training, _: Results, tell: Callable[[StepReport], None] | None = None) -> None:
    """Train as the work of a stage."""
    run(training, tell)


def _marker(training: Training) -> dict[str, Any]:
    """Say which training it is; more epochs make no other one of it."""
    recipe = training.recipe.to_dict()
    for name in ("epochs", "early_stop"):
        recipe.pop(name)
    scans = hashes.of_parts(training.table, *PARTS)
    plain: dict[str, Any] = json.loads(json.dumps({"recipe": recipe, "scans": scans}))
    return plain


def _is_other(training: Training) -> bool:
    """Whether the state that is there is known to be of another training, or of a longer one."""
    try:
        before = json.loads((training.work / BEGUN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if not training.table.is_file():
        return True
    try:
        asked = _marker(training)
    except LesionError:  # the table names scans that are no longer there
        return True
    return bool(before != asked) or len(history(training.work)) > training.recipe.epochs
