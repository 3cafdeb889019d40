"""Steps per second of a training, against bare loops on patches already in memory.

    python benchmarks/training.py [-precision float32] [-turns 8] [-backend tensorflow] [-torch 1]

Three processes take turns of some steps, the others wait: this package's training (batches drawn,
augmented, the state kept), a bare `keras.Model.fit` of the same network on arrays in memory, and
plain torch in float32 with the same network, where torch is installed. Their ratio is that of the
median turns. To reach: 0.95 of the bare loop (0.90 on a GPU), 1.0 of torch.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

BATCH = 8
PATCH_VOX = 48
SCANS = 12
SLICES = 120


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("-precision", default="float32")
    parser.add_argument("-backend", default="tensorflow")
    parser.add_argument("-torch", default="float32", help="float32, bfloat16 or none")
    parser.add_argument("-turns", type=int, default=8)
    parser.add_argument("-steps", type=int, default=4, help="steps of a turn")
    parser.add_argument("-worker", choices=sorted(WORKERS))
    given = parser.parse_args()
    if given.worker:
        WORKERS[given.worker](given)
        return
    names = ["package", "bare"] + (["torch"] if given.torch != "none" else [])
    workers = {name: _start(name) for name in names}
    for worker in workers.values():
        _turn(worker)  # the first turn warms up
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(given.turns):
        for name, worker in workers.items():
            seconds[name].append(_turn(worker))
    for worker in workers.values():
        worker.kill()
    print(f"{given.backend} {given.precision}, torch {given.torch}, batch {BATCH}")
    for name in names:
        rate = given.steps / statistics.median(seconds[name])
        print(f"{name:8} {rate:6.3f} steps/s, {rate * BATCH:6.2f} patches/s")
    for name in names[1:]:
        ratios = [b / a for a, b in zip(seconds["package"], seconds[name], strict=True)]
        print(f"package / {name}: median {statistics.median(ratios):.3f} over {len(ratios)} turns")


def _start(name: str) -> subprocess.Popen[str]:
    command = [sys.executable, *sys.argv, "-worker", name]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def _turn(worker: subprocess.Popen[str]) -> float:
    """Let a process take its steps; return the seconds they took."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write("go\n")
    worker.stdin.flush()
    line = worker.stdout.readline()
    if not line:
        sys.exit("a process ended; run it alone with -worker to see why")
    return float(line)


class Turns:
    """Called after every step of a process: waits for its turn, and says how long the last took."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._left = 1  # the step before the first turn compiles the network
        self._began: float | None = None

    def __call__(self, *_: Any) -> None:
        self._left -= 1
        if self._left:
            return
        if self._began is not None:
            print(time.perf_counter() - self._began, flush=True)
        if not sys.stdin.readline():
            sys.exit()
        self._left, self._began = self._steps, time.perf_counter()


def _cohort() -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    shape = (SCANS, PATCH_VOX, PATCH_VOX, SLICES)
    values = rng.normal(size=shape).astype(np.float32)
    lesions = np.zeros(shape, bool)
    lesions[:, 20:28, 20:28, 30:60] = True
    return list(zip(values + np.float32(2) * lesions, lesions, strict=True))


def _recipe(given: argparse.Namespace) -> Any:
    from sct_lesion_losses.training.recipe import study

    return study(precision=given.precision, epochs_planned=10_000, validation_patches=BATCH)


def _package(given: argparse.Namespace) -> None:
    os.environ["KERAS_BACKEND"] = given.backend
    import keras

    from sct_lesion_losses.preprocessing.cache import TrainingCrop
    from sct_lesion_losses.training import fit

    turns, recipe = Turns(given.steps), _recipe(given)
    tubes = [TrainingCrop(values, lesion) for values, lesion in _cohort()]
    with tempfile.TemporaryDirectory() as folder:
        fit.fit(
            tubes,
            tubes[:1],
            recipe,
            Path(folder),
            fit.begin(recipe, Path(folder)),
            watching=[keras.callbacks.LambdaCallback(on_train_batch_end=lambda _, logs: turns())],
        )


def _bare(given: argparse.Namespace) -> None:
    os.environ["KERAS_BACKEND"] = given.backend
    import keras

    from sct_lesion_losses.training import fit

    patches, lesions = _patches()
    turns = Turns(given.steps)
    fit.compiled(_recipe(given)).fit(
        patches[..., None],
        lesions[..., None],
        batch_size=BATCH,
        epochs=10_000,
        verbose=0,
        callbacks=[keras.callbacks.LambdaCallback(on_train_batch_end=lambda _, logs: turns())],
    )


def _patches() -> tuple[np.ndarray, np.ndarray]:
    cohort = _cohort()
    patches = np.stack([values[..., :PATCH_VOX] for values, _ in cohort] * 2)
    lesions = np.stack([lesion[..., :PATCH_VOX] for _, lesion in cohort] * 2)
    return patches, lesions.astype(np.float32)


def _torch(given: argparse.Namespace) -> None:
    import torch
    from torch import nn

    def convolutions(before: int, width: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for channels in (before, width):
            layers += [
                nn.Conv3d(channels, width, 3, padding=1, bias=False),
                nn.BatchNorm3d(width, momentum=0.05),
                nn.ReLU(),
            ]
        return nn.Sequential(*layers)

    class Unet(nn.Module):
        def __init__(self, filters: Sequence[int]) -> None:
            super().__init__()
            ends = list(zip((1, *filters[:-1]), filters, strict=True))
            self.down = nn.ModuleList(convolutions(a, b) for a, b in ends)
            self.up = nn.ModuleList(convolutions(2 * a, a) for a in filters[-2::-1])
            self.wider = nn.ModuleList(
                nn.ConvTranspose3d(b, a, 2, 2)
                for a, b in zip(filters[-2::-1], filters[:0:-1], strict=True)
            )
            self.lesion = nn.Conv3d(filters[0], 1, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            skips = []
            for level in self.down[:-1]:
                skips.append(level(x))
                x = nn.functional.max_pool3d(skips[-1], 2)
            x = self.down[-1](x)
            for wider, level in zip(self.wider, self.up, strict=True):
                x = level(torch.cat([skips.pop(), wider(x)], 1))
            return torch.sigmoid(self.lesion(x).float())

    device = "cuda" if torch.cuda.is_available() else "cpu"
    patches, lesions = (torch.from_numpy(a)[:, None].to(device) for a in _patches())
    model = Unet((16, 32, 64)).to(device)
    optimiser = torch.optim.Adam(model.parameters(), 1e-4)
    half = given.torch == "bfloat16"
    turns = Turns(given.steps)
    while True:
        for start in range(0, len(patches), BATCH):
            p_true = lesions[start : start + BATCH]
            optimiser.zero_grad()
            with torch.autocast(device, torch.bfloat16, enabled=half):
                p = model(patches[start : start + BATCH])
            tp = (p * p_true).sum()
            fn, fp = (p_true * (1 - p)).sum(), (p * (1 - p_true)).sum()
            loss = 1 - (tp + 1) / (tp + 0.7 * fn + 0.3 * fp + 1)
            loss.backward()
            optimiser.step()
            loss.item()
            turns()


WORKERS: dict[str, Callable[[argparse.Namespace], None]] = {
    "package": _package,
    "bare": _bare,
    "torch": _torch,
}


if __name__ == "__main__":
    main()
