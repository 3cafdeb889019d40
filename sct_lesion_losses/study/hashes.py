"""Hashes of what a study is made of: scans with their labels, and files."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from pathlib import Path

from sct_lesion_losses.cohorts import table as cohorts
from sct_lesion_losses.cohorts.table import CohortScan
from sct_lesion_losses.errors import ImageError
from sct_lesion_losses.preprocessing import cache


def of_scans(scans: Sequence[CohortScan]) -> dict[str, str]:
    """Hash every scan with its labels and what the cohort says of it, by ``scan`` and its name."""
    names = cohorts.names(scans) if scans else {}
    return {f"scan {names[scan.scan]}": _of_scan(scan) for scan in scans}


def of_parts(table: Path, *parts: str) -> dict[str, str]:
    """Hash the scans of some parts of a split.

    Parameters
    ----------
    table : Path
        The cohort with its split.
    *parts : str
        Names out of `cohort.SPLITS`.
    """
    return of_scans([scan for scan in cohorts.read(table) if scan.split in parts])


def places(scans: Sequence[CohortScan], folder: Path) -> dict[str, str]:
    """Paths of every scan and its labels as a table in a folder writes them, by ``path`` and name.

    Parameters
    ----------
    scans : sequence of CohortScan
    folder : Path
        They are relative to it; two names for one place give the same.
    """
    names = cohorts.names(scans) if scans else {}
    here = folder.resolve()
    return {
        f"path {names[scan.scan]}": " ".join(
            os.path.relpath(file.resolve(), here) if file else "-" for file in _files(scan)
        )
        for scan in scans
    }


def of_file(path: Path) -> str | None:
    """Hash of a file's bytes, None where it cannot be read."""
    try:
        return cache.file_hash(path)
    except ImageError:
        return None


def _files(scan: CohortScan) -> tuple[Path, Path, Path | None]:
    return scan.scan, scan.lesion_mask, scan.centerline


def _of_scan(scan: CohortScan) -> str:
    hashes = ("" if file is None else _of_unchanged(file) for file in _files(scan))
    return cache.key(scan.subject, scan.site, scan.split, *hashes)


def _of_unchanged(file: Path) -> str:
    """Hash of a file that is read again only where it was written since."""
    try:
        status = file.stat()
    except OSError as error:
        raise ImageError(f"{file}: cannot be read: {error.strerror}") from error
    return _read(file.resolve(), status.st_mtime_ns, status.st_size)


@functools.cache
def _read(file: Path, _mtime_ns: int, _size: int) -> str:
    return cache.file_hash(file)
