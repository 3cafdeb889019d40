"""Cropped scans on disk, for training: made once, mapped into memory by every training.

Two entries hold a scan: its crop as it is, and its crop with standardised intensities, which
depends on the landmarks of all training scans. Patches are not stored: they overlap by 75 %, and
each is a slice of its crop. An entry is a safetensors file named by the hash of all that it is made
of; another process that makes the same one is waited for, and a damaged one is made again.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import math
import mmap
import resource
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import safetensors
import safetensors.numpy
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from sct_lesion_losses import __version__, executor, logs
from sct_lesion_losses.centerline import find
from sct_lesion_losses.cohorts.table import CohortScan, content_hash, file_hash, read_lesions
from sct_lesion_losses.errors import DamagedError, DataError, OutputError, UsageError
from sct_lesion_losses.geometry.cord_crop import WIDTH_VOX
from sct_lesion_losses.geometry.patches import PATCH_VOX
from sct_lesion_losses.images import nifti
from sct_lesion_losses.images.atomic import remove_left_over, replacing, require_writable
from sct_lesion_losses.preprocessing import intensity
from sct_lesion_losses.preprocessing import scan as prepare
from sct_lesion_losses.preprocessing.intensity import Landmarks

_TYPES = {"F32": np.dtype("<f4"), "BOOL": np.dtype(bool)}
_FACTS, _HASH = "facts", "sha256"
_CHUNK_BYTES = 1 << 20
_OTHER_FILES = 256  # open files that the rest of a program may need
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


@dataclass(frozen=True, eq=False)
class Mapped:
    """Contents of an entry.

    Attributes
    ----------
    arrays : dict of str to array
        float32 or bool, read-only; they keep the file mapped.
    facts : dict of str to JSON value
    """

    arrays: dict[str, NDArray[Any]]
    facts: dict[str, Any]


def write(path: Path, arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]) -> None:
    """Write arrays, float32 or bool, and facts about them; whole or not at all.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    names = _in_order({name: array.dtype for name, array in arrays.items()})
    stored = {name: np.ascontiguousarray(arrays[name]) for name in names}
    digest = _started(facts, {name: array.shape for name, array in stored.items()})
    for array in stored.values():
        digest.update(array.data)
    text = json.dumps({**facts, _HASH: digest.hexdigest()})
    content = safetensors.numpy.save(stored, {_FACTS: text})
    with replacing(path) as temporary:
        temporary.write_bytes(content)


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
            with safetensors.safe_open(path, "numpy") as opened:
                facts = json.loads(opened.metadata()[_FACTS])
                parts = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
                types = {name: _TYPES[part.get_dtype()] for name, part in parts.items()}
                names = _in_order(types)
                shapes = {name: tuple(parts[name].get_shape()) for name in names}
            sizes = {name: math.prod(shapes[name]) * types[name].itemsize for name in names}
            begin = file.seek(0, 2) - sum(sizes.values())
            expected = facts.pop(_HASH)
            digest = _started(facts, shapes)
            file.seek(begin)
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
            if digest.hexdigest() != expected:
                raise DamagedError(f"{path}: its content does not match its hash")
            view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        if error.errno in _EXHAUSTED:
            raise DataError(
                f"{path}: cannot be opened beside all others ({error.strerror}); raise the limit "
                "of this shell (ulimit -n), or give fewer scans"
            ) from error
        raise DamagedError(f"{path}: cannot be read ({error.strerror})") from error
    except (safetensors.SafetensorError, ValueError, LookupError, TypeError) as error:
        raise DamagedError(f"{path}: damaged ({error})") from error
    arrays = {}
    for name in names:
        kind = types[name]
        flat = np.frombuffer(view, kind, sizes[name] // kind.itemsize, begin)
        arrays[name] = flat.reshape(shapes[name])
        begin += sizes[name]
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


def _in_order(types: Mapping[str, np.dtype[Any]]) -> list[str]:
    """Names of arrays as the format orders them: the wider numbers first, then by name."""
    return sorted(types, key=lambda name: (-types[name].itemsize, name))


def _started(facts: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> Any:
    """Hash of facts and shapes, to go on with the arrays."""
    text = json.dumps([facts, list(shapes.items())], sort_keys=True)
    return hashlib.sha256(text.encode())


LOCKS = ".locks"
PATIENCE_S = 1800.0  # for another process at the same entry, which may be suspended
WAIT_SAID_AFTER_S = 2.0
_ABANDONED_S = 86400.0
_KEY = "key"
_KEY_DIGITS = 32

Made = tuple[Mapping[str, NDArray[Any]], Mapping[str, Any]]

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


def key_of(*parts: str) -> str:
    """Key of what is made of these parts, in this order."""
    lengths = ",".join(str(len(part)) for part in parts)
    return hashlib.sha256("\n".join([lengths, *parts]).encode()).hexdigest()[:_KEY_DIGITS]


FORMAT = 2  # raised whenever other crops are made of the same files

Taken = TypeVar("Taken")


@dataclass(frozen=True, eq=False)
class TrainingCrop:
    """A scan as training sees it.

    Attributes
    ----------
    values : (48 + 2M, 48 + 2M, Z) float32
        Standardised intensities around the centerline, M voxels wider on each side than a patch.
    lesion : (48 + 2M, 48 + 2M, Z) bool
        Lesion mask on the same voxels.
    name : str
        Name of the scan, for messages.
    """

    values: NDArray[np.float32]
    lesion: NDArray[np.bool_]
    name: str = ""

    @property
    def margin(self) -> int:
        """M, the voxels by which a window may be moved in plane."""
        return int(self.values.shape[0] - PATCH_VOX) // 2


@dataclass(frozen=True)
class CacheSettings:
    """Where crops are kept, and how they are made.

    Attributes
    ----------
    folder : Path
        The cache.
    margin : int
        Voxels that a crop is wider on each side than a patch.
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
class CachedCrop:
    """A scan whose crop is in the cache, and what is known of it without its voxels.

    Attributes
    ----------
    scan : CohortScan
    key : str
        Of the crop.
    content, seen : str
        Hashes of the whole scan, and of what a network sees of it: intensities and lesion mask
        around the cord.
    percentiles : tuple of float
        Those of its stacked patches, at `intensity.PERCENTILES`.
    lesion_vox : int
        Voxels of lesion in the crop.
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


def crop_scans(scans: Sequence[CohortScan], settings: CacheSettings) -> list[CachedCrop]:
    """Cut the crops of scans into the cache, those that are not there yet.

    What was warned of when a crop was cut is said again when it is taken from the cache.

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
    wanted = []
    for scan in scans:
        key = _cut_key(scan, settings.margin, automatic)
        make = partial(_make_crop, scan, settings.margin, automatic, key)
        wanted.append(_Entry(key, scan.name, make))
    entries = _entries(wanted, _facts, settings)
    for scan, (facts, new) in zip(scans, entries, strict=True):
        if not new:
            with logs.about(scan.scan):
                for text in facts["warnings"]:
                    logger.warning("%s", logs.with_scan(text))
    logger.info(
        "crops: %d made, %d taken from the cache %s",
        sum(new for _, new in entries),
        sum(not new for _, new in entries),
        settings.folder,
    )
    return [
        CachedCrop(scan, entry.key, **facts)
        for scan, entry, (facts, _) in zip(scans, wanted, entries, strict=True)
    ]


def standardise_scans(
    scans: Sequence[CachedCrop], landmarks: Landmarks, settings: CacheSettings
) -> list[TrainingCrop]:
    """Return the crops with standardised intensities, mapped from the cache into memory.

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
    cache = Cache(settings.folder)
    wanted = []
    for scan in scans:
        make = partial(_make_standard, cache, scan.key, landmarks, settings.margin)
        own = key_of(scan.key, json.dumps(asdict(landmarks)))
        wanted.append(_Entry(own, scan.scan.name, make))
    entries = _entries(wanted, _upright, settings)
    return [
        TrainingCrop(*arrays, scan.scan.name)
        for scan, (arrays, _) in zip(scans, entries, strict=True)
    ]


def crop_scan(scan: CohortScan, margin: int = 0) -> tuple[TrainingCrop, str]:
    """Crop a scan of a cohort and its lesion mask to the cord.

    Where the cohort has no centerline for the scan, it is found as in use.

    Returns
    -------
    TrainingCrop
        With intensities as they are, `margin` voxels wider on each side than a network sees.
    str
        Hash of the whole scan's voxels.
    """
    with logs.about(scan.scan):
        image = nifti.read(scan.scan)
        mask = read_lesions(scan, image.grid).array
        line = find.centerline(image.array, image.grid, file=scan.centerline)
        cropped = prepare.crop(image.array, image.grid, line, margin)
        lesion = prepare.crop_mask(mask, image.grid, cropped)
        return TrainingCrop(cropped.values, lesion, scan.name), content_hash(image.array)


def seen_hash(crop: TrainingCrop) -> str:
    """Hash of what a network sees of a scan: intensities and lesion mask around the cord."""
    lesion = hashlib.sha256(np.packbits(crop.lesion).tobytes()).hexdigest()[:32]
    return content_hash(crop.values) + lesion


@dataclass(frozen=True)
class _Entry:
    """An entry that is wanted, and how it is made.

    Attributes
    ----------
    key : str
    name : str
        Of the scan.
    make : callable
        Can be sent to a worker.
    """

    key: str
    name: str
    make: Callable[[], Made]


def _make_crop(scan: CohortScan, margin: int, automatic: str, key: str) -> Made:
    """Crop of a scan, and what is known of it without its voxels."""
    with logs.collected_warnings() as said:
        crop, content = crop_scan(scan, margin)
    if _cut_key(scan, margin, automatic) != key:
        raise DataError(
            f"{scan.scan}: the scan, its lesion mask or its centerline changed while it was read; "
            "start again"
        )
    patches = prepare.stacked_patches(prepare.inner(crop.values, margin))
    facts = {
        "content": content,
        "seen": seen_hash(crop),
        "percentiles": intensity.measure(patches).tolist(),
        "lesion_vox": int(crop.lesion.sum()),
        "warnings": said,
    }
    return _by_slices(crop), facts


def _make_standard(cache: Cache, key: str, landmarks: Landmarks, margin: int) -> Made:
    """Crop of a scan with standardised intensities."""
    values, lesion = _upright(cache.require(key))
    standard = prepare.standardise(values, landmarks, margin)
    return _by_slices(TrainingCrop(standard, lesion)), {}


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
    return key_of(
        file_hash(scan.scan),
        file_hash(scan.lesion_mask),
        f"automatic {automatic}" if file is None else f"file {file_hash(file)}",
        json.dumps(settings),
    )


def _entries(
    wanted: Sequence[_Entry], take: Callable[[Mapped], Taken], settings: CacheSettings
) -> list[tuple[Taken, bool]]:
    """Take what is needed of every entry, and say whether the entry was made for it."""
    cache = Cache(settings.folder)
    taken: dict[str, Taken] = {}
    missing: dict[str, _Entry] = {}
    for entry in wanted:
        found = cache.find(entry.key)
        if found is None:
            missing[entry.key] = entry
        else:
            taken[entry.key] = take(found)
    made = [False] * len(missing)
    if missing:
        try:
            require_writable(settings.folder)
        except OutputError as error:
            raise OutputError(
                f"{error}; {len(missing)} of {len(wanted)} crops are not in this cache, or damaged"
            ) from error
        cache.tidy()
        made = executor.run(
            partial(_make, cache),
            list(missing.values()),
            settings.jobs,
            name=lambda entry: entry.name,
            progress=settings.progress,
        )
        taken |= {key: take(cache.require(key)) for key in missing}
    new = {key for key, here in zip(missing, made, strict=True) if here}
    return [(taken[entry.key], entry.key in new) for entry in wanted]


def _make(cache: Cache, entry: _Entry) -> bool:
    return cache.make(entry.key, entry.make)


def _facts(entry: Mapped) -> dict[str, Any]:
    return {name: tuple(x) if isinstance(x, list) else x for name, x in entry.facts.items()}


def _by_slices(crop: TrainingCrop) -> dict[str, NDArray[Any]]:
    """Arrays of a crop, (Z, X, Y): a patch lies in one piece, and is read in one."""
    arrays = {"values": crop.values, "lesion": crop.lesion}
    return {name: array.transpose(2, 0, 1) for name, array in arrays.items()}


def _upright(entry: Mapped) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Intensities and lesion mask of an entry, (X, Y, Z)."""
    return entry.arrays["values"].transpose(1, 2, 0), entry.arrays["lesion"].transpose(1, 2, 0)
