"""All thresholds of a scan's p-map in one sweep, against binarising and scoring at each.

    python benchmarks/sweeping.py [-n 161] [-naive 5] [-preset paper] [-stored 0]

Simulates the p-map of one scan at a time, 320 x 320 x 15 voxels of 0.5 x 0.5 x 3 mm: 0 outside a
tube of 24 mm along a curved cord, in it smooth blobs about the true lesions, false ones, and a
haze of low probabilities. Sweeps 21 thresholds, voxel- and lesion-wise, and scores the first
-naive scans at every threshold, too, on the same scans in turn. Prints CPU times. To reach: 161
scans in 20 s.

With -stored N it does another thing: it keeps N masks and p-maps as .npy files in a temporary
folder (8 MB a scan) and times tuning from them in one process on one core: reading, 21 thresholds
voxel-wise and lesion-wise by every preset, and the choice with its bootstrap. So it does with 4 N
scans, each file read four times, and prints by how much either process grew at its peak: memory
that does not grow with the scans is about the same for both. Linux only.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from scipy import ndimage

from sct_lesion_losses.metrics import lesionwise, voxelwise
from sct_lesion_losses.thresholds import THRESHOLDS, binarize, choose, count, sweep

SHAPE = (320, 320, 15)
SPACING_MM = (0.5, 0.5, 3.0)
TUBE_VOX = 48
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("-n", type=int, default=161, help="scans")
    parser.add_argument("-naive", type=int, default=5, help="scans to score at each threshold")
    parser.add_argument("-preset", default="paper")
    parser.add_argument("-seed", type=int, default=0)
    parser.add_argument("-stored", type=int, default=0, help="scans to tune on from files")
    given = parser.parse_args()
    if given.stored:
        tune_on_files(given.stored, given.seed)
        return
    rng = np.random.default_rng(given.seed)
    ways: dict[str, Callable[[np.ndarray, np.ndarray], object]] = {
        "voxel-wise, sweep": sweep,
        "lesion-wise, sweep": lambda truth, pmap: count(
            truth, pmap, SPACING_MM, presets=[given.preset]
        ),
        "voxel-wise, each": lambda truth, pmap: [
            voxelwise.score(truth, binarize(pmap, t)) for t in THRESHOLDS
        ],
        "lesion-wise, each": lambda truth, pmap: [
            lesionwise.score(truth, binarize(pmap, t), SPACING_MM, given.preset) for t in THRESHOLDS
        ],
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for k in range(given.n):
        truth, pmap = simulated(rng)
        for name, way in ways.items():
            if name.endswith("each") and k >= given.naive:
                continue
            start = time.process_time()
            way(truth, pmap)
            times[name].append(time.process_time() - start)
    for name, seconds in times.items():
        if seconds:
            print(
                f"{name:20} median {statistics.median(seconds) * 1000:7.1f} ms a scan, "
                f"worst {max(seconds) * 1000:7.1f} ms"
            )
    for kind in ("voxel-wise", "lesion-wise"):
        pairs = zip(times[f"{kind}, sweep"], times[f"{kind}, each"], strict=False)
        ratios = [a / b for a, b in pairs]
        if ratios:
            print(f"{kind:20} ratio  1/{1 / statistics.median(ratios):.0f}")
    both = sum(times["lesion-wise, sweep"])  # which counts voxels as well
    print(f"{given.n} scans, both kinds: {both:.1f} s, 161 take {both / given.n * 161:.1f} s")


@dataclass(frozen=True)
class Tuning:
    """CPU seconds of a tuning from files, and by how much its process grew at its peak."""

    sweep_s: float
    choice_s: float
    growth_mb: float
    threshold: float


def tune_on_files(n: int, seed: int) -> None:
    """Keep the p-maps of n scans, tune on them and on four times as many, print what that takes."""
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for k in range(n):
            mask, pmap = simulated(rng)
            np.save(folder / f"mask_{k}.npy", mask)
            np.save(folder / f"pmap_{k}.npy", pmap)
        for scans in (n, 4 * n):
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                took = pool.submit(tuned, folder, n, scans).result()
            print(
                f"{scans:5} scans: {took.sweep_s + took.choice_s:6.1f} s (sweeps "
                f"{took.sweep_s:.1f}, choice {took.choice_s:.1f}), peak memory "
                f"+{took.growth_mb:.0f} MB, threshold {took.threshold:g}"
            )


def tuned(folder: Path, n: int, scans: int) -> Tuning:
    """Tune on so many scans, the n there are in turn; runs in a process of its own."""
    before = status_mb("VmRSS")
    start = time.process_time()
    counted = []
    for k in range(scans):
        mask, pmap = (np.load(folder / f"{what}_{k % n}.npy") for what in ("mask", "pmap"))
        counted.append(count(mask, pmap, SPACING_MM))
    swept = time.process_time()
    choice = choose(counted)
    done = time.process_time()
    growth = status_mb("VmHWM") - before
    return Tuning(swept - start, done - swept, growth, choice.threshold)


def status_mb(entry: str) -> float:
    """Memory of this process: VmRSS, what it holds now, or VmHWM, the most that it held."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if entry in line]
    return int(line.split()[1]) / 1024


def simulated(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the manual mask and the p-map of a scan with up to 8 lesions."""
    tube = (TUBE_VOX, TUBE_VOX, SHAPE[2])
    truth, signal = np.zeros(tube, bool), np.zeros(tube)
    at = np.stack(np.meshgrid(*(np.arange(n) for n in tube), indexing="ij"))
    for number in range(rng.integers(9) + rng.integers(6)):
        centre = rng.uniform((14, 14, 1), (34, 34, 14))
        axes = rng.uniform((2, 2, 0.6), (6, 6, 3))
        distance = np.sqrt(
            (((at - centre[:, None, None, None]) / axes[:, None, None, None]) ** 2).sum(0)
        )
        signal = np.maximum(signal, rng.uniform(0.2, 1.1) * np.exp(-(distance**2) / 2))
        if number < 8 and rng.random() < 0.7:
            truth |= distance < 1
    haze = ndimage.gaussian_filter(rng.normal(size=tube), (1.5, 1.5, 0.5))
    signal = np.clip(signal + 0.06 * haze / haze.std(), 0, 1)
    mask, pmap = np.zeros(SHAPE, bool), np.zeros(SHAPE, np.float32)
    centres = 130 + rng.uniform(0, 40, 2)[:, None] + 20 * np.sin(np.arange(SHAPE[2]) / 6)
    for z, (x, y) in enumerate(centres.T.astype(int)):
        window = np.s_[x : x + TUBE_VOX, y : y + TUBE_VOX, z]
        mask[window], pmap[window] = truth[:, :, z], signal[:, :, z]
    return mask, pmap


if __name__ == "__main__":
    main()
