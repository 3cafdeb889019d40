"""A cohort of synthetic scans as a BIDS dataset."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sct_lesion_losses import executor
from sct_lesion_losses.errors import UsageError
from sct_lesion_losses.images.atomic import write_json
from sct_lesion_losses.phantom import dataset
from sct_lesion_losses.phantom.scan import (
    LESION_FREE,
    PhantomScan,
    Preset,
    check,
    has_lesions,
    make_scan,
)
from sct_lesion_losses.phantom.sites import SITES, Site, home_site

SCANS_PER_SUBJECT = 161 / 108  # of the study

logger = logging.getLogger(__name__)


def write_scan(scan: PhantomScan, out: Path, folder: str, stem: str) -> None:
    """Write a scan, its sidecar and its labels into a cohort.

    Parameters
    ----------
    scan : PhantomScan
    out : Path
        Folder of the cohort.
    folder, stem : str
        Folder of the scan in the cohort, and of its labels in each of the derivatives; start of
        the names of the files.
    """
    slope = 0.5 if scan.protocol.dtype == "int16-scaled" else None
    dataset.write_nifti(out / folder / f"{stem}.nii.gz", scan.image, scan.grid, slope)
    write_json(out / folder / f"{stem}.json", _sidecar(scan))
    line = dataset.centerline_mask(scan.centerline, scan.grid)
    masks = {"lesion_seg": scan.lesion, "SC_seg": scan.cord, "centerline": line}
    labels = {f"{dataset.TRUTH}/{name}": mask for name, mask in masks.items()}
    for k, mask in enumerate(scan.raters, start=1):
        labels[f"{rater_name(k)}/lesion_seg"] = mask
    dataset.write_labels(out, folder, stem, scan.grid, labels)


def _sidecar(scan: PhantomScan) -> dict[str, Any]:
    p = scan.protocol
    return {
        "Modality": "MR",
        "Manufacturer": p.manufacturer,
        "MagneticFieldStrength": p.tesla,
        "InstitutionName": f"Site {p.site}",
        "SliceThickness": round(p.slice_mm, 3),
        "SpacingBetweenSlices": round(p.slice_mm + p.gap_mm, 3),
        "MRAcquisitionType": "3D" if p.plane == "3d" else "2D",
        "Simulated": True,
        "SimulationProtocol": asdict(p),
        "SimulationSeed": scan.seed,
        "DroppedComponents": scan.dropped,
    }


@dataclass(frozen=True)
class Cohort:
    """Settings that hold for all scans of a cohort."""

    out: Path
    subjects: int
    seed: int
    sites: int
    lesion_free: float
    preset: Preset
    raters: int
    only: tuple[str, ...] = ()

    def members(self) -> list[int]:
        """Subjects that are made: all, or those who are scanned at the sites named in `only`."""
        everybody = range(self.subjects)
        return [k for k in everybody if not self.only or self.home(k).name in self.only]

    def home(self, subject: int) -> Site:
        """Site where a subject is scanned."""
        return SITES[home_site(self.seed, subject, self.sites)]

    def affected(self, subject: int) -> bool:
        """Say whether a subject has lesions."""
        return has_lesions(self.seed, subject, self.lesion_free)

    def folders(self) -> dict[str, str]:
        """Folders of derivatives, and the name of the data in each."""
        names = {dataset.TRUTH: "Ground truth of the synthetic cohort"}
        for k in range(1, self.raters + 1):
            names[rater_name(k)] = f"Lesions of the synthetic cohort as drawn by rater {k}"
        return names

    def description(self) -> dict[str, Any]:
        """Describe the dataset, with all that its scans depend on."""
        return dataset.description(
            "Synthetic spinal cord cohort",
            "raw",
            Seed=self.seed,
            Preset=self.preset,
            Subjects=self.subjects,
            Sites=self.sites,
            LesionFree=self.lesion_free,
            **({"Only": list(self.only)} if self.only else {}),
        )

    def participants(self) -> Iterator[tuple[object, ...]]:
        """Rows of the table of the subjects, its head first."""
        yield "participant_id", "site", "manufacturer", "sex", "age", "group"
        for subject in self.members():
            rng = np.random.default_rng([self.seed, subject, 1_000_000])
            site = self.home(subject)
            place = ("n/a", "n/a") if self.preset == "wide" else (site.name, site.manufacturer)
            sex = "F" if rng.random() < 0.68 else "M"
            age = int(np.clip(rng.normal(43, 11), 19, 75))
            group = "lesions" if self.affected(subject) else "lesion-free"
            yield subject_name(subject), *place, sex, age, group


def subject_name(subject: int) -> str:
    """Name of a subject's folder."""
    return f"sub-{subject + 1:03d}"


