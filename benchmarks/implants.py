"""Implants that a bundle finds as it is, by contrast and volume, and what else it marks.

    python benchmarks/implants.py COHORT [-bundle default] [-jobs 2]

COHORT is one of `sct_implant_lesion`, of people that the bundle has not seen. Its scans are
segmented as `sct_deepseg_lesion_tuned` does it without SCT: embedded centerline, threshold and
lesion filter of the bundle. An implant is found by the rule of L-sensitivity (preset `paper`); its
contrast is measured in the scan, the mean of the lesion over the median of the cord beside it.
The intervals are Wilson's, of lesions as if they were independent; those of one person are not
quite.
"""

from __future__ import annotations

import argparse
import itertools
import math
from functools import partial
from pathlib import Path

import numpy as np

from sct_lesion_losses import executor
from sct_lesion_losses.bundle import store
from sct_lesion_losses.cohorts import table
from sct_lesion_losses.cohorts.table import CohortScan
from sct_lesion_losses.inference import engine, predict
from sct_lesion_losses.inference.models import locate
from sct_lesion_losses.inference.predict import InferenceSettings
from sct_lesion_losses.metrics import patientwise
from sct_lesion_losses.thresholds.lesion_filter import Filter, candidates
from sct_lesion_losses.workflows.operating_points import (
    CONTRASTS,
    VOLUMES_MM3,
    lesion_contrasts,
)


def look(scan: CohortScan, name: str) -> tuple[np.ndarray, int]:
    """Contrast, volume and whether it is found of each implant, (R, 3), and false lesions."""
    bundle = store.load(name)
    found = locate(scan, InferenceSettings(centerline="embedded"))
    pmap = found.pmap(bundle, engine.load(bundle.network))
    noted = candidates(found.truth, pmap, bundle.threshold, found.image.grid.voxel_volume_mm3)
    rule = predict.filter_of(bundle) or Filter(0.0)
    volumes = noted.table.truth_sizes * noted.voxel_mm3
    contrasts = lesion_contrasts(scan) if len(volumes) else np.zeros(0)
    score = noted.score(rule)
    false = score.n_predicted - score.correct
    return np.column_stack([contrasts, volumes, noted.found(rule)]), false


def share(found: np.ndarray) -> str:
    """Found of how many, and Wilson's interval of the share."""
    if not len(found):
        return "-"
    of = patientwise.proportion(int(found.sum()), len(found))
    return f"{of.count} of {of.n} ({of.low:.0%} to {of.high:.0%})"


def ranges(edges: tuple[float, ...]) -> list[tuple[float, float]]:
    return list(itertools.pairwise((0.0, *edges, math.inf)))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("cohort", type=Path)
    parser.add_argument("-bundle", default="default")
    parser.add_argument("-jobs", type=int, default=1)
    given = parser.parse_args()
    scans = table.read(given.cohort)
    results = executor.run(partial(look, name=given.bundle), scans, given.jobs)
    implants = np.concatenate([found for found, _ in results])
    false = np.array([n for _, n in results])
    untouched = np.array([len(found) == 0 for found, _ in results])
    contrast, volume, is_found = implants.T
    print(
        "| contrast | "
        + " | ".join(f"{a:g} to {b:g} mm³" for a, b in ranges(VOLUMES_MM3))
        + " | all |"
    )
    print("|---" * (len(VOLUMES_MM3) + 3) + "|")
    for low, high in [*ranges(CONTRASTS), (0.0, math.inf)]:
        row = (low <= contrast) & (contrast < high)
        cells = [
            share(is_found[row & (least <= volume) & (volume < most)])
            for least, most in [*ranges(VOLUMES_MM3), (0.0, math.inf)]
        ]
        print(f"| {low:g} to {high:g} | " + " | ".join(cells) + " |")
    print(f"{len(scans)} scans of {len({scan.subject for scan in scans})} people")
    for what, chosen in (("without implants", untouched), ("with implants", ~untouched)):
        if chosen.any():
            n = false[chosen]
            print(f"false lesions in {len(n)} scans {what}: mean {n.mean():.2f}, at most {n.max()}")


if __name__ == "__main__":
    main()
