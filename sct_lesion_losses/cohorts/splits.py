"""Which scans are trained on, which choose the threshold, and which are never seen."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sct_lesion_losses.cohorts.table import SPLITS, CohortScan, content_hash, read_lesions
from sct_lesion_losses.errors import DataError, ImageError
from sct_lesion_losses.images import nifti
from sct_lesion_losses.metrics import lesionwise

# Called after each scan with the number done and the number of all.
Report = Callable[[int, int], None]


@dataclass(frozen=True)
class LesionLoad:
    """Lesions of one scan.

    Attributes
    ----------
    lesions : int
        Connected components of the mask, by `metrics.lesion.CONNECTIVITY`, of whatever volume.
    volume_mm3 : float
    """

    lesions: int
    volume_mm3: float


@dataclass(frozen=True)
class PartLoad:
    """Lesions of one part of a split.

    Attributes
    ----------
    name : str
        One of `table.SPLITS`.
    subjects, sites : int
        How many there are; scans whose site is not known have none.
    loads : tuple of LesionLoad
        One for each scan.
    """

    name: str
    subjects: int
    sites: int
    loads: tuple[LesionLoad, ...]

    @property
    def bearing(self) -> tuple[LesionLoad, ...]:
        """Loads of the scans with lesions."""
        return tuple(load for load in self.loads if load.lesions)

    @property
    def lesion_free(self) -> int:
        """Number of scans without lesions."""
        return len(self.loads) - len(self.bearing)


def measure(scan: CohortScan) -> LesionLoad:
    """Measure the manual mask of a scan, on the mask's own grid.

    Raises
    ------
    ImageError
        The mask cannot be read, or is none.
    """
    mask = read_lesions(scan)
    return LesionLoad(
        lesions=int(lesionwise.components(mask.array).max(initial=0)),
        volume_mm3=float(mask.array.sum()) * float(mask.grid.voxel_volume_mm3),
    )


def measure_all(
    scans: Sequence[CohortScan], report: Report | None = None
) -> dict[Path, LesionLoad]:
    """Measure the mask of every scan; the result is by the path of the scan.

    Raises
    ------
    ImageError
        Scans or masks cannot be read: the message tells of all of them.
    DataError
        Two subjects share a scan.
    """
    loads: dict[Path, LesionLoad] = {}
    contents: dict[Path, str] = {}
    unread: list[str] = []
    for done, scan in enumerate(scans, start=1):
        try:
            loads[scan.scan] = measure(scan)
            image = nifti.read(scan.scan)
            contents[scan.scan] = content_hash(image.grid.to_rpi()[1].apply(image.array))
        except ImageError as error:
            unread.append(str(error))
        if report is not None:
            report(done, len(scans))
    if unread:
        more = f" ({len(unread)} of {len(scans)} scans)" if len(unread) > 1 else ""
        raise ImageError("; ".join(unread) + more)
    refuse_copies(scans, contents)
    return loads


def refuse_copies(scans: Sequence[CohortScan], contents: Mapping[Path, str]) -> None:
    """Raise a DataError where a scan belongs to two subjects, who may come into two parts.

    Parameters
    ----------
    scans : sequence of CohortScan
    contents : mapping of Path to str
        Hash of the voxels of each scan.
    """
    known: dict[str, CohortScan] = {}
    for scan in scans:
        first = known.setdefault(contents[scan.scan], scan)
        if first.subject != scan.subject:
            raise DataError(
                f"{scan.scan} of {scan.subject} is the same image as {first.scan} of "
                f"{first.subject}: nobody may be trained and tested on; remove one of them, or "
                "give both one subject"
            )


def noted(table: Path) -> dict[Path, LesionLoad]:
    """Read the loads that the table of a split holds, by the path of the scan.

    Raises
    ------
    DataError
        It holds none.
    """
    try:
        with table.open(encoding="utf-8", newline="") as stream:
            return {
                table.parent / row["scan"]: LesionLoad(
                    int(float(row["lesions"])), float(row["lesion_volume_mm3"])
                )
                for row in csv.DictReader(stream, delimiter="\t")
            }
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{table}: not the table of a split with its lesion loads; make it by sct_split_lesion"
        ) from error


def by_part(scans: Sequence[CohortScan], loads: Mapping[Path, LesionLoad]) -> list[PartLoad]:
    """Gather the loads of a split by part, in the order of `table.SPLITS`."""
    parts = []
    for name in SPLITS:
        own = [scan for scan in scans if scan.split == name]
        parts.append(
            PartLoad(
                name,
                subjects=len({scan.subject for scan in own}),
                sites=len({scan.site for scan in own if scan.site}),
                loads=tuple(loads[scan.scan] for scan in own),
            )
        )
    return parts


# Scans with lesions per part: Hussein et al. 2023, section 2.2.
SHARES = {"training": 62, "validation": 13, "thr-optimization": 14, "unseen": 26}
_BLOCK = 8  # subjects of similar lesion load, among which chance and site decide
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Rules:
    """How a cohort is split.

    Attributes
    ----------
    seed : int
        Decides among subjects of similar lesion load.
    lesion_free_in_training, lesion_free_in_tuning : float
        Shares of the lesion-free subjects that are trained on and that take part in
        thr-optimization, at most 1 together; the study's are 0, all unseen.
    unseen_sites : tuple of str
        Sites all of whose scans are unseen.
    """

    seed: int = 0
    lesion_free_in_training: float = 0.0
    lesion_free_in_tuning: float = 0.0
    unseen_sites: tuple[str, ...] = ()


def check(scans: Sequence[CohortScan], rules: Rules) -> None:
    """Refuse rules that do not fit a cohort, before any mask is read.

    Raises
    ------
    DataError
        A share is outside 0 to 1, the shares exceed 1 together, or no scan is from an unseen site.
    """
    training, tuning = rules.lesion_free_in_training, rules.lesion_free_in_tuning
    for purpose, share in (("to train on", training), ("in thr-optimization", tuning)):
        if not 0 <= share <= 1:
            raise DataError(
                f"the share of lesion-free subjects {purpose} is {share:g}, expected 0 to 1"
            )
    if training + tuning > 1 + _ROUNDING:
        raise DataError(
            f"the shares of lesion-free subjects to train on, {training:g}, and in "
            f"thr-optimization, {tuning:g}, are more than 1 together; lower one of them"
        )
    if unknown := set(rules.unseen_sites) - {scan.site for scan in scans}:
        there = ", ".join(sorted({scan.site for scan in scans if scan.site})) or "none"
        raise DataError(
            f"no scan is from the unseen site {', '.join(sorted(unknown))}; the cohort's sites: "
            f"{there}"
        )


def assign(
    scans: Sequence[CohortScan],
    load_mm3: Mapping[Path, float],
    rules: Rules = Rules(),
) -> list[CohortScan]:
    """Give every scan its part, subject by subject, balanced for lesion load and site.

    All scans of a subject are in one part, so that nobody is trained and tested on. A subject with
    lesions in any scan takes its lesion-free scans along; subjects without lesions are unseen,
    save the shares that `rules` gives to training and to thr-optimization.

    1. Subjects with lesions are sorted by load and cut into blocks of 8, shuffled by the seed.
    2. In that order each goes to the part whose scans with lesions are furthest behind its share.
    3. Two subjects fewer than 8 places apart, with equally many such scans, change parts while that
       brings the parts nearer to their shares of every site: the sum of squared differences falls.
    4. Lesion-free subjects are drawn by the seed, site by site in proportion.

    Step 3 leaves the sizes of the parts as they are, and does nothing where sites are not known.

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

    Raises
    ------
    DataError
        See `check`.
    """
    check(scans, rules)
    groups: dict[str, list[CohortScan]] = {}
    for scan in sorted(scans, key=lambda s: str(s.scan)):  # sums do not depend on the order given
        groups.setdefault(scan.subject, []).append(scan)
    sites = {name: "/".join(sorted({s.site for s in own})) for name, own in groups.items()}
    loads = {name: sum(load_mm3[s.scan] for s in own) for name, own in groups.items()}
    sizes = {name: sum(load_mm3[s.scan] > 0 for s in own) for name, own in groups.items()}
    dealt = [
        name
        for name, own in sorted(groups.items())
        if not any(scan.site in rules.unseen_sites for scan in own)
    ]
    bearing = sorted((name for name in dealt if sizes[name]), key=lambda name: (loads[name], name))
    free = [name for name in dealt if not sizes[name]]

    rng = np.random.default_rng(rules.seed)
    parts = dict.fromkeys(groups, "unseen")
    parts.update(_exchanged(bearing, _dealt(bearing, sizes, rng), sizes, sites))
    drawn = _interleaved([free[i] for i in rng.permutation(len(free))], sites)
    trained = round(rules.lesion_free_in_training * len(free))
    tuned = round((rules.lesion_free_in_training + rules.lesion_free_in_tuning) * len(free))
    parts.update(dict.fromkeys(drawn[:trained], "training"))
    parts.update(dict.fromkeys(drawn[trained:tuned], "thr-optimization"))
    return [replace(scan, split=parts[scan.subject]) for scan in scans]


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


def _exchanged(
    subjects: Sequence[str],
    dealt: Mapping[str, str],
    sizes: Mapping[str, int],
    sites: Mapping[str, str],
) -> dict[str, str]:
    """Exchange subjects of one size and similar load while that lessens the imbalance of sites."""
    parts = dict(dealt)
    ahead = _ahead(parts, sizes, sites)
    pairs = [
        (one, other)
        for place, one in enumerate(subjects)
        for other in subjects[place + 1 : place + _BLOCK]
        if sizes[one] == sizes[other] and sites[one] != sites[other]
    ]
    better = True
    while better:
        better = False
        for one, other in pairs:
            here, there, size = parts[one], parts[other], sizes[one]
            a, b = ahead[sites[one]], ahead[sites[other]]
            # The sum of the squares of all `ahead` would fall by 2 size (left side - right side).
            if a[here] - a[there] + b[there] - b[here] > 2 * size + _ROUNDING:
                parts[one], parts[other] = there, here
                a[here], a[there] = a[here] - size, a[there] + size
                b[there], b[here] = b[there] - size, b[here] + size
                better = True
    return parts


def _ahead(
    parts: Mapping[str, str], sizes: Mapping[str, int], sites: Mapping[str, str]
) -> dict[str, dict[str, float]]:
    """Count the scans with lesions that each part holds of each site beyond its share."""
    total = sum(SHARES.values())
    ahead = {sites[subject]: dict.fromkeys(SHARES, 0.0) for subject in parts}
    for subject, held_by in parts.items():
        for part in SHARES:
            held = sizes[subject] if part == held_by else 0
            ahead[sites[subject]][part] += held - sizes[subject] * SHARES[part] / total
    return ahead


def _interleaved(subjects: Sequence[str], sites: Mapping[str, str]) -> list[str]:
    """Order subjects so that every beginning of the list holds the sites in proportion."""
    of_site = Counter(sites[subject] for subject in subjects)
    before: Counter[str] = Counter()
    place = {}
    for subject in subjects:
        site = sites[subject]
        place[subject] = (before[site] + 0.5) / of_site[site]
        before[site] += 1
    return sorted(subjects, key=lambda subject: place[subject])


def of(scans: Sequence[CohortScan], rules: Rules = Rules()) -> list[CohortScan]:
    """Return the split that the cohort's table holds, else a new one by `rules`.

    Raises
    ------
    DataError
        Only some scans have a split, a subject is in two parts, or the rules do not fit: they
        name a site that the cohort has not, or ask for another split than the table's.
    ImageError
        A lesion mask cannot be read.
    """
    given = [scan for scan in scans if scan.split]
    if not given:
        check(scans, rules)
        loads = measure_all(scans)
        return assign(scans, {scan: load.volume_mm3 for scan, load in loads.items()}, rules)
    if rules != Rules():
        raise DataError(
            "the cohort's table holds a split, which rules for a new one would not change; leave "
            "out the split seed, the lesion-free shares and the unseen sites, or the column split"
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


def for_tuning(
    others: Sequence[CohortScan], scans: Sequence[CohortScan], cohort: str
) -> list[CohortScan]:
    """Return the scans of another cohort as more of the part thr-optimization.

    Parameters
    ----------
    others : sequence of CohortScan
    scans : sequence of CohortScan
        Those of the cohort that is split.
    cohort : str
        Name of the other cohort. It leads the names of its subjects, who are other people even
        where they are called alike.

    Raises
    ------
    DataError
        A scan is in both cohorts.
    """
    known = {scan.scan.resolve() for scan in scans}
    if both := [scan.scan for scan in others if scan.scan.resolve() in known]:
        raise DataError(
            f"{both[0]} is in both cohorts; tune on scans that are not in the one that is split"
        )
    return [
        replace(scan, subject=f"{cohort}/{scan.subject}", split="thr-optimization")
        for scan in others
    ]


def part(scans: Sequence[CohortScan], *names: str) -> list[CohortScan]:
    """Return the scans of the parts of that name."""
    if unknown := set(names) - set(SPLITS):
        raise ValueError(f"expected names out of {SPLITS}, received {sorted(unknown)}")
    return [scan for scan in scans if scan.split in names]


def part_or_all(scans: Sequence[CohortScan], name: str, purpose: str) -> list[CohortScan]:
    """Return the scans of a part; all scans where the cohort has no split.

    Parameters
    ----------
    scans : sequence of CohortScan
    name : str
        Of the part.
    purpose : str
        What they are for, as the end of a message: all of whose scans ``are then evaluated``.

    Raises
    ------
    DataError
        The cohort has a split that is none, or no scan in this part.
    """
    if not any(scan.split for scan in scans):
        return list(scans)
    found = part(of(scans), name)
    if not found:
        raise DataError(
            f"no scan of the cohort is in the part {name}; give some, or a cohort without the "
            f"column split, all of whose scans {purpose}"
        )
    return found


def split_hash(scans: Sequence[CohortScan], hashes: Mapping[Path, str]) -> str:
    """Hash of a split: which scan contents are in which part, in whatever order or folder."""
    lines = sorted(f"{scan.split} {hashes[scan.scan]}" for scan in scans)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def counts(scans: Collection[CohortScan]) -> dict[str, int]:
    """Count the scans in each part."""
    return {name: sum(scan.split == name for scan in scans) for name in SPLITS}
