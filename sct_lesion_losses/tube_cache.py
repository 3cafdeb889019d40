"""The tubes of training scans on disk: cut once, mapped into memory by every training.

Two entries of a `data.cache` hold a scan: its tube as it was cut, and its tube with standardised
intensities, which depends on the landmarks of all training scans. Patches are not stored: they
overlap by 75 %, and each is a slice of its tube.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from sct_lesion_losses import __version__, intensity, locate, notices, parallel, prepare, tubes
from sct_lesion_losses.data import cache as caches
from sct_lesion_losses.data import mapped
from sct_lesion_losses.data.cache import Cache, Made
from sct_lesion_losses.data.cohort import CohortScan
from sct_lesion_losses.data.drawing import TrainingTube
from sct_lesion_losses.data.mapped import Mapped
from sct_lesion_losses.errors import DataError, OutputError, UsageError
from sct_lesion_losses.files import require_writable
from sct_lesion_losses.intensity import Landmarks
from sct_lesion_losses.space.patches import PATCH_VOX
from sct_lesion_losses.space.tube import WIDTH_VOX
from sct_lesion_losses.tubes import RawTube

FORMAT = 1  # raised whenever other tubes are made of the same files

Taken = TypeVar("Taken")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Workshop:
    """Where tubes are kept, and how they are made.

    Attributes
    ----------
    folder : Path
        The cache.
    margin : int
        Voxels that a tube is wider on each side than a patch.
    jobs : int
        Worker processes.
    progress : callable, optional
        Called with (done, total) of the scans that are to be made.
    """

    folder: Path
    margin: int = 0
    jobs: int = 1
    progress: parallel.Progress | None = None

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise UsageError(f"received {self.jobs} jobs, expected 1 or more")


@dataclass(frozen=True)
class CutScan:
    """A scan whose tube is in the cache, and what is known of it without its voxels.

    Attributes
    ----------
    scan : CohortScan
    key : str
        Of the tube.
    content, seen : str
        Hashes of the whole scan, and of what a network sees of it; see `tubes.RawTube`.
    percentiles : tuple of float
        Those of its stacked patches, at `intensity.PERCENTILES`.
    lesion_vox : int
        Voxels of lesion in the tube.
    warnings : tuple of str
        What was said when it was cut.
    """

    scan: CohortScan
    key: str
    content: str
    seen: str
    percentiles: tuple[float, ...]
    lesion_vox: int
    warnings: tuple[str, ...]


def cut(scans: Sequence[CohortScan], workshop: Workshop) -> list[CutScan]:
    """Cut the tubes of scans into the cache, those that are not there yet.

    What was warned of when a tube was cut is said again when it is taken from the cache.

    Raises
    ------
    LesionError
        A scan cannot be read or prepared; see `tubes.cut`.
    DataError
        A file changed while it was read.
    OutputError
        The cache cannot be written.
    WorkerError
        A worker was killed.
    """
    automatic = locate.identity() if any(scan.centerline is None for scan in scans) else ""
    tasks = [_Cut.of(scan, workshop.margin, automatic) for scan in scans]
    entries = _entries(tasks, _facts, workshop)
    for task, (facts, new) in zip(tasks, entries, strict=True):
        if not new:
            with notices.about(task.scan.scan):
                for text in facts["warnings"]:
                    logger.warning("%s", notices.with_scan(text))
    logger.info(
        "tubes: %d cut, %d taken from the cache %s",
        sum(new for _, new in entries),
        sum(not new for _, new in entries),
        workshop.folder,
    )
    return [
        CutScan(task.scan, task.key, **facts)
        for task, (facts, _) in zip(tasks, entries, strict=True)
    ]


def standardised(
    scans: Sequence[CutScan], landmarks: Landmarks, workshop: Workshop
) -> list[TrainingTube]:
    """Return the tubes with standardised intensities, mapped from the cache into memory.

    Raises
    ------
    DataError
        The cache was cleared meanwhile, or more files would be open than the system allows.
    OutputError
        The cache cannot be written.
    WorkerError
        A worker was killed.
    """
    mapped.allow(len(scans))
    tasks = [_Standardise.of(scan, landmarks, workshop.margin) for scan in scans]
    return [
        TrainingTube(*arrays, scan.scan.name)
        for scan, (arrays, _) in zip(scans, _entries(tasks, _upright, workshop), strict=True)
    ]


class _Task(Protocol):
    """An entry to be made."""

    @property
    def key(self) -> str: ...

    @property
    def name(self) -> str: ...

    def make(self, cache: Cache) -> Made: ...


@dataclass(frozen=True)
class _Cut:
    """The tube of a scan as it is cut."""

    key: str
    scan: CohortScan
    margin: int
    automatic: str

    @classmethod
    def of(cls, scan: CohortScan, margin: int, automatic: str) -> _Cut:
        return cls(_cut_key(scan, margin, automatic), scan, margin, automatic)

    @property
    def name(self) -> str:
        return self.scan.name

    def make(self, cache: Cache) -> Made:
        with notices.collected_warnings() as said:
            tube = tubes.cut(self.scan, self.margin)
        if _cut_key(self.scan, self.margin, self.automatic) != self.key:
            raise DataError(
                f"{self.scan.scan}: the scan, its lesion mask or its centerline changed while it "
                "was read; start again"
            )
        patches = prepare.stacked_patches(tube.inner(self.margin))
        facts = {
            "content": tube.content,
            "seen": tube.seen,
            "percentiles": intensity.measure(patches).tolist(),
            "lesion_vox": int(tube.lesion.sum()),
            "warnings": said,
        }
        return _by_slices(tube), {name: json.dumps(fact) for name, fact in facts.items()}


@dataclass(frozen=True)
class _Standardise:
    """The tube of a scan with standardised intensities."""

    key: str
    cut: CutScan
    landmarks: Landmarks
    margin: int

    @classmethod
    def of(cls, cut: CutScan, landmarks: Landmarks, margin: int) -> _Standardise:
        return cls(caches.key(cut.key, json.dumps(asdict(landmarks))), cut, landmarks, margin)

    @property
    def name(self) -> str:
        return self.cut.scan.name

    def make(self, cache: Cache) -> Made:
        raw = RawTube(*_upright(cache.require(self.cut.key)), self.cut.content)
        tube = tubes.standardised(raw, self.landmarks, self.margin)
        return _by_slices(tube), {}


def _cut_key(scan: CohortScan, margin: int, automatic: str) -> str:
    settings = {
        "format": FORMAT,
        "version": __version__,
        "spacing_mm": prepare.SPACING_MM,
        "width_vox": WIDTH_VOX,
        "patch_vox": PATCH_VOX,
        "margin_vox": margin,
        "percentiles": intensity.PERCENTILES,
    }
    file = scan.centerline
    return caches.key(
        caches.file_hash(scan.scan),
        caches.file_hash(scan.lesion_mask),
        f"automatic {automatic}" if file is None else f"file {caches.file_hash(file)}",
        json.dumps(settings),
    )


def _entries(
    tasks: Sequence[_Task], take: Callable[[Mapped], Taken], workshop: Workshop
) -> list[tuple[Taken, bool]]:
    """Take what is wanted of every task's entry, and say whether the entry was made for it."""
    cache = Cache(workshop.folder)
    taken: dict[str, Taken] = {}
    missing: dict[str, _Task] = {}
    for task in tasks:
        entry = cache.find(task.key)
        if entry is None:
            missing[task.key] = task
        else:
            taken[task.key] = take(entry)
    made = [False] * len(missing)
    if missing:
        try:
            require_writable(workshop.folder)
        except OutputError as error:
            raise OutputError(
                f"{error}; {len(missing)} of {len(tasks)} tubes are not in this cache, or damaged"
            ) from error
        cache.tidy()
        made = parallel.run(
            partial(_make, cache),
            list(missing.values()),
            workshop.jobs,
            name=lambda task: task.name,
            progress=workshop.progress,
        )
        taken |= {key: take(cache.require(key)) for key in missing}
    new = {key for key, here in zip(missing, made, strict=True) if here}
    return [(taken[task.key], task.key in new) for task in tasks]


def _make(cache: Cache, task: _Task) -> bool:
    return cache.make(task.key, partial(task.make, cache))


def _facts(entry: Mapped) -> dict[str, Any]:
    facts = {name: json.loads(fact) for name, fact in entry.facts.items()}
    return {**facts, **{name: tuple(facts[name]) for name in ("percentiles", "warnings")}}


def _by_slices(tube: RawTube | TrainingTube) -> dict[str, NDArray[Any]]:
    """Arrays of a tube, (Z, X, Y): a patch lies in one piece, and is read in one."""
    arrays = {"values": tube.values, "lesion": tube.lesion}
    return {name: array.transpose(2, 0, 1) for name, array in arrays.items()}


def _upright(entry: Mapped) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Intensities and lesion mask of an entry, (X, Y, Z)."""
    return entry.arrays["values"].transpose(1, 2, 0), entry.arrays["lesion"].transpose(1, 2, 0)
