"""The scans of a cohort, with their lesion masks, subjects, sites and centerlines."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sct_lesion_losses.errors import DataError, ImageError
from sct_lesion_losses.geometry.grid import Grid
from sct_lesion_losses.images import bids, nifti
from sct_lesion_losses.images.atomic import write_text
from sct_lesion_losses.images.nifti import Scan, stem

SPLITS = ("training", "validation", "thr-optimization", "unseen")
_MOST_OF_IMAGE = 0.2  # of all voxels; lesions that fill the cord of a close crop are below
HOST_HASH = "ImplantHostHash"  # in the sidecar of a scan with implants
_REQUIRED = ("scan", "lesion_mask", "subject")
COLUMNS = (*_REQUIRED, "site", "split", "centerline")
_CENTERLINE = ("label-centerline", "centerline")
_LABELS = Path("derivatives") / "labels"  # of a BIDS folder
CORD = ("label-SC_seg", "label-SC_mask", "seg-manual")

_NOT_FETCHED = (
    "is a link that leads nowhere; fetch what it stands for, by `git annex get` or `datalad get`"
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CohortScan:
    """One scan of a cohort.

    Attributes
    ----------
    scan, lesion_mask : Path
        Image and manual mask on its grid.
    subject, site : str
        Site is empty where it is not known.
    split : str
        One of `SPLITS`, or empty.
    centerline : Path or None
        Centerline image or cord mask.
    cohort : str
        Name of its cohort where several are used together, else empty.
    """

    scan: Path
    lesion_mask: Path
    subject: str
    site: str = ""
    split: str = ""
    centerline: Path | None = None
    cohort: str = ""

    @property
    def name(self) -> str:
        """File name without its extension."""
        return stem(self.scan)[0]

    @property
    def session(self) -> str:
        """Session by the ``ses-`` of its file name; empty without one."""
        found = re.search(r"(?:^|_)ses-([A-Za-z0-9]+)", self.name)
        return found[1] if found else ""


def read(data: Path) -> list[CohortScan]:
    """Read the scans of a cohort, in the order of their names.

    Parameters
    ----------
    data : Path
        A BIDS folder, ``sub-*/[ses-*/]anat/*_T2w.nii.gz`` with the masks in
        ``derivatives/labels`` under the scan's name; another folder in its ``derivatives``, for
        the masks in that one; or a TSV with the columns scan, lesion_mask, subject and,
        optionally, site, split, centerline and cohort, its paths relative to its folder.

    Returns
    -------
    list of CohortScan
        Scans without a lesion mask are left out, with a warning.

    Raises
    ------
    DataError
        There is no such folder or table, or it holds no usable scan.
    """
    if data.is_dir():
        dataset, labels = data, data / _LABELS
        if data.absolute().parent.name == _LABELS.parent.name and not labels.is_dir():
            dataset, labels = data.absolute().parents[1], data.absolute()
        scans = _read_bids(dataset, labels)
    elif data.is_file():
        scans = _read_table(data)
    else:
        raise DataError(f"{data}: no such BIDS folder or TSV table")
    if not scans:
        raise DataError(
            f"{data}: no scan with a lesion mask; expected sub-*/anat/*_T2w.nii.gz and "
            "derivatives/labels/sub-*/anat/*_T2w_label-lesion_seg.nii.gz, or a TSV with the "
            f"columns {', '.join(_REQUIRED)}"
        )
    spelt: dict[str, str] = {}
    for scan in scans:
        if spelt.setdefault(scan.subject.lower(), scan.subject) != scan.subject:
            logger.warning(
                "%s and %s are taken for two subjects; if they are one person, name them alike, "
                "or the person may be trained and tested on",
                spelt[scan.subject.lower()],
                scan.subject,
            )
    return scans


def read_several(data: Sequence[Path]) -> list[list[CohortScan]]:
    """Read cohorts that are used together; one alone is as `read` gives it.

    The name of a cohort is that of its folder or table. It leads the names of its subjects, who are
    other people than those of another cohort even where they are called alike. Scans that know
    their cohort already, from a table of several, stay as they are.

    Raises
    ------
    DataError
        See `read`; two cohorts are named alike, or share a scan.
    """
    given = [read(path) for path in data]
    if len(given) == 1:
        return given
    several, known, seen = [], set[str](), set[Path]()
    for path, scans in zip(data, given, strict=True):
        name = path.absolute().name if path.is_dir() else path.stem
        if path.is_dir() and path.absolute().parent.name == _LABELS.parent.name:
            name = f"{path.absolute().parents[1].name}_{name}"
        own = [
            scan if scan.cohort else replace(scan, subject=f"{name}/{scan.subject}", cohort=name)
            for scan in scans
        ]
        if both := known & {scan.cohort for scan in own}:
            raise DataError(f"two cohorts are named {min(both)}; rename the folder or table of one")
        if twice := seen & {scan.scan.resolve() for scan in own}:
            raise DataError(f"{min(twice)} is in two of the cohorts; take it out of one")
        known |= {scan.cohort for scan in own}
        seen |= {scan.scan.resolve() for scan in own}
        several.append(own)
    return several


def names(scans: Sequence[CohortScan]) -> dict[Path, str]:
    """Give every scan of a cohort a name of its own, fit for a file, by the path of the scan.

    Names of files where all differ; else they are led by the folders in which they differ.

    Raises
    ------
    DataError
        Two scans have one name even so.
    """
    named = {scan.scan: scan.name for scan in scans}
    if len(set(named.values())) < len(scans):
        folder = os.path.commonpath([scan.scan.absolute().parent for scan in scans])
        parents = {s.scan: s.scan.absolute().parent.relative_to(folder) for s in scans}
        named = {s.scan: "_".join((*parents[s.scan].parts, s.name)) for s in scans}
    if len(set(named.values())) < len(scans):
        twice = next(n for n in named.values() if list(named.values()).count(n) > 1)
        raise DataError(f"two scans of the cohort are named {twice}; rename one of them")
    return named


def write(
    scans: Iterable[CohortScan],
    path: Path,
    measures: Mapping[str, Mapping[Path, float]] | None = None,
) -> None:
    """Write a cohort as a TSV that `read` takes, with paths relative to its folder.

    Parameters
    ----------
    scans : iterable of CohortScan
    path : Path
    measures : mapping of str to mapping of Path to float, optional
        Further columns, by the path of the scan; `read` passes over them.
    """
    folder = path.absolute().parent

    def relative(file: Path | None) -> str:
        if file is None:
            return ""
        # A link keeps its own name: that of its target may be a key of a store.
        seen = Path(os.path.relpath(file.absolute(), folder))
        leads = os.path.realpath(folder / seen) == os.path.realpath(file)
        return (seen if leads else file.absolute()).as_posix()

    text = io.StringIO()
    table = csv.writer(text, delimiter="\t", lineterminator="\n")
    scans, further = list(scans), measures or {}
    several = any(s.cohort for s in scans)
    table.writerow((*COLUMNS, *(["cohort"] if several else []), *further))
    for s in scans:
        row = (relative(s.scan), relative(s.lesion_mask), s.subject, s.site, s.split)
        measured = (f"{column[s.scan]:.6g}" for column in further.values())
        cohort = [s.cohort] if several else []
        table.writerow((*row, relative(s.centerline), *cohort, *measured))
    write_text(path, text.getvalue())


def cord_mask(scan: CohortScan) -> Path | None:
    """Find the cord mask of a scan, beside its lesion mask under the names of BIDS labels."""
    return _label(scan.lesion_mask.parent, scan.name, CORD)


def cord_of(dataset: Path, scan: Path) -> Path | None:
    """Find the cord mask of a raw scan of a BIDS folder in its labels."""
    return _label(dataset / _LABELS / scan.parent.relative_to(dataset), stem(scan)[0], CORD)


def read_lesions(scan: CohortScan, grid: Grid | None = None) -> Scan:
    """Read the lesion mask of a scan; warn where it can hardly be one.

    Parameters
    ----------
    scan : CohortScan
    grid : Grid, optional
        That of the scan, which the mask has to be on.

    Raises
    ------
    ImageError
        The mask cannot be read, or is none.
    GeometryError
        It is on another grid.
    """
    try:
        mask = nifti.read_mask(scan.lesion_mask, like=grid)
    except ImageError as error:
        raise ImageError(f"lesion mask of {scan.scan.name}: {error}") from error
    if (share := mask.array.mean()) > _MOST_OF_IMAGE:
        cord = cord_mask(scan)
        of = f"{share:.0%} of the image"
        if cord is not None and (inside := nifti.read_mask(cord, like=mask.grid).array).any():
            of = f"{mask.array[inside].mean():.0%} of the cord and {of}"
        logger.warning(
            "%s: the lesion mask covers %s; is it inverted, or the mask of something else?",
            scan.scan.name,
            of,
        )
    return mask


def content_hash(array: NDArray[Any]) -> str:
    """Hash of a scan's voxels, the same whatever its file is called or compressed with.

    Parameters
    ----------
    array : (X, Y, Z)

    Returns
    -------
    str
        32 hexadecimal digits.
    """
    digest = hashlib.sha256(repr(array.shape).encode())
    for plane in array:  # plane by plane: a scan of integers is never copied whole
        digest.update(np.ascontiguousarray(plane, dtype="<f4").tobytes())
    return digest.hexdigest()[:32]


def host_hash(scan: CohortScan) -> str | None:
    """Content hash of the scan that the lesions of a scan were implanted into, by its sidecar.

    None of a scan without implants.
    """
    try:
        sidecar = json.loads(scan.scan.with_name(f"{scan.name}.json").read_bytes())
    except (OSError, ValueError):
        return None
    found = sidecar.get(HOST_HASH) if isinstance(sidecar, dict) else None
    return found if isinstance(found, str) and re.fullmatch("[0-9a-f]{32}", found) else None


def file_hash(path: Path) -> str:
    """Hash of the bytes of an image file.

    Raises
    ------
    ImageError
        It cannot be read.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ImageError(f"{path}: cannot be read: {error.strerror}") from error


def _read_table(path: Path) -> list[CohortScan]:
    rows = bids.read_table(path)
    if rows and (absent := [name for name in _REQUIRED if name not in rows[0]]):
        raise DataError(
            f"{path}: no column {', '.join(absent)}, only {', '.join(rows[0])}; expected a TSV "
            f"with the columns {', '.join(_REQUIRED)}"
        )
    scans = []
    for line, row in enumerate(rows, start=2):
        where = f"{path}, line {line}"
        if empty := [name for name in _REQUIRED if not row[name]]:
            raise DataError(f"{where}: {empty[0]} is empty; give every scan one")
        split, centerline = row.get("split", ""), row.get("centerline")
        if split and split not in SPLITS:
            raise DataError(f"{where}: split is {split!r}, expected one of {', '.join(SPLITS)}")
        scans.append(
            CohortScan(
                _existing(path.parent / row["scan"], where),
                _existing(path.parent / row["lesion_mask"], where),
                row["subject"],
                row.get("site", ""),
                split,
                _existing(path.parent / centerline, where) if centerline else None,
                row.get("cohort", ""),
            )
        )
    without = [scan.name for scan in scans if not scan.cohort]
    if without and len(without) < len(scans):
        raise DataError(
            f"{path}: the column cohort is empty for {len(without)} of {len(scans)} scans, "
            f"{without[0]} for one; give every scan a cohort, or none"
        )
    if len({scan.scan for scan in scans}) != len(scans):
        raise DataError(f"{path}: a scan is listed twice")
    return sorted(scans, key=lambda s: str(s.scan))


def _existing(file: Path, where: str) -> Path:
    try:
        stem(file)
    except ImageError as error:
        raise DataError(f"{where}: {error}") from error
    if file.is_symlink() and not file.exists():
        raise DataError(f"{where}: {file} {_NOT_FETCHED}")
    if not file.is_file():
        raise DataError(f"{where}: {file} does not exist")
    return file


def _read_bids(folder: Path, labels: Path) -> list[CohortScan]:
    """Read the scans of a BIDS folder with the masks of a folder of labels.

    A centerline that is not among these is one of `_LABELS`.
    """
    sites = _sites(folder / "participants.tsv")
    scans = []
    for image in bids.find_scans(folder):
        place = image.parent.relative_to(folder)
        subject = place.parts[0]
        lesion = _label(labels / place, stem(image)[0], bids.LESION_MASKS)
        if lesion is None:
            logger.warning("%s: no lesion mask in %s, left out", image.name, labels)
            continue
        lines = (*_CENTERLINE, *CORD)
        centerline = _label(labels / place, stem(image)[0], lines)
        centerline = centerline or _label(folder / _LABELS / place, stem(image)[0], lines)
        scans.append(
            CohortScan(image, lesion, subject, sites.get(subject, ""), centerline=centerline)
        )
    files = [f for s in scans for f in (s.scan, s.lesion_mask, s.centerline) if f is not None]
    if lost := [file for file in files if not file.exists()]:
        raise DataError(f"{lost[0]} {_NOT_FETCHED} ({len(lost)} of {len(files)} files)")
    if sites and not any(scan.site for scan in scans):
        logger.warning(
            "participants.tsv gives no scan a site: expected a column site or institution, and "
            "%s in the column participant_id",
            " or ".join(sorted({scan.subject for scan in scans})[:2]),
        )
    return scans


def _label(folder: Path, name: str, endings: Sequence[str]) -> Path | None:
    """Find the first label file of a scan, with or without the scan's suffix in its name.

    A link counts even where it leads nowhere: it is a label that was not fetched.
    """
    for label in bids.label_stems(name, endings):
        for extension in (".nii.gz", ".nii"):
            file = folder / f"{label}{extension}"
            if file.is_file() or file.is_symlink():
                return file
    return None


def _sites(path: Path) -> dict[str, str]:
    """Site of every subject, by the name of its folder; empty where it is not known."""
    if not path.is_file():
        return {}
    return {
        f"sub-{row.get('participant_id', '').removeprefix('sub-')}": (
            row.get("site") or row.get("institution", "")
        )
        for row in bids.read_table(path)
    }
