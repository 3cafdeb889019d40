"""How far masks change with what should not matter, with test-time augmentation and without.

    python benchmarks/stability.py -i HOST.nii.gz -cord CORD.nii.gz [-bundle default] [-n 3]

A scan of a person without lesions is segmented as it is, and with lesions implanted into it
(`sct_implant_lesion`), in `-n` variants. Each mask is compared with the ones found after the
centerline was moved by 0.25 mm and by 0.5 mm, the scan tilted by one degree in the sagittal plane,
and noise of its own level added. Printed are medians of the Dice between them: within 3 mm of each
implant, by its labelled volume, and over the whole mask of the host as it is; then how far the
p-map changes (root mean square over its voxels of 0.02 and more), what is marked in the host, and
how many of all implants are found. Masks are those that segmenting writes, by the bundle's lesion
filter where it has one.
To reach: 0.85 for implants of 100 mm³ and more.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sct_lesion_losses.bundle import store
from sct_lesion_losses.geometry.centerline import Centerline
from sct_lesion_losses.geometry.grid import Grid
from sct_lesion_losses.images import nifti
from sct_lesion_losses.inference import engine, predict
from sct_lesion_losses.metrics import lesionwise
from sct_lesion_losses.phantom.implant import Host, make_implant
from sct_lesion_losses.thresholds.lesion_filter import mask_at

LARGE_MM3, NEAR_MM, TILT = 100.0, 3.0, np.deg2rad(1.0)
TILTED = "1 degree"
CHANGES = ("0.25 mm", "0.5 mm", TILTED, "noise")
LARGE, SMALL, HOST = "implants of 100 mm³ and more", "smaller implants", "host as it is"
PMAP = "p-map, change"


def tilted(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """Turn an array in RPI around its middle, in the plane of y and z; linear."""
    middle = (np.array(array.shape) - 1) / 2
    cos, sin = np.cos(TILT), np.sin(TILT)
    matrix = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    offset = middle - matrix @ middle
    turned = ndimage.affine_transform(array, matrix, offset, order=1, mode="nearest")
    return np.asarray(turned, np.float32)


def noise_level(image: NDArray[np.float32], cord: NDArray[np.bool_]) -> float:
    """Standard deviation of the noise deep in the cord, along which its tissue changes least."""
    deep = ndimage.binary_erosion(cord, iterations=2)[:, :, 1:-1]
    second = 2 * image[:, :, 1:-1] - image[:, :, :-2] - image[:, :, 2:]
    return float(1.4826 * np.median(np.abs(second[deep])) / np.sqrt(6))


def changed(
    image: NDArray[np.float32], cord: NDArray[np.bool_], grid: Grid, rng: np.random.Generator
) -> dict[str, tuple[NDArray[np.float32], Centerline]]:
    """The scan as it is, under the name "", and as the changes leave it, with their centerlines."""
    line = Centerline.from_mask(cord, grid)
    toward = rng.choice([-1, 1]) * np.eye(2)[rng.integers(2)]  # left or right, front or back

    def moved(mm: float) -> Centerline:
        return Centerline(grid, line.xy + toward * mm / np.array(grid.spacing_mm[:2]))

    noise = rng.normal(0, noise_level(image, cord), image.shape).astype(np.float32)
    body = Centerline.from_mask(tilted(cord.astype(np.float32)) >= 0.5, grid)
    scans = [
        (image, moved(0.25)),
        (image, moved(0.5)),
        (tilted(image), body),
        (image + noise, line),
    ]
    return {"": (image, line), **dict(zip(CHANGES, scans, strict=True))}


def dice(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """2 |A and B| / (|A| + |B|); NaN where both are empty."""
    total = first.sum() + second.sum()
    return 2 * float((first & second).sum()) / total if total else float("nan")


def compare(
    first: NDArray[np.bool_], second: NDArray[np.bool_], lesion: NDArray[np.bool_], grid: Grid
) -> dict[str, list[float]]:
    """Dice of two masks by kind: around each implant of the label, or of the whole without any."""
    if not lesion.any():
        return {HOST: [dice(first, second)]}
    found: dict[str, list[float]] = {LARGE: [], SMALL: []}
    labels = lesionwise.components(lesion)
    for number in range(1, labels.max() + 1):
        one = labels == number
        large = one.sum() * grid.voxel_volume_mm3 >= LARGE_MM3
        near = ndimage.distance_transform_edt(~one, sampling=grid.spacing_mm) <= NEAR_MM
        found[LARGE if large else SMALL].append(dice(first & near, second & near))
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("-i", type=Path, required=True)
    parser.add_argument("-cord", type=Path, required=True)
    parser.add_argument("-bundle", default="default")
    parser.add_argument("-n", type=int, default=3)
    parser.add_argument("-seed", type=int, default=5)
    given = parser.parse_args()
    bundle = store.load(given.bundle)
    network = engine.load(bundle.network)
    scan = nifti.read(given.i)
    grid, turn = scan.grid.to_rpi()
    cord = turn.apply(nifti.read_mask(given.cord, like=scan.grid).array)
    host = Host.of(turn.apply(scan.array), cord, grid)
    found: dict[tuple[str, bool, str], list[float]] = defaultdict(list)
    marked, detected, implants = {}, defaultdict(int), 0

    def mask_of(pmap: NDArray[np.float32]) -> NDArray[np.bool_]:
        rule = predict.filter_of(bundle)
        return mask_at(pmap, bundle.threshold, grid.voxel_volume_mm3, rule)[0]

    for variant in range(given.n + 1):
        rng = np.random.default_rng([given.seed, variant])
        made = make_implant(rng, host, affected=variant > 0)
        scans = changed(made.signal, cord, grid, rng)
        implants += lesionwise.components(made.lesion).max()
        for tta in (False, True):
            preparation = bundle.preparation.model_copy(update={"tta": tta})
            other = replace(
                bundle, info=bundle.info.model_copy(update={"preparation": preparation})
            )
            pmaps = {
                name: predict.pmap(other, image, grid, line, network=network)
                for name, (image, line) in scans.items()
            }
            mask = mask_of(pmaps[""])
            detected[tta] += lesionwise.score(made.lesion, mask, grid.spacing_mm).detected
            if not variant:
                volume = mask.sum() * grid.voxel_volume_mm3
                marked[tta] = f"{lesionwise.components(mask).max()} lesions, {volume:.0f} mm³"
            for change in CHANGES:
                before, after, lesion = pmaps[""], pmaps[change], made.lesion
                if change == TILTED:
                    before = tilted(before)
                    lesion = tilted(lesion.astype(np.float32)) >= 0.5
                apart = (after - before)[np.maximum(before, after) >= 0.02]
                values = {PMAP: [float(np.sqrt(np.mean(apart**2)))]}
                masks = (mask_of(pmap) for pmap in (before, after))
                values |= compare(*masks, lesion, grid)
                for kind, each in values.items():
                    found[kind, tta, change] += each
                    found[kind, tta, "all"] += each
        print(f"variant {variant} of {given.n} done", flush=True)
    for kind in (LARGE, SMALL, HOST, PMAP):
        for tta in (False, True):
            cells = []
            for change in (*CHANGES, "all"):
                values = np.array(found[kind, tta, change])
                known = values[np.isfinite(values)]  # neither mask has anything there otherwise
                middle = np.median(known) if known.size else np.nan
                cells.append(f"{change}: {middle:.3f} ({known.size})")
            print(f"{kind}, {'with' if tta else 'without'}: {', '.join(cells)}")
    print(f"marked in the host: {marked[False]} without, {marked[True]} with")
    print(f"implants found: {detected[False]}/{implants} without, {detected[True]}/{implants} with")


if __name__ == "__main__":
    main()
