"""Scans in a BIDS folder, its tables, and the names of what is derived from the scans."""

from __future__ import annotations

import csv
import io
import logging
import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal

import sct_lesion_losses
from sct_lesion_losses.errors import DataError, UsageError
from sct_lesion_losses.images import nifti
from sct_lesion_losses.images.atomic import write_json

LISTED = 20  # scans that an error names
UNKNOWN = "n/a"  # a missing value of a table

logger = logging.getLogger(__name__)

DERIVATIVES = Path("derivatives") / "sct_lesion_losses"
# Endings of the names of lesion masks and p-maps behind the scan's own, the likeliest first.
LESION_MASKS = (
    *("lesion-manual", "label-lesion_seg", "label-lesion_mask", "label-L_mask", "lesionseg"),
    "lesion_seg",
)
LESION_PMAPS = ("label-L_probseg", "lesionseg_pmap", "lesion_pmap", "lesion_softseg")
# The same of labels of vertebral levels along the cord, and of discs.
LEVELS = ("seg_labeled", "label-SC_seg_labeled", "seg-manual_labeled")
DISCS = (
    *("labels-disc-manual", "labels-disc", "label-discs_dlabel", "label-disc"),
    *("seg_labeled_discs", "label-SC_seg_labeled_discs"),
)
# Of files that may show something else: taken where no scan has one of the names above.
PLAIN_MASKS, PLAIN_PMAPS = ("seg", "mask", ""), ("pmap", "probseg", "softseg", "prob", "")
SUFFIXES = {"t2": ("T2w",), "t2_ax": ("T2w",), "t2s": ("T2star", "T2starw")}  # of SCT's contrasts


def find_scans(dataset: Path, suffixes: Sequence[str] = ("T2w",)) -> list[Path]:
    """Find the raw scans of a dataset: `sub-*/[ses-*/]anat/*_<suffix>.nii[.gz]`, sorted.

    Raises
    ------
    DataError
        There is none; the message names the suffixes that are there.
    """
    images = [
        path
        for pattern in ("sub-*/anat/sub-*", "sub-*/ses-*/anat/sub-*")
        for path in dataset.glob(pattern)
        if nifti.is_nifti_name(path)
    ]
    scans = sorted(path for path in images if suffix(path) in suffixes)
    if not scans:
        wanted = " or ".join(suffixes)
        seen = ", ".join(sorted({suffix(path) for path in images}))
        found = f"only {seen}" if seen else "no image in sub-*/anat or sub-*/ses-*/anat"
        raise DataError(
            f"{dataset}: no {wanted} scan, {found}; expected a BIDS folder, or give the files"
        )
    subjects = {path.name for path in dataset.glob("sub-*") if path.is_dir()}
    without = sorted(subjects - {path.relative_to(dataset).parts[0] for path in scans})
    if without:
        logger.warning(
            "%d of %d subjects have no %s scan: %s%s",
            len(without),
            len(subjects),
            " or ".join(suffixes),
            ", ".join(without[:5]),
            ", …" if len(without) > 5 else "",
        )
    return scans


def label_stems(name: str, endings: Sequence[str]) -> list[str]:
    """Stems that a label of a scan may have: with or without the scan's suffix, then an ending.

    >>> label_stems("sub-01_T2w", ["lesionseg"])
    ['sub-01_T2w_lesionseg', 'sub-01_lesionseg']
    """
    starts = dict.fromkeys((name, name.removesuffix("_T2w")))
    return [f"{start}_{ending}" if ending else start for ending in endings for start in starts]


