"""Simulated scans in the eyes of networks that have seen only real ones.

    SCT_DIR=… python benchmarks/realism.py -jobs 2

OptiC with SCT's weights looks for the cord on scans of every site; SCT's lesion model `t2_ax`, run
by SCT's own rule with the true centerline, looks for lesions on the scans of the axial sites.
SCT_DIR is an installation of the Spinal Cord Toolbox, or a folder with its `data`.

The contrast of a lesion is measured in the scan: its mean over the median of the cord in the same
slices, away from every lesion. So it holds the partial volume that a thick slice mixes in.

With -real FOLDER (of SCT's testing data) the lesion model first answers the same question on real
scans: ellipsoids painted into healthy cords.

    python benchmarks/realism.py -healthy SCANS [-cord MASKS] -jobs 2

measures the cord in real near-isotropic scans of people without lesions and in simulated ones, and
says which real values lie outside the simulated ones; it needs no network.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cord_measures
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from sct_lesion_losses import executor, phantom
from sct_lesion_losses.centerline import cord as cords
from sct_lesion_losses.centerline import find, optic
from sct_lesion_losses.cohorts import table
from sct_lesion_losses.geometry.centerline import Centerline
from sct_lesion_losses.geometry.grid import Grid
from sct_lesion_losses.images import nifti
from sct_lesion_losses.inference import engine
from sct_lesion_losses.metrics.lesionwise import components
from sct_lesion_losses.metrics.patientwise import proportion
from sct_lesion_losses.phantom.scan import PhantomScan
from sct_lesion_losses.phantom.sites import SITES, any_protocol
from sct_lesion_losses.sct import centerline as sct_optic
from sct_lesion_losses.sct import lesion as sct_lesion

NEAR_MM = 3.0
REAL = {
    "t2/t2": "t2/t2_seg-manual",
    "t2/t2_fake_lesion": "t2/t2_fake_lesion_sc_seg",
    "t2s/t2s": "t2s/t2s_seg",
}
BINS = ((0.0, 1.3), (1.3, 1.5), (1.5, 1.7), (1.7, 9.0))
AXIAL = [k for k, site in enumerate(SITES) if site.plane == "axial"]
OTHERS = [k for k, site in enumerate(SITES) if site.plane != "axial"]


@dataclass(frozen=True)
class Seen:
    """Findings of the networks in a scan.

    Attributes
    ----------
    site : str
    off_mm : distance of OptiC's line to the cord's centre, one per slice
    lesions : of each lesion its contrast, its volume in mm³, and the share of it that is marked
    stray : marked blobs that touch no lesion; None where the lesion model was not run
    has_lesions : bool
    """

    site: str
    off_mm: list[float]
    lesions: list[tuple[float, float, float]]
    stray: int | None
    has_lesions: bool


def look(task: tuple[int, int, int, bool]) -> Seen:
    seed, subject, site, with_lesions = task
    scan = phantom.make_scan(seed, subject, site=site, lesions=with_lesions)
    rpi, turn = scan.grid.to_rpi()
    truth = Centerline.from_mask(turn.apply(scan.cord), rpi)
    found = optic.centerline(scan.image, scan.grid, sct_optic.weights("t2"))
    both = truth.covered & found.covered
    apart = (found.xy - truth.xy)[both] * np.array(rpi.spacing_mm[:2])
    seen, stray = [], None
    if site in AXIAL:
        line = sct_lesion.centerline(scan.cord, scan.grid, "truth")
        network = engine.load(sct_lesion.load("t2_ax").network, "onnxruntime")
        marked = sct_lesion.sct_rule(scan.image, scan.grid, line, "t2_ax", network)
        blobs = components(marked)
        stray = int(blobs.max()) - len(set(np.unique(blobs[scan.lesion > 0])) - {0})
        seen = measured(scan, marked)
    return Seen(SITES[site].name, np.hypot(*apart.T).tolist(), seen, stray, with_lesions)


def measured(scan: PhantomScan, marked: npt.NDArray[np.bool_]) -> list[tuple[float, float, float]]:
    """Contrast, volume and marked share of every lesion of a scan."""
    image, cord, lesions = scan.image.astype(float), scan.cord > 0, scan.lesion > 0
    away = ndimage.distance_transform_edt(~lesions, scan.grid.spacing_mm) if lesions.any() else None
    through = int(np.argmax(np.abs(scan.grid.affine[2, :3]) / scan.grid.spacing_mm))
    labels, rows = components(lesions), []
    for number in range(1, int(labels.max()) + 1):
        own = labels == number
        slices = own.any(axis=tuple(k for k in range(3) if k != through), keepdims=True)
        near = cord & slices & (away > 1.0)
        level = np.median(image[near if near.any() else cord & ~lesions])
        volume = own.sum() * scan.grid.voxel_volume_mm3
        rows.append((float(image[own].mean() / level), float(volume), float(marked[own].mean())))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-n", type=int, default=144, help="axial scans (default: 144)")
    parser.add_argument("-others", type=int, default=30, help="other scans (default: 30)")
    parser.add_argument("-seed", type=int, default=11)
    parser.add_argument("-jobs", type=int, default=1)
    parser.add_argument("-real", type=Path, help="folder of SCT's testing data")
    parser.add_argument("-healthy", type=Path, nargs="+", help="real scans without lesions")
    parser.add_argument("-cord", type=Path, nargs="+", help="their cord masks (default: found)")
    parser.add_argument(
        "-isotropic", type=int, default=60, help="simulated scans beside them (default: 60)"
    )
    options = parser.parse_args()
    if options.healthy:
        if options.cord and len(options.cord) != len(options.healthy):
            parser.error(f"{len(options.healthy)} scans and {len(options.cord)} cord masks")
        masks = options.cord or [mask_of(scan) for scan in options.healthy]
        real = [measured_real(*files) for files in zip(options.healthy, masks, strict=True)]
        tasks = isotropic(options.seed, options.isotropic)
        simulated = [m for m in executor.run(measured_simulated, tasks, options.jobs) if m]
        names = [nifti.stem(scan)[0].removesuffix("_T2w") for scan in options.healthy]
        report_measures(names, real, simulated)
        return
    if options.real:
        report_painted(options.real)
    tasks = [
        (options.seed, k, AXIAL[k % len(AXIAL)], k // len(AXIAL) % 3 != 2) for k in range(options.n)
    ]
    tasks += [
        (options.seed, 1000 + k, OTHERS[k % len(OTHERS)], True) for k in range(options.others)
    ]
    seen = executor.run(look, tasks, options.jobs)

    report_cord(seen)
    if axial := [s for s in seen if s.stray is not None]:
        report_lesions(axial)


def mask_of(scan: Path) -> Path | None:
    """Find a cord mask beside a scan, or in the labels of its BIDS folder."""
    name = nifti.stem(scan)[0].removesuffix("_T2w")
    beside = scan.with_name(f"{name}_label-SC_seg.nii.gz")
    if beside.is_file():
        return beside
    roots = [p for p in scan.parents if (p / "derivatives" / "labels").is_dir()]
    return table.cord_of(roots[0], scan) if roots else None


def measured_real(scan: Path, mask: Path | None) -> dict[str, float]:
    """Measure a real scan; its cord is estimated where there is no mask."""
    read = nifti.read(scan)
    grid, turn = read.grid.to_rpi()
    image = turn.apply(read.array)
    if mask:
        inside = turn.apply(nifti.read_mask(mask, like=read.grid).array)
    else:
        inside = cords.estimate(image, find.centerline(read.array, read.grid)).mask
        print(f"{scan.name}: no cord mask, it is estimated")
    return cord_measures.measure(image.astype(float), inside, grid)


def isotropic(seed: int, count: int) -> list[tuple[int, int]]:
    """Seed and subject of the first isotropic scans of the preset wide."""
    found: list[tuple[int, int]] = []
    subject = 0
    while len(found) < count:
        # As a scan draws its protocol, before anything is painted.
        settings = np.random.default_rng([seed, subject, 0]).spawn(1)[0]
        if any_protocol(settings).plane == "3d":
            found.append((seed, subject))
        subject += 1
    return found


def measured_simulated(task: tuple[int, int]) -> dict[str, float] | None:
    """Measure a simulated scan without lesions; None where it shows too little of the cord."""
    scan = phantom.make_scan(*task, preset="wide", lesions=False)
    assert scan.protocol.plane == "3d"
    grid, turn = scan.grid.to_rpi()
    try:
        return cord_measures.measure(
            turn.apply(scan.image).astype(float), turn.apply(scan.cord) > 0, grid
        )
    except ValueError:
        return None


def report_measures(
    names: Sequence[str], real: Sequence[dict[str, float]], simulated: Sequence[dict[str, float]]
) -> None:
    width = max(len(said) for said in cord_measures.MEASURES.values())
    heads = " ".join(f"{name:>8}" for name in names)
    print(f"{'measure':{width}} {heads}  {len(simulated)} simulated, median [10-90 %]")
    outside = 0
    for key, said in cord_measures.MEASURES.items():
        low, middle, high = np.nanpercentile([m[key] for m in simulated], (10, 50, 90))
        values = [m[key] for m in real]
        out = [name for name, v in zip(names, values, strict=True) if not low <= v <= high]
        row = " ".join(f"{v:8.3f}" for v in values)
        where = f"  outside: {', '.join(out)}" if out else ""
        print(f"{said:{width}} {row}  {middle:.3f} [{low:.3f} {high:.3f}]{where}")
        outside += len(out)
    print(f"{outside} of {len(names) * len(cord_measures.MEASURES)} real values lie outside")


def report_painted(folder: Path) -> None:
    network = engine.load(sct_lesion.load("t2_ax").network, "onnxruntime")
    print(
        "SCT's t2_ax on ellipsoids of 3.6 × 3.6 × 18 mm painted into real scans: touched, of 8 each"
    )
    for name, mask in REAL.items():
        image, cord = (
            nifti.read(folder / f"{name}.nii.gz"),
            nifti.read_mask(folder / f"{mask}.nii.gz"),
        )
        grid, turn = image.grid.to_rpi()
        values, inside = turn.apply(image.array).astype(np.float32), turn.apply(cord.array)
        line = sct_lesion.centerline(inside, grid, "truth")
        for ratio in (1.3, 1.5, 1.7):
            rng = np.random.default_rng(0)
            touched = 0
            for _ in range(8):
                share = ellipsoid(rng, inside, grid)
                brighter = values * (1 + (ratio - 1) * share)
                marked = sct_lesion.sct_rule(brighter, grid, line, "t2_ax", network)
                touched += bool(marked[share >= 0.5].any())
            print(f"  {name:18} {ratio:.1f} times: {touched}")


def ellipsoid(
    rng: np.random.Generator, cord: npt.NDArray[np.bool_], grid: Grid
) -> npt.NDArray[np.float32]:
    """Share of brightness of a lesion 1.5 to 3 mm beside the middle of a slice of the cord."""
    slices = np.flatnonzero(cord.any((0, 1)))[2:-2]
    z = rng.choice(slices)
    spacing = np.array(grid.spacing_mm)
    angle, off = rng.uniform(0, 2 * np.pi), rng.uniform(1.5, 3.0)
    middle = (
        np.argwhere(cord[:, :, z]).mean(0)
        + off * np.array([np.cos(angle), np.sin(angle)]) / spacing[:2]
    )
    axes = np.ogrid[tuple(slice(n) for n in cord.shape)]
    scaled = [
        (a - c) * s / r
        for a, c, s, r in zip(axes, (*middle, z), spacing, (1.8, 1.8, 9.0), strict=True)
    ]
    distance = np.sqrt(sum(np.square(x) for x in scaled))
    return (np.clip((1.15 - distance) / 0.3, 0, 1) * cord).astype(np.float32)


def report_cord(seen: list[Seen]) -> None:
    off = np.concatenate([s.off_mm for s in seen])
    near = (off < NEAR_MM).mean()
    print(f"OptiC with SCT's weights: within {NEAR_MM:g} mm on {near:.1%} of {len(off)} slices")
    for name in sorted({s.site for s in seen}):
        own = [np.array(s.off_mm) for s in seen if s.site == name]
        lost = sum(not len(o) or (o < NEAR_MM).mean() < 0.5 for o in own)
        near = (np.concatenate([*own, []]) < NEAR_MM).mean()
        print(f"  site {name}: {near:6.1%}, lost {lost} of {len(own)}")


def report_lesions(axial: list[Seen]) -> None:
    rows = np.array([row for s in axial for row in s.lesions]).reshape(-1, 3)
    contrast, volume, share = rows.T
    print("SCT's t2_ax on axial scans: lesions touched (95 % interval), and marked to 25 %")
    chosen = {
        f"contrast {low} to {high}": (contrast >= low) & (contrast < high) for low, high in BINS
    }
    bright = contrast >= 1.5
    chosen["contrast 1.5 or more"] = bright
    chosen["  under 30 mm3"] = bright & (volume < 30)
    chosen["  30 to 100 mm3"] = bright & (volume >= 30) & (volume < 100)
    chosen["  100 mm3 or more"] = bright & (volume >= 100)
    for name, some in chosen.items():
        if some.any():
            touched = proportion(int((share[some] > 0).sum()), int(some.sum()))
            interval = f"({touched.low:.0%} to {touched.high:.0%})"
            marked = (share[some] >= 0.25).mean()
            print(f"  {name:22} {touched.value:6.1%} {interval} {marked:6.1%} of {some.sum()}")
    for name, with_lesions in (("blobs on lesion-free", False), ("stray blobs on the other", True)):
        counts = np.array([s.stray for s in axial if s.has_lesions == with_lesions], int)
        if counts.size:
            print(
                f"  {name} scans: mean {counts.mean():.2f}; at most one on "
                f"{(counts <= 1).sum()} of {counts.size}, most {counts.max()}"
            )


if __name__ == "__main__":
    main()
