"""Cutting the tube out of a 512 x 512 x 60 scan, against nibabel resampling all of it.

    python benchmarks/resampling.py

Prints the CPU times of one run, their ratio, and the largest difference on a 0-1000 range.
"""

from __future__ import annotations

import statistics
import time

import nibabel as nib
import numpy as np
from nibabel.processing import resample_from_to

from sct_lesion_losses.geometry.centerline import Centerline
from sct_lesion_losses.geometry.cord_crop import CordCrop
from sct_lesion_losses.geometry.grid import Grid, resample
from sct_lesion_losses.preprocessing.scan import SPACING_MM

ROUNDS = 5


def main() -> None:
    affine = np.zeros((4, 4))
    affine[1, 0], affine[2, 1], affine[0, 2], affine[3, 3] = -0.45, -0.45, 3.0, 1.0
    grid = Grid((512, 512, 60), affine)
    image = np.random.default_rng(0).integers(0, 1000, grid.shape).astype(np.int16)
    rpi, reorientation = grid.to_rpi()
    z = np.arange(rpi.shape[2])
    line = Centerline(rpi, np.column_stack([30 + 3 * np.sin(z / 100), 250 + 60 * np.sin(z / 150)]))
    ours, theirs = [], []
    for _ in range(ROUNDS):
        start = time.process_time()
        tube = CordCrop.around(line, line.grid.resampled((SPACING_MM,) * 3))
        tube.cut(reorientation.apply(image), rpi)
        ours.append(time.process_time() - start)
        start = time.process_time()
        whole = resample_from_to(
            nib.Nifti1Image(reorientation.apply(image).astype(np.float32), rpi.affine),
            (tube.grid.shape, tube.grid.affine),
            order=1,
            mode="nearest",
        )
        theirs.append(time.process_time() - start)
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    box = tube.box
    apart = np.abs(resample(reorientation.apply(image), rpi, tube.grid, box) - whole.dataobj[box])
    print(f"tube      median {statistics.median(ours) * 1000:8.1f} ms CPU")
    print(f"nibabel   median {statistics.median(theirs) * 1000:8.1f} ms CPU")
    print(f"ratio     median 1/{1 / statistics.median(ratios):.0f}, worst 1/{1 / max(ratios):.0f}")
    print(f"apart     at most {apart.max():.1e} of 1000")


if __name__ == "__main__":
    main()
