"""One function over many tasks: in this process, in worker processes, or on a cluster.

A task whose worker is lost is done again by another, so that tasks are to be idempotent. What a
worker logs is logged again here, with the name of the scan that it was at. Worker processes are
started afresh, ignore Ctrl-C, compute in one thread each and end with the process that started
them, however it ends; a task that is stopped can still remove what it has begun to write.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent import futures
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from functools import partial
from multiprocessing import active_children, current_process, get_context
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from sct_lesion_losses import logs
from sct_lesion_losses.errors import UsageError, WorkerError

PATIENCE_S = 30.0  # for a scheduler to answer, and for its first worker
_ORPHAN_S = 1.0  # how often a worker looks whether its parent is there
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_STOPPED = 143  # exit status after SIGTERM
_LOST = ("BrokenProcessPool", "KilledWorker")  # of concurrent.futures; of dask.distributed

Jobs: TypeAlias = int | str | Path
Task = TypeVar("Task")
Result = TypeVar("Result")
Progress = Callable[[int, int], None]
# Number of a task, and its result or its error
Outcomes: TypeAlias = Generator[tuple[int, Any, BaseException | None], None, None]


def run(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    jobs: Jobs = 1,
    *,
    name: Callable[[Task], str] = str,
    progress: Progress | None = None,
    failed: Callable[[Task, BaseException], Result] | None = None,
) -> list[Result]:
    """Return what a function makes of every task.

    Parameters
    ----------
    function : callable
        Of one task; workers import it, as they do the tasks.
    tasks : sequence
    jobs : int, str or Path
        1 for this process; more, or a cluster, for the workers of `pool`. One task alone is done in
        this process, unless there is a cluster.
    name : callable, optional
        What a task is called in messages.
    progress : callable, optional
        Called with (done, total).
    failed : callable, optional
        Makes a result of a task and its error, as soon as it is there, and the other tasks go on.

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
    in_turn = partial(_by_workers, jobs=jobs) if jobs != 1 else _one_by_one
    results: dict[int, Result] = {}
    errors: dict[int, BaseException] = {}
    with closing(in_turn(function, tasks, first_error_ends=failed is None)) as outcomes:
        for number, result, error in outcomes:
            if error is None:
                results[number] = result
            elif failed is None:
                errors[number] = _named(error, name(tasks[number]))
            else:
                task = tasks[number]
                results[number] = failed(task, _named(error, name(task)))
            if progress is not None and not errors:
                progress(len(results), len(tasks))
    if errors:
        raise errors[min(errors)]
    return [results[number] for number in range(len(tasks))]


def pool(jobs: Jobs) -> AbstractContextManager[futures.Executor]:
    """Give an executor for the length of a block; an error ends what it is at.

    Parameters
    ----------
    jobs : int, str or Path
        Number of worker processes; or the address of a scheduler of dask.distributed,
        ``tcp://host:8786``, or the file that it wrote its address to, for the workers that the site
        has started.

    Raises
    ------
    UsageError
        There is no such file, `distributed` is not installed, or a worker of the cluster would do
        several tasks in one process.
    WorkerError
        The scheduler does not answer, or has no workers.
    """
    return _processes(jobs) if isinstance(jobs, int) else _cluster(jobs)


def _one_by_one(
    function: Callable[[Task], Result], tasks: Sequence[Task], first_error_ends: bool
) -> Outcomes:
    """Do every task in this process, as its outcome is asked for."""
    for number, task in enumerate(tasks):
        try:
            result, error = function(task), None
        except Exception as raised:
            result, error = None, raised
        yield number, result, error
        if error is not None and first_error_ends:
            return


