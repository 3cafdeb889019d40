"""Segmenting one scan as a whole process, against the bare engine on the same patches.

    python benchmarks/segmenting.py -i t2.nii.gz -file_centerline t2_seg.nii.gz [-n 5]

Both in turn, in one run. The command starts a new Python each time, with its centerline given; the
bare engine has its network loaded and its patches in memory. To reach: 1.3 times the engine + 1 s.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sct_lesion_losses.bundle import store
from sct_lesion_losses.centerline import find
from sct_lesion_losses.images import nifti
from sct_lesion_losses.inference import engine
from sct_lesion_losses.preprocessing import scan as prepare


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("-i", type=Path, required=True)
    parser.add_argument("-file_centerline", type=Path, required=True)
    parser.add_argument("-bundle", default="tversky")
    parser.add_argument("-engine", default="auto")
    parser.add_argument("-n", type=int, default=5)
    given = parser.parse_args()
    bundle = store.load(given.bundle)
    scan = nifti.read(given.i)
    line = find.centerline(scan.array, scan.grid, "file", file=given.file_centerline)
    prepared = prepare.prepare(scan.array, scan.grid, line, bundle.preparation)
    patches = prepared.normalise(prepare.stacked_patches(prepared.values))
    network = engine.load(bundle.network, given.engine)
    command = [
        *(str(Path(sys.executable).with_name("sct_deepseg_lesion_tuned")), "-i", str(given.i)),
        *("-centerline", "file", "-file_centerline", str(given.file_centerline)),
        *("-bundle", given.bundle, "-engine", given.engine, "-v", "0"),
    ]
    whole, bare = [], []
    for turn in range(given.n + 1):
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            subprocess.run([*command, "-ofolder", folder], check=True, stdout=subprocess.DEVNULL)
            middle = time.perf_counter()
            network.run(patches)
            end = time.perf_counter()
        if turn:  # the first warms up
            whole.append(middle - start)
            bare.append(end - middle)
    ratio = statistics.median((a - 1) / b for a, b in zip(whole, bare, strict=True))
    print(f"{given.i.name}: {len(patches)} patches, {network.name} {network.version}")
    print(f"whole process  median {statistics.median(whole):6.2f} s")
    print(f"bare engine    median {statistics.median(bare):6.2f} s")
    print(f"(whole process - 1 s) / bare engine: median {ratio:.2f}, to reach 1.30")


if __name__ == "__main__":
    main()