def rater_name(number: int) -> str:
    """Name of the folder of a rater's masks; 1 for the first."""
    return f"rater-{number:02d}"


def scans_of(subject: int) -> range:
    """Scan numbers of a subject: 1 or 2 of them, 1.49 on average."""
    return range(int((subject + 1) * SCANS_PER_SUBJECT) - int(subject * SCANS_PER_SUBJECT))


def _names(task: tuple[int, int]) -> tuple[str, ...]:
    """Names of the folders of a scan: of its subject and, where there are several, session."""
    subject, scan = task
    session = (f"ses-{scan + 1:02d}",) if len(scans_of(subject)) > 1 else ()
    return (subject_name(subject), *session)


def _spoken(task: tuple[int, int]) -> str:
    return " ".join(_names(task))


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
    if n_subjects < 1 or jobs < 1:
        raise UsageError(f"received {n_subjects} subjects and {jobs} jobs, expected 1 or more")
    if not 0 <= lesion_free <= 1:
        raise UsageError(f"the lesion-free share is {lesion_free}, expected 0 to 1")
    if not 1 <= sites <= len(SITES):
        raise UsageError(f"sites is {sites}, expected 1 to {len(SITES)}")
    check(preset, seed=seed, raters=raters)
    cohort = Cohort(Path(out), n_subjects, seed, sites, lesion_free, preset, raters, tuple(only))
    _check_sites(cohort)
    own = [*map(subject_name, cohort.members()), *cohort.folders()]
    dataset.claim(cohort.out, cohort.description(), own)
    tasks = [(subject, k) for subject in cohort.members() for k in scans_of(subject)]
    make = partial(_write_scan, cohort)
    rows = executor.run(make, tasks, jobs, name=_spoken, progress=progress)
    # The last column says whether a lesion is labelled.
    missed = [
        task for task, own in zip(tasks, rows, strict=True) if own and not any(r[-1] for r in own)
    ]
    if missed:
        logger.warning(
            "no lesion is large enough to be labelled in %d of the scans of subjects with lesions; "
            "the first is %s",
            len(missed),
            _spoken(missed[0]),
        )
    dataset.write_tables(
        cohort.out, cohort.participants(), itertools.chain(*rows), cohort.folders()
    )
    return cohort.out


def _check_sites(cohort: Cohort) -> None:
    known = [site.name for site in SITES[: cohort.sites]]
    if unknown := [name for name in cohort.only if name not in known]:
        raise UsageError(f"no site is named {unknown[0]!r}; choose from {', '.join(known)}")
    if cohort.only and cohort.preset == "wide":
        raise UsageError("the scans of the preset wide belong to no site; leave the sites out")
    if not cohort.members():
        raise UsageError(
            f"none of {cohort.subjects} subjects is scanned at {', '.join(cohort.only)}; "
            "ask for more subjects"
        )


def _write_scan(cohort: Cohort, task: tuple[int, int]) -> list[tuple[object, ...]]:
    """Make one scan and write its files; return its rows of the truth table, one a lesion."""
    subject, number = task
    scan = make_scan(
        cohort.seed,
        subject,
        number,
        site=None if cohort.preset == "wide" else home_site(cohort.seed, subject, cohort.sites),
        lesions=cohort.affected(subject),
        preset=cohort.preset,
        raters=cohort.raters,
    )
    names = _names(task)
    folder, stem = "/".join((*names, "anat")), "_".join((*names, "T2w"))
    write_scan(scan, cohort.out, folder, stem)
    path = f"{folder}/{stem}.nii.gz"
    return dataset.truth_rows(names, path, scan.lesions, scan.volumes_mm3)
