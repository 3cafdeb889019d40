"""Distance of every centerline method to the centre of the cord mask, and its time.

    SCT_DIR=SCT python benchmarks/centerline.py SCANS
    python benchmarks/centerline.py COHORT -jobs 2

SCANS holds the real scans and cord masks of the list below; SCT is its folder, for its weights.
COHORT is a simulated one that the embedded detector was not trained on, for example of
`sct_simulate_lesion -preset wide -n 100 -seed 9`; the detector alone looks at its scans, and at
-without simulated scans of other parts of the body, which it is to refuse.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np

from sct_lesion_losses import executor, phantom
from sct_lesion_losses.centerline import find
from sct_lesion_losses.centerline.detector import detect, shows_cord
from sct_lesion_losses.errors import LesionError, NoCordError
from sct_lesion_losses.geometry.centerline import Centerline
from sct_lesion_losses.geometry.grid import Grid

SEED = 9  # of the scans without a cord; the detector was trained on 0 and held to 1
SCANS = (
    ("sct_testing_data/t2/t2", "sct_testing_data/t2/t2_seg-manual", "t2"),
    ("sct_testing_data/t2/t2_fake_lesion", "sct_testing_data/t2/t2_fake_lesion_sc_seg", "t2"),
    ("sct_testing_data/t2s/t2s", "sct_testing_data/t2s/t2s_seg", "t2s"),
    ("sct_testing_data/dmri/dwi_mean", "sct_testing_data/dmri/dwi_mean_centerline-optic", "dwi"),
    ("healthy/errsm11_T2w", "healthy/errsm11_label-SC_seg", "t2"),
    ("healthy/errsm21_T2w", "healthy/errsm21_label-SC_seg", "t2"),
    ("healthy/errsm23_T2w", "healthy/errsm23_label-SC_seg", "t2"),
)


def load(path: Path) -> tuple[np.ndarray, Grid]:
    image = nib.load(path)
    return np.asarray(image.dataobj), Grid(image.shape, image.affine)


def errors_mm(line: Centerline, mask: np.ndarray, grid: Grid) -> np.ndarray:
    rpi, reorientation = grid.to_rpi()
    truth = Centerline.from_mask(reorientation.apply(mask), rpi)
    apart = (line.xy - truth.xy)[truth.covered & line.covered]
    return np.hypot(*(apart * line.grid.spacing_mm[:2]).T)


def look(scan: Path) -> tuple[str, str, np.ndarray | str]:
    """Plane and stored orientation of a simulated scan, and how far off the detector is.

    Or why that is not known: ``refused``, where it finds no cord, ``failed``, where the scan, its
    mask or the centerline cannot be used, ``apart``, where no slice has both a centerline and mask.
    """
    image, grid = load(scan)
    protocol = json.loads(scan.with_name(scan.name.replace(".nii.gz", ".json")).read_text())
    plane = protocol["SimulationProtocol"]["plane"]
    try:
        line = detect(image, grid)
        mask, mask_grid = load(labels_of(scan))
        errors = errors_mm(line, mask, mask_grid)
    except NoCordError:
        return plane, grid.orientation, "refused"
    except LesionError as error:
        print(f"{scan.name}: {error}", file=sys.stderr)
        return plane, grid.orientation, "failed"
    return plane, grid.orientation, errors if len(errors) else "apart"


def labels_of(scan: Path) -> Path:
    cohort = next(p for p in scan.parents if (p / "dataset_description.json").exists())
    name = scan.name.replace(".nii.gz", "_label-SC_seg.nii.gz")
    return cohort / "derivatives" / "labels" / scan.relative_to(cohort).with_name(name)


def simulated(cohort: Path, jobs: int) -> None:
    scans = sorted(cohort.glob("sub-*/**/*_T2w.nii.gz"))
    seen = executor.run(look, scans, jobs)
    groups = {"all": seen}
    for at in (0, 1):
        groups |= {key: [s for s in seen if s[at] == key] for key in sorted({s[at] for s in seen})}
    print(
        "scans              number refused  failed   apart  slices  mean mm  beyond 5 mm  "
        "worst scan's mean mm"
    )
    for name, some in groups.items():
        outcomes = [outcome for *_, outcome in some]
        found = [e for e in outcomes if not isinstance(e, str)]
        why = Counter(outcome for outcome in outcomes if isinstance(outcome, str))
        counts = " ".join(f"{why[reason]:7}" for reason in ("refused", "failed", "apart"))
        measured = ""
        if found:
            e = np.concatenate(found)
            measured = (
                f"{len(e):7} {e.mean():8.2f} {(e > 5).mean():11.2%} "
                f"{max(f.mean() for f in found):10.2f}"
            )
        print(f"{name:18} {len(some):6} {counts} {measured}".rstrip())


def look_without(number: int) -> str:
    """Say what the detector makes of a simulated scan without a cord: ``refused``, or not."""
    scan = phantom.make_scan(SEED, number, preset="wide", with_cord=False)
    try:
        return "accepted" if shows_cord(scan.image, scan.grid) else "refused"
    except LesionError as error:
        print(f"scan {number} without a cord: {error}", file=sys.stderr)
        return "failed"


def without_cord(number: int, jobs: int) -> None:
    told = Counter(executor.run(look_without, range(number), jobs))
    print(f"without a cord     {number:6} {told['refused']:7} {told['failed']:7}")


def main(folder: Path) -> None:
    print("scan               method    slices  mean   p95   max mm   seconds")
    for stem, mask_stem, contrast in SCANS:
        image, grid = load(folder / f"{stem}.nii.gz")
        mask, mask_grid = load(folder / f"{mask_stem}.nii.gz")
        name = stem.rsplit("/", 1)[1]
        for method in ("embedded", "svm", "cnn"):
            began = time.perf_counter()
            try:
                line = find.centerline(image, grid, method, contrast=contrast)
            except LesionError as error:
                print(f"{name:18} {method:9} {str(error)[:70]}")
                continue
            took = time.perf_counter() - began
            e = errors_mm(line, mask, mask_grid)
            print(
                f"{name:18} {method:9} {len(e):6} {e.mean():5.2f} {np.percentile(e, 95):5.2f} "
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
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="SCANS or COHORT")
    parser.add_argument("-jobs", type=int, default=1, help="with COHORT: scans at a time")
    parser.add_argument("-without", type=int, default=100, help="scans without a cord")
    options = parser.parse_args()
    if (options.folder / "dataset_description.json").exists():
        simulated(options.folder, options.jobs)
        without_cord(options.without, options.jobs)
    else:
        main(options.folder)
