"""The decision threshold of a bundle, and what it was chosen from."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from sct_lesion_losses.bundle.fields import (
    Count,
    Digest,
    Name,
    Positive,
    Probability,
    Record,
    Score,
    is_increasing,
)

UNTUNED_THRESHOLD = 0.5
_GRID_TOLERANCE = 1e-9
_OPTIONAL = ("data", "tuned_on", "site", "lesions")


class ScanCurve(Record):
    """The objective of one tuning scan at every threshold; scan and subject are numbered."""

    scan: Annotated[str, Field(pattern=r"^scan-\d{1,6}$")]
    subject: Annotated[str, Field(pattern=r"^subject-\d{1,6}$")]
    values: tuple[Score, ...]


def scan_curves(
    subjects: Sequence[Hashable], scores: npt.NDArray[np.float64]
) -> tuple[ScanCurve, ...]:
    """Return curves, (N, T), of scans as a bundle keeps them: numbered, not named."""
    numbers = {subject: n for n, subject in enumerate(dict.fromkeys(subjects), start=1)}
    return tuple(
        ScanCurve(
            scan=f"scan-{n:02d}",
            subject=f"subject-{numbers[subject]:02d}",
            values=tuple(values.tolist()),
        )
        for n, (subject, values) in enumerate(zip(subjects, scores, strict=True), start=1)
    )


class SiteCalibration(Record):
    """What a site's threshold was made of, beside the curves of its scans.

    Attributes
    ----------
    name : str
        Of the site.
    weight : float, in (0, 1)
        Of the local curve; the rest is that of the shipped one. See `operating_point.shrink`.
    shipped_threshold, local_threshold : float
        Of the bundle that it was made from, and the best for the site's scans alone.
    shipped_curve, local_curve : tuple of float
        The objective at each threshold.
    held_out_shipped : float or None
        The objective over the site's scans at the shipped threshold, to be compared with
        `leave_one_out`.
    """

    name: Name
    weight: Annotated[float, Field(gt=0, lt=1)]
    shipped_threshold: Probability
    local_threshold: Probability
    shipped_curve: tuple[Score, ...]
    local_curve: tuple[Score, ...]
    held_out_shipped: Score = None


class Froc(Record):
    """Lesions found against false ones, over the least peak; see `operating_point.lesion_point`.

    Attributes
    ----------
    peaks : tuple of float
        Rising; the first keeps every predicted lesion.
    sensitivity : tuple of float
        Mean L-sensitivity over the scans with lesions.
    false_lesions : tuple of float
        Mean number of false lesions over all scans.
    """

    peaks: tuple[Probability, ...] = Field(min_length=1)
    sensitivity: tuple[Probability, ...]
    false_lesions: tuple[Annotated[float, Field(ge=0)], ...]

    @model_validator(mode="after")
    def _columns_fit(self) -> Froc:
        if not is_increasing(self.peaks):
            raise ValueError(f"peaks must increase, received {self.peaks}")
        for name in ("sensitivity", "false_lesions"):
            if len(getattr(self, name)) != len(self.peaks):
                raise ValueError(
                    f"{name}: {len(getattr(self, name))} values for {len(self.peaks)} peaks"
                )
        return self


class LesionPoint(Record):
    """Which predicted lesions are kept, of the mask at the tuned threshold.

    Attributes
    ----------
    peak : float
        A lesion is kept if its highest probability is at least this,
    volume_mm3 : float
        and its volume at least this.
    preset : str
        The rule that decided which lesions are detected.
    specificity_asked : float
        The P-specificity that a filter had to reach to be chosen from; 0: none.
    f1, f1_unfiltered : float or None
        Median L-F1 over the tuning scans with lesions, with the filter and without.
    specificity, specificity_unfiltered : float or None
        P-specificity on the lesion-free tuning scans; None without any.
    leave_one_out : float or None
        Median L-F1 where each scan is filtered as the other subjects choose.
    froc : Froc
    n_scans, n_lesion_free : int
        Tuning scans with lesions, and without.
    """

    peak: Probability
    volume_mm3: Annotated[float, Field(ge=0)]
    preset: Name
    specificity_asked: Probability = 0.0
    f1: Score
    f1_unfiltered: Score
    specificity: Score = None
    specificity_unfiltered: Score = None
    leave_one_out: Score = None
    froc: Froc
    n_scans: Count
    n_lesion_free: Count = 0


class OperatingPoint(Record):
    """The decision threshold, and all that it was chosen from.

    Attributes
    ----------
    kind : "tuned" or "untuned"
        Tuned: chosen on scans not trained on. Untuned: the default of 0.5, nothing else is known.
    threshold : float, in (0, 1]
        A voxel is lesion where p >= threshold.
    objective : str
        What was maximised.
    beta : float or None
        Of an F-beta: the weight of sensitivity against precision.
    preset : str
        Of a lesion-wise objective: the rule by which lesions are detected.
    specificity : float or None
        P-specificity that the threshold had to reach, where one was asked for.
    thresholds, curve : tuple of float
        The grid of the sweep, and the objective at each of its thresholds; null where the
        threshold does not reach the specificity.
    per_scan : tuple of ScanCurve
        The curve of every scan; never only the winner.
    interval : (low, high) or None
        95 % bootstrap interval of the threshold, subjects resampled; None of one subject.
    plateau : (low, high) or None
        Lowest and highest threshold around the chosen one within 2 % of the best objective.
    loss_at_pm_0_05 : (minus, plus)
        Objective lost at the threshold - 0.05 and + 0.05.
    leave_one_out : float or None
        Leave-one-subject-out score of the choice.
    centerline : str
        How the cord was found in the scans: ``cohort`` by the cohort's own centerlines, else a
        method of `-centerline`. So it was for the bundle's metrics.
    warnings : tuple of str
        What the choice was warned of, an optimum at an end of the grid for one.
    data : str
        Description of the scans, in a sentence or two.
    tuned_on : tuple of str
        Content hashes of the scans that chose the threshold, so that no score is reported on them;
        of a site's, those of the earlier bundle as well.
    site : SiteCalibration or None
        There if the threshold is one site's: then the scans are the site's, and `curve` is theirs
        and that of an earlier bundle combined.
    lesions : LesionPoint or None
        A second operating point, per lesion.
    """

    kind: Literal["tuned", "untuned"] = "untuned"
    threshold: Annotated[float, Field(gt=0, le=1)] = UNTUNED_THRESHOLD
    objective: str = ""
    beta: Positive | None = None
    preset: str = ""
    specificity: Probability | None = None
    thresholds: tuple[Probability, ...] = ()
    curve: tuple[Score, ...] = ()
    per_scan: tuple[ScanCurve, ...] = ()
    interval: tuple[Probability, Probability] | None = None
    plateau: tuple[Probability, Probability] | None = None
    loss_at_pm_0_05: tuple[Score, Score] = (None, None)
    leave_one_out: Score = None
    n_scans: Count = 0
    n_subjects: Count = 0
    centerline: str = ""
    warnings: tuple[str, ...] = ()
    data: str = ""
    tuned_on: tuple[Digest, ...] = ()
    site: SiteCalibration | None = None
    lesions: LesionPoint | None = None

    @model_serializer(mode="wrap")
    def _optional_parts_are_left_out(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what is not there: versions that do not know it read the rest."""
        fields: dict[str, Any] = dump(self)
        return {name: value for name, value in fields.items() if value or name not in _OPTIONAL}

    @model_validator(mode="after")
    def _curves_fit(self) -> OperatingPoint:
        n = len(self.thresholds)
        if not is_increasing(self.thresholds):
            raise ValueError(f"thresholds must increase, received {self.thresholds}")
        curves = {"curve": self.curve, **{scan.scan: scan.values for scan in self.per_scan}}
        if len(curves) != len(self.per_scan) + 1:
            raise ValueError("per_scan: a scan is there twice")
        if self.site is not None:
            curves["shipped_curve"] = self.site.shipped_curve
            curves["local_curve"] = self.site.local_curve
        for name, values in curves.items():
            if len(values) != n:
                raise ValueError(f"{name}: {len(values)} values for {n} thresholds")
        for name, range_ in (("interval", self.interval), ("plateau", self.plateau)):
            if range_ is not None and range_[0] > range_[1]:
                raise ValueError(f"{name} {range_} is upside down")
        return self

    @model_validator(mode="after")
    def _tuned_is_complete(self) -> OperatingPoint:
        if self.kind == "untuned":
            if self.tuned_on or self.site is not None or self.lesions is not None:
                raise ValueError(
                    "an untuned threshold has no scans, no site and no filter of lesions"
                )
            return self
        if self.lesions is not None and self.lesions.peak < self.threshold - _GRID_TOLERANCE:
            raise ValueError(
                f"lesions: the peak {self.lesions.peak} is below the threshold {self.threshold}"
            )
        if not self.objective or self.n_scans < 1 or self.n_subjects < 1:
            raise ValueError("a tuned threshold needs its objective, n_scans and n_subjects")
        if not any(abs(t - self.threshold) <= _GRID_TOLERANCE for t in self.thresholds):
            raise ValueError(
                f"tuned threshold {self.threshold} is not on its grid {self.thresholds}"
            )
        return self
