"""A cohort: which scans there are, with their lesion masks, subjects, sites and centerlines."""

from __future__ import annotations

import csv
import hashlib
import io
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sct_lesion_losses.errors import DataError, ImageError
from sct_lesion_losses.images import bids
from sct_lesion_losses.images.atomic import write_text
from sct_lesion_losses.images.nifti import stem

SPLITS = ("training", "validation", "thr-optimization", "unseen")
MISSING = "n/a"  # of a value in a BIDS table
COLUMNS = ("scan", "lesion_mask", "subject", "site", "split", "centerline")
_LESION = ("label-lesion_seg", "label-lesion_mask", "label-L_mask", "lesion-manual", "lesionseg")
_CENTERLINE = ("label-centerline", "centerline")
_CORD = ("label-SC_seg", "label-SC_mask", "seg-manual")

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
    """

    scan: Path
    lesion_mask: Path
    subject: str
    site: str = ""
    split: str = ""
    centerline: Path | None = None

    @property
    def name(self) -> str:
        """File name without its extension."""
        return stem(self.scan)[0]


def read(data: Path) -> list[CohortScan]:
    """Read the scans of a cohort, in the order of their names.

    Parameters
    ----------
    data : Path
        A BIDS folder, ``sub-*/[ses-*/]anat/*_T2w.nii.gz`` with the masks in
        ``derivatives/labels`` under the scan's name; or a TSV with the columns scan, lesion_mask,
        subject and, optionally, site, split and centerline, its paths relative to its folder.

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
        scans = _read_bids(data)
    elif data.is_file():
        scans = _read_table(data)
    else:
        raise DataError(f"{data}: no such BIDS folder or TSV table")
    if not scans:
        raise DataError(
            f"{data}: no scan with a lesion mask; expected sub-*/anat/*_T2w.nii.gz and "
            "derivatives/labels/sub-*/anat/*_T2w_label-lesion_seg.nii.gz, or a TSV with the "
            f"columns {', '.join(COLUMNS[:3])}"
        )
    return scans


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
    measures: Mapping[str, Mapping[Path, float]] = MappingProxyType({}),
) -> None:
    """Write a cohort as a TSV that `read` takes, with paths relative to its folder.

    Parameters
    ----------
    scans : iterable of CohortScan
    path : Path
    measures : mapping of str to mapping of Path to float
        Further columns, by the path of the scan; `read` passes over them.
    """
    folder = path.resolve().parent

    def relative(file: Path | None) -> str:
        return "" if file is None else Path(os.path.relpath(file.resolve(), folder)).as_posix()

    text = io.StringIO()
    table = csv.writer(text, delimiter="\t", lineterminator="\n")
    table.writerow((*COLUMNS, *measures))
    for s in scans:
        row = (relative(s.scan), relative(s.lesion_mask), s.subject, s.site, s.split)
        measured = (f"{column[s.scan]:.6g}" for column in measures.values())
        table.writerow((*row, relative(s.centerline), *measured))
    write_text(path, text.getvalue())


def cord_mask(scan: CohortScan) -> Path | None:
    """Find the cord mask of a scan, beside its lesion mask under the names of BIDS labels."""
    return _label(scan.lesion_mask.parent, scan.name, _CORD)


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
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    except OSError as error:
        raise ImageError(f"{path}: cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def _read_table(path: Path) -> list[CohortScan]:
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream, delimiter="\t"))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a TSV table ({error})") from error
    scans = []
    for line, row in enumerate(rows, start=2):
        missing = [name for name in COLUMNS[:3] if not (row.get(name) or "").strip()]
        if missing:
            raise DataError(f"{path}, line {line}: {missing[0]} is empty; give every scan one")
        scans.append(_from_row(path, line, {k: (v or "").strip() for k, v in row.items() if k}))
    names = [s.scan for s in scans]
    if len(set(names)) != len(names):
        raise DataError(f"{path}: a scan is listed twice")
    return sorted(scans, key=lambda s: str(s.scan))


def _from_row(path: Path, line: int, row: Mapping[str, str]) -> CohortScan:
    split = row.get("split", "")
    if split and split not in SPLITS:
        raise DataError(
            f"{path}, line {line}: split is {split!r}, expected one of {', '.join(SPLITS)}"
        )
    folder = path.parent
    return CohortScan(
        scan=_existing(folder / row["scan"], path, line),
        lesion_mask=_existing(folder / row["lesion_mask"], path, line),
        subject=row["subject"],
        site=row.get("site", ""),
        split=split,
        centerline=(
            _existing(folder / row["centerline"], path, line) if row.get("centerline") else None
        ),
    )


def _existing(file: Path, table: Path, line: int) -> Path:
    try:
        stem(file)
    except ImageError as error:
        raise DataError(f"{table}, line {line}: {error}") from error
    if not file.is_file():
        raise DataError(f"{table}, line {line}: {file} does not exist")
    return file


def _read_bids(folder: Path) -> list[CohortScan]:
    people = _participants(folder / "participants.tsv")
    scans = []
    for image in bids.find_scans(folder):
        subject = image.relative_to(folder).parts[0]
        labels = folder / "derivatives" / "labels" / image.parent.relative_to(folder)
        lesion = _label(labels, stem(image)[0], _LESION)
        if lesion is None:
            logger.warning("%s: no lesion mask in derivatives/labels, left out", image.name)
            continue
        person = people.get(subject, {})
        scans.append(
            CohortScan(
                image,
                lesion,
                subject,
                site=person.get("site", ""),
                centerline=_label(labels, stem(image)[0], (*_CENTERLINE, *_CORD)),
            )
        )
    return scans


def _label(folder: Path, name: str, endings: Sequence[str]) -> Path | None:
    """Find the first label file of a scan, with or without the scan's suffix in its name."""
    for ending in endings:
        for start in (name, name.removesuffix("_T2w")):
            for extension in (".nii.gz", ".nii"):
                file = folder / f"{start}_{ending}{extension}"
                if file.is_file():
                    return file
    return None


def _participants(path: Path) -> dict[str, dict[str, str]]:
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as stream:
        return {
            row["participant_id"]: {
                k: "" if v in (None, MISSING) else v for k, v in row.items() if k
            }
            for row in csv.DictReader(stream, delimiter="\t")
            if row.get("participant_id")
        }
