"""Parts of a cohort: scans that are trained on, that choose the threshold, or are never seen."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sct_lesion_losses.cohorts.table import (
    SPLITS,
    CohortScan,
    content_hash,
    host_hash,
    read_lesions,
)
from sct_lesion_losses.errors import DataError, ImageError
from sct_lesion_losses.executor import Progress
from sct_lesion_losses.images import bids, nifti
from sct_lesion_losses.metrics import lesionwise

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class LesionLoad:
    """Lesions of one scan.

    Attributes
    ----------
    lesions : int
        Connected components of the mask, by `metrics.CONNECTIVITY`, of whatever volume.
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
    scans: Sequence[CohortScan], report: Progress | None = None
) -> dict[Path, LesionLoad]:
    """Measure the mask of every scan; the result is by the path of the scan.

    Raises
    ------
    ImageError
        Scans or masks cannot be read: the message tells of all of them.
    DataError
        See `refuse_copies`.
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
    """Raise a DataError where one person is two subjects, who are or may come in two parts.

    It is one person where two scans are the same image, hold implants in one, or are that one.

    Parameters
    ----------
    scans : sequence of CohortScan
        Those without a part may come into any.
    contents : mapping of Path to str
        Hash of the voxels of each scan, as far as it is known.
    """
    known: dict[str, CohortScan] = {}
    for scan in scans:
        for image in filter(None, (contents.get(scan.scan), host_hash(scan))):
            first = known.setdefault(image, scan)
            together = scan.split and scan.split == first.split
            if first.subject != scan.subject and not together:
                raise DataError(
                    f"{scan.scan} of {scan.subject} is the same image as {first.scan} of "
                    f"{first.subject}, or made of it: nobody may be trained and tested on; remove "
                    "one of them, or list both in one table under one subject (a column cohort "
                    "tells cohorts apart)"
                )


def noted(table: Path) -> dict[Path, LesionLoad]:
    """Read the loads that the table of a split holds, by the path of the scan.

    Raises
    ------
    DataError
        It cannot be read, or holds none.
    """
    try:
        return {
            table.parent / row["scan"]: LesionLoad(
                int(float(row["lesions"])), float(row["lesion_volume_mm3"])
            )
            for row in bids.read_table(table)
        }
    except (KeyError, ValueError) as error:
        raise DataError(
            f"{table}: not the table of a split with its lesion loads; make it by sct_split_lesion"
        ) from error


def by_part(scans: Sequence[CohortScan], loads: Mapping[Path, LesionLoad]) -> list[PartLoad]:
    """Gather the loads of a split by part, in the order of `table.SPLITS`."""
    by_name = {name: [scan for scan in scans if scan.split == name] for name in SPLITS}
    return [
        PartLoad(
            name,
            subjects=len({scan.subject for scan in own}),
            sites=len({scan.site for scan in own if scan.site}),
            loads=tuple(loads[scan.scan] for scan in own),
        )
        for name, own in by_name.items()
    ]


# Scans with lesions per part: Hussein et al. 2023, section 2.2.
SHARES = {"training": 62, "validation": 13, "thr-optimization": 14, "unseen": 26}
_WEIGHTS = np.array(list(SHARES.values()))
_BLOCK = 8  # subjects of similar lesion load, among which chance and site decide
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Rules:
    """Rules by which a cohort is split.

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
    size = np.array([sizes[name] for name in bearing], dtype=np.int64)
    _, site = np.unique([sites[name] for name in bearing], return_inverse=True)
    for name, part in zip(bearing, _exchanged(_dealt(size, rng), size, site), strict=True):
        parts[name] = list(SHARES)[part]
    drawn = _interleaved([free[i] for i in rng.permutation(len(free))], sites)
    trained = round(rules.lesion_free_in_training * len(free))
    tuned = round((rules.lesion_free_in_training + rules.lesion_free_in_tuning) * len(free))
    parts.update(dict.fromkeys(drawn[:trained], "training"))
    parts.update(dict.fromkeys(drawn[trained:tuned], "thr-optimization"))
    return [replace(scan, split=parts[scan.subject]) for scan in scans]


