from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from sct_lesion_losses import executor
from sct_lesion_losses.errors import UsageError, WorkerError

distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.filterwarnings("default")  # of the libraries of the cluster


def write_pid(path: Path) -> int:
    """Write the process that works; lose the worker the first time, where the name asks for it."""
    begun = path.with_suffix(".begun")
    if path.name == "lost" and not begun.exists():
        begun.write_text(str(os.getpid()))
        os._exit(1)
    path.write_text(str(os.getpid()))
    return os.getpid()


@pytest.fixture(scope="module")
def local() -> Iterator[Any]:
    """A cluster of two worker processes on this machine; it sets $OMP_NUM_THREADS, undone here."""
    with (
        mock.patch.dict(os.environ),
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            memory_limit=0,
        ) as made,
    ):
        yield made


def test_workers_do_the_tasks_and_a_lost_one_is_replaced(local: Any, tmp_path: Path) -> None:
    with executor.cluster(local.scheduler_address, None) as pool:
        done = [pool.submit(write_pid, tmp_path / name) for name in ("good", "lost")]
        pids = [future.result() for future in done]
    assert os.getpid() not in pids
    assert (tmp_path / "lost").read_text() != (tmp_path / "lost.begun").read_text()


def test_a_scheduler_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "PATIENCE_S", 0.5)
    with (
        pytest.raises(WorkerError, match=r"tcp://127.0.0.1:9 does not answer"),
        executor.cluster("tcp://127.0.0.1:9", None),
    ):
        pass


def test_a_scheduler_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(UsageError, match=r"none.json: no such file"),
        executor.cluster(None, tmp_path / "none.json"),
    ):
        pass


def test_without_distributed_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    with (
        pytest.raises(UsageError, match=r"sct_lesion_losses\[cluster\]"),
        executor.cluster("tcp://127.0.0.1:9", None),
    ):
        pass
