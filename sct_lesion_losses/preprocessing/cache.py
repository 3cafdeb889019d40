"""Cropped scans on disk, for training: made once, mapped into memory by every training.

Two entries hold a scan: its crop as it is, and its crop with standardised intensities, which
depends on the landmarks of all training scans. Patches are not stored: they overlap by 75 %, and
each is a slice of its crop. An entry is a safetensors file named by the hash of all that it is made
of; another process that fills the cache is waited for, and a damaged entry is made again.
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
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import safetensors
import safetensors.numpy
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from sct_lesion_losses import __version__, executor, logs
from sct_lesion_losses.bundle.schema import StudyPreparation
from sct_lesion_losses.centerline import find
from sct_lesion_losses.cohorts.table import CohortScan, content_hash, file_hash, read_lesions
from sct_lesion_losses.errors import DataError, OutputError
from sct_lesion_losses.geometry.patches import PATCH_VOX
from sct_lesion_losses.images import nifti
from sct_lesion_losses.images.atomic import LOCK, remove_left_over, replacing, require_writable
from sct_lesion_losses.preprocessing import intensity
from sct_lesion_losses.preprocessing import scan as prepare

FORMAT = 3  # raised whenever other crops are made of the same files, or stored in another way
PATIENCE_S = 1800.0  # for another process, which may be suspended
WAIT_SAID_AFTER_S = 2.0
_ABANDONED_S = 600.0  # no file is written for as long
_OTHER_FILES = 256  # open files that the rest of a program may need
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class TrainingCrop:
    """A scan as training sees it.

    Attributes
    ----------
    values : (48 + 2M, 48 + 2M, Z) float32
        Standardised intensities around the centerline, M voxels wider on each side than a patch.
    lesion : (48 + 2M, 48 + 2M, Z) bool
        Lesion mask on the same voxels.
    name, cohort : str
        Name of the scan, for messages, and of its cohort where there are several.
    """

    values: NDArray[np.float32]
    lesion: NDArray[np.bool_]
    name: str = ""
    cohort: str = ""

    @property
    def margin(self) -> int:
        """M, the voxels by which a window may be moved in plane."""
        return int(self.values.shape[0] - PATCH_VOX) // 2


Facts: TypeAlias = Mapping[str, Any]  # of a crop, as JSON has them


@dataclass(frozen=True)
class CacheSettings:
    """Folder in which crops are kept, and settings by which they are made.

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


@dataclass(frozen=True)
class CachedCrop:
    """A scan whose crop is in the cache, and what is known of it without its voxels.

    Attributes
    ----------
    scan : CohortScan
    file : Path
        The crop.
    content, seen : str
        Hashes of the whole scan, and of what a network sees of it: intensities and lesion mask
        around the cord.
    percentiles : sequence of float
        Those of its stacked patches, at `intensity.PERCENTILES`.
    lesion_vox : int
        Voxels of lesion in the crop.
    warnings : sequence of str
        What was said when it was cut.
    """

    scan: CohortScan
    file: Path
    content: str
    seen: str
    percentiles: Sequence[float]
    lesion_vox: int
    warnings: Sequence[str]


def crop_scans(scans: Sequence[CohortScan], settings: CacheSettings) -> list[CachedCrop]:
    """Cut the crops of scans into the cache, those that are not there yet.

    What was warned of when a crop was cut is said again when it is taken from the cache, the same
    of several scans once.

    Raises
    ------
    LesionError
        A scan cannot be read or prepared; see `crop_scan`.
    DataError
        A file changed while it was read, or more files would be open than the system allows.
    OutputError
        The cache cannot be written.
    WorkerError
        A worker was killed.
    """
    detector = find.identity() if any(scan.centerline is None for scan in scans) else ""
    wanted = []
    for scan in scans:
        file = settings.folder / _name_of_crop(scan, settings.margin, detector)
        make = partial(_cut, scan, settings.margin, detector, file.name)
        wanted.append(_Entry(file, scan.name, make))
    entries, made = _entries(wanted, settings)
    cut: list[CachedCrop] = []
    again: dict[str, list[CohortScan]] = {}
    for scan, entry, (_, facts) in zip(scans, wanted, entries, strict=True):
        if entry.file not in made:
            for text in facts["warnings"]:
                again.setdefault(text, []).append(scan)
                logger.debug("%s: %s", scan.name, text)
        cut.append(CachedCrop(scan, entry.file, **facts))
    for text, (first, *others) in again.items():
        with logs.about(first.scan):
            said = logs.with_scan(text)
        logger.warning("%s%s", said, f" (and so in {len(others)} more)" if others else "")
    logger.info(
        "crops: %d made, %d taken from the cache %s",
        len(made),
        len(cut) - len(made),
        settings.folder,
    )
    return cut