def _dealt(size: IntArray, rng: np.random.Generator) -> IntArray:
    """Deal subjects, in the order of their load, to whichever part is furthest behind.

    Every part gets a subject, as far as there are any: training first, unseen last.
    """
    n = len(size)
    blocks = range(0, n, _BLOCK)
    order = [first + k for first in blocks for k in rng.permutation(min(_BLOCK, n - first))]
    held = np.zeros(len(_WEIGHTS))
    part = np.zeros(n, dtype=np.int64)
    for k, seen in enumerate(np.cumsum(size[order])):
        part[k] = np.argmax(seen * _WEIGHTS / _WEIGHTS.sum() - held)
        held[part[k]] += size[order[k]]
    needed = min(n, len(_WEIGHTS))
    for empty in range(needed):
        counts = np.bincount(part, minlength=len(_WEIGHTS))
        if not counts[empty]:
            spare = needed + np.flatnonzero(counts[needed:])
            giving = spare[-1] if spare.size else counts.argmax()
            part[np.flatnonzero(part == giving)[-1]] = empty
    dealt = np.empty_like(part)
    dealt[order] = part
    return dealt


def _exchanged(dealt: IntArray, size: IntArray, site: IntArray) -> IntArray:
    """Exchange subjects of one size and similar load while that lessens the imbalance of sites."""
    part, n = dealt.copy(), len(dealt)
    # Scans with lesions that each part holds of each site beyond its share.
    ahead = np.zeros((n, len(_WEIGHTS)))
    np.add.at(ahead, (site, part), size)
    ahead -= np.outer(ahead.sum(axis=1), _WEIGHTS / _WEIGHTS.sum())
    pairs = [
        (one, other)
        for one in range(n)
        for other in range(one + 1, min(one + _BLOCK, n))
        if size[one] == size[other] and site[one] != site[other]
    ]
    better = True
    while better:
        better = False
        for one, other in pairs:
            here, there = part[one], part[other]
            a, b = ahead[site[one]], ahead[site[other]]
            # The sum of the squares of `ahead` would fall by 2 size (left side - right side).
            if a[here] - a[there] + b[there] - b[here] > 2 * size[one] + _ROUNDING:
                part[one], part[other] = there, here
                a[[here, there]] += (-size[one], size[one])
                b[[here, there]] += (size[one], -size[one])
                better = True
    return part


def _interleaved(subjects: Sequence[str], sites: Mapping[str, str]) -> list[str]:
    """Order subjects so that every beginning of the list holds the sites in proportion."""
    of_site: dict[str, list[str]] = {}
    for subject in subjects:
        of_site.setdefault(sites[subject], []).append(subject)
    place = {s: (k + 0.5) / len(own) for own in of_site.values() for k, s in enumerate(own)}
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


def of_several(cohorts: Sequence[Sequence[CohortScan]], rules: Rules = Rules()) -> list[CohortScan]:
    """Return the scans of several cohorts, each with the split of its own: see `of`.

    The rules are for the cohorts without a split, each by itself; an unseen site is one of any, and
    unseen in all.

    Parameters
    ----------
    cohorts : sequence of sequence of CohortScan
        See `table.read_several`.
    rules : Rules

    Raises
    ------
    DataError
        See `of` and `refuse_copies`; or the split of a cohort has an unseen site in another part.
    """
    if len(cohorts) == 1:
        return of(cohorts[0], rules)
    if rules != Rules() and all(any(scan.split for scan in own) for own in cohorts):
        raise DataError(
            "the table of every cohort holds a split, which rules for a new one would not change; "
            "leave out the split seed, the lesion-free shares and the unseen sites, or a column "
            "split"
        )
    check([scan for own in cohorts for scan in own], rules)
    scans: list[CohortScan] = []
    for own in cohorts:
        is_split, there = any(scan.split for scan in own), {scan.site for scan in own}
        sites = tuple(site for site in rules.unseen_sites if site in there)
        parted = of(own, Rules() if is_split else replace(rules, unseen_sites=sites))
        for scan in parted:
            if scan.site in sites and scan.split != "unseen":
                raise DataError(
                    f"{scan.name} of the unseen site {scan.site} is in {scan.split} by the table "
                    f"of the cohort {scan.cohort}; put the scans of the site into unseen there"
                )
        scans += parted
    refuse_copies(scans, {})
    return scans


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
        where they are called alike, and is theirs where the first one knows cohorts.

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
    several = any(scan.cohort for scan in scans)
    return [
        replace(
            scan,
            subject=f"{cohort}/{scan.subject}",
            split="thr-optimization",
            cohort=(scan.cohort or cohort) if several else "",
        )
        for scan in others
    ]


def part(scans: Sequence[CohortScan], *names: str) -> list[CohortScan]:
    """Return the scans of the parts of that name."""
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
