"""The long table of an evaluation: a row per scan, bundle and threshold, and one per lesion."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sct_lesion_losses.errors import DataError
from sct_lesion_losses.metrics import patient, summary
from sct_lesion_losses.metrics.lesion import LesionScore
from sct_lesion_losses.metrics.patient import PatientScore
from sct_lesion_losses.metrics.summary import Interval, Spread
from sct_lesion_losses.metrics.voxel import VoxelScore

UNTUNED = 0.5  # the threshold that tuned ones are compared with; Hussein et al. 2023, section 2.5


@dataclass(frozen=True)
class ScanScore:
    """What one bundle does on one scan at one threshold.

    Attributes
    ----------
    scan : str
        Its name, the same for every bundle: scans are paired by it.
    subject, site : str
        Site is empty where it is not known.
    bundle : str
    threshold : float or None
        None where masks come from a rule of the model's own, without a threshold.
    tuned : bool
        The threshold, or the rule, is the bundle's own operating point.
    voxels : VoxelScore
    lesions : LesionScore
    """

    scan: str
    subject: str
    site: str
    bundle: str
    threshold: float | None
    tuned: bool
    voxels: VoxelScore
    lesions: LesionScore


@dataclass(frozen=True)
class TruthLesion:
    """One lesion of a manual mask, and whether a bundle detects it at a threshold.

    Attributes
    ----------
    scan, subject, bundle, threshold, tuned
        As in `ScanScore`.
    label : int
        Its number in the mask.
    volume_mm3 : float
    detected : bool
    """

    scan: str
    subject: str
    bundle: str
    threshold: float | None
    tuned: bool
    label: int
    volume_mm3: float
    detected: bool


MEASURES: dict[str, Callable[[ScanScore], float]] = {
    "V-F1": lambda row: row.voxels.f1,
    "V-sensitivity": lambda row: row.voxels.sensitivity,
    "V-precision": lambda row: row.voxels.precision,
    "L-F1": lambda row: row.lesions.f1,
    "L-sensitivity": lambda row: row.lesions.sensitivity,
    "L-precision": lambda row: row.lesions.precision,
}

# Rows by bundle, then by scan, both in the order in which they first appear.
ByBundle = dict[str, dict[str, ScanScore]]


def untuned(rows: Iterable[ScanScore]) -> ByBundle:
    """Choose the rows at threshold 0.5, of bundles that are tuned to it as well.

    Raises
    ------
    DataError
        See `tuned`.
    """
    return _by_bundle(row for row in rows if row.threshold == UNTUNED)


def tuned(rows: Iterable[ScanScore]) -> ByBundle:
    """Choose the rows at the operating point of each bundle.

    Raises
    ------
    DataError
        A scan has two rows, a bundle two thresholds, or the rows are of several lesion presets.
    """
    return _by_bundle(row for row in rows if row.tuned)


def spread(rows: Iterable[ScanScore], measure: str) -> Spread:
    """Spread of a measure, a key of `MEASURES`, over the scans where it is defined."""
    return summary.spread([MEASURES[measure](row) for row in rows])


def interval(rows: Iterable[ScanScore], measure: str) -> Interval:
    """Median of a measure over the same scans, its 95 % interval by resampling their subjects."""
    listed = list(rows)
    subjects = [row.subject for row in listed]
    return summary.interval([MEASURES[measure](row) for row in listed], subjects)


def patients(rows: Iterable[ScanScore], rule: patient.Rule = "detected") -> PatientScore:
    """P-sensitivity and P-specificity; see `patient.score`."""
    return patient.score([row.lesions for row in rows], rule)


def _by_bundle(rows: Iterable[ScanScore]) -> ByBundle:
    chosen: ByBundle = {}
    for row in rows:
        scans = chosen.setdefault(row.bundle, {})
        there = scans.setdefault(row.scan, row)
        # A bundle that is tuned to 0.5 may have a row as tuned and one as untuned.
        if there is not row and there.tuned == row.tuned:
            raise DataError(
                f"bundle {row.bundle} has two rows for scan {row.scan} at threshold "
                f"{row.threshold}; every scan of the cohort needs a name of its own"
            )
        first = next(iter(scans.values()))
        if row.threshold != first.threshold:
            raise DataError(
                f"bundle {row.bundle} has tuned rows at the thresholds {first.threshold} and "
                f"{row.threshold}; evaluate all scans with one version of the bundle"
            )
    presets = {row.lesions.preset for scans in chosen.values() for row in scans.values()}
    if len(presets) > 1:
        names = ", ".join(sorted(preset.name for preset in presets))
        raise DataError(f"lesions were scored by the presets {names}; choose the rows of one")
    return chosen
