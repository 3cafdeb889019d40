"""One function over many tasks, in worker processes that do not outlive the work.

Workers are started afresh, not forked, ignore Ctrl-C and compute in one thread each. They end with
the process that started them, however it ends; a task that is stopped can still remove what it has
begun to write. What they log is logged again here, with the name of the scan that they were at.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Generic, NoReturn, TypeVar

from sct_lesion_losses import logs
from sct_lesion_losses.errors import UsageError, WorkerError

GRACE_S = 5.0  # for a task that is stopped, to remove what it has begun to write
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_LOGGERS = ("sct_lesion_losses", "py.warnings")
_STOPPED = 143  # exit status after SIGTERM

Task = TypeVar("Task")
Result = TypeVar("Result")
Progress = Callable[[int, int], None]


def run(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    jobs: int = 1,
    *,
    name: Callable[[Task], str] = str,
    progress: Progress | None = None,
) -> list[Result]:
    """Return what a function makes of every task.

    Parameters
    ----------
    function : callable
        Of one task; with more than one job it is imported by the workers, as are the tasks.
    tasks : sequence
    jobs : int
        Worker processes. One job, or one task, is done in this process.
    name : callable, optional
        What a task is called in messages.
    progress : callable, optional
        Called with (done, total).

    Returns
    -------
    list
        In the order of the tasks.

    Raises
    ------
    WorkerError
        A worker was killed, for want of memory perhaps.
    LesionError
        Whatever the function raises. The tasks that run beside it are finished, no other is begun.
    """
    if jobs == 1 or len(tasks) < 2:
        return list(_one_by_one(function, tasks, progress))
    running: dict[Future[_Outcome[Result]], int] = {}
    jobs = min(jobs, len(tasks))
    with _workers(jobs) as pool:
        try:
            return _all(pool, jobs, running, function, tasks, progress)
        except BrokenProcessPool as error:
            at = ", ".join(name(tasks[number]) for number in sorted(running.values()))
            raise WorkerError(
                f"a worker process was killed{f' at {at}' if at else ''}, for want of memory "
                "perhaps; what was finished is kept, start again with fewer -jobs"
            ) from error


def _one_by_one(
    function: Callable[[Task], Result], tasks: Sequence[Task], progress: Progress | None
) -> Iterator[Result]:
    for done, task in enumerate(tasks, start=1):
        yield function(task)
        if progress is not None:
            progress(done, len(tasks))


@dataclass(frozen=True, eq=False)
class _Outcome(Generic[Result]):
    """What a worker sends back."""

    result: Result | None
    error: Exception | None
    trace: str
    said: tuple[logging.LogRecord, ...]


class _InWorkerError(Exception):
    """Carries the text of a worker's traceback, as the cause of its error."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def _all(
    pool: ProcessPoolExecutor,
    jobs: int,
    running: dict[Future[_Outcome[Result]], int],
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    progress: Progress | None,
) -> list[Result]:
    """Keep every worker at one task; `running` always says which."""
    results: dict[int, Any] = {}
    failures: dict[int, _Outcome[Result]] = {}
    ahead = iter(enumerate(tasks))
    while True:
        while len(running) < jobs and not failures and (item := next(ahead, None)) is not None:
            running[pool.submit(_work, function, item[1])] = item[0]
        if not running:
            break
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            outcome = future.result()
            number = running.pop(future)
            _say_again(outcome.said)
            if outcome.error is not None:
                failures[number] = outcome
                continue
            results[number] = outcome.result
            if progress is not None:
                progress(len(results), len(tasks))
    if failures:
        first = failures[min(failures)]
        assert first.error is not None
        raise first.error from _InWorkerError(first.trace)
    return [results[number] for number in range(len(tasks))]


def _say_again(records: Sequence[logging.LogRecord]) -> None:
    for record in records:
        logger = logging.getLogger(record.name)
        if logger.isEnabledFor(record.levelno):
            logger.handle(record)


@contextmanager
def _workers(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """Worker processes; an error, a signal or the end of this process stops what they are at."""
    context = get_context("spawn")
    # Nothing is ever sent: the workers wait for the end that only this process holds to be closed.
    theirs, ours = context.Pipe(duplex=False)
    level = logging.getLogger(_LOGGERS[0]).getEffectiveLevel()
    pool = ProcessPoolExecutor(jobs, context, _start, (theirs, level))
    try:
        yield pool
    except BaseException:
        ours.close()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        ours.close()
        theirs.close()


PATIENCE_S = 30.0


@contextmanager
def cluster(scheduler: str | None, scheduler_file: Path | None) -> Iterator[Executor]:
    """Executor of a cluster of dask.distributed, whose workers were started by the site.

    Parameters
    ----------
    scheduler : str or None
        Its address, ``tcp://host:8786``.
    scheduler_file : Path or None
        The file that it wrote its address to.

    Raises
    ------
    UsageError
        `distributed` is not installed, both are given, or a worker would do several tasks in one
        process.
    WorkerError
        The scheduler does not answer.
    """
    if scheduler and scheduler_file:
        raise UsageError("-scheduler and -scheduler_file name one cluster each: give one of them")
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
        workers = client.scheduler_info()["workers"].values()
        if any(worker["nthreads"] > 1 for worker in workers):
            raise UsageError(
                "workers of this cluster do several tasks in one process, and a training needs a "
                "process of its own: start them with dask worker --nthreads 1"
            )
        yield client.get_executor()


# What follows runs in the workers.

_said: list[logging.LogRecord] = []
_at_work = False


class _Stopped(BaseException):
    """Unwinds a task, so that its temporary files are removed."""


class _Keeper(logging.Handler):
    """Keeps log records in a form that can be sent."""

    def emit(self, record: logging.LogRecord) -> None:
        record.msg, record.args = logs.with_scan(record.getMessage()), None
        if record.exc_info:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
            record.exc_info = None
        _said.append(record)


def _start(parent: Connection, level: int) -> None:
    """Prepare a worker, before it imports what computes."""
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stop)
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    logging.captureWarnings(True)
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.addHandler(_Keeper())
        logger.propagate = False
    logging.getLogger(_LOGGERS[0]).setLevel(level)


def _work(function: Callable[[Task], Result], task: Task) -> _Outcome[Result]:
    global _at_work
    _said.clear()
    try:
        _at_work = True
        return _Outcome(function(task), None, "", tuple(_said))
    except Exception as error:
        return _Outcome(None, error, traceback.format_exc(), tuple(_said))
    except _Stopped:
        os._exit(_STOPPED)
    finally:
        _at_work = False


def _stop(_signal: int, _frame: object) -> None:
    if _at_work:
        raise _Stopped
    os._exit(_STOPPED)


def _watch(parent: Connection) -> NoReturn:
    """Stop this worker when its parent closes its end or is gone."""
    with suppress(EOFError, OSError):
        parent.recv()
    main = threading.main_thread().ident
    assert main is not None
    signal.pthread_kill(main, signal.SIGTERM)
    time.sleep(GRACE_S)
    os._exit(_STOPPED)
