"""Tasks for worker processes, which import them from here."""

import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from sct_lesion_losses import executor, logs
from sct_lesion_losses.cli.parser import Terminated, sigterm
from sct_lesion_losses.errors import DataError
from sct_lesion_losses.images.atomic import replacing


@contextmanager
def cluster(workers: int = 2, threads: int = 1, processes: bool = True) -> Iterator[Any]:
    """Start a cluster here; the test is skipped without Dask. Its $OMP_NUM_THREADS is undone."""
    import pytest

    dask = pytest.importorskip("distributed")
    with (
        mock.patch.dict(os.environ),
        dask.LocalCluster(
            n_workers=workers,
            threads_per_worker=threads,
            processes=processes,
            dashboard_address=None,
            memory_limit=0,
        ) as made,
    ):
        yield made


def slower_first(number: int) -> int:
    time.sleep(0.2 if number == 0 else 0)
    return number * number


def of_environment(name: str) -> str:
    return os.environ[name]


def refuse_odd(task: tuple[int, Path]) -> None:
    number, folder = task
    if number % 2:
        raise DataError(f"scan {number}: odd")
    time.sleep(0.3)
    (folder / str(number)).touch()


def warn_and_fail(scan: Path) -> None:
    with logs.about(scan):
        logging.getLogger("sct_lesion_losses.tasks").warning("%d slices are lost", 3)
        raise DataError("lost")


def die_once(path: Path) -> str:
    """Lose the worker at the first time where the file is called c."""
    before = f"{path.read_text()} " if path.exists() else ""
    path.write_text(f"{before}{os.getpid()}")
    if path.name == "c" and not before:
        os._exit(1)
    return path.name


def die_at_third(number: int) -> int:
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.05)
    return number


def lose_scheduler(process: int) -> None:
    """Kill the process of the scheduler, or wait until this worker is ended with it."""
    if process:
        time.sleep(0.3)
        os.kill(process, signal.SIGKILL)
    time.sleep(2)


def write_for_ever(path: Path) -> None:
    """Write the process's number, then hang in the middle of writing the file."""
    with replacing(path):
        path.with_suffix(".pid").write_text(str(os.getpid()))
        time.sleep(600)


def main() -> None:
    """Start two workers that never end; a signal is to end them."""
    folder = Path(sys.argv[1])
    try:
        with sigterm():
            executor.run(write_for_ever, [folder / "a.bin", folder / "b.bin"], 2)
    except (Terminated, KeyboardInterrupt) as stopped:
        sys.exit(type(stopped).__name__)


if __name__ == "__main__":
    main()
