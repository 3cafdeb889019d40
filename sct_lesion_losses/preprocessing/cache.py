"""The tubes of training scans on disk: cut once, mapped into memory by every training.

Two entries of a `data.cache` hold a scan: its tube as it was cut, and its tube with standardised
intensities, which depends on the landmarks of all training scans. Patches are not stored: they
overlap by 75 %, and each is a slice of its tube.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import mmap
import os
import resource
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from sct_lesion_losses import __version__, executor, logs
from sct_lesion_losses.centerline import find
from sct_lesion_losses.cohorts.table import CohortScan, content_hash
from sct_lesion_losses.errors import DamagedError, DataError, ImageError, OutputError, UsageError
from sct_lesion_losses.geometry.cord_crop import WIDTH_VOX
from sct_lesion_losses.geometry.patches import PATCH_VOX
from sct_lesion_losses.images import nifti
from sct_lesion_losses.images.atomic import remove_left_over, replacing, require_writable
from sct_lesion_losses.preprocessing import intensity
from sct_lesion_losses.preprocessing import scan as prepare
from sct_lesion_losses.preprocessing.intensity import Landmarks
from sct_lesion_losses.preprocessing.sampler import TrainingTube

_TYPES = {"F32": np.dtype("<f4"), "BOOL": np.dtype(bool)}
_NAMES = {np.dtype(np.float32): "F32", np.dtype(bool): "BOOL"}
_FACTS, _HASH = "__metadata__", "sha256"
_LENGTH_BYTES = 8
_ALIGNMENT = 64  # a line of the processor's cache
_MAX_HEADER_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 20
_OTHER_FILES = 256  # open files that the rest of a program may need
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


@dataclass(frozen=True, eq=False)
class Mapped:
    """What a file holds.

    Attributes
    ----------
    arrays : dict of str to array
        float32 or bool, read-only; they keep the file mapped.
    facts : dict of str to str
    """

    arrays: dict[str, NDArray[Any]]
    facts: dict[str, str]


def write(path: Path, arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, str]) -> None:
    """Write arrays, float32 or bool, and facts about them; whole or not at all.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    header: dict[str, Any] = {_FACTS: dict(facts)}
    contents = []
    end = 0
    # The wider numbers first, so that every array is aligned to its own.
    for name, array in sorted(arrays.items(), key=lambda item: (-item[1].itemsize, item[0])):
        kind = _NAMES[array.dtype]
        contents.append(np.ascontiguousarray(array, _TYPES[kind]))
        start, end = end, end + array.nbytes
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [start, end]}
    digest = _started(header)
    for content in contents:
        digest.update(content.data)
    header[_FACTS][_HASH] = digest.hexdigest()
    text = json.dumps(header).encode()
    text += b" " * (-(_LENGTH_BYTES + len(text)) % _ALIGNMENT)
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(len(text).to_bytes(_LENGTH_BYTES, "little") + text)
        for content in contents:
            file.write(content.data)


