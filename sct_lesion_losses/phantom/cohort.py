"""A BIDS folder of synthetic scans."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sct_lesion_losses import __version__, parallel
from sct_lesion_losses.errors import UsageError
from sct_lesion_losses.files import write_json, write_text
from sct_lesion_losses.phantom.files import write_nifti, write_scan
from sct_lesion_losses.phantom.scan import (
    LESION_FREE,
    PhantomScan,
    Preset,
    has_lesions,
    make_scan,
)
from sct_lesion_losses.phantom.sites import SITES

SCANS_PER_SUBJECT = 161 / 108  # of the study
TRUTH_COLUMNS = (
    "participant_id", "session_id", "scan", "lesion", "level", "place", "s_mm", "half_length_mm",
    "section_share", "intensity_ratio", "volume_mm3", "labelled",
)  # fmt: skip

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Task:
    """One scan to make, and what holds for the whole cohort."""

    subject: int
    scan: int
    seed: int
    out: Path
    sites: int
    lesion_free: float
    preset: Preset
    raters: int

    @property
    def session(self) -> str:
        return f"ses-{self.scan + 1:02d}" if len(scans_of(self.subject)) > 1 else ""


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
) -> Path:
    """Write a cohort as a BIDS folder; byte for byte the same for the same arguments.

    Parameters
    ----------
    n_subjects : int
        108 subjects have 161 scans, as in the study.
    seed : int
    out : Path
        Folder of the cohort; made where it is missing.
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

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    UsageError
        A number is out of range.
    OutputError
        A file cannot be written.
    WorkerError
        A worker was killed.
    """
    _check(n_subjects, seed, lesion_free, jobs, raters)
    out = Path(out)
    tasks = [
        _Task(subject, scan, seed, out, sites, lesion_free, preset, raters)
        for subject in range(n_subjects)
        for scan in scans_of(subject)
    ]
    found = parallel.run(_write_scan, tasks, jobs, name=_name, progress=progress)
    if bare := [task for task, one in zip(tasks, found, strict=True) if one and not _labelled(one)]:
        logger.warning(
            "no lesion of %d of the scans with lesions is large enough to be labelled (%s first)",
            len(bare),
            _name(bare[0]),
        )
    rows = [row for one in found for row in one]
    _write_tables(out, n_subjects, seed, sites, lesion_free, preset, raters, rows)
    return out


def scans_of(subject: int) -> range:
    """Scan numbers of a subject: 1 or 2 of them, 1.49 on average."""
    return range(int((subject + 1) * SCANS_PER_SUBJECT) - int(subject * SCANS_PER_SUBJECT))


def _check(n_subjects: int, seed: int, lesion_free: float, jobs: int, raters: int) -> None:
    if n_subjects < 1 or jobs < 1 or seed < 0 or raters < 0:
        raise UsageError(
            f"received {n_subjects} subjects, {jobs} jobs, seed {seed} and {raters} raters; "
            "subjects and jobs start at 1, seeds and raters at 0"
        )
    if not 0 <= lesion_free <= 1:
        raise UsageError(f"the lesion-free share is {lesion_free}, expected 0 to 1")


def _name(task: _Task) -> str:
    return _subject(task.subject)


def _write_scan(task: _Task) -> list[str]:
    """Make one scan and write its files; return its rows of the truth table."""
    scan = make_scan(
        task.seed,
        task.subject,
        task.scan,
        lesions=has_lesions(task.seed, task.subject, task.lesion_free),
        preset=task.preset,
        sites=task.sites,
        raters=task.raters,
    )
    label = _subject(task.subject)
    folder = "/".join(part for part in (label, task.session, "anat") if part)
    stem = "_".join(part for part in (label, task.session, "T2w") if part)
    derivatives = task.out / "derivatives"
    write_scan(scan, task.out / folder, derivatives / "labels" / folder, stem)
    for rater, mask in enumerate(scan.raters, start=1):
        drawn = derivatives / _rater(rater) / folder / f"{stem}_label-lesion_seg.nii.gz"
        write_nifti(drawn, mask, scan.grid)
    return _truth_rows(scan, label, task.session or "n/a", f"{folder}/{stem}.nii.gz")


def _truth_rows(scan: PhantomScan, label: str, session: str, path: str) -> list[str]:
    return [
        "\t".join(
            (
                label, session, path, str(r.number), r.lesion.level, r.lesion.place,
                f"{r.lesion.s_mm:.2f}", f"{r.lesion.half_length_mm:.2f}", f"{r.lesion.share:.3f}",
                f"{r.lesion.ratio:.3f}", f"{r.volume_mm3:.1f}", str(int(r.labelled)),
            )
        )
        for r in scan.lesions
    ]  # fmt: skip


def _labelled(rows: list[str]) -> bool:
    return any(row.endswith("\t1") for row in rows)


def _subject(subject: int) -> str:
    return f"sub-{subject + 1:03d}"


def _rater(number: int) -> str:
    return f"rater-{number:02d}"


def _write_tables(
    out: Path, n_subjects: int, seed: int, sites: int, lesion_free: float, preset: str,
    raters: int, rows: list[str],
) -> None:  # fmt: skip
    people = ["\t".join(("participant_id", "site", "manufacturer", "sex", "age", "group"))]
    for subject in range(n_subjects):
        rng = np.random.default_rng([seed, subject, 1_000_000])
        site = SITES[(subject + seed) % sites]
        place = ("n/a", "n/a") if preset == "wide" else (site.name, site.manufacturer)
        sex = "F" if rng.random() < 0.68 else "M"
        age = str(int(np.clip(rng.normal(43, 11), 19, 75)))
        group = "lesions" if has_lesions(seed, subject, lesion_free) else "lesion-free"
        people.append("\t".join((_subject(subject), *place, sex, age, group)))
    write_text(out / "participants.tsv", "\n".join(people) + "\n")
    write_text(out / "truth.tsv", "\n".join(["\t".join(TRUTH_COLUMNS), *rows]) + "\n")
    write_text(out / ".bidsignore", "truth.tsv\n")
    write_json(
        out / "dataset_description.json",
        {
            "Name": "Synthetic spinal cord cohort",
            "BIDSVersion": "1.10.0",
            "DatasetType": "raw",
            "GeneratedBy": [
                {
                    "Name": "sct_lesion_losses.phantom",
                    "Version": __version__,
                    "Seed": seed,
                    "Preset": preset,
                    "Subjects": n_subjects,
                    "Sites": sites,
                    "LesionFree": lesion_free,
                }
            ],
        },
    )
    folders = {"labels": "Ground truth of the synthetic cohort"}
    folders |= {_rater(k): f"Lesions of the synthetic cohort as drawn by rater {k}"
                for k in range(1, raters + 1)}  # fmt: skip
    for folder, name in folders.items():
        write_json(
            out / "derivatives" / folder / "dataset_description.json",
            {
                "Name": name,
                "BIDSVersion": "1.10.0",
                "DatasetType": "derivative",
                "GeneratedBy": [{"Name": "sct_lesion_losses.phantom", "Version": __version__}],
            },
        )
