"""A BIDS folder of synthetic scans."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from sct_lesion_losses import __version__, parallel
from sct_lesion_losses.errors import UsageError
from sct_lesion_losses.files import replacing, write_json, write_text
from sct_lesion_losses.phantom.scan import (
    LESION_FREE,
    PhantomScan,
    Preset,
    has_lesions,
    make_scan,
)
from sct_lesion_losses.phantom.sites import SITES
from sct_lesion_losses.space.grid import Grid

SCANS_PER_SUBJECT = 161 / 108  # of the study
TRUTH_COLUMNS = (
    "participant_id", "session_id", "scan", "lesion", "level", "place", "s_mm", "half_length_mm",
    "section_share", "intensity_ratio", "volume_mm3", "labelled",
)  # fmt: skip


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
    planned = [(subject, scan) for subject in range(n_subjects) for scan in scans_of(subject)]
    tasks = [(seed, *each, out, sites, lesion_free, preset, raters) for each in planned]
    found = parallel.run(_write_scan, tasks, jobs, name=_name, progress=progress)
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


def _name(task: tuple[Any, ...]) -> str:
    return _subject(task[1])


def _write_scan(task: tuple[Any, ...]) -> list[str]:
    """Make one scan and write its files; return its rows of the truth table."""
    seed, subject, number, out, sites, lesion_free, preset, raters = task
    scan = make_scan(
        seed, subject, number,
        lesions=has_lesions(seed, subject, lesion_free), preset=preset, sites=sites,
        raters=raters,
    )  # fmt: skip
    label = _subject(subject)
    session = f"ses-{number + 1:02d}" if len(scans_of(subject)) > 1 else ""
    folder = "/".join(part for part in (label, session, "anat") if part)
    stem = "_".join(part for part in (label, session, "T2w") if part)
    write_scan(scan, out / folder, out / "derivatives" / "labels" / folder, stem)
    for rater, mask in enumerate(scan.raters, start=1):
        drawn = out / "derivatives" / _rater(rater) / folder / f"{stem}_label-lesion_seg.nii.gz"
        write_nifti(drawn, mask, scan.grid)
    return [
        "\t".join(
            (
                label, session or "n/a", f"{folder}/{stem}.nii.gz", str(r.number), r.lesion.level,
                r.lesion.place, f"{r.lesion.s_mm:.2f}", f"{r.lesion.half_length_mm:.2f}",
                f"{r.lesion.share:.3f}", f"{r.lesion.ratio:.3f}", f"{r.volume_mm3:.1f}",
                str(int(r.labelled)),
            )
        )
        for r in scan.lesions
    ]  # fmt: skip


def write_scan(scan: PhantomScan, raw: Path, labels: Path, stem: str) -> Path:
    """Write a scan, its sidecar and its labels; return the path of the scan."""
    slope = 0.5 if scan.protocol.dtype == "int16-scaled" else None
    path = raw / f"{stem}.nii.gz"
    write_nifti(path, scan.image, scan.grid, slope)
    write_json(raw / f"{stem}.json", _sidecar(scan))
    write_nifti(labels / f"{stem}_label-lesion_seg.nii.gz", scan.lesion, scan.grid)
    write_nifti(labels / f"{stem}_label-SC_seg.nii.gz", scan.cord, scan.grid)
    write_nifti(labels / f"{stem}_label-centerline.nii.gz", centerline_mask(scan), scan.grid)
    return path


def write_nifti(
    path: Path, array: npt.NDArray[Any], grid: Grid, slope: float | None = None
) -> None:
    """Write a compressed NIfTI file without time stamp; `slope` is stored, not applied."""
    image = nib.Nifti1Image(array, grid.affine)
    image.set_sform(grid.affine, 1)
    image.set_qform(grid.affine, 1)
    image.header.set_xyzt_units("mm", "sec")
    if slope is not None:
        image.header.set_slope_inter(slope, 0.0)
    with replacing(path) as temporary:
        temporary.write_bytes(gzip.compress(image.to_bytes(), compresslevel=4, mtime=0))


def centerline_mask(scan: PhantomScan) -> npt.NDArray[np.uint8]:
    """One voxel on the cord's centre in each axial slice, (X, Y, Z), in stored orientation."""
    mask = np.zeros(scan.grid.shape, np.uint8)
    if not len(scan.centerline):
        return mask
    grid, turn = scan.grid.to_rpi()
    points = grid.to_voxel(scan.centerline)
    points = points[np.argsort(points[:, 2])]
    z = np.arange(grid.shape[2])
    z = z[(z >= points[0, 2] - 0.5) & (z <= points[-1, 2] + 0.5)]
    xy = [np.interp(z, points[:, 2], points[:, k]) for k in range(2)]
    x, y = (
        np.clip(np.round(a).astype(int), 0, n - 1) for a, n in zip(xy, grid.shape, strict=False)
    )
    turn.apply(mask)[x, y, z] = 1
    return mask


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
        "SimulationSeed": [scan.seed, scan.subject, scan.scan],
        "DroppedComponents": scan.dropped,
    }


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