def load(path: Path) -> Mapped:
    """Check a file to its last byte and map its arrays.

    Raises
    ------
    DamagedError
        It is not there, cannot be read, or is not as `write` wrote it.
    DataError
        This process may not open as many files, or map as much memory.
    """
    try:
        with path.open("rb") as file:
            header, begin = _header(path, file)
            facts = dict(header[_FACTS])
            _check_hash(path, file, header)
            view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        if error.errno in _EXHAUSTED:
            raise DataError(
                f"{path}: cannot be opened beside all others ({error.strerror}); raise the limit "
                "of this shell (ulimit -n), or give fewer scans"
            ) from error
        raise DamagedError(f"{path}: cannot be read ({error.strerror})") from error
    del facts[_HASH]
    arrays = {}
    for name, entry in header.items():
        if name != _FACTS:
            start, end = entry["data_offsets"]
            kind = _TYPES[entry["dtype"]]
            flat = np.frombuffer(view, kind, (end - start) // kind.itemsize, begin + start)
            arrays[name] = flat.reshape(entry["shape"])
    return Mapped(arrays, facts)


def allow(files: int) -> None:
    """Raise this process's limit of open files so far that as many can stay mapped.

    Python keeps a mapped file open. What the system does not allow is said by `load`.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = files + _OTHER_FILES
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _header(path: Path, file: BinaryIO) -> tuple[dict[str, Any], int]:
    """Header of a file, and where its arrays begin; leaves the file there."""
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
    if not 0 < length <= min(size - _LENGTH_BYTES, _MAX_HEADER_BYTES):
        raise DamagedError(f"{path}: {size} bytes that are no safetensors file")
    try:
        header = json.loads(file.read(length))
        hash_there = isinstance(header[_FACTS][_HASH], str)  # which vouches for all the rest
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != _FACTS]
        begin = _LENGTH_BYTES + length
        expected = begin + max(ends, default=0)
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise DamagedError(f"{path}: its header is damaged") from error
    if not hash_there or size != expected:
        raise DamagedError(f"{path}: {size} bytes, expected {expected}")
    return header, begin


def _check_hash(path: Path, file: BinaryIO, header: dict[str, Any]) -> None:
    digest = _started(header)
    buffer = memoryview(bytearray(_CHUNK_BYTES))
    while count := file.readinto(buffer):  # type: ignore[attr-defined]
        digest.update(buffer[:count])
    if digest.hexdigest() != header[_FACTS][_HASH]:
        raise DamagedError(f"{path}: its content does not match its hash")


def _started(header: dict[str, Any]) -> Any:
    """Hash of all of a header but the hash in it, to go on with the arrays."""
    facts = {name: fact for name, fact in header[_FACTS].items() if name != _HASH}
    text = json.dumps({**header, _FACTS: facts}, sort_keys=True)
    return hashlib.sha256(text.encode())


LOCKS = ".locks"
PATIENCE_S = 1800.0  # for another process at the same entry, which may be suspended
WAIT_SAID_AFTER_S = 2.0
_ABANDONED_S = 86400.0
_KEY = "key"
_KEY_DIGITS = 32

Made = tuple[Mapping[str, NDArray[Any]], Mapping[str, str]]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cache:
    """Entries in a folder, which is made when the first is written.

    Attributes
    ----------
    folder : Path
    """

    folder: Path

    def path(self, key: str) -> Path:
        """File of an entry."""
        return self.folder / f"{key}.safetensors"

    def find(self, key: str) -> Mapped | None:
        """Return the entry of that key, checked to its last byte; None if there is no good one."""
        try:
            return self._load(key)
        except DamagedError:
            return None

    def require(self, key: str) -> Mapped:
        """Return the entry of that key, which was found or made a moment ago."""
        try:
            return self._load(key)
        except DamagedError as error:
            raise DataError(
                f"{error}, though it was there a moment ago; let nobody clear the cache while it "
                "is in use, and start again"
            ) from error

    def make(self, key: str, make: Callable[[], Made]) -> bool:
        """Write an entry, unless another process has done so in the meantime.

        Parameters
        ----------
        key : str
        make : callable
            Returns the arrays and facts of the entry.

        Returns
        -------
        bool
            Whether it was made here.

        Raises
        ------
        OutputError
            The file cannot be written; no part of it is left.
        """
        with self._locked(key) as alone:
            try:
                self._load(key)
            except DamagedError as error:
                if self.path(key).exists():
                    logger.warning("%s: it is made again", error)
            else:
                return False
            if alone:
                remove_left_over(self.folder, self.path(key).name)
            arrays, facts = make()
            write(self.path(key), arrays, {**facts, _KEY: key})
            return True

    def tidy(self) -> None:
        """Remove what killed processes left over a day ago."""
        remove_left_over(self.folder, before=time.time() - _ABANDONED_S)

    def _load(self, key: str) -> Mapped:
        path = self.path(key)
        found = load(path)
        if found.facts.pop(_KEY, None) != key:
            raise DamagedError(f"{path}: holds another entry than its name says")
        return found

    @contextmanager
    def _locked(self, key: str) -> Iterator[bool]:
        """Hold the lock of an entry; yields False where there is none, or it cannot be had."""
        lock = FileLock(self.folder / LOCKS / key, timeout=PATIENCE_S)
        try:
            (self.folder / LOCKS).mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(timeout=WAIT_SAID_AFTER_S)
            except Timeout:
                logger.info("another process is at %s, waiting", self.path(key).name)
                lock.acquire()
        except (OSError, NotImplementedError) as error:
            # The work may be done twice then; the file that is renamed last stays.
            logger.debug("%s: no lock (%s)", self.path(key).name, error)
            yield False
            return
        try:
            yield True
        finally:
            lock.release()


def key(*parts: str) -> str:
    """Key of what is made of these parts, in this order."""
    lengths = ",".join(str(len(part)) for part in parts)
    return hashlib.sha256("\n".join([lengths, *parts]).encode()).hexdigest()[:_KEY_DIGITS]


def file_hash(path: Path) -> str:
    """Hash of the bytes of an image file.

    Raises
    ------
    ImageError
        It cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise ImageError(f"{path}: cannot be read: {error.strerror}") from error
    return digest.hexdigest()


FORMAT = 2  # raised whenever other tubes are made of the same files

Taken = TypeVar("Taken")


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
    progress: executor.Progress | None = None

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
        Hashes of the whole scan, and of what a network sees of it: intensities and lesion mask
        around the cord.
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
        A scan cannot be read or prepared; see `crop_scan`.
    DataError
        A file changed while it was read.
    OutputError
        The cache cannot be written.
    WorkerError
        A worker was killed.
    """
    automatic = find.identity() if any(scan.centerline is None for scan in scans) else ""
    tasks = [_Cut.of(scan, workshop.margin, automatic) for scan in scans]
    entries = _entries(tasks, _facts, workshop)
    for task, (facts, new) in zip(tasks, entries, strict=True):
        if not new:
            with logs.about(task.scan.scan):
                for text in facts["warnings"]:
                    logger.warning("%s", logs.with_scan(text))
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
    allow(len(scans))
    tasks = [_Standardise.of(scan, landmarks, workshop.margin) for scan in scans]
    return [
        TrainingTube(*arrays, scan.scan.name)
        for scan, (arrays, _) in zip(scans, _entries(tasks, _upright, workshop), strict=True)
    ]


def crop_scan(scan: CohortScan, margin: int = 0) -> tuple[TrainingTube, str]:
    """Crop a scan of a cohort and its lesion mask to the cord.

    Where the cohort has no centerline for the scan, it is found as in use.

    Returns
    -------
    TrainingTube
        With intensities as they are, `margin` voxels wider on each side than a network sees.
    str
        Hash of the whole scan's voxels.
    """
    with logs.about(scan.scan):
        image = nifti.read(scan.scan)
        mask = nifti.read_mask(scan.lesion_mask, like=image.grid).array
        line = find.centerline(image.array, image.grid, file=scan.centerline)
        cropped = prepare.crop(image.array, image.grid, line, margin)
        lesion = prepare.crop_mask(mask, image.grid, cropped)
        return TrainingTube(cropped.values, lesion, scan.name), content_hash(image.array)


def seen_hash(crop: TrainingTube) -> str:
    """Hash of what a network sees of a scan: intensities and lesion mask around the cord."""
    lesion = hashlib.sha256(np.packbits(crop.lesion).tobytes()).hexdigest()[:32]
    return content_hash(crop.values) + lesion


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
        with logs.collected_warnings() as said:
            crop, content = crop_scan(self.scan, self.margin)
        if _cut_key(self.scan, self.margin, self.automatic) != self.key:
            raise DataError(
                f"{self.scan.scan}: the scan, its lesion mask or its centerline changed while it "
                "was read; start again"
            )
        patches = prepare.stacked_patches(prepare.inner(crop.values, self.margin))
        facts = {
            "content": content,
            "seen": seen_hash(crop),
            "percentiles": intensity.measure(patches).tolist(),
            "lesion_vox": int(crop.lesion.sum()),
            "warnings": said,
        }
        return _by_slices(crop), {name: json.dumps(fact) for name, fact in facts.items()}


@dataclass(frozen=True)
class _Standardise:
    """The tube of a scan with standardised intensities."""

    key: str
    cut: CutScan
    landmarks: Landmarks
    margin: int

    @classmethod
    def of(cls, cut: CutScan, landmarks: Landmarks, margin: int) -> _Standardise:
        return cls(key(cut.key, json.dumps(asdict(landmarks))), cut, landmarks, margin)

    @property
    def name(self) -> str:
        return self.cut.scan.name

    def make(self, cache: Cache) -> Made:
        values, lesion = _upright(cache.require(self.cut.key))
        standard = prepare.standardise(values, self.landmarks, self.margin)
        return _by_slices(TrainingTube(standard, lesion)), {}


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
    return key(
        file_hash(scan.scan),
        file_hash(scan.lesion_mask),
        f"automatic {automatic}" if file is None else f"file {file_hash(file)}",
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
        made = executor.run(
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


def _by_slices(tube: TrainingTube) -> dict[str, NDArray[Any]]:
    """Arrays of a tube, (Z, X, Y): a patch lies in one piece, and is read in one."""
    arrays = {"values": tube.values, "lesion": tube.lesion}
    return {name: array.transpose(2, 0, 1) for name, array in arrays.items()}


def _upright(entry: Mapped) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Intensities and lesion mask of an entry, (X, Y, Z)."""
    return entry.arrays["values"].transpose(1, 2, 0), entry.arrays["lesion"].transpose(1, 2, 0)
