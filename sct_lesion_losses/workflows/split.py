"""From a cohort to its split: masks measured, subjects dealt, a table and a picture written."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from sct_lesion_losses.cohorts import splits
from sct_lesion_losses.cohorts import table as cohorts
from sct_lesion_losses.cohorts.splits import PartLoad
from sct_lesion_losses.errors import DataError, OutputError, UsageError
from sct_lesion_losses.executor import Progress
from sct_lesion_losses.images import atomic
from sct_lesion_losses.report import counted
from sct_lesion_losses.report.figures import split as split_figure
from sct_lesion_losses.report.figures import style

logger = logging.getLogger(__name__)


def split(
    data: Path,
    table: Path,
    rules: splits.Rules = splits.Rules(),  # noqa: B008 (frozen)
    *,
    tuning: Path | None = None,
    figures: Sequence[Path] = (),
    resplit: bool = False,
    keep: bool = False,
    force: bool = False,
    report: Progress | None = None,
) -> Path:
    """Split a cohort by subject, balanced for lesion load and site.

    The table holds the cohort with its column split, and the number of lesions and their volume,
    which the split was made by, for each scan. `train.run` and `tune.run` take it.

    Parameters
    ----------
    data : Path
        BIDS folder or TSV; see `cohorts.table.read`.
    table : Path
        The TSV to write.
    rules : Rules
    tuning : Path, optional
        Another cohort, all of whose scans join the part thr-optimization; a split that its table
        may hold is passed over.
    figures : sequence of Path
        Draw lesion number and volume per part into these files, .png or .svg.
    resplit : bool
        Make a new split where the cohort's table holds one; refused otherwise.
    keep : bool
        Keep the split of a cohort that has one.
    force : bool
        Overwrite the table and the figures that are there already; refused otherwise.
    report : callable, optional
        Told of every mask that is read.

    Returns
    -------
    Path
        `table`.

    Raises
    ------
    UsageError
        The table's name does not end in .tsv, or it is the cohort's own table.
    OutputError
        A file is there already or cannot be written, or matplotlib is not installed.
    DataError
        The cohort cannot be read, has a split already, holds no lesion or does not fit the rules;
        or the other one cannot be read, or holds a scan of it.
    ImageError
        A mask cannot be read.
    """
    _require_outputs(data, table, figures, force)
    scans = cohorts.read(data)
    given = sum(bool(scan.split) for scan in scans)
    kept = keep and given > 0
    if kept:
        scans = splits.of(scans, rules)
    elif given and not resplit:
        raise DataError(
            f"{data}: {given} of its {len(scans)} scans have a split already; train and tune on "
            "it as it is, or make a new one by -resplit 1"
        )
    splits.check(scans, rules)
    others = [] if tuning is None else cohorts.read(tuning)
    added = splits.for_tuning(others, scans, tuning.stem if tuning else "")
    loads = splits.measure_all([*scans, *added], report)
    if not any(loads[scan.scan].lesions for scan in scans):
        raise DataError(
            f"{data}: no mask of its {len(scans)} scans holds a lesion, so that there is nothing "
            "to train on; check the lesion masks"
        )
    volumes = {scan: load.volume_mm3 for scan, load in loads.items()}
    if not kept:
        scans = splits.assign(scans, volumes, rules)
    scans = [*scans, *added]
    parts = splits.by_part(scans, loads)
    for part in parts:
        logger.info("%s", described(part))
    if without := [part.name for part in parts if not part.bearing]:
        logger.warning(
            "no scan with lesions in %s: there are too few subjects with lesions for every part",
            ", ".join(without),
        )
    with ExitStack() as stack:
        for path in figures:  # they appear only behind a table that could be written
            hidden = stack.enter_context(atomic.replacing(path))
            style.save(split_figure.figure(parts), hidden)
        numbers = {scan: float(load.lesions) for scan, load in loads.items()}
        cohorts.write(scans, table, {"lesions": numbers, "lesion_volume_mm3": volumes})
    beside = table.with_suffix(".png")
    if beside not in figures and beside.exists():
        logger.warning("%s is a picture of an earlier split; remove it", beside.name)
    return table


def _require_outputs(data: Path, table: Path, figures: Sequence[Path], force: bool) -> None:
    if table.suffix != ".tsv":
        raise UsageError(f"{table}: expected a name that ends in .tsv")
    if os.path.realpath(table) == os.path.realpath(data):
        raise UsageError(f"{table} is the cohort's own table; give the split another name")
    if figures:
        style.require()
    for path in (table, *figures):
        if path.is_dir():
            raise OutputError(f"{path} is a folder; choose another name")
        if path.exists() and not force:
            raise OutputError(
                f"{path} is there already; overwrite it by -force 1, or choose another name"
            )
    atomic.require_writable(table.parent)


def described(part: PartLoad) -> str:
    """Say what a part holds: scans, subjects, sites where known, the load of those with lesions."""
    if not part.loads:
        return f"{part.name}: no scan"
    sites = f" from {counted(part.sites, 'site')}" if part.sites else ""
    text = (
        f"{part.name}: {counted(len(part.loads), 'scan')} of {counted(part.subjects, 'subject')}"
        f"{sites}, {part.lesion_free} without lesions"
    )
    if not part.bearing:
        return text
    lesions = median(load.lesions for load in part.bearing)
    volume = median(load.volume_mm3 for load in part.bearing)
    return f"{text}; in the others a median of {counted(lesions, 'lesion')} and {volume:.0f} mm³"
