from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from sct_lesion_losses.errors import TrainingError, UsageError, WorkerError
from sct_lesion_losses.study import cluster
from sct_lesion_losses.study.stages import Ledger, Stage, run

distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.filterwarnings("default")  # of the libraries of the cluster


def work(path: Path, what: str, _: object) -> None:
    """Write a file; fail, or lose the worker the first time, where that is asked for."""
    begun = path.with_suffix(".begun")
    if what == "fail":
        raise TrainingError(f"{path.name} cannot be trained")
    if what == "lost" and not begun.exists():
        begun.write_text(str(os.getpid()))
        os._exit(1)
    path.write_text(str(os.getpid()))


def stage(path: Path, what: str) -> Stage:
    run_it = functools.partial(work, path, what)
    return Stage(f"train {path.name}", lambda _: {}, run_it, lambda: [path], remote=True)


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


def test_trainings_are_done_by_workers_and_a_lost_one_is_replaced(
    local: Any, tmp_path: Path
) -> None:
    stages = [stage(tmp_path / name, name) for name in ("good", "lost", "fail")]
    ledger = Ledger(tmp_path)
    with cluster.connected(local.scheduler_address, None) as client:
        workers = functools.partial(cluster.workers_of, client)
        results = run(stages, ledger, workers)
        again = run(stages[:2], ledger, workers)
    assert {name: found.outcome for name, found in results.items()} == {
        "train good": "done",
        "train lost": "done",
        "train fail": "failed",
    }
    assert results["train fail"].why == "fail cannot be trained"
    pids = {(tmp_path / name).read_text() for name in ("good", "lost")}
    assert str(os.getpid()) not in pids
    assert (tmp_path / "lost").read_text() != (tmp_path / "lost.begun").read_text()
    assert {found.outcome for found in again.values()} == {"kept"}


def test_a_worker_that_does_several_at_once_is_refused() -> None:
    class Client:
        def scheduler_info(self) -> dict[str, Any]:
            return {"workers": {"a": {"nthreads": 1}, "b": {"nthreads": 4}}}

    with pytest.raises(UsageError, match="--nthreads 1"):
        cluster._require_one_each(Client())


def test_a_scheduler_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "PATIENCE_S", 0.5)
    with (
        pytest.raises(WorkerError, match=r"tcp://127.0.0.1:9 does not answer"),
        cluster.connected("tcp://127.0.0.1:9", None),
    ):
        pass


def test_a_scheduler_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(UsageError, match=r"none.json: no such file"),
        cluster.connected(None, tmp_path / "none.json"),
    ):
        pass


def test_without_distributed_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    with (
        pytest.raises(UsageError, match=r"sct_lesion_losses\[cluster\]"),
        cluster.connected("tcp://127.0.0.1:9", None),
    ):
        pass