def _by_workers(
    function: Callable[[Task], Result], tasks: Sequence[Task], first_error_ends: bool, jobs: Jobs
) -> Outcomes:
    """Let workers do the tasks; log what they logged, and yield the outcomes as they come.

    No more tasks are under way than there are workers, so that the results of a worker that is lost
    are here already.
    """
    call = partial(_collecting, function, logs.level())
    fixed = jobs if isinstance(jobs, int) else 1
    ahead = deque(enumerate(tasks))
    while ahead:
        running: dict[futures.Future[Any], tuple[int, Task]] = {}
        lost: list[tuple[int, Task]] = []
        with pool(jobs) as workers:
            while running or (ahead and not lost):
                at_once = workers.size() if isinstance(workers, _ClusterExecutor) else fixed
                while ahead and not lost and len(running) < at_once:
                    item = ahead.popleft()
                    try:
                        running[workers.submit(call, item[1])] = item
                    except BrokenProcessPool:
                        lost.append(item)
                for future in futures.wait(running, return_when=futures.FIRST_COMPLETED).done:
                    if future not in running:
                        continue
                    item = running.pop(future)
                    result, error = _outcome(future)
                    if type(error).__name__ in _LOST:
                        lost.append(item)
                        continue
                    if error and first_error_ends:
                        ahead.clear()
                        running = {f: kept for f, kept in running.items() if not f.cancel()}
                    yield item[0], result, error
        for number, task in sorted(lost, key=lambda item: item[0]):
            # Which of them killed its worker, and which was only waiting there, is seen now.
            with pool(1 if isinstance(jobs, int) else jobs) as alone:
                result, error = _outcome(alone.submit(call, task))
            if error and first_error_ends:
                ahead.clear()
            yield number, result, error


def _outcome(future: futures.Future[Any]) -> tuple[Any, BaseException | None]:
    """Wait for a task; log what it logged, and return its result or its error."""
    try:
        error = future.exception()
    except futures.CancelledError as cancelled:
        error = cancelled
    if error is None:
        result, records = future.result()
    else:
        result, records = None, error.__dict__.pop("records", ())
    for record in records:
        source = logging.getLogger(record.name)
        if source.isEnabledFor(record.levelno):
            source.handle(record)
    return result, error


def _named(error: BaseException, task: str) -> BaseException:
    """Say at which task a worker was lost; other errors say it themselves."""
    again = "what was finished is kept, start again"
    lost = "CancelledError" if isinstance(error, futures.CancelledError) else type(error).__name__
    why = {
        "BrokenProcessPool": "a worker process was killed, and another one again, for want of "
        f"memory perhaps; {again} with fewer -jobs",
        "KilledWorker": f"its workers were lost, one after the other; {again}",
        "CancelledError": f"the scheduler of the cluster was lost; {again}",
    }.get(lost)
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
def _cluster(scheduler: str | Path) -> Iterator[futures.Executor]:
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
        with suppress(distributed.TimeoutError):
            client.wait_for_workers(1, timeout=PATIENCE_S)
        threads = client.nthreads().values()
        if not threads:
            raise WorkerError(
                f"the scheduler {scheduler} has no workers; start some with "
                "dask worker --nthreads 1"
            )
        if max(threads) > 1:
            raise UsageError(
                "workers of this cluster do several tasks in one process, and a task needs a "
                "process of its own: start them with dask worker --nthreads 1"
            )
        yield _ClusterExecutor(client)


class _ClusterExecutor(futures.Executor):
    """Tasks on a cluster as futures of `concurrent.futures`.

    The executor that distributed has of its own takes a result for an error where its worker is
    lost as it comes.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> futures.Future[Any]:
        task = self._client.submit(function, *args, **kwargs, pure=False)

        async def outcome() -> Any:
            try:
                return await task
            except asyncio.CancelledError:
                await task.cancel()
                raise

        return asyncio.run_coroutine_threadsafe(outcome(), self._client.loop.asyncio_loop)

    def size(self) -> int:
        """Return how many workers there are now, 1 where there is none or no scheduler."""
        try:
            return max(1, len(self._client.nthreads()))
        except (OSError, RuntimeError, ValueError):  # the tasks say that the scheduler was lost
            return 1


# What follows runs in the workers. A handler of signals can only be told by globals where it comes.

_at_work = False
_stopped = False


def _collecting(
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
