"""What describes a cohort as a whole: names, tables and descriptions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sct_lesion_losses import __version__
from sct_lesion_losses.phantom.scan import Preset, has_lesions
from sct_lesion_losses.phantom.sites import SITES, Site, home_site
from sct_lesion_losses.phantom.truth import LesionRecord

DESCRIPTION = "dataset_description.json"
TRUTH_COLUMNS = (
    "participant_id", "session_id", "scan", "lesion", "level", "place", "s_mm", "half_length_mm",
    "section_share", "intensity_ratio", "volume_mm3", "labelled",
)  # fmt: skip
_BIDS = "1.10.0"
_NAME = "sct_lesion_losses.phantom"


@dataclass(frozen=True)
class Cohort:
    """What holds for all scans of a cohort."""

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
        """Whether a subject has lesions."""
        return has_lesions(self.seed, subject, self.lesion_free)

    def folders(self) -> dict[str, str]:
        """Folders of derivatives, and the name of the data in each."""
        drawn = {rater_name(k): f"Lesions of the synthetic cohort as drawn by rater {k}"
                 for k in range(1, self.raters + 1)}  # fmt: skip
        return {"labels": "Ground truth of the synthetic cohort", **drawn}


def subject_name(subject: int) -> str:
    """Name of a subject's folder."""
    return f"sub-{subject + 1:03d}"


def rater_name(number: int) -> str:
    """Name of the folder of a rater's masks; 1 for the first."""
    return f"rater-{number:02d}"


def truth_rows(
    records: tuple[LesionRecord, ...], subject: int, session: str, path: str
) -> list[str]:
    """Rows of the truth table, one a lesion, of the scan at a path; `session` may be empty."""
    return [
        "\t".join(
            (
                subject_name(subject), session or "n/a", path, str(r.number), r.lesion.level,
                r.lesion.place, f"{r.lesion.s_mm:.2f}", f"{r.lesion.half_length_mm:.2f}",
                f"{r.lesion.share:.3f}", f"{r.lesion.ratio:.3f}", f"{r.volume_mm3:.1f}",
                str(int(r.labelled)),
            )
        )
        for r in records
    ]  # fmt: skip


def truth_table(rows: list[str]) -> str:
    """Table of all lesions of a cohort."""
    return _lines("\t".join(TRUTH_COLUMNS), *rows)


def participants(cohort: Cohort) -> str:
    """Table of the subjects."""
    people = ["\t".join(("participant_id", "site", "manufacturer", "sex", "age", "group"))]
    for subject in cohort.members():
        rng = np.random.default_rng([cohort.seed, subject, 1_000_000])
        site = cohort.home(subject)
        place = ("n/a", "n/a") if cohort.preset == "wide" else (site.name, site.manufacturer)
        sex = "F" if rng.random() < 0.68 else "M"
        age = str(int(np.clip(rng.normal(43, 11), 19, 75)))
        group = "lesions" if cohort.affected(subject) else "lesion-free"
        people.append("\t".join((subject_name(subject), *place, sex, age, group)))
    return _lines(*people)


def description(cohort: Cohort) -> dict[str, Any]:
    """Describe the dataset, with all that its scans depend on."""
    return {
        "Name": "Synthetic spinal cord cohort",
        "BIDSVersion": _BIDS,
        "DatasetType": "raw",
        "GeneratedBy": [
            {
                "Name": _NAME,
                "Version": __version__,
                "Seed": cohort.seed,
                "Preset": cohort.preset,
                "Subjects": cohort.subjects,
                "Sites": cohort.sites,
                "LesionFree": cohort.lesion_free,
                **({"Only": list(cohort.only)} if cohort.only else {}),
            }
        ],
    }


def derived_description(name: str) -> dict[str, Any]:
    """Describe a folder of derivatives."""
    return {
        "Name": name,
        "BIDSVersion": _BIDS,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": _NAME, "Version": __version__}],
    }


def _lines(*lines: str) -> str:
    return "\n".join(lines) + "\n"
