"""A BIDS folder of synthetic scans."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sct_lesion_losses import parallel
from sct_lesion_losses.errors import OutputError, UsageError
from sct_lesion_losses.files import require_writable, write_json, write_text
from sct_lesion_losses.phantom.files import write_nifti, write_scan
from sct_lesion_losses.phantom.scan import LESION_FREE, Preset, check, make_scan
from sct_lesion_losses.phantom.sites import SITES
from sct_lesion_losses.phantom.tables import (
    DESCRIPTION,
    Cohort,
    derived_description,
    description,
    participants,
    rater_name,
    subject_name,
    truth_rows,
    truth_table,
)

SCANS_PER_SUBJECT = 161 / 108  # of the study

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Task:
    """One scan to make."""

    cohort: Cohort
    subject: int
    scan: int

    @property
    def session(self) -> str:
        return f"ses-{self.scan + 1:02d}" if len(scans_of(self.subject)) > 1 else ""

    @property
    def parts(self) -> tuple[str, ...]:
        """Subject and, where there are several, session."""
        return tuple(filter(None, (subject_name(self.subject), self.session)))


@dataclass(frozen=True)
class _Made:
    """What is told of a scan that is written.

    Attributes
    ----------
    rows : list of str
        Its rows of the truth table.
    missed : bool
        It has lesions, and none of them is labelled.
    """

    rows: list[str]
    missed: bool


def make_cohort(
    n_subjects: int,
    seed: int,
    out: Path | str,
    sites: int = len(SITES),
    lesion_free: float = LESION_FREE,
    jobs: int = 1,
    preset: Preset = "study",
    progress: Callable[[int, int], None] | None = None,
    raters: int = 0,
    only: Sequence[str] = (),
) -> Path:
    """Write a cohort as a BIDS folder; byte for byte the same for the same arguments.

    Parameters
    ----------
    n_subjects : int
        108 subjects have 161 scans, as in the study.
    seed : int
    out : Path
        Folder of the cohort; made where it is missing. The same cohort may be made again in the
        same folder, a whole or an interrupted one.
    sites : int
        Number of sites, 1 to 13.
    lesion_free : float
        Share of subjects without lesions.
    jobs : int
        Scans made at the same time.
    preset : {"tiny", "demo", "study", "wide"}
        See :func:`~sct_lesion_losses.phantom.scan.make_scan`.
    progress : callable, optional
        Called with (done, total).
    raters : int
        Raters whose lesion masks go to ``derivatives/rater-01`` and so on, beside the truth in
        ``derivatives/labels``.
    only : sequence of str
        Names of sites; the subjects of others are not made. None: those of all sites are.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    UsageError
        A number is out of range, the preset or a site is unknown, or no subject is scanned there.
    OutputError
        The folder holds another cohort, or a file cannot be written.
    WorkerError
        A worker was killed.
    """
    _check(n_subjects, lesion_free, jobs)
    check(seed, preset, sites, raters)
    cohort = Cohort(Path(out), n_subjects, seed, sites, lesion_free, preset, raters, tuple(only))
    members = _members(cohort)
    _claim(cohort)
    tasks = [_Task(cohort, subject, scan) for subject in members for scan in scans_of(subject)]
    found = parallel.run(_write_scan, tasks, jobs, name=_name, progress=progress)
    if missed := [task for task, made in zip(tasks, found, strict=True) if made.missed]:
        logger.warning(
            "no lesion is large enough to be labelled in %d of the scans of subjects with lesions; "
            "the first is %s",
            len(missed),
            _name(missed[0]),
        )
    _write_tables(cohort, [row for made in found for row in made.rows])
    return cohort.out


def scans_of(subject: int) -> range:
    """Scan numbers of a subject: 1 or 2 of them, 1.49 on average."""
    return range(int((subject + 1) * SCANS_PER_SUBJECT) - int(subject * SCANS_PER_SUBJECT))


def _check(n_subjects: int, lesion_free: float, jobs: int) -> None:
    if n_subjects < 1 or jobs < 1:
        raise UsageError(f"received {n_subjects} subjects and {jobs} jobs, expected 1 or more")
    if not 0 <= lesion_free <= 1:
        raise UsageError(f"the lesion-free share is {lesion_free}, expected 0 to 1")


def _members(cohort: Cohort) -> list[int]:
    """Return the subjects to make."""
    known = [site.name for site in SITES[: cohort.sites]]
    if unknown := [name for name in cohort.only if name not in known]:
        raise UsageError(f"no site is named {unknown[0]!r}; choose from {', '.join(known)}")
    if cohort.only and cohort.preset == "wide":
        raise UsageError("the scans of the preset wide belong to no site; leave the sites out")
    if not (members := cohort.members()):
        raise UsageError(
            f"none of {cohort.subjects} subjects is scanned at {', '.join(cohort.only)}; "
            "ask for more subjects"
        )
    return members


def _claim(cohort: Cohort) -> None:
    """Describe the cohort in its folder, so that no scan of another one is mixed with its own.

    Raises
    ------
    OutputError
        The folder holds another cohort, or cannot be written.
    """
    out = cohort.out
    require_writable(out)
    described = description(cohort)
    own = {subject_name(k) for k in cohort.members()} | set(cohort.folders())
    derivatives = out / "derivatives"
    places = [*out.glob("sub-*"), *derivatives.glob("rater-*"), *derivatives.glob("labels/sub-*")]
    others = sorted(p.relative_to(out).as_posix() for p in places if p.name not in own)
    said = _read_description(out / DESCRIPTION)
    if said is None and places:
        others.append(f"no {DESCRIPTION}")
    elif said not in (None, described):
        others.append(f"another {DESCRIPTION}")
    if others:
        raise OutputError(f"{out}: holds another cohort ({others[0]}); choose an empty folder")
    write_json(out / DESCRIPTION, described)


def _read_description(path: Path) -> object:
    """Content of a description: None where there is none, its text where it is no JSON."""
    try:
        text = path.read_text("utf-8", errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OutputError(
            f"{path}: cannot read this file ({error.strerror}); choose an empty folder"
        ) from error
    try:
        return json.loads(text) or text
    except ValueError:
        return text


def _name(task: _Task) -> str:
    return " ".join(task.parts)


def _write_scan(task: _Task) -> _Made:
    """Make one scan and write its files."""
    cohort = task.cohort
    scan = make_scan(
        cohort.seed,
        task.subject,
        task.scan,
        lesions=cohort.affected(task.subject),
        preset=cohort.preset,
        sites=cohort.sites,
        raters=cohort.raters,
    )
    folder = "/".join((*task.parts, "anat"))
    stem = "_".join((*task.parts, "T2w"))
    derivatives = cohort.out / "derivatives"
    write_scan(scan, cohort.out / folder, derivatives / "labels" / folder, stem)
    for rater, mask in enumerate(scan.raters, start=1):
        drawn = derivatives / rater_name(rater) / folder / f"{stem}_label-lesion_seg.nii.gz"
        write_nifti(drawn, mask, scan.grid)
    return _Made(
        rows=truth_rows(scan.lesions, task.subject, task.session, f"{folder}/{stem}.nii.gz"),
        missed=bool(scan.lesions) and not any(record.labelled for record in scan.lesions),
    )


def _write_tables(cohort: Cohort, rows: list[str]) -> None:
    """Write what describes the cohort as a whole; `rows` are those of the truth table."""
    out = cohort.out
    write_text(out / "participants.tsv", participants(cohort))
    write_text(out / "truth.tsv", truth_table(rows))
    write_text(out / ".bidsignore", "truth.tsv\n")
    for folder, name in cohort.folders().items():
        write_json(out / "derivatives" / folder / DESCRIPTION, derived_description(name))
