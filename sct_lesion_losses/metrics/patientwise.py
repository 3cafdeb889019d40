"""Patient-wise sensitivity and specificity: scans told apart by whether they hold lesions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from scipy import stats

from sct_lesion_losses.errors import UsageError
from sct_lesion_losses.metrics.lesionwise import LesionScore

CONFIDENCE = 0.95

Rule = Literal["detected", "any_lesion"]


@dataclass(frozen=True)
class Proportion:
    """A share of scans with its 95 % Wilson interval.

    Attributes
    ----------
    value, low, high : float
        NaN where there is no scan.
    count, n : int
        The scans that do, of all.
    """

    value: float
    low: float
    high: float
    count: int
    n: int


@dataclass(frozen=True)
class PatientScore:
    """Patient-wise scores of a set of scans; see `score`."""

    rule: Rule
    sensitivity: Proportion
    specificity: Proportion


def score(scans: Sequence[LesionScore], rule: Rule = "detected") -> PatientScore:
    """P-sensitivity and P-specificity of a set of scans.

    Sensitivity is the share of the scans with lesions that are found, specificity the share of the
    lesion-free scans in which no lesion is predicted. A scan with lesions is found if at least one
    of them is detected (``detected``, as in the study), or if any lesion is predicted, wherever it
    is (``any_lesion``): then both rows of scans are asked the same question.

    A scan whose lesions are all too small for the preset is in neither row. So is a prediction with
    only such lesions no positive one.

    Parameters
    ----------
    scans : sequence of LesionScore
        All of one preset.
    rule : {"detected", "any_lesion"}

    Returns
    -------
    PatientScore
        A proportion of no scan is NaN.

    Raises
    ------
    UsageError
        The rule is unknown, or the scans were scored by different presets.
    """
    if rule not in ("detected", "any_lesion"):
        raise UsageError(f"no patient-wise rule is named {rule!r}; choose detected or any_lesion")
    presets = sorted({scan.preset.name for scan in scans})
    if len({scan.preset for scan in scans}) > 1:
        raise UsageError(f"the scans were scored by the presets {presets}; score all by one")
    found = [
        scan.detected > 0 if rule == "detected" else scan.n_predicted > 0
        for scan in scans
        if scan.n_truth > 0
    ]
    clean = [scan.n_predicted == 0 for scan in scans if scan.truth_mm3 == 0]
    return PatientScore(
        rule, proportion(sum(found), len(found)), proportion(sum(clean), len(clean))
    )


def proportion(count: int, n: int) -> Proportion:
    """Share of n scans with its 95 % Wilson interval.

    References
    ----------
    Wilson 1927, "Probable inference, the law of succession, and statistical inference", Journal of
    the American Statistical Association 22.
    """
    if n == 0:
        nan = float("nan")
        return Proportion(nan, nan, nan, 0, 0)
    low, high = stats.binomtest(count, n).proportion_ci(CONFIDENCE, method="wilson")
    return Proportion(count / n, float(low), float(high), count, n)
