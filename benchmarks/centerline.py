"""Distance of every centerline method to the centre of the cord mask, and its time.

    python benchmarks/centerline.py SHARED

SHARED holds data/sct_testing_data (real scans with cord masks) and data/sct (SCT's weights).
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np

from sct_lesion_losses import locate
from sct_lesion_losses.centerline.detector import detect
from sct_lesion_losses.errors import LesionError
from sct_lesion_losses.space.centerline import Centerline
from sct_lesion_losses.space.grid import Grid

SCANS = (
    ("t2/t2", "t2/t2_seg-manual", "t2"),
    ("t2/t2_fake_lesion", "t2/t2_fake_lesion_sc_seg", "t2"),
    ("t2s/t2s", "t2s/t2s_seg", "t2s"),
    ("dmri/dwi_mean", "dmri/dwi_mean_centerline-optic", "dwi"),
)


def load(path: Path) -> tuple[np.ndarray, Grid]:
    image = nib.load(path)
    return np.asarray(image.dataobj), Grid(image.shape, image.affine)


def errors_mm(line: Centerline, mask: np.ndarray, grid: Grid) -> np.ndarray:
    rpi, reorientation = grid.to_rpi()
    truth = Centerline.from_mask(reorientation.apply(mask), rpi)
    apart = (line.xy - truth.xy)[truth.covered & line.covered]
    return np.hypot(*(apart * line.grid.spacing_mm[:2]).T)


def main(shared: Path) -> None:
    os.environ["SCT_DIR"] = str(shared / "data/sct")
    print("scan               method    slices  mean   p95   max mm   seconds")
    for stem, mask_stem, contrast in SCANS:
        image, grid = load(shared / "data/sct_testing_data" / f"{stem}.nii.gz")
        mask, mask_grid = load(shared / "data/sct_testing_data" / f"{mask_stem}.nii.gz")
        for method in ("embedded", "svm", "cnn"):
            began = time.perf_counter()
            try:
                line = locate.centerline(image, grid, method, contrast=contrast)
            except LesionError as error:
                print(f"{stem:18} {method:9} {str(error)[:70]}")
                continue
            took = time.perf_counter() - began
            e = errors_mm(line, mask, mask_grid)
            print(
                f"{stem:18} {method:9} {len(e):6} {e.mean():5.2f} {np.percentile(e, 95):5.2f} "
                f"{e.max():5.2f}      {took:5.2f}"
            )
    shape = (512, 512, 60)
    affine = np.array([[0, 0, -3.0, 0], [0, -0.5, 0, 0], [-0.5, 0, 0, 0], [0, 0, 0, 1]])
    noise = np.random.default_rng(0).integers(0, 1000, shape).astype(np.int16)
    began = time.perf_counter()
    try:
        detect(noise, Grid(shape, affine))
    except LesionError as error:
        print(f"512 × 512 × 60 embedded: {time.perf_counter() - began:.2f} s; {str(error)[:60]}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
