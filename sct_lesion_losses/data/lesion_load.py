"""How much lesion each scan of a cohort holds, by its manual mask."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sct_lesion_losses.data import nifti
from sct_lesion_losses.data.cohort import SPLITS, CohortScan
from sct_lesion_losses.errors import DataError, ImageError
from sct_lesion_losses.metrics import lesion

# Called after each scan with the number done and the number of all.
Report = Callable[[int, int], None]


@dataclass(frozen=True)
class LesionLoad:
    """Lesions of one scan.

    Attributes
    ----------
    lesions : int
        Connected components of the mask, by `metrics.lesion.CONNECTIVITY`, of whatever volume.
    volume_mm3 : float
    """

    lesions: int
    volume_mm3: float


@dataclass(frozen=True)
class PartLoad:
    """Lesions of one part of a split.

    Attributes
    ----------
    name : str
        One of `cohort.SPLITS`.
    subjects, sites : int
        How many there are; scans whose site is not known have none.
    loads : tuple of LesionLoad
        One for each scan.
    """

    name: str
    subjects: int
    sites: int
    loads: tuple[LesionLoad, ...]

    @property
    def bearing(self) -> tuple[LesionLoad, ...]:
        """Loads of the scans with lesions."""
        return tuple(load for load in self.loads if load.lesions)

    @property
    def lesion_free(self) -> int:
        """Number of scans without lesions."""
        return len(self.loads) - len(self.bearing)


def measure(scan: CohortScan) -> LesionLoad:
    """Measure the manual mask of a scan, on the mask's own grid.

    Raises
    ------
    ImageError
        The mask cannot be read, or is none.
    """
    try:
        mask = nifti.read_mask(scan.lesion_mask)
    except ImageError as error:
        raise ImageError(f"lesion mask of {scan.scan.name}: {error}") from error
    return LesionLoad(
        lesions=int(lesion.components(mask.array).max(initial=0)),
        volume_mm3=float(mask.array.sum()) * float(mask.grid.voxel_volume_mm3),
    )


def measure_all(
    scans: Sequence[CohortScan], report: Report | None = None
) -> dict[Path, LesionLoad]:
    """Measure the mask of every scan; the result is by the path of the scan."""
    loads = {}
    for done, scan in enumerate(scans, start=1):
        loads[scan.scan] = measure(scan)
        if report is not None:
            report(done, len(scans))
    return loads


def noted(table: Path) -> dict[Path, LesionLoad]:
    """Read the loads that the table of a split holds, by the path of the scan.

    Raises
    ------
    DataError
        It holds none.
    """
    try:
        with table.open(encoding="utf-8", newline="") as stream:
            return {
                table.parent / row["scan"]: LesionLoad(
                    int(float(row["lesions"])), float(row["lesion_volume_mm3"])
                )
                for row in csv.DictReader(stream, delimiter="\t")
            }
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{table}: not the table of a split with its lesion loads; make it by sct_split_lesion"
        ) from error


def by_part(scans: Sequence[CohortScan], loads: Mapping[Path, LesionLoad]) -> list[PartLoad]:
    """Gather the loads of a split by part, in the order of `cohort.SPLITS`."""
    parts = []
    for name in SPLITS:
        own = [scan for scan in scans if scan.split == name]
        parts.append(
            PartLoad(
                name,
                subjects=len({scan.subject for scan in own}),
                sites=len({scan.site for scan in own if scan.site}),
                loads=tuple(loads[scan.scan] for scan in own),
            )
        )
    return parts
