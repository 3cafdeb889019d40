"""Is a cohort as hard as the clinic? What trivial methods reach on it, and what the bundles do.

    sct_simulate_lesion -preset study -seed 1 -ofolder study
    python benchmarks/difficulty.py -i study -jobs 2
    sct_simulate_lesion -preset study -seed 2 -sites A B D E F G H I J K M -ofolder tuning
    sct_split_lesion -i study -tuning tuning -ofile study.tsv -unseen_sites C L -seed 1
    python benchmarks/difficulty.py -i study.tsv -bundle tversky bce

1. A threshold inside the true cord: one multiple of the cord's median intensity for all scans, the
   one with the best median V-F1 on these very scans, and the best of each scan, which no method
   knows.
2. A classifier that sees pieces of the tube at least 15 mm away from every lesion: ridge regression
   on the piece itself, made coarse, and on its intensities by ring and their texture; held out by
   subject, pooled per scan. It must not tell scans with lesions from those without. A scan without
   lesions leaves out what another scan's lesions would cover, counted from the top of the cord:
   lesions prefer the neck, and the level of a piece would give it away.
3. Bundles on the scans of the part unseen, with the embedded centerline: V-F1 tuned and at 0.5, on
   the sites that no training saw, and P-specificity.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage, stats

from sct_lesion_losses import executor
from sct_lesion_losses.bundle import store
from sct_lesion_losses.centerline import find
from sct_lesion_losses.cohorts import table
from sct_lesion_losses.cohorts.table import CohortScan
from sct_lesion_losses.errors import DataError, NoCordError
from sct_lesion_losses.geometry.cord_crop import CordCrop
from sct_lesion_losses.images import nifti
from sct_lesion_losses.inference import engine, models, predict
from sct_lesion_losses.inference.predict import InferenceSettings
from sct_lesion_losses.metrics import statistics, voxelwise
from sct_lesion_losses.metrics.patientwise import proportion
from sct_lesion_losses.preprocessing import intensity
from sct_lesion_losses.thresholds.lesion_filter import mask_at

LEVELS = np.arange(1.0, 2.6, 0.025)  # multiples of the cord's median
PIECE, AWAY = 16, 30  # slices of 0.5 mm
FOLDS = 6
PENALTIES = (1e1, 1e2, 1e3, 1e4, 1e5)


@dataclass(frozen=True, eq=False)
class Studied:
    """Results of a scan: its best scores by threshold, its tube's pieces, its lesions."""

    subject: str
    bearing: bool
    f1: npt.NDArray[np.float64]
    features: npt.NDArray[np.float32]
    near: npt.NDArray[np.bool_]

    def away(self, near: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
        """Pieces that are away from lesions, given from the top of the cord down."""
        count = min(len(self.features), len(near))
        return self.features[:count][~near[:count]]


def study(scan: CohortScan) -> Studied:
    image = nifti.read(scan.scan)
    truth = nifti.read_mask(scan.lesion_mask, like=image.grid).array
    if (mask := table.cord_mask(scan)) is None:
        raise DataError(f"{scan.scan}: no cord mask beside the lesion mask")
    cord = nifti.read_mask(mask, like=image.grid).array
    inside, marked = image.array[cord].astype(float), truth[cord]
    relative = inside / np.median(inside)
    f1 = np.full(len(LEVELS), np.nan)
    if marked.any():
        above = relative[:, None] >= LEVELS
        f1 = 2 * (above & marked[:, None]).sum(0) / (above.sum(0) + marked.sum())
    line = find.centerline(image.array, image.grid, file=scan.centerline)
    rpi, turn = image.grid.to_rpi()
    tube = CordCrop.around(line, rpi)
    values = tube.cut(turn.apply(image.array).astype(np.float32), rpi)[:, :, ::-1]
    lesion = tube.cut(turn.apply(truth).astype(np.float32), rpi).max((0, 1))[::-1] > 0
    near = ndimage.binary_dilation(lesion, iterations=AWAY) if lesion.any() else lesion
    starts = range(0, values.shape[2] - PIECE + 1, PIECE)
    pieces = [features(values[:, :, z : z + PIECE]) for z in starts]
    covered = [near[z : z + PIECE].any() for z in starts]
    return Studied(
        scan.subject, bool(marked.any()), f1, np.array(pieces, np.float32), np.array(covered, bool)
    )


def away_from_lesions(studied: list[Studied]) -> list[Studied]:
    """Keep the pieces away from lesions; scans without any take the lesions of another scan."""
    patterns = [s.near for s in studied if s.bearing]
    rng = np.random.default_rng(0)
    kept = []
    for s in studied:
        near = s.near if s.bearing else patterns[rng.integers(len(patterns))]
        pieces = s.away(near)
        if len(pieces):
            kept.append(replace(s, features=pieces))
    return kept


def features(piece: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    piece = intensity.zscore(piece[None])[0]
    x, y = np.ogrid[-23.5:24, -23.5:24]
    radius = np.hypot(x, y)
    rough = piece - ndimage.gaussian_filter(piece, 1.0)
    rings = []
    for low, high in ((0, 4), (4, 8), (8, 12), (12, 18), (18, 24)):
        ring = (radius >= low) & (radius < high)
        rings += [*np.percentile(piece[ring], (5, 25, 50, 75, 95)), piece[ring].std()]
        rings += [rough[ring].std(), np.abs(np.diff(piece[ring], axis=1)).mean()]
    coarse = piece.reshape(16, 3, 16, 3, 2, 8).mean((1, 3, 5))
    return np.append(coarse.ravel(), rings).astype(np.float32)


def pooled_scores(studied: list[Studied]) -> npt.NDArray[np.float64]:
    """Score of each scan by a classifier that did not see its subject."""
    owner = np.repeat(np.arange(len(studied)), [len(s.features) for s in studied])
    values = np.concatenate([s.features for s in studied]).astype(np.float64)
    label = np.array([2.0 * s.bearing - 1 for s in studied])
    subjects = sorted({s.subject for s in studied})
    number = np.random.default_rng(0).permutation(len(subjects))
    fold_of = {name: int(n) % FOLDS for name, n in zip(subjects, number, strict=True)}
    fold = np.array([fold_of[s.subject] for s in studied])
    scores = np.zeros(len(studied))
    for k in range(FOLDS):
        train = fold[owner] != k
        inner = train & (fold[owner] != (k + 1) % FOLDS)
        judged = fold == (k + 1) % FOLDS

        def skill(penalty, inner=inner, judged=judged):
            pooled = pool(ridge(values, label[owner], inner, penalty), owner, len(label))
            return auc(pooled[judged], label[judged])

        best = max(PENALTIES, key=skill)
        held_out = fold == k
        scores[held_out] = pool(ridge(values, label[owner], train, best), owner, len(label))[
            held_out
        ]
    return scores


def ridge(values, label, train, penalty):
    """Return what a ridge regression, both classes counting half, gives to every piece."""
    mean, std = values[train].mean(0), values[train].std(0) + 1e-9
    x = (values - mean) / std
    weight = np.where(label > 0, 0.5 / (label[train] > 0).sum(), 0.5 / (label[train] < 0).sum())
    weight = weight * train.sum()
    some = x[train] * weight[train, None]
    normal = some.T @ x[train] + penalty * np.eye(x.shape[1])
    return x @ np.linalg.solve(normal, some.T @ label[train])


def pool(score, owner, count):
    return np.bincount(owner, score, count) / np.maximum(np.bincount(owner, minlength=count), 1)


def auc(scores, label):
    right, wrong = scores[label > 0], scores[label < 0]
    if not len(right) or not len(wrong):
        return 0.5
    return stats.mannwhitneyu(right, wrong).statistic / len(right) / len(wrong)


def trivial(scans: list[CohortScan], jobs: int) -> None:
    studied = executor.run(study, scans, jobs)
    bearing = [s for s in studied if s.bearing]
    curves = np.array([s.f1 for s in bearing])
    median = np.median(curves, axis=0)
    best = int(np.argmax(median))
    subjects = [s.subject for s in bearing]
    one = statistics.interval(curves[:, best].tolist(), subjects)
    own = statistics.interval(curves.max(1).tolist(), subjects)
    print(
        f"threshold in the true cord, {LEVELS[best]:.2f} of its median: median V-F1 "
        f"{one.value:.3f} ({one.low:.3f} to {one.high:.3f}), n {one.n}; to be at most 0.30"
    )
    print(f"  the best of each scan: {own.value:.3f} ({own.low:.3f} to {own.high:.3f})")
    kept = away_from_lesions(studied)
    scores, label = pooled_scores(kept), np.array([1.0 if s.bearing else -1.0 for s in kept])
    found = auc(scores, label)
    drawn = bootstrapped(scores, label, [s.subject for s in kept])
    print(
        f"classifier away from lesions: area under the ROC curve {found:.3f} "
        f"({drawn[0]:.3f} to {drawn[1]:.3f}), {len(kept)} scans, "
        f"{sum(len(s.features) for s in kept)} pieces; to hold 0.5"
    )


def bootstrapped(scores, label, subjects):
    rng, names = np.random.default_rng(0), sorted(set(subjects))
    rows = {n: np.flatnonzero([s == n for s in subjects]) for n in names}
    found = []
    for _ in range(1000):
        chosen = np.concatenate([rows[names[i]] for i in rng.integers(len(names), size=len(names))])
        found.append(auc(scores[chosen], label[chosen]))
    return np.quantile(found, (0.025, 0.975))


def bundles(scans: list[CohortScan], names: list[str]) -> None:
    """Print what every bundle does on the unseen scans; a refused scan counts as one left empty."""
    unseen = [scan for scan in scans if scan.split == "unseen"]
    seen_sites = {scan.site for scan in scans if scan.split != "unseen"}
    held_out = sorted({scan.site for scan in unseen} - seen_sites)
    print(
        f"bundles on {len(unseen)} unseen scans, sites {' and '.join(held_out) or 'none'} seen by "
        "no training: median V-F1 tuned (interval), on those sites, and at 0.5; P-specificity "
        "(share of lesion-free scans in which nothing is marked)"
    )
    for name in names:
        bundle = store.load(name)
        network = engine.load(bundle.network, "auto")
        measured = [(scan, measure(bundle, network, scan)) for scan in unseen]
        with_lesions = [(scan, m) for scan, m in measured if m.bearing]
        subjects = [scan.subject for scan, _ in with_lesions]
        f1 = statistics.interval([m.f1 for _, m in with_lesions], subjects)
        away = [m.f1 for scan, m in with_lesions if scan.site in held_out]
        at_half = np.median([m.f1_at_half for _, m in with_lesions])
        free = [m for _, m in measured if not m.bearing]
        empty = proportion(sum(not m.marked for m in free), len(free))
        print(
            f"  {name:18} {f1.value:.3f} ({f1.low:.3f} to {f1.high:.3f}) of {f1.n}; "
            f"{np.median(away) if away else np.nan:.3f} of {len(away)}; {at_half:.3f}; "
            f"{empty.value:.2f} ({empty.low:.2f} to {empty.high:.2f}) of {empty.n}; "
            f"refused {sum(m.refused for _, m in measured)}"
        )


@dataclass(frozen=True)
class Measured:
    """Scores of a bundle on one scan, tuned and at 0.5."""

    bearing: bool
    f1: float = 0.0
    f1_at_half: float = 0.0
    marked: bool = False
    refused: bool = False


def measure(bundle: store.Bundle, network: engine.Network, scan: CohortScan) -> Measured:
    try:
        seen = models.locate(scan, InferenceSettings("embedded"))
        pmap = seen.pmap(bundle, network)
    except NoCordError:
        return Measured(bool(nifti.read_mask(scan.lesion_mask).array.any()), refused=True)
    volume = seen.image.grid.voxel_volume_mm3
    tuned, half = (
        voxelwise.score(seen.truth, mask_at(pmap, threshold, volume, predict.filter_of(bundle))[0])
        for threshold in (bundle.threshold, 0.5)
    )
    return Measured(tuned.n_truth > 0, tuned.f1, half.f1, tuned.n_predicted > 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-i", type=Path, required=True, help="cohort: a folder or a TSV")
    parser.add_argument(
        "-bundle", nargs="*", default=[], help="bundles; the cohort then has a split"
    )
    parser.add_argument("-jobs", type=int, default=1, help="scans at a time; without -bundle")
    options = parser.parse_args()
    scans = table.read(options.i)
    if options.bundle:
        bundles(scans, options.bundle)
    else:
        trivial(scans, options.jobs)


if __name__ == "__main__":
    main()
