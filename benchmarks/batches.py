"""Preparing a cohort cold and warm, and patches per second out of its cache on one core.

    python benchmarks/batches.py [-n 12] [-preset tiny] [-rounds 5]

Simulates a cohort, cuts and standardises its tubes in new processes: with an empty cache by one and
by two workers, then with a full one. Then `PatchBatches` with mirrors and rotations fills batches
of 8 from the mapped tubes, in one thread on one core. To reach: 5000 patches/s.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BATCH = 8
PATCHES = 4000  # of a round
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("-n", type=int, default=12, help="subjects")
    parser.add_argument("-preset", default="tiny")
    parser.add_argument("-rounds", type=int, default=5)
    parser.add_argument("-prepare", nargs=3, help="of a process: cohort, cache, jobs")
    parser.add_argument("-draw", nargs=2, help="of a process: cohort, cache")
    given = parser.parse_args()
    if given.prepare:
        _prepare(Path(given.prepare[0]), Path(given.prepare[1]), int(given.prepare[2]))
        return
    if given.draw:
        _draw(Path(given.draw[0]), Path(given.draw[1]), given.rounds)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _simulate(folder / "cohort", given.n, given.preset)
        for title, cache, jobs in (
            ("cold, 1 worker", "one", "1"),
            ("cold, 2 workers", "two", "2"),
            ("warm", "one", "1"),
        ):
            _run(title, "-prepare", str(folder / "cohort"), str(folder / cache), jobs)
        one_core = ["taskset", "-c", "0"] if sys.platform == "linux" else []
        draw = ("-draw", str(folder / "cohort"), str(folder / "one"), "-rounds", str(given.rounds))
        _run("batches", *draw, prefix=one_core)


def _run(title: str, *args: str, prefix: list[str] | None = None) -> None:
    print(f"{title:16}", end="", flush=True)
    command = [*(prefix or []), sys.executable, __file__, *args]
    subprocess.run(command, env={**os.environ, **ONE_THREAD}, check=True)


def _simulate(folder: Path, subjects: int, preset: str) -> None:
    from sct_lesion_losses.phantom import make_cohort

    make_cohort(subjects, 1, folder, lesion_free=0, jobs=os.cpu_count() or 1, preset=preset)


def _prepare(cohort: Path, cache: Path, jobs: int) -> None:
    from sct_lesion_losses.preprocessing import cache as crop_cache  # noqa: F401 - its import is not to be measured

    start = time.perf_counter()
    tubes = _tubes(cohort, cache, jobs)
    seconds = time.perf_counter() - start
    size = sum(file.stat().st_size for file in cache.glob("[!.]*"))
    slices = sum(tube.values.shape[2] for tube in tubes)
    print(f"{seconds:6.2f} s for {len(tubes)} scans, {slices} slices, {size / 1e6:.0f} MB on disk")


def _draw(cohort: Path, cache: Path, rounds: int) -> None:
    from sct_lesion_losses.training.batches import PatchBatches
    from sct_lesion_losses.training.recipe import study

    recipe = study(batch_size=BATCH, patches_per_epoch=PATCHES)
    batches = PatchBatches(_tubes(cohort, cache, 1), recipe)
    rates, shares = [], []
    for epoch in range(rounds + 1):
        batches.go_to(epoch)
        start, before = time.perf_counter(), time.process_time()
        for index in range(len(batches)):
            batches[index]
        wall, cpu = time.perf_counter() - start, time.process_time() - before
        if epoch:  # the first maps the pages
            rates.append(len(batches) * BATCH / cpu)
            shares.append(cpu / wall)
    print(
        f"{statistics.median(rates):6.0f} patches per second of CPU time, {min(rates):.0f} to "
        f"{max(rates):.0f}; had {statistics.median(shares):.0%} of the core; to reach 5000"
    )


def _tubes(cohort: Path, cache: Path, jobs: int) -> list:
    from sct_lesion_losses.cohorts import table as cohorts
    from sct_lesion_losses.preprocessing import cache as crop_cache
    from sct_lesion_losses.preprocessing import intensity

    workshop = crop_cache.CacheSettings(cache, 0, jobs)
    cut = crop_cache.crop_scans(cohorts.read(cohort), workshop)
    preparation = intensity.fit([one.percentiles for one in cut])
    return crop_cache.standardise_scans(cut, preparation, workshop)


if __name__ == "__main__":
    main()
