"""One function over many tasks: in this process, in worker processes, or on a cluster.

A task whose worker is lost is done again by another, so that tasks are to be idempotent. What a
worker logs is logged again here, with the name of the scan that it was at. Worker processes are
started afresh, ignore Ctrl-C, compute in one thread each and end with the process that started
them, however it ends; a task that is stopped can still remove what it has begun to write.
"""

from __future__ import annotations

import logging
import os
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent import futures
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from functools import partial
from multiprocessing import active_children, current_process, get_context
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar, overload

from sct_lesion_losses import logs
from sct_lesion_losses.errors import UsageError, WorkerError

PATIENCE_S = 30.0  # for a scheduler to answer, and for its first worker
_ORPHAN_S = 1.0  # how often a worker looks whether its parent is there
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_STOPPED = 143  # exit status after SIGTERM

Jobs: TypeAlias = int | str | Path
Task = TypeVar("Task")
Result = TypeVar("Result")
Progress = Callable[[int, int], None]


@overload
def run(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    jobs: Jobs = 1,
    *,
    name: Callable[[Task], str] = str,
    progress: Progress | None = None,
    return_exceptions: Literal[False] = False,
) -> list[Result]: ...
@overload
def run(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    jobs: Jobs = 1,
    *,
    name: Callable[[Task], str] = str,
    progress: Progress | None = None,
    return_exceptions: Literal[True],
) -> list[Result | Exception]: ...
def run(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    jobs: Jobs = 1,
    *,
    name: Callable[[Task], str] = str,
    progress: Progress | None = None,
    return_exceptions: bool = False,
) -> Any:
    """Return what a function makes of every task.

    Parameters
    ----------
    function : callable
        Of one task; workers import it, as they do the tasks.
    tasks : sequence
    jobs : int, str or Path
        See `pool`. One task alone is done in this process, unless there is a cluster.
    name : callable, optional
        What a task is called in messages.
    progress : callable, optional
        Called with (done, total).
    return_exceptions : bool
        An error takes the place of its task's result, and the other tasks go on.

    Returns
    -------
    list
        In the order of the tasks.

    Raises
    ------
    WorkerError
        A worker was killed, and another one again at the same task.
    LesionError
        Whatever the function raises. The tasks that run beside it are finished, no other is begun.
    """
    if isinstance(jobs, int):  # the workers of a cluster may have no processes of their own
        jobs = 1 if current_process().daemon else max(1, min(jobs, len(tasks)))
    results: dict[int, Any] = {}
    errors: dict[int, BaseException] = {}
    with closing(_completed(function, tasks, jobs, not return_exceptions)) as completed:
        for number, future in completed:
            error = _error(future)
            if error is None:
                results[number], records = future.result()
            else:
                records = error.__dict__.pop("records", ())
                results[number] = errors[number] = _named(error, name(tasks[number]))
            for record in records:
                source = logging.getLogger(record.name)
                if source.isEnabledFor(record.levelno):
                    source.handle(record)
            if progress is not None and (return_exceptions or not errors):
                progress(len(results), len(tasks))
    if errors and not return_exceptions:
        raise errors[min(errors)]
    return [results[number] for number in range(len(tasks))]


@contextmanager
def pool(jobs: Jobs) -> Iterator[futures.Executor]:
    """Give an executor for the length of the block; an error ends what it is at.

    Parameters
    ----------
    jobs : int, str or Path
        1 for this process, more for as many worker processes; the address of a scheduler of
        dask.distributed, ``tcp://host:8786``, or the file that it wrote its address to, for the
        workers that the site has started.

    Raises
    ------
    UsageError
        There is no such file, `distributed` is not installed, or a worker of the cluster would do
        several tasks in one process.
    WorkerError
        The scheduler does not answer, or has no workers.
    """
    if jobs == 1:
        yield _ThisProcess()
    elif isinstance(jobs, int):
        with _processes(jobs) as processes:
            yield processes
    else:
        with _cluster(jobs) as client:
            yield client.get_executor(pure=False)


