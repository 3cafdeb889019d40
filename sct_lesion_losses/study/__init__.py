"""The whole study: split, train every loss, tune, evaluate, and a report that says what differs.

Everything is written into one folder, and is there already when the same study is asked for again:
a stage is done once for what it is made of (`study.stages`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from sct_lesion_losses.cohorts import table as cohorts
from sct_lesion_losses.errors import OutputError, UsageError
from sct_lesion_losses.images import atomic
from sct_lesion_losses.inference import predict
from sct_lesion_losses.report.figures import style
from sct_lesion_losses.study import cluster, stages, training
from sct_lesion_losses.study.contents import PAGE
from sct_lesion_losses.study.pace import measured
from sct_lesion_losses.study.plan import BUNDLES, Study, failures
from sct_lesion_losses.study.settings import Listener, Settings
from sct_lesion_losses.study.stages import Estimate, Ledger, Planned, Result, Results
from sct_lesion_losses.study.training import WORK_SUFFIX, Machine, Training
from sct_lesion_losses.training.recipe import Recipe
from sct_lesion_losses.workflows.evaluate import enter

__all__ = [
    "PAGE",
    "Cluster",
    "Listener",
    "Machine",
    "Planned",
    "Result",
    "Settings",
    "failures",
    "measured",
    "planned",
    "run",
]

LOCK = ".lock"


@dataclass(frozen=True)
class Cluster:
    """A cluster of dask.distributed, by its scheduler's address or the file that holds it."""

    scheduler: str | None = None
    scheduler_file: Path | None = None


def run(
    data: Path,
    folder: Path,
    settings: Settings,
    *,
    listener: Listener = Listener(),  # noqa: B008 (frozen)
    elsewhere: Cluster | None = None,
    before_training: Callable[[], object] = lambda: None,
) -> dict[str, Result]:
    """Make a study, or what of it is missing or no longer follows from its inputs.

    Parameters
    ----------
    data : Path
        BIDS folder or TSV; see `data.cohort.read`. A split in the TSV is kept.
    folder : Path
        Receives ``split.tsv``, ``figure1.png`` and ``.svg``, ``bundles``, ``evaluation``,
        ``figures``, ``report.html``, and ``stages``, the records of what was done.
    settings : Settings
    listener : Listener
        Told of what is done here.
    elsewhere : Cluster, optional
        Where to train; here, one loss after the other, by default.
    before_training : callable
        Called before a training begins here, with nothing loaded yet that it needs.

    Returns
    -------
    dict of str to Result
        What became of every stage. One whose training or tuning failed does not end the others.

    Raises
    ------
    UsageError
        Neither losses nor bundles are given, or both, or one twice.
    OutputError
        The folder cannot be written, or another study is writing it.
    LesionError
        The cohort cannot be split, there is nothing to evaluate, or the evaluation fails.
    """
    folder = folder.absolute()
    _check(settings, folder)
    style.require()
    cohorts.read(data)  # nothing is written for a cohort that cannot be read
    atomic.require_writable(folder)
    with ExitStack() as stack:
        workers, train = stages.alone, _here(listener, before_training)
        if elsewhere is not None:
            where = cluster.connected(elsewhere.scheduler, elsewhere.scheduler_file)
            workers = functools.partial(cluster.workers_of, stack.enter_context(where))
            train = training.task
        stack.enter_context(_alone_in(folder))
        study = Study(data.absolute(), folder, settings, listener, train)
        return stages.run(study.stages(), Ledger(folder), workers)


def planned(
    data: Path,
    folder: Path,
    settings: Settings,
    measured: Callable[[Recipe, Path], Estimate | None] = lambda _recipe, _data: None,
) -> list[Planned]:
    """Say what `run` would do, and how long it would take; nothing is written.

    Parameters
    ----------
    data, folder, settings
        As for `run`.
    measured : callable
        Estimates a training that neither its own epochs nor those of others tell of;
        `pace.measured` measures some of its steps, which loads Keras.

    Raises
    ------
    UsageError, LesionError
        As by `run`, as far as it can be told before.
    """
    folder = folder.absolute()
    _check(settings, folder)
    study = Study(data.absolute(), folder, settings, Listener(), training.task, measured)
    return stages.plan(study.stages(), Ledger(folder))


def _check(settings: Settings, folder: Path) -> None:
    losses = [recipe.loss for recipe in settings.recipes]
    if losses and settings.bundles:
        raise UsageError("-losses are trained, the bundles of -bundle are not: give one of them")
    if not (losses or settings.bundles):
        raise UsageError("give losses to train, or bundles to evaluate")
    for given in (losses, settings.bundles):
        if len(set(given)) < len(given):
            raise UsageError(f"one of {', '.join(given)} is given twice")
    loaded = [predict.load(name, settings.contrast) for name in settings.bundles]
    enter(settings.bundles, loaded)
    names = [bundle.name for bundle in loaded]
    if settings.retune and len(set(names)) < len(names):
        raise UsageError(
            f"two of the bundles are named alike ({', '.join(names)}), and tuned copies of them "
            "would be, too; give one of them another name, or leave out -retune"
        )
    for name in names if settings.retune else ():
        trained = folder / BUNDLES / f"{name}{WORK_SUFFIX}"
        if trained.exists():
            raise OutputError(
                f"{trained.parent / name} was trained here, and the tuned copy of {name} would "
                "replace it; choose another -ofolder, or leave out -retune"
            )


def _here(
    listener: Listener, before_training: Callable[[], object]
) -> Callable[[Training, Results], None]:
    def train(asked: Training, _: Results) -> None:
        before_training()
        with listener.steps(asked.recipe.epochs) as tell:
            training.run(asked, tell)

    return train


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Hold the folder, in which one study works at a time."""
    place = folder / stages.FOLDER
    try:
        place.mkdir(parents=True, exist_ok=True)
        with FileLock(place / LOCK, timeout=0):
            yield
    except Timeout as error:
        raise OutputError(
            f"{folder}: another study is writing this folder; wait for it to end, or choose another"
        ) from error
