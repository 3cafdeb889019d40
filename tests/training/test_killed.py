"""SIGKILL at any moment of the command `sct_train_lesion`, and what comes of it."""

import csv
import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from sct_lesion_losses.training.callbacks import CHECKPOINT, LOG

OPTIONS = (
    *("-filters", "4", "8", "-batch", "2", "-patches_per_epoch", "8", "-validation_patches", "2"),
    *("-rate", "0.01", "-patience", "1", "-intensity", "0.5", "-ema", "0.9"),
)
LEFT = {CHECKPOINT, LOG, ".lock", "split.tsv", "training.png"}
CODE = "import sys; from sct_lesion_losses.cli.train import main; sys.exit(main())"


def start(
    backend: str, cohort: Path, folder: Path, *more: str, epochs: int = 7
) -> subprocess.Popen[str]:
    """Start the command; what it logs can be read from its stderr."""
    if find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    environment = os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-c", CODE, "-i", str(cohort), "-ofolder", str(folder), *OPTIONS]
    return subprocess.Popen(
        [*command, "-epochs", str(epochs), *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def wait_for(training: subprocess.Popen[str], words: str) -> None:
    """Read what a command logs until a line holds these words."""
    assert training.stderr is not None
    for line in training.stderr:
        if words in line:
            return
    raise AssertionError(f"the command ended without {words!r}")


def state_of(folder: Path) -> tuple[str, list[tuple[str, ...]]]:
    """Hash of the weights of a bundle, and its log without the seconds."""
    weights = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
    with (folder.with_name(folder.name + ".training") / LOG).open() as stream:
        return weights, [tuple(row.values())[:-1] for row in csv.DictReader(stream)]


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_a_training_killed_at_random_moments_ends_with_the_same_weights_to_the_bit(
    backend, cohort, tmp_path
):
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    _, errors = (whole := start(backend, cohort, tmp_path / "whole")).communicate()
    assert whole.returncode == 0, errors
    with (tmp_path / "whole.training" / LOG).open() as stream:
        epoch_s = min(float(row["seconds"]) for row in csv.DictReader(stream))
    folder = tmp_path / "parts"
    for kill in range(3):
        training = start(backend, cohort, folder, "-resume", "1")
        wait_for(training, "patches a step: 2")
        if chance.random() < 0.7:
            wait_for(training, "epoch ")
        time.sleep(chance.uniform(0, epoch_s))  # three of these, and no last epoch
        training.send_signal(signal.SIGKILL)
        training.communicate()
        assert not (folder / "bundle.json").exists(), f"seed {seed}, kill {kill}"
    last = start(backend, cohort, folder, "-resume", "1")
    _, errors = last.communicate()
    assert last.returncode == 0, errors
    assert state_of(folder) == state_of(tmp_path / "whole"), f"seed {seed}"
    assert {path.name for path in folder.with_name("parts.training").iterdir()} == LEFT


@pytest.mark.slow
@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_training_that_is_stopped_ends_within_seconds_and_can_be_resumed(
    name, status, cohort, tmp_path
):
    longer = ("-patches_per_epoch", "100")
    whole, folder = tmp_path / "whole", tmp_path / "b"
    _, errors = (through := start("tensorflow", cohort, whole, *longer, epochs=2)).communicate()
    assert through.returncode == 0, errors
    began = time.monotonic()
    training = start("tensorflow", cohort, folder, *longer, epochs=1000)
    wait_for(training, "epoch 1 of 1000: loss")
    time.sleep(0.3)  # some of the 50 steps of the second epoch
    sent = time.monotonic()
    training.send_signal(getattr(signal, name))
    _, errors = training.communicate()
    # On a machine with other work, seconds are what its start took a minute or more for.
    assert time.monotonic() - sent < max(10, (sent - began) / 2)
    assert training.returncode == status, errors
    assert "stopped: the state after epoch 1 is kept in b.training; sct_train_lesion" in errors
    assert "Traceback" not in errors
    assert not folder.exists()
    left = {path.name for path in folder.with_name("b.training").iterdir()}
    assert left <= LEFT  # the picture may just have been drawn
    last = start("tensorflow", cohort, folder, *longer, "-resume", "1", epochs=2)
    _, errors = last.communicate()
    assert last.returncode == 0, errors
    assert state_of(folder) == state_of(whole)
