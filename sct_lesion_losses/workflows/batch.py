"""Many scans: each segmented once, here or by workers, and two tables of all of them."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

from sct_lesion_losses import executor, logs
from sct_lesion_losses.bundle import store
from sct_lesion_losses.bundle.store import Bundle
from sct_lesion_losses.cohorts.table import CORD, file_hash
from sct_lesion_losses.errors import BusyError, DataError, ImageError, UsageError, describe
from sct_lesion_losses.executor import Jobs, Progress
from sct_lesion_losses.images import atomic, bids, nifti, outputs
from sct_lesion_losses.images.outputs import Outputs
from sct_lesion_losses.report import columns, counted, sidecar
from sct_lesion_losses.report.columns import Column
from sct_lesion_losses.workflows import segment
from sct_lesion_losses.workflows.segment import SegmentSettings

SCANS, LESIONS = "segmented_scans.tsv", "segmented_lesions.tsv"
DONE, SKIPPED, FAILED = "done", "skipped", "failed"
LABELS = {  # of the scans of a batch: what they are, and the endings of their names
    "cord": ("cord mask", (CORD, ("seg",))),
    "levels": ("labels of vertebral levels", (bids.LEVELS, bids.DISCS)),
}
PATIENCE_S = 600.0  # for a scan that another process is segmenting
_TOLD = {  # columns of the table of scans, and the entries of a scan's JSON that they hold
    "bundle": "Bundle",
    "version": "BundleVersion",
    "threshold": "Threshold",
    "centerline": "Centerline",
    "lesions": "LesionCount",
    "volume_mm3": "LesionVolumeMm3",
    "highest_p": "HighestProbability",
    "seconds": "Seconds",
}
_NEEDED = {SCANS: ("scan", "mask"), LESIONS: ("scan",)}  # for the rows of other scans

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BatchScan:
    """A scan of a batch, and where what is made of it goes.

    Attributes
    ----------
    image : Path
    outputs : Outputs
    name : str
        In the tables, and for the patterns: its path in the BIDS folder, or the name of its file.
    folder : Path
        Of the tables that it is in.
    derivative : bool
        The outputs have names of BIDS derivatives.
    command : str
        What was typed, base names only, for the sidecar.
    labels : mapping of str to Path
        Its cord mask, and its labels of vertebral levels, by the keys of `LABELS`; see
        `with_labels`.
    """

    image: Path
    outputs: Outputs
    name: str
    folder: Path
    derivative: bool = False
    command: str = ""
    labels: Mapping[str, Path] = field(default_factory=dict, hash=False)

    def absolute(self) -> BatchScan:
        """Return the same with paths that hold in any working folder."""
        image, outputs = self.image.absolute(), self.outputs.absolute()
        labels = {name: path.absolute() for name, path in self.labels.items()}
        return replace(self, image=image, outputs=outputs, labels=labels)

    def own(self, settings: SegmentSettings) -> SegmentSettings:
        """Return the settings that this scan is segmented with."""
        labels: dict[str, Any] = {**self.labels}
        return replace(settings, command=self.command, **labels)


@dataclass(frozen=True)
class BatchSettings:
    """Settings of segmenting many scans.

    Attributes
    ----------
    segment : SegmentSettings
        Of each of them.
    include, exclude : str, optional
        Regular expressions, searched for in the names of the scans: only those that match
        `include` are segmented, and of these none that matches `exclude`.
    force : bool
        Segment also what is done already.
    jobs : int, str or Path
        Scans at a time, or a cluster; see `executor.run`.
    """

    segment: SegmentSettings = field(default_factory=SegmentSettings)
    include: str | None = None
    exclude: str | None = None
    force: bool = False
    jobs: Jobs = 1

    def __post_init__(self) -> None:
        _require_pattern("-include", self.include)
        _require_pattern("-exclude", self.exclude)

    def takes(self, scan: BatchScan) -> bool:
        """Tell whether a scan is one of those that are wanted."""
        left_out = self.exclude and re.search(self.exclude, scan.name)
        return bool(re.search(self.include or "", scan.name) and not left_out)


@dataclass(frozen=True)
class Outcome:
    """End of a scan of a batch.

    Attributes
    ----------
    status : {"done", "skipped", "failed"}
        Segmented; already segmented in the same way; neither.
    told : mapping
        Entries of the JSON beside its mask, or beside the p-map where that is alone.
    lesions : tuple of dict
        Rows of its lesion table as texts, where it has one.
    error : str
        Why it failed.
    """

    status: str
    told: Mapping[str, Any] = field(default_factory=dict)
    lesions: tuple[dict[str, str], ...] = ()
    error: str = ""


def _require_pattern(option: str, pattern: str | None) -> None:
    try:
        re.compile(pattern or "")
    except re.error as error:
        raise UsageError(
            f"{option} {pattern}: not a regular expression ({error}); one is ^sub-0[1-5]/"
        ) from error


def find(
    images: Sequence[Path],
    *,
    out: Path | None = None,
    folder: Path | None = None,
    contrast: str = "t2",
    derivatives: bool | None = None,
) -> list[BatchScan]:
    """Name the outputs of every scan, those of BIDS folders included.

    Parameters
    ----------
    images : sequence of Path
        NIfTI files and BIDS folders.
    out : Path, optional
        Name of the mask of a single file.
    folder : Path, optional
        Of the outputs; by default the current one, and for a BIDS folder `bids.DERIVATIVES` in it.
    contrast : {"t2", "t2_ax", "t2s"}
        Which scans of a BIDS folder.
    derivatives : bool, optional
        Names of BIDS derivatives in a tree of subjects and sessions, or SCT's; the former for the
        scans of BIDS folders by default.

    Raises
    ------
    DataError
        A BIDS folder has no such scan.
    UsageError
        A name cannot be that of an output.
    """
    scans: list[BatchScan] = []
    for image in images:
        if image.is_dir():
            root, in_bids = folder or image / bids.DERIVATIVES, derivatives is not False
            found = bids.find_scans(image, bids.SUFFIXES[contrast])
            named = [(scan, scan.relative_to(image)) for scan in found]
        else:
            root, in_bids = folder or Path(), bool(derivatives)
            named = [(image, Path(image.name))]
        for scan, name in named:
            if in_bids:
                place = name.parent if image.is_dir() else bids.place(image)
                own = outputs.for_bids_scan(scan, root / place)
            else:
                own = outputs.for_scan(scan, out=out, folder=root / name.parent)
            scans.append(BatchScan(scan, own, name.as_posix(), root, in_bids))
    return scans


def with_labels(scans: Sequence[BatchScan], name: str, folder: Path) -> list[BatchScan]:
    """Give every scan its file of a folder, by its name as SCT and BIDS form it.

    Of several files of a scan the first of `LABELS` is taken. A scan that has none there gets the
    path where it is missing, and so fails alone.

    Parameters
    ----------
    scans : sequence of BatchScan
    name : {"cord", "levels"}
        A key of `LABELS`.
    folder : Path

    Raises
    ------
    DataError
        There is no such folder, no scan has a file in it, or one has several of one name.
    """
    what, endings = LABELS[name]
    names = {scan.image: nifti.stem(scan.image)[0] for scan in scans}
    images = [scan.image for scan in scans]
    found = bids.find_labels(folder, names, endings, images, preferred=True)
    expected = {image: f"{stem}_{endings[0][0]}.nii.gz" for image, stem in names.items()}
    if not found:
        raise DataError(
            f"{folder}: no {what} of {counted(len(scans), 'scan')}, the first of them "
            f"{scans[0].name}; expected names such as {expected[scans[0].image]}"
        )
    files = {image: found.get(image, folder / missing) for image, missing in expected.items()}
    return [replace(scan, labels={**scan.labels, name: files[scan.image]}) for scan in scans]


def require(scans: Sequence[BatchScan], settings: SegmentSettings) -> None:
    """Refuse what no scan could do, before any of them begins.

    Raises
    ------
    UsageError
        An output is one of the inputs, or that of another scan.
    OutputError
        A folder cannot be written.
    LesionError
        Something that the settings ask for is not installed.
    """
    owners = {os.path.realpath(scan.image): f"the scan {scan.image}" for scan in scans}
    if settings.centerline_file is not None:
        owners[os.path.realpath(settings.centerline_file)] = "the centerline file"
    for own in (scan.own(settings) for scan in scans):
        for given in {own.cord, own.levels} - {None, segment.BY_SCT}:
            owners[os.path.realpath(str(given))] = "the labels of a scan"
    for scan in scans:
        segment.require(settings, scan.outputs)
        for path in segment.written(settings, scan.outputs):
            real = os.path.realpath(path)
            if real in owners:
                raise UsageError(
                    f"{path.name}, of {scan.image}, would overwrite {owners[real]}; leave one out, "
                    "or segment the scans one by one with an -ofolder each"
                )
            owners[real] = f"that of {scan.image}"
    folders = {scan.outputs.mask.parent for scan in scans}
    for place in folders if settings.qc is None else {*folders, settings.qc}:
        atomic.require_writable(place)


def run(
    scans: Sequence[BatchScan], settings: BatchSettings, progress: Progress | None = None
) -> tuple[dict[BatchScan, Outcome], list[Path]]:
    """Segment many scans, each of them once, and write the tables of all.

    A scan is done already where its files are all there, made in one run from the same bytes by the
    same network, threshold, filter of lesions, way to find the cord, cord mask and vertebral
    levels. One that another process is segmenting comes last, and is waited for. A scan that fails
    is logged at once, and the others go on. Two tables are written into the folder of the outputs:
    of the scans, and, with the setting `lesions`, of their lesions; rows of other scans stay, where
    left out or while their masks do.

    Parameters
    ----------
    scans : sequence of BatchScan
        Of `find`.
    settings : BatchSettings
    progress : callable, optional
        Told of the scans that are segmented.

    Returns
    -------
    dict of BatchScan to Outcome
        Of the scans that are wanted, in their order.
    list of Path
        The tables.

    Raises
    ------
    UsageError
        No scan is wanted, or see `require`.
    LesionError
        The bundle cannot be used, or a table not be written.
    """
    chosen = [scan for scan in scans if settings.takes(scan)]
    if len(chosen) < len(scans):
        logger.info(
            "%d of %d scans left out by -include and -exclude",
            len(scans) - len(chosen),
            len(scans),
        )
    if not chosen:
        raise UsageError(
            f"-include and -exclude leave none of {counted(len(scans), 'scan')}, the first of "
            f"them {scans[0].name}; they are searched for in such names"
        )
    require(chosen, settings.segment)
    bundle, _ = segment.opened(settings.segment)
    for folder in {scan.folder for scan in chosen if scan.derivative}:
        bids.describe_derivatives(folder)
    found: dict[BatchScan, Outcome] = {}
    if not settings.force:
        for scan in chosen:
            if outcome := kept(scan, settings.segment, bundle):
                found[scan] = outcome
    if found:
        logger.info("%d of %s done already", len(found), counted(len(chosen), "scan"))
    for patience_s in (0.0, PATIENCE_S):
        missing = [scan for scan in chosen if scan not in found]
        if missing and patience_s:
            logger.info("%s at work elsewhere: waiting", counted(len(missing), "scan"))
        found |= _segmented(missing, settings, bundle, patience_s, progress)
    found = {scan: found[scan] for scan in chosen}
    left_out = [scan for scan in scans if scan not in found]
    return found, _write_tables(found, left_out, settings.segment)


def kept(scan: BatchScan, settings: SegmentSettings, bundle: Bundle) -> Outcome | None:
    """Return what is there of a scan that was segmented in the same way; None if it was not."""
    settings = scan.own(settings)
    if settings.qc is not None:  # its entry of SCT's report would be missing
        return None
    files = segment.written(settings, scan.outputs)
    names = {file.name for file in files}
    own = {scan.outputs.sidecar, scan.outputs.pmap_sidecar}.intersection(files)
    # A file that one of them does not name is of another run.
    if not all(names.issubset(_told(file).get("Files", ())) for file in own):
        return None
    if not all(file.exists() for file in files):
        return None
    try:
        outcome = _read(scan, settings, SKIPPED)
        told, inference = outcome.told, segment.inference_sha256(bundle, settings)
        if inference is None or told.get("InferenceSHA256") != inference:
            return None
        if not (settings.pmap_alone or settings.sct_rule):
            threshold, rule = segment.decided(bundle, settings)
            applied = {**(told.get("LesionFilter") or {})}
            applied.pop("LesionsRemoved", None)
            if told.get("Threshold") != threshold or applied != (sidecar.filter_entry(rule) or {}):
                return None
        levels = None if settings.levels is None else file_hash(settings.levels)
        hashes = levels, file_hash(scan.image)
    except (DataError, ImageError):  # a damaged table, or a scan that segmenting will refuse
        return None
    return outcome if hashes == (told.get("LevelsSHA256"), told.get("ScanSHA256")) else None


def _segmented(
    scans: Sequence[BatchScan],
    settings: BatchSettings,
    bundle: Bundle,
    patience_s: float,
    progress: Progress | None,
) -> dict[BatchScan, Outcome]:
    """Segment scans, each once; without patience, those that another process is at are missing."""
    tasks = scans
    if not isinstance(settings.jobs, int):  # its workers have working folders of their own
        tasks, settings = [scan.absolute() for scan in scans], _absolute(settings, bundle)
    found = executor.run(
        partial(_segment, settings, patience_s),
        tasks,
        settings.jobs,
        name=lambda scan: scan.image.name,
        progress=progress,
        failed=_failed,
    )
    pairs = zip(scans, found, strict=True)
    return {scan: outcome for scan, outcome in pairs if outcome is not None}


def _absolute(settings: BatchSettings, bundle: Bundle) -> BatchSettings:
    """Return the same settings with paths that hold in any working folder."""
    own = settings.segment
    by_name = bundle.folder is None or own.bundle in store.available()
    named = own.bundle if by_name else str(bundle.folder)
    qc = None if own.qc is None else own.qc.absolute()
    return replace(settings, segment=replace(own, bundle=named, qc=qc))


def _segment(settings: BatchSettings, patience_s: float, scan: BatchScan) -> Outcome | None:
    """Segment a scan that no other process is at; None where one is, and no patience is left."""
    own = scan.own(settings.segment)
    lock = scan.outputs.mask.with_name(f".{nifti.stem(scan.outputs.mask)[0]}.lock")
    busy = (
        f"{scan.image}: another process has been segmenting it for {logs.duration(patience_s)}; "
        f"start again when it has ended, or remove {lock} if there is none"
    )
    begun = lock.exists()  # by a process that was killed, if not by one that is at it
    try:
        with atomic.locked(lock, busy, patience_s, remove=True):
            if begun:
                for path in astuple(scan.outputs):
                    atomic.remove_left_over(path.parent, path.name)
            bundle, _ = segment.opened(own)
            if not settings.force and (outcome := kept(scan, own, bundle)):
                return outcome
            result = segment.segment(scan.image, own, scan.outputs)
    except BusyError:
        if patience_s:
            raise
        return None
    logger.info("%s: %s", scan.image.name, result.sentence)
    return _read(scan, own, DONE)


def _read(scan: BatchScan, settings: SegmentSettings, status: str) -> Outcome:
    """Read back what was written of a scan."""
    told = _told(segment.written(settings, scan.outputs)[-1])
    if not settings.lesions:
        return Outcome(status, told)
    table = scan.outputs.table
    lesions = bids.read_table(table, [column.name for column in columns.PREDICTED_LESIONS])
    if len(lesions) != told.get("LesionCount"):
        raise DataError(
            f"{table}: has {counted(len(lesions), 'row')}, and the JSON beside it tells of "
            f"{told.get('LesionCount')} lesions; remove it"
        )
    return Outcome(status, told, tuple(lesions))


def _told(file: Path) -> dict[str, Any]:
    """Entries of a sidecar; none where it cannot be read."""
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError):
        return {}


def _failed(scan: BatchScan, error: BaseException) -> Outcome:
    """Log at once why a scan failed; absolute folders and its own are cut away from the reason."""
    folders = (scan.image.parent, scan.outputs.mask.parent)
    said = logs.without_folders(" ".join(describe(error).split()), folders)
    said = said.removeprefix(f"{scan.image.name}: ")
    debug = logger.isEnabledFor(logging.DEBUG)
    logger.error("%s: %s", scan.image, said, exc_info=error if debug else None)
    return Outcome(FAILED, error=said)


def _write_tables(
    found: Mapping[BatchScan, Outcome], left_out: Collection[BatchScan], settings: SegmentSettings
) -> list[Path]:
    """Write the tables into every folder of outputs; the rows of other scans stay in them."""
    tables: list[Path] = []
    for folder in dict.fromkeys(scan.folder for scan in found):
        own = [(scan, outcome) for scan, outcome in found.items() if scan.folder == folder]
        others = {scan.name for scan in left_out if scan.folder == folder}
        made: list[tuple[str, Sequence[Column], list[dict[str, Any]]]] = []
        made.append((SCANS, columns.SEGMENTED_SCANS, [_row(*one, settings) for one in own]))
        if settings.lesions:
            lesions = [{"scan": scan.name, **row} for scan, one in own for row in one.lesions]
            made.append((LESIONS, columns.SEGMENTED_LESIONS, lesions))
        elif (folder / LESIONS).exists():
            logger.warning("%s: from an earlier run, not of this one", folder / LESIONS)
        busy = f"{folder / SCANS}: another process is writing it; start again"
        lock = folder / f".{SCANS}.lock"
        with atomic.locked(lock, busy, PATIENCE_S, remove=True), atomic.together():
            for name, described, rows in made:
                file = folder / name
                before = bids.read_table(file, _NEEDED[name]) if file.is_file() else []
                if name == SCANS:
                    others |= {row["scan"] for row in before if (folder / row["mask"]).is_file()}
                    others -= {scan.name for scan, _ in own}
                earlier = [row for row in before if row.get("scan") in others]
                every = sorted(rows + earlier, key=itemgetter("scan"))  # lesions keep their order
                columns.write(file, described, every, {"status": columns.SEGMENTED_STATUS})
                tables.append(file)
    return tables


def _row(scan: BatchScan, outcome: Outcome, settings: SegmentSettings) -> dict[str, Any]:
    """Row of a scan in the table."""
    main = segment.written(settings, scan.outputs)[0]
    outside = outcome.told.get("OutsideCord") or {}
    return {
        "scan": scan.name,
        "status": outcome.status,
        "mask": None if outcome.error else Path(os.path.relpath(main, scan.folder)).as_posix(),
        **{name: outcome.told.get(entry) for name, entry in _TOLD.items()},
        "outside_lesions": outside.get("LesionsRemoved"),
        "outside_mm3": outside.get("RemovedMm3"),
        "warnings": "; ".join(outcome.told.get("Warnings", ())),
        "error": outcome.error,
    }