class _ThisProcess(futures.Executor):
    """Does every task when it is submitted."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> futures.Future[Any]:
        future: futures.Future[Any] = futures.Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def _completed(
    function: Callable[[Task], Result], tasks: Sequence[Task], jobs: Jobs, first_error_ends: bool
) -> Generator[tuple[int, futures.Future[Any]], None, None]:
    """Yield the number of every task, with its result and log records, as it ends."""
    call = partial(_here if jobs == 1 else _elsewhere, function, logs.level())
    at_once = jobs if isinstance(jobs, int) else len(tasks)
    ahead = deque(enumerate(tasks))
    while ahead:
        running: dict[futures.Future[Any], tuple[int, Task]] = {}
        lost: list[tuple[int, Task]] = []
        with pool(jobs) as workers:
            while running or (ahead and not lost):
                while ahead and not lost and len(running) < at_once:
                    item = ahead.popleft()
                    running[_submitted(workers, call, item[1])] = item
                for future in futures.wait(running, return_when=futures.FIRST_COMPLETED).done:
                    if future not in running:
                        continue
                    item = running.pop(future)
                    error = _error(future)
                    if type(error).__name__ in _LOST:
                        lost.append(item)
                        continue
                    if first_error_ends and error:
                        ahead.clear()
                        running = {f: kept for f, kept in running.items() if not f.cancel()}
                    yield item[0], future
        for number, task in sorted(lost, key=lambda item: item[0]):
            # Which of them killed its worker, and which was only waiting there, is seen now.
            with _processes(1) if isinstance(jobs, int) else pool(jobs) as alone:
                future = alone.submit(call, task)
                futures.wait([future])
            if first_error_ends and future.exception():
                ahead.clear()
            yield number, future


_LOST = ("BrokenProcessPool", "KilledWorker")  # of concurrent.futures; of dask.distributed


def _submitted(workers: futures.Executor, call: Any, task: Any) -> futures.Future[Any]:
    try:
        return workers.submit(call, task)
    except BrokenProcessPool as error:
        future: futures.Future[Any] = futures.Future()
        future.set_exception(error)
        return future


def _error(future: futures.Future[Any]) -> BaseException | None:
    return futures.CancelledError() if future.cancelled() else future.exception()


def _named(error: BaseException, task: str) -> BaseException:
    """Say at which task a worker was lost; other errors say it themselves."""
    again = "what was finished is kept, start again"
    why = {
        "BrokenProcessPool": "a worker process was killed, and another one again, for want of "
        f"memory perhaps; {again} with fewer -jobs",
        "KilledWorker": f"its workers were lost, one after the other; {again}",
        "CancelledError": f"the scheduler of the cluster was lost; {again}",
    }.get(type(error).__name__)
    return WorkerError(f"{task}: {why}") if why else error


@contextmanager
def _processes(jobs: int) -> Iterator[futures.Executor]:
    """Worker processes; an error or a signal stops what they are at, and waits for it."""
    others = active_children()
    workers = futures.ProcessPoolExecutor(jobs, get_context("spawn"), _start, (os.getpid(),))
    try:
        yield workers
    except BaseException:
        for worker in active_children():
            if worker not in others:
                worker.terminate()
        raise
    finally:
        workers.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _cluster(scheduler: str | Path) -> Iterator[Any]:
    """Connect to a scheduler of dask.distributed for the length of the block."""
    if isinstance(scheduler, Path) and not scheduler.is_file():
        raise UsageError(
            f"{scheduler}: no such file; start dask scheduler --scheduler-file with it"
        )
    try:
        import distributed
    except ImportError as error:
        raise UsageError(
            "a cluster needs dask.distributed: pip install 'sct_lesion_losses[cluster]'"
        ) from error
    where = "address" if isinstance(scheduler, str) else "scheduler_file"
    try:
        client = distributed.Client(**{where: str(scheduler)}, timeout=PATIENCE_S)
    except (OSError, distributed.TimeoutError, ValueError) as error:
        raise WorkerError(
            f"the scheduler {scheduler} does not answer ({error}); start one with dask scheduler, "
            "and workers with dask worker --nthreads 1"
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=PATIENCE_S)
        except distributed.TimeoutError as error:
            raise WorkerError(
                f"the scheduler {scheduler} has no workers; start some with "
                "dask worker --nthreads 1"
            ) from error
        if max(client.nthreads().values()) > 1:
            raise UsageError(
                "workers of this cluster do several tasks in one process, and a task needs a "
                "process of its own: start them with dask worker --nthreads 1"
            )
        yield client


def _here(function: Callable[[Task], Result], _level: int, task: Task) -> tuple[Result, Any]:
    return function(task), ()


# What follows runs in the workers. A handler of signals can only be told by globals where it comes.

_at_work = False
_stopped = False


def _elsewhere(
    function: Callable[[Task], Result], level: int, task: Task
) -> tuple[Result, list[logging.LogRecord]]:
    """Do a task; its log records come with its result, or with its error."""
    global _at_work
    with logs.collected(level) as records:
        try:
            try:
                _at_work = True
                return function(task), records
            except Exception as error:
                error.__dict__["records"] = records
                raise
            finally:
                _at_work = False
                if _stopped:  # and something has swallowed the exception
                    os._exit(_STOPPED)
        except SystemExit:  # the executor would take it for an error of the task and go on
            os._exit(_STOPPED)


def _start(parent: int) -> None:
    """Prepare a worker process, before it imports what computes."""
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
    logging.captureWarnings(True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stop)
    # Where the parent was killed nobody ends its workers, and nothing else tells them of it.
    signal.signal(signal.SIGALRM, partial(_stop_orphan, parent))
    signal.setitimer(signal.ITIMER_REAL, _ORPHAN_S, _ORPHAN_S)


def _stop(*_: object) -> None:
    """Unwind what this worker is at, so that its temporary files are removed, and end it."""
    global _stopped
    if not _at_work:
        os._exit(_STOPPED)
    if not _stopped:  # a second signal would cut the unwinding short
        _stopped = True
        raise SystemExit(_STOPPED)


def _stop_orphan(parent: int, *_: object) -> None:
    if os.getppid() != parent:
        _stop()
