from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import worker_tasks

from sct_lesion_losses import executor
from sct_lesion_losses.errors import DataError, WorkerError


@pytest.mark.parametrize("jobs", [1, 2])
def test_results_come_in_the_order_of_the_tasks(jobs: int) -> None:
    told = []
    results = executor.run(
        worker_tasks.slower_first,
        range(4),
        jobs,
        progress=lambda done, total: told.append((done, total)),
    )
    assert results == [0, 1, 4, 9]
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_nothing_to_do_starts_nothing() -> None:
    assert executor.run(worker_tasks.slower_first, [], 8) == []


def test_a_worker_computes_in_one_thread() -> None:
    names = ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"]
    assert executor.run(worker_tasks.of_environment, names, 2) == ["1", "1", "1"]


def test_a_warning_of_a_worker_is_logged_here_with_the_name_of_its_scan(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    executor.run(worker_tasks.warn, [Path("/data/a.nii.gz"), Path("/data/b.nii.gz")], 2)
    assert sorted(caplog.messages) == [
        "a.nii.gz: 3 slices have no point",
        "b.nii.gz: 3 slices have no point",
    ]
    assert capfd.readouterr().err == ""


def test_the_error_of_a_worker_is_raised_here_with_its_traceback(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^scan 1: odd$") as raised:
        executor.run(worker_tasks.refuse_odd, [(1, tmp_path), (3, tmp_path)], 2)
    assert "in refuse_odd" in str(raised.value.__cause__)


def test_what_runs_beside_a_failing_task_is_finished_and_nothing_else_begun(
    tmp_path: Path,
) -> None:
    tasks = [(number, tmp_path) for number in (0, 1, 2, 4)]
    with pytest.raises(DataError, match="scan 1"):
        executor.run(worker_tasks.refuse_odd, tasks, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["0"]


def test_a_killed_worker_is_said_with_what_it_was_at() -> None:
    with pytest.raises(WorkerError, match=r"killed at .*scan-2.*fewer -jobs"):
        executor.run(worker_tasks.die_at_third, range(9), 2, name=lambda n: f"scan-{n}")


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
    """Whether a process runs; one that has ended and waits to be reaped does not."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{process}/stat")
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"
