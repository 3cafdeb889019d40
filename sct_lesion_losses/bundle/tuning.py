"""The decision threshold of a bundle, and what it was chosen from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from sct_lesion_losses.bundle.fields import (
    Count,
    Positive,
    Probability,
    Record,
    Score,
    is_increasing,
)

UNTUNED_THRESHOLD = 0.5
_GRID_TOLERANCE = 1e-9


class ScanCurve(Record):
    """The objective of one tuning scan at every threshold; scan and subject are numbered."""

    scan: Annotated[str, Field(pattern=r"^scan-\d{1,6}$")]
    subject: Annotated[str, Field(pattern=r"^subject-\d{1,6}$")]
    values: tuple[Score, ...]


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
        95 % bootstrap interval of the threshold, subjects resampled.
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

    @model_validator(mode="after")
    def _curves_fit(self) -> OperatingPoint:
        n = len(self.thresholds)
        if not is_increasing(self.thresholds):
            raise ValueError(f"thresholds must increase, received {self.thresholds}")
        curves = {"curve": self.curve, **{scan.scan: scan.values for scan in self.per_scan}}
        for name, values in curves.items():
            if len(values) != n:
                raise ValueError(f"{name}: {len(values)} values for {n} thresholds")
        if len(curves) != len(self.per_scan) + 1:
            raise ValueError("per_scan: a scan is there twice")
        for name, range_ in (("interval", self.interval), ("plateau", self.plateau)):
            if range_ is not None and range_[0] > range_[1]:
                raise ValueError(f"{name} {range_} is upside down")
        return self

    @model_validator(mode="after")
    def _tuned_is_complete(self) -> OperatingPoint:
        if self.kind == "untuned":
            return self
        if not self.objective or self.n_scans < 1 or self.n_subjects < 1:
            raise ValueError("a tuned threshold needs its objective, n_scans and n_subjects")
        if not any(abs(t - self.threshold) <= _GRID_TOLERANCE for t in self.thresholds):
            raise ValueError(
                f"tuned threshold {self.threshold} is not on its grid {self.thresholds}"
            )
        return self