def standardise_scans(
    scans: Sequence[CachedCrop], preparation: StudyPreparation, settings: CacheSettings
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
    landmarks = preparation.percentiles, preparation.landmarks
    wanted = [
        _Entry(
            settings.folder / _name(scan.file.name, landmarks),
            scan.scan.name,
            partial(_standardise, scan.file, preparation),
        )
        for scan in scans
    ]
    entries, _ = _entries(wanted, settings)
    return [
        replace(crop, name=one.scan.name, cohort=one.scan.cohort)
        for one, (crop, _) in zip(scans, entries, strict=True)
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


def write(file: Path, crop: TrainingCrop, facts: Facts) -> None:
    """Write a crop and facts about it; whole or not at all.

    Both arrays are stored slice after slice, so that a patch lies in one piece.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    arrays = {
        "values": np.ascontiguousarray(crop.values.transpose(2, 0, 1)),
        "lesion": np.ascontiguousarray(crop.lesion.transpose(2, 0, 1)),
    }
    text = json.dumps({**facts, "sha256": _digest(file, facts, *arrays.values())})
    with replacing(file) as temporary:
        temporary.write_bytes(safetensors.numpy.save(arrays, {"facts": text}))


def load(file: Path) -> tuple[TrainingCrop, Facts] | None:
    """Check an entry to its last byte and map it; None where there is no good one.

    Raises
    ------
    DataError
        This process may not open as many files, or map as much memory.
    """
    try:
        with file.open("rb") as opened, safetensors.safe_open(file, "numpy") as stored:
            facts = json.loads(stored.metadata()["facts"])
            shape = stored.get_slice("values").get_shape()
            if stored.get_slice("lesion").get_shape() != shape:
                raise ValueError("its arrays differ in shape")
            view = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        # The format puts the wider numbers first, the other array behind them, and nothing after.
        voxels = math.prod(shape)
        lesion_at = len(view) - voxels
        values_at = lesion_at - 4 * voxels
        values = np.frombuffer(view, "<f4", voxels, values_at).reshape(shape)
        lesion = np.frombuffer(view, bool, voxels, lesion_at).reshape(shape)
        expected = facts.pop("sha256")
        if _digest(file, facts, values, lesion) != expected:
            raise ValueError("its content does not match its hash")
        view.madvise(mmap.MADV_DONTNEED)  # a patch is read when it is drawn
    except (OSError, safetensors.SafetensorError, ValueError, LookupError, TypeError) as error:
        if isinstance(error, OSError) and error.errno in _EXHAUSTED:
            raise DataError(
                f"{file}: cannot be opened beside all others ({error.strerror}); raise the limit "
                "of this shell (ulimit -n), or give fewer scans"
            ) from error
        logger.debug("%s: no good entry (%s)", file, error)
        return None
    return TrainingCrop(values.transpose(1, 2, 0), lesion.transpose(1, 2, 0)), facts


def _digest(file: Path, facts: Facts, *arrays: NDArray[Any]) -> str:
    """Hash of all that an entry holds, and of its name."""
    text = json.dumps([file.name, facts, [array.shape for array in arrays]], sort_keys=True)
    digest = hashlib.sha256(text.encode())
    for array in arrays:
        digest.update(array.data)
    return digest.hexdigest()


@dataclass(frozen=True)
class _Entry:
    """An entry that is wanted.

    Attributes
    ----------
    file : Path
    name : str
        Of the scan.
    make : callable
        Makes the crop and the facts about it; can be sent to a worker.
    """

    file: Path
    name: str
    make: Callable[[], tuple[TrainingCrop, Facts]]


def _entries(
    wanted: Sequence[_Entry], settings: CacheSettings
) -> tuple[list[tuple[TrainingCrop, Facts]], set[Path]]:
    """Load entries, those that are missing or damaged after they were made; and say which."""
    _allow(len(wanted))
    found = {entry.file: load(entry.file) for entry in wanted}
    missing = {entry.file: entry for entry in wanted if found[entry.file] is None}
    made: list[bool] = []
    if missing:
        try:
            require_writable(settings.folder)
        except OutputError as error:
            raise OutputError(
                f"{error}; {len(missing)} of {len(wanted)} crops are not in this cache, or damaged"
            ) from error
        with _locked(settings.folder) as alone:
            if alone:
                remove_left_over(settings.folder, before=time.time() - _ABANDONED_S)
            made = executor.run(
                _make,
                list(missing.values()),
                settings.jobs,
                name=lambda entry: entry.name,
                progress=settings.progress,
            )
    entries = [found[entry.file] or _require(entry.file) for entry in wanted]
    return entries, {file for file, new in zip(missing, made, strict=True) if new}


def _make(entry: _Entry) -> bool:
    """Make an entry, unless another process has done so by now."""
    if load(entry.file):
        return False
    if entry.file.exists():
        logger.warning("%s: damaged, it is made again", entry.file)
    write(entry.file, *entry.make())
    return True


def _require(file: Path) -> tuple[TrainingCrop, Facts]:
    """Load an entry that was found or made a moment ago."""
    entry = load(file)
    if entry is None:
        raise DataError(
            f"{file}: it was there a moment ago; let nobody clear the cache while it is in use, "
            "and start again"
        )
    return entry


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Hold the lock of a cache, or say no; without it, work may be done twice, to the same end."""
    lock = FileLock(folder / LOCK, timeout=PATIENCE_S)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=WAIT_SAID_AFTER_S)
        except Timeout:
            logger.info("another process is preparing scans in %s, waiting", folder)
            lock.acquire()
    except Timeout:
        logger.warning(
            "another process is preparing scans in %s since %.0f s, it is not waited for any "
            "longer: scans may be prepared twice",
            folder,
            PATIENCE_S,
        )
    except (OSError, NotImplementedError) as error:
        logger.debug("%s: no lock (%s)", folder, error)
    try:
        yield lock.is_locked
    finally:
        lock.release()


def _allow(files: int) -> None:
    """Raise this process's limit of open files so far that as many can stay mapped.

    Python keeps a mapped file open. What the system does not allow is said by `load`.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = files + _OTHER_FILES
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _cut(
    scan: CohortScan, margin: int, detector: str, file_name: str
) -> tuple[TrainingCrop, Facts]:
    """Crop of a scan, and what is known of it without its voxels."""
    with logs.collected_warnings() as said:
        crop, content = crop_scan(scan, margin)
    if _name_of_crop(scan, margin, detector) != file_name:
        raise DataError(
            f"{scan.scan}: the scan, its lesion mask or its centerline changed while it was read; "
            "start again"
        )
    return crop, {
        "content": content,
        "seen": seen_hash(crop),
        "percentiles": intensity.measure(prepare.stacked_patches(crop.values)).tolist(),
        "lesion_vox": int(crop.lesion.sum()),
        "warnings": [record.getMessage() for record in said],
    }


def _standardise(file: Path, preparation: StudyPreparation) -> tuple[TrainingCrop, Facts]:
    crop, _ = _require(file)
    return replace(crop, values=prepare.standardise(crop.values, preparation)), {}


def _name_of_crop(scan: CohortScan, margin: int, detector: str) -> str:
    """Name of the entry with the crop of a scan; the detector finds its line where it has none."""
    line = file_hash(scan.centerline) if scan.centerline else f"by {detector}"
    files = file_hash(scan.scan), file_hash(scan.lesion_mask)
    return _name(FORMAT, __version__, margin, *files, line)


def _name(*parts: Any) -> str:
    """Name of the entry that is made of these parts, JSON values."""
    return f"{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]}.safetensors"
