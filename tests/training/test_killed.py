"""SIGKILL at any step of a training, and what comes of it."""

from __future__ import annotations

import csv
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sct_lesion_losses.training import running

SCRIPT = Path(__file__).resolve().parents[1] / "training_process.py"
STEPS = 12  # three epochs of four
NEVER = "1e9"  # kept at the end of an epoch alone


def start(folder: Path, keep_every_s: str) -> subprocess.Popen[str]:
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, str(SCRIPT), str(folder), keep_every_s]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def kill_after(training: subprocess.Popen[str], steps: int, pause_s: float) -> None:
    """Kill a training a moment after it has taken so many steps."""
    assert training.stdout is not None
    for _ in range(steps):
        assert len(training.stdout.readline().split()) == 2
    time.sleep(pause_s)
    training.send_signal(signal.SIGKILL)
    training.communicate()


def history(folder: Path) -> list[tuple[str, ...]]:
    with (folder / running.LOG).open() as stream:
        return [tuple(row.values())[:-1] for row in csv.DictReader(stream)]  # without the seconds


@pytest.mark.slow
def test_a_training_killed_at_random_steps_ends_with_the_same_weights_to_the_bit(tmp_path):
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    whole = start(tmp_path / "whole", NEVER)
    in_parts = tmp_path / "parts"
    for keep_every_s in ("0", NEVER, "0"):
        training = start(in_parts, keep_every_s)
        kill_after(training, chance.randint(1, 3), pause_s=chance.uniform(0, 0.03))
    last, _ = start(in_parts, "0").communicate()
    expected, _ = whole.communicate()
    assert last.splitlines()[-1] == expected.splitlines()[-1], f"seed {seed}"
    assert history(in_parts) == history(tmp_path / "whole"), f"seed {seed}"
    # It went on: the last call did not begin at the beginning.
    assert len(last.splitlines()) - 1 < STEPS, f"seed {seed}"
    assert {path.name for path in in_parts.iterdir()} == {running.CHECKPOINT, running.LOG}
