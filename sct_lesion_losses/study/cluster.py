"""Trainings on a cluster of dask.distributed, whose workers were started by the site.

Every training is one task. A worker that is lost is replaced by another, which goes on with the
training where its state was last kept; files are shared by their paths.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sct_lesion_losses.errors import LesionError, UsageError, WorkerError
from sct_lesion_losses.study.stages import Results, Stage

PATIENCE_S = 30.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Outcome:
    seconds: float
    error: Exception | None


@contextmanager
def connected(scheduler: str | None, scheduler_file: Path | None) -> Iterator[Any]:
    """Connect to a cluster for the length of the block.

    Parameters
    ----------
    scheduler : str or None
        Its address, ``tcp://host:8786``.
    scheduler_file : Path or None
        The file that it wrote its address to.

    Yields
    ------
    distributed.Client

    Raises
    ------
    UsageError
        `distributed` is not installed, both are given, or a worker would do several trainings in
        one process.
    WorkerError
        The scheduler does not answer.
    """
    if scheduler and scheduler_file:
        raise UsageError("-scheduler and -scheduler_file name one cluster each: choose one")
    if scheduler_file is not None and not scheduler_file.is_file():
        raise UsageError(
            f"{scheduler_file}: no such file; start dask scheduler --scheduler-file with it"
        )
    try:
        from distributed import Client
    except ImportError as error:
        raise UsageError(
            "a cluster needs dask.distributed: pip install 'sct_lesion_losses[cluster]'"
        ) from error
    where = {"address": scheduler} if scheduler else {"scheduler_file": str(scheduler_file)}
    try:
        client = Client(**where, timeout=PATIENCE_S)
    except (OSError, TimeoutError, ValueError) as error:
        raise WorkerError(
            f"the scheduler {scheduler or scheduler_file} does not answer ({error}); start one "
            "with dask scheduler, and workers with dask worker --nthreads 1"
        ) from error
    with client:
        _require_one_each(client)
        yield client


def workers_of(
    client: Any, stages: Sequence[Stage], results: Results
) -> Iterator[tuple[Stage, float, Exception | None]]:
    """Let the workers of a cluster do stages; yield each as it ends."""
    from distributed import as_completed
    from distributed.scheduler import KilledWorker

    futures = {
        client.submit(_work, stage.run, results, key=f"{stage.name}-{id(stage)}", pure=False): stage
        for stage in stages
    }
    if futures:
        logger.info("sent to the cluster: %s", ", ".join(stage.name for stage in stages))
    for future in as_completed(futures):
        stage = futures[future]
        try:
            outcome = future.result()
        except KilledWorker:
            why = f"{stage.name}: its workers were lost, one after the other"
            yield stage, 0.0, WorkerError(f"{why}; what was trained is kept, start again")
            continue
        yield stage, outcome.seconds, outcome.error


def _work(run: Any, results: Results) -> _Outcome:
    """Do the work of a stage on a worker, whose own errors are no reason to do it again."""
    began = time.monotonic()
    error: Exception | None = None
    try:
        run(results)
    except LesionError as caught:
        error = caught
    except Exception as caught:
        error = WorkerError(f"{type(caught).__name__}: {caught}")
    return _Outcome(time.monotonic() - began, error)


def _require_one_each(client: Any) -> None:
    threads = [worker["nthreads"] for worker in client.scheduler_info()["workers"].values()]
    if any(count > 1 for count in threads):
        raise UsageError(
            "workers of this cluster do several tasks in one process, and a training needs a "
            "process of its own: start them with dask worker --nthreads 1"
        )