def find_labels(
    folder: Path,
    names: Mapping[Path, str],
    endings: Sequence[Sequence[str]],
    besides: Collection[Path] = (),
    *,
    preferred: bool = False,
) -> dict[Path, Path]:
    """Find the label of each scan by its name, anywhere under a folder.

    Parameters
    ----------
    folder : Path
    names : mapping of Path to str
        Of the scans' files; of one that is led by folders, ``sub-01_t2``, the label may lie in
        these and be named without them: ``sub-01/t2_lesionseg.nii.gz``.
    endings : sequence of sequence of str
        See `label_stems`; those of a group count where no scan has a label of an earlier one, so
        that a cord mask is not taken for the lesion mask that one scan of many lacks.
    besides : collection of Path
        Files that are no labels, such as the scans themselves.
    preferred : bool
        Take of each scan by itself the label of the first ending that it has one of.

    Returns
    -------
    dict of Path to Path
        By the scan; without the scans that have no label there.

    Raises
    ------
    DataError
        There is no such folder, or a scan has several labels in it.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; expected one that holds a file for every scan")
    known = {os.path.realpath(path) for path in besides}
    by_stem: dict[str, list[Path]] = {}
    for path in _files(folder):
        if nifti.is_nifti_name(path) and os.path.realpath(path) not in known:
            parts, stem = path.relative_to(folder).parts, nifti.stem(path)[0]
            for led in {stem, "_".join((*parts[:-1], stem))}:
                by_stem.setdefault(led, []).append(path)
    found: dict[Path, list[Path]] = {}
    for group in [[one] for own in endings for one in own] if preferred else endings:
        for scan, name in names.items():
            own = [path for stem in label_stems(name, group) for path in by_stem.get(stem, ())]
            if own:
                found.setdefault(scan, own)
        if found and not preferred:
            break
    several = {names[scan]: own for scan, own in found.items() if len(own) > 1}
    if several:
        seen = "; ".join(
            f"{name}: {', '.join(str(path.relative_to(folder)) for path in own)}"
            for name, own in list(several.items())[:LISTED]
        )
        raise DataError(
            f"{folder}: several files for {len(several)} of {len(names)} scans ({seen}"
            f"{'; …' if len(several) > LISTED else ''}); leave one for each, or give a folder "
            "that holds only those that are meant"
        )
    return {scan: own[0] for scan, own in found.items()}


def _files(folder: Path) -> list[Path]:
    """List the files under a folder, without hidden ones; folders that are links are entered, too.

    A folder that two ways lead to is entered once, by the way without a link where there is one;
    a link to a folder that holds this one is not followed.
    """
    seen = {str(parent) for parent in Path(os.path.realpath(folder)).parents}
    found: list[Path] = []
    starts = [folder]
    for start in starts:  # links join the list while it is walked
        for place, folders, names in os.walk(start):
            real = os.path.realpath(place)
            folders[:] = [name for name in folders if real not in seen and name[0] != "."]
            if real not in seen:
                found += [Path(place, name) for name in names if name[0] != "."]
            seen.add(real)
            inner = [Path(place, name) for name in folders]
            starts += [path for path in inner if path.is_symlink()]
    return sorted(found)


def read_table(path: Path, own: Collection[str] = ()) -> list[dict[str, str]]:
    """Read the rows of a table as texts by column; those missing or n/a are empty.

    Tables are read as spreadsheets of any country leave them: in UTF-8 or Latin-1, with tabs,
    commas or semicolons. Names of columns are in small letters.

    Parameters
    ----------
    path : Path
    own : collection of str
        Columns that a table which this package wrote must have: one in UTF-8, with tabs, whose
        quotation marks are letters like others, and with every row whole.

    Raises
    ------
    DataError
        It is missing, or cannot be read.
    """
    quoting: Literal[0, 3] = csv.QUOTE_NONE if own else csv.QUOTE_MINIMAL
    try:
        content = path.read_bytes()
        if b"\0" in content:
            raise csv.Error("it holds binary data")
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            if own:
                raise
            text = content.decode("latin-1")
        lines = io.StringIO(text, newline="")
        delimiter = "\t" if own else max("\t,;", key=text.partition("\n")[0].count)
        table = csv.DictReader(lines, delimiter=delimiter, quoting=quoting)
        rows = [*table]
        if absent := set(own).difference(table.fieldnames or ()):
            raise csv.Error(f"it has no column {min(absent)!r}")
        if own and (not text.endswith("\n") or any(None in row.values() for row in rows)):
            raise csv.Error("it is cut short")
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such table; correct its path") from error
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        remedy = "remove it" if own else "save it as text with tabs"
        raise DataError(f"{path}: cannot be read as a TSV table ({why}); {remedy}") from error
    return [
        {
            name.strip().lower(): "" if (known := (value or "").strip()) == UNKNOWN else known
            for name, value in row.items()
            if name
        }
        for row in rows
    ]


def suffix(image: Path) -> str:
    """Return the last part of a BIDS name: `T2w` of `sub-01_acq-ax_T2w.nii.gz`."""
    return nifti.stem(image)[0].rpartition("_")[2]


def place(image: Path) -> Path:
    """Folder of a scan inside a dataset, by its name.

    >>> place(Path("sub-01_ses-2_T2w.nii.gz")).as_posix()
    'sub-01/ses-2/anat'

    Raises
    ------
    UsageError
        It has no name of a BIDS scan.
    """
    found = re.match(r"(sub-[^_.]+)_(?:(ses-[^_.]+)_)?", image.name)
    if found is None:
        raise UsageError(
            f"{image}: not the name of a BIDS scan, sub-01_T2w.nii.gz for example; leave out "
            "-bids 1, or rename the scan"
        )
    return Path(*filter(None, found.groups()), "anat")


def derivative_name(image: Path, tail: str) -> str:
    """Name of what is derived from a scan: its entities, then `tail`, its extension.

    The scan's suffix is dropped, as BIDS asks for. Suffixes other than T2w stay as a description,
    or two contrasts of one session would share a name.

    >>> derivative_name(Path("sub-01_T2w.nii.gz"), "label-L_mask")
    'sub-01_label-L_mask.nii.gz'
    >>> derivative_name(Path("sub-01_T2star.nii.gz"), "label-L_mask")
    'sub-01_label-L_desc-T2star_mask.nii.gz'
    """
    stem, extension = nifti.stem(image)
    head, _, last = stem.rpartition("_")
    if last == "T2w":
        return f"{head}_{tail}{extension}"
    start, _, kind = tail.rpartition("_")
    return "_".join(part for part in (head, start, f"desc-{last}", kind) if part) + extension


def describe_derivatives(folder: Path) -> None:
    """Write `dataset_description.json` into a derivatives folder that has none."""
    path = folder / "dataset_description.json"
    if path.exists():
        return
    description = {
        "Name": "Spinal cord MS lesion segmentation",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [
            {"Name": sct_lesion_losses.__name__, "Version": sct_lesion_losses.__version__}
        ],
    }
    write_json(path, description)
