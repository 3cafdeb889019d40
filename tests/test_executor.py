import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import worker_tasks

from sct_lesion_losses import executor
from sct_lesion_losses.errors import DataError, UsageError, WorkerError


def text_of(_: object, error: BaseException) -> str:
    return str(error)


@pytest.mark.parametrize("jobs", [1, 2])
def test_results_come_in_the_order_of_the_tasks(jobs: int) -> None:
    told = []

    def progress(done: int, total: int) -> None:
        told.append((done, total))

    assert executor.run(worker_tasks.slower_first, range(4), jobs, progress=progress) == [
        0,
        1,
        4,
        9,
    ]
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert executor.run(worker_tasks.slower_first, [], jobs, progress=progress) == []


def test_a_worker_computes_in_one_thread() -> None:
    names = ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"]
    assert executor.run(worker_tasks.of_environment, names, 2) == ["1", "1", "1"]


def test_what_a_worker_logs_is_logged_here_with_the_name_of_its_scan_even_where_it_fails(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    scans = [Path("/data/a.nii.gz"), Path("/data/b.nii.gz")]
    found = executor.run(worker_tasks.warn_and_fail, scans, 2, failed=text_of)
    assert found == ["a.nii.gz: lost", "b.nii.gz: lost"]
    assert sorted(caplog.messages) == ["a.nii.gz: 3 slices are lost", "b.nii.gz: 3 slices are lost"]
    assert capfd.readouterr().err == ""


def test_the_first_error_is_raised_here_and_what_runs_beside_it_is_finished_and_no_more_begun(
    tmp_path: Path,
) -> None:
    tasks = [(number, tmp_path) for number in (0, 1, 2, 4)]
    with pytest.raises(DataError, match=r"^scan 1: odd$") as raised:
        executor.run(worker_tasks.refuse_odd, tasks, 2)
    assert "in refuse_odd" in str(raised.value.__cause__)
    assert [path.name for path in tmp_path.iterdir()] == ["0"]


@pytest.mark.parametrize("jobs", [1, 2])
def test_errors_take_the_place_of_results_where_the_others_are_to_go_on(
    jobs: int, tmp_path: Path
) -> None:
    tasks = [(number, tmp_path) for number in range(4)]
    told = []
    found = executor.run(
        worker_tasks.refuse_odd, tasks, jobs, progress=lambda *now: told.append(now), failed=text_of
    )
    assert found == [None, "scan 1: odd", None, "scan 3: odd"]
    assert told == [(done, 4) for done in (1, 2, 3, 4)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "2"]


def test_a_task_whose_worker_was_killed_is_done_again(tmp_path: Path) -> None:
    tasks = [tmp_path / name for name in "abcde"]
    assert executor.run(worker_tasks.die_once, tasks, 2) == list("abcde")


def test_a_task_that_kills_its_workers_is_named_and_ends_no_other() -> None:
    def name(number: int) -> str:
        return f"scan-{number}"

    found = executor.run(worker_tasks.die_at_third, range(5), 2, name=name, failed=text_of)
    assert re.match(r"scan-2: a worker process was killed.*fewer -jobs", found[2])
    assert found[:2] + found[3:] == [0, 1, 3, 4]
    with pytest.raises(WorkerError, match=r"^scan-2: a worker process was killed"):
        executor.run(worker_tasks.die_at_third, range(9), 2, name=name)


@pytest.mark.parametrize(
    ("with_signal", "said"),
    [
        (signal.SIGTERM, "Terminated\n"),
        (signal.SIGINT, "KeyboardInterrupt\n"),
        (signal.SIGKILL, None),  # the leftovers of a killed process may be told of
    ],
)
def test_workers_end_with_their_parent_and_remove_what_they_had_begun(
    with_signal: signal.Signals, said: str | None, tmp_path: Path
) -> None:
    with subprocess.Popen(
        [sys.executable, worker_tasks.__file__, str(tmp_path)], stderr=subprocess.PIPE, text=True
    ) as process:
        until(lambda: len([p for p in tmp_path.glob("*.pid") if p.read_text()]) == 2)
        workers = [int(path.read_text()) for path in tmp_path.glob("*.pid")]
        process.send_signal(with_signal)
        process.wait(timeout=30)
        until(lambda: not any(alive(worker) for worker in workers))
        _, err = process.communicate(timeout=30)
    assert said is None or err == said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pid", "b.pid"]


def until(holds: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def alive(process: int) -> bool:
    """Tell whether a process runs; one that has ended and waits to be reaped does not."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{process}/stat")
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"


OF_DISTRIBUTED = pytest.mark.filterwarnings("default")  # its libraries warn


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Address of a cluster of two worker processes here."""
    with worker_tasks.cluster() as made:
        yield made.scheduler_address


@OF_DISTRIBUTED
def test_tasks_are_done_by_the_workers_of_a_cluster_and_a_lost_one_is_replaced(
    cluster: str, tmp_path: Path
) -> None:
    tasks = [tmp_path / name for name in "abcde"]
    assert executor.run(worker_tasks.die_once, tasks, cluster) == list("abcde")
    first, _, last = (tmp_path / "c").read_text().partition(" ")
    assert str(os.getpid()) not in (first, last)
    assert first != last


@OF_DISTRIBUTED
def test_errors_and_warnings_of_a_cluster_are_those_of_its_tasks(
    cluster: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tasks = [(number, tmp_path) for number in range(3)]
    found = executor.run(worker_tasks.refuse_odd, tasks, cluster, failed=text_of)
    assert found == [None, "scan 1: odd", None]
    with pytest.raises(DataError, match="lost"):
        executor.run(worker_tasks.warn_and_fail, [Path("/data/a.nii.gz")], cluster)
    said = [r.getMessage() for r in caplog.records if r.name.startswith("sct_lesion_losses")]
    assert said == ["a.nii.gz: 3 slices are lost"]
    with pytest.raises(WorkerError, match=r"^scan-2: its workers were lost, one after the other"):
        executor.run(worker_tasks.die_at_third, range(3), cluster, name=lambda n: f"scan-{n}")


@OF_DISTRIBUTED
@pytest.mark.parametrize(
    ("workers", "threads", "error"), [(1, 2, "--nthreads 1"), (0, 1, "has no workers; start some")]
)
def test_a_cluster_that_cannot_be_used_is_refused(
    workers: int, threads: int, error: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "PATIENCE_S", 1)
    with (
        worker_tasks.cluster(workers, threads, processes=False) as made,
        pytest.raises((UsageError, WorkerError), match=error),
    ):
        executor.run(worker_tasks.slower_first, range(2), made.scheduler_address)


@OF_DISTRIBUTED
def test_a_scheduler_that_is_lost_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr(executor, "PATIENCE_S", 5)
    where = tmp_path / "scheduler.json"
    start = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
    options = ["--scheduler-file", str(where)]
    begin = partial(subprocess.Popen, stderr=subprocess.DEVNULL, cwd=Path(__file__).parent)
    worker_of = [sys.executable, "-m", "distributed.cli.dask_worker", "--nthreads", "1"]
    with (
        begin([*start, *options, "--port", "0", "--no-dashboard"]) as scheduler,
        begin([*worker_of, *options]) as worker,
    ):
        try:
            until(where.exists)
            with pytest.raises(WorkerError, match="the scheduler of the cluster was lost"):
                executor.run(worker_tasks.lose_scheduler, [scheduler.pid, 0, 0], where)
        finally:
            scheduler.kill()
            worker.kill()


@OF_DISTRIBUTED
def test_a_scheduler_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "PATIENCE_S", 0.5)
    for scheduler, said in (
        (tmp_path / "none.json", r"none.json: no such file"),
        ("tcp://127.0.0.1:9", r"tcp://127.0.0.1:9 does not answer|sct_lesion_losses\[cluster\]"),
    ):
        with pytest.raises((UsageError, WorkerError), match=said):
            executor.run(worker_tasks.slower_first, [0], scheduler)
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UsageError, match=r"sct_lesion_losses\[cluster\]"):
        executor.run(worker_tasks.slower_first, [0], "tcp://127.0.0.1:9")
