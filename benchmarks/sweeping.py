"""All thresholds of a scan's p-map in one sweep, against binarising and scoring at each.

    python benchmarks/sweeping.py [-n 161] [-naive 5] [-preset paper]

Simulates the p-map of one scan at a time, 320 x 320 x 15 voxels of 0.5 x 0.5 x 3 mm: 0 outside a
tube of 24 mm along a curved cord, in it smooth blobs about the true lesions, false ones, and a
haze of low probabilities. Sweeps 21 thresholds, voxel- and lesion-wise, and scores the first
-naive scans at every threshold, too, on the same scans in turn. Prints CPU times. To reach: 161
scans in 20 s.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
from scipy import ndimage

from sct_lesion_losses.metrics import lesion, voxel
from sct_lesion_losses.operating_point import THRESHOLDS, binarize, sweep, sweep_lesions

SHAPE = (320, 320, 15)
SPACING_MM = (0.5, 0.5, 3.0)
TUBE_VOX = 48


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("-n", type=int, default=161, help="scans")
    parser.add_argument("-naive", type=int, default=5, help="scans to score at each threshold")
    parser.add_argument("-preset", default="paper")
    parser.add_argument("-seed", type=int, default=0)
    given = parser.parse_args()
    rng = np.random.default_rng(given.seed)
    ways: dict[str, Callable[[np.ndarray, np.ndarray], object]] = {
        "voxel-wise, sweep": sweep,
        "lesion-wise, sweep": lambda truth, pmap: sweep_lesions(
            truth, pmap, SPACING_MM, given.preset
        ),
        "voxel-wise, each": lambda truth, pmap: [
            voxel.score(truth, binarize(pmap, t)) for t in THRESHOLDS
        ],
        "lesion-wise, each": lambda truth, pmap: [
            lesion.score(truth, binarize(pmap, t), SPACING_MM, given.preset) for t in THRESHOLDS
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
    both = sum(times["voxel-wise, sweep"]) + sum(times["lesion-wise, sweep"])
    print(f"{given.n} scans, both kinds: {both:.1f} s, 161 take {both / given.n * 161:.1f} s")


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
