"""Which scans are trained on, which choose the threshold, and which are never seen."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sct_lesion_losses.data import nifti
from sct_lesion_losses.data.cohort import SPLITS, CohortScan
from sct_lesion_losses.errors import DataError

# Scans with lesions per part: Hussein et al. 2023, section 2.2.
SHARES = {"training": 62, "validation": 13, "thr-optimization": 14, "unseen": 26}
_BLOCK = 8  # subjects of similar lesion load among which chance decides


@dataclass(frozen=True)
class Rules:
    """How a cohort is split.

    Attributes
    ----------
    seed : int
        Decides among subjects of similar lesion load.
    lesion_free_in_training : float
        Share of the lesion-free subjects that is trained on; the study's is 0, all unseen.
    unseen_sites : tuple of str
        Sites all of whose scans are unseen.
    """

    seed: int = 0
    lesion_free_in_training: float = 0.0
    unseen_sites: tuple[str, ...] = ()


def assign(
    scans: Sequence[CohortScan],
    load_mm3: Mapping[Path, float],
    rules: Rules = Rules(),
) -> list[CohortScan]:
    """Give every scan its part, subject by subject, balanced for lesion load.

    All scans of a subject are in one part, so that nobody is trained and tested on. A subject with
    lesions in any scan takes its lesion-free scans along; subjects without lesions are unseen,
    save the share that `rules` trains on.

    Parameters
    ----------
    scans : sequence of CohortScan
    load_mm3 : mapping of Path to float
        Lesion volume of each scan.
    rules : Rules

    Returns
    -------
    list of CohortScan
        The scans in their order, each with its `split`.
    """
    if not 0 <= rules.lesion_free_in_training <= 1:
        raise DataError(
            f"the share of lesion-free subjects to train on is {rules.lesion_free_in_training}, "
            "expected 0 to 1"
        )
    if unknown := set(rules.unseen_sites) - {scan.site for scan in scans}:
        there = ", ".join(sorted({scan.site for scan in scans if scan.site})) or "none"
        raise DataError(
            f"no scan is from the unseen site {', '.join(sorted(unknown))}; the cohort's sites: "
            f"{there}"
        )
    groups: dict[str, list[CohortScan]] = {}
    for scan in scans:
        groups.setdefault(scan.subject, []).append(scan)
    held_out = {
        subject
        for subject, own in groups.items()
        if any(scan.site in rules.unseen_sites for scan in own)
    }
    rng = np.random.default_rng(rules.seed)
    loads = {subject: sum(load_mm3[s.scan] for s in own) for subject, own in groups.items()}
    bearing = sorted((s for s in groups if loads[s] > 0 and s not in held_out), key=_by(loads))
    free = sorted(s for s in groups if loads[s] <= 0 and s not in held_out)
    parts = dict.fromkeys(groups, "unseen")
    sizes = {s: sum(load_mm3[scan.scan] > 0 for scan in groups[s]) for s in bearing}
    parts.update(_dealt(bearing, sizes, rng))
    trained = round(rules.lesion_free_in_training * len(free))
    parts.update({free[i]: "training" for i in rng.permutation(len(free))[:trained]})
    return [replace(scan, split=parts[scan.subject]) for scan in scans]


def _by(loads: Mapping[str, float]) -> Callable[[str], tuple[float, str]]:
    return lambda subject: (loads[subject], subject)


def _dealt(
    subjects: Sequence[str], sizes: Mapping[str, int], rng: np.random.Generator
) -> dict[str, str]:
    """Deal subjects, in the order of their load, to whichever part is furthest behind."""
    order: list[str] = []
    for first in range(0, len(subjects), _BLOCK):
        block = subjects[first : first + _BLOCK]
        order += [block[i] for i in rng.permutation(len(block))]
    total = sum(SHARES.values())
    held = dict.fromkeys(SHARES, 0)
    dealt: dict[str, str] = {}
    seen = 0
    for subject in order:
        seen += sizes[subject]
        behind = {part: seen * SHARES[part] / total - held[part] for part in SHARES}
        part = max(behind, key=lambda name: behind[name])
        held[part] += sizes[subject]
        dealt[subject] = part
    return _none_empty(dealt)


def _none_empty(dealt: dict[str, str]) -> dict[str, str]:
    """Give every part a subject, as far as there are any: training first, unseen last."""
    needed = list(SHARES)[: len(dealt)]
    for part in needed:
        members = {name: [s for s in dealt if dealt[s] == name] for name in SHARES}
        if not members[part]:
            spare = [own[-1] for name, own in members.items() if own and name not in needed]
            largest = max(members.values(), key=len)
            dealt = {**dealt, (spare or largest)[-1]: part}
    return dealt


def of(scans: Sequence[CohortScan], rules: Rules = Rules()) -> list[CohortScan]:
    """Return the split that the cohort's table holds, else a new one by `rules`.

    Raises
    ------
    DataError
        Only some scans have a split, a subject is in two parts, or the rules do not fit: they
        name a site that the cohort has not, or ask for another split than the table's.
    """
    given = [scan for scan in scans if scan.split]
    if not given:
        return assign(scans, {scan.scan: load_mm3(scan) for scan in scans}, rules)
    if rules != Rules():
        raise DataError(
            "the cohort's table holds a split, which rules for a new one would not change; leave "
            "out the split seed, the lesion-free share and the unseen sites, or the column split"
        )
    if len(given) < len(scans):
        raise DataError(
            f"{len(scans) - len(given)} of {len(scans)} scans have no split; give all or none"
        )
    parts: dict[str, str] = {}
    for scan in scans:
        if parts.setdefault(scan.subject, scan.split) != scan.split:
            raise DataError(
                f"subject {scan.subject} is in {parts[scan.subject]} and in {scan.split}; "
                "put all scans of a subject into one part"
            )
    return list(scans)


def load_mm3(scan: CohortScan) -> float:
    """Lesion volume of a scan by its manual mask."""
    mask = nifti.read_mask(scan.lesion_mask)
    return float(mask.array.sum()) * float(mask.grid.voxel_volume_mm3)


def part(scans: Sequence[CohortScan], *names: str) -> list[CohortScan]:
    """Return the scans of the parts of that name."""
    if unknown := set(names) - set(SPLITS):
        raise ValueError(f"expected names out of {SPLITS}, received {sorted(unknown)}")
    return [scan for scan in scans if scan.split in names]


def split_hash(scans: Sequence[CohortScan], hashes: Mapping[Path, str]) -> str:
    """Hash of a split: which scan contents are in which part, in whatever order or folder."""
    lines = sorted(f"{scan.split} {hashes[scan.scan]}" for scan in scans)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def counts(scans: Collection[CohortScan]) -> dict[str, int]:
    """Count the scans in each part."""
    return {name: sum(scan.split == name for scan in scans) for name in SPLITS}
