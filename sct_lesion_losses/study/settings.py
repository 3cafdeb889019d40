"""What a study is asked for, and whom it tells of its progress."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sct_lesion_losses.cohorts.splits import Rules
from sct_lesion_losses.executor import Progress
from sct_lesion_losses.inference.cohort import AS_IN_COHORT
from sct_lesion_losses.study.training import Machine
from sct_lesion_losses.training.recipe import Recipe

if TYPE_CHECKING:
    from sct_lesion_losses.training.running import StepReport


@dataclass(frozen=True)
class Settings:
    """How a study is made.

    Attributes
    ----------
    recipes : tuple of Recipe
        One for each loss, whose name its bundle takes.
    bundles : tuple of str
        Names or folders of bundles that are taken in place of training.
    retune : bool
        Tune these bundles again, copies of them; they keep their own thresholds otherwise.
    rules : Rules
        How to split a cohort that comes without a split.
    objective : str
        Of the tuning; see `tune.Settings`.
    centerline, contrast, preset, engine : str
        See `evaluate.Settings`.
    jobs : int
        Scans at a time.
    machine : Machine
        What trainings run on.
    cache : Path or None
        Folder of prepared scans; ``training_cache`` beside the bundles by default.
    data : str
        A sentence on the scans, for the model cards.
    command : str
        The command line, for the report and the model cards.
    """

    recipes: tuple[Recipe, ...] = ()
    bundles: tuple[str, ...] = ()
    retune: bool = False
    rules: Rules = field(default_factory=Rules)
    objective: str = "median_v_f1"
    centerline: str = AS_IN_COHORT
    contrast: str = "t2"
    preset: str = "paper"
    engine: str = "auto"
    jobs: int = 1
    machine: Machine = field(default_factory=Machine)
    cache: Path | None = None
    data: str = ""
    command: str = ""


def _no_scans(_: str) -> AbstractContextManager[Progress | None]:
    return nullcontext()


def _no_steps(_: int) -> AbstractContextManager[Callable[[StepReport], None] | None]:
    return nullcontext()


@dataclass(frozen=True)
class Listener:
    """Whom to tell.

    Attributes
    ----------
    scans : callable
        Opens a context for what is done scan by scan, by a word for it.
    steps : callable
        Opens a context for a training, by its number of epochs.
    """

    scans: Callable[[str], AbstractContextManager[Progress | None]] = _no_scans
    steps: Callable[[int], AbstractContextManager[Callable[[StepReport], None] | None]] = _no_steps
