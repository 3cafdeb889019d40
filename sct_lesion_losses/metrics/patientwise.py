"""Patient-wise sensitivity and specificity: scans told apart by whether they hold lesions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats

from sct_lesion_losses.errors import UsageError
from sct_lesion_losses.metrics.lesionwise import LesionScore
from sct_lesion_losses.metrics.statistics import Interval

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Proportion(Interval):
    """A share of n scans with its 95 % Wilson interval; NaN where there is no scan.

    Attributes
    ----------
    count : int
        The scans that do, of all.
    """

    count: int


@dataclass(frozen=True)
class PatientScore:
    """Patient-wise scores of a set of scans.

    Attributes
    ----------
    sensitivity : Proportion
        Of the scans with lesions, those of which at least one lesion is detected, as in the study.
    any_lesion : Proportion
        Of the scans with lesions, those in which any lesion is predicted, wherever it is: the
        question that the specificity asks of the others.
    specificity : Proportion
        Of the lesion-free scans, those in which no lesion is predicted.
    """

    sensitivity: Proportion
    any_lesion: Proportion
    specificity: Proportion


def score(scans: Sequence[LesionScore]) -> PatientScore:
    """P-sensitivity and P-specificity of a set of scans.

    A scan whose lesions are all too small for the preset is neither one with lesions nor a
    lesion-free one. So is a prediction with only such lesions no positive one.

    Parameters
    ----------
    scans : sequence of LesionScore
        All of one preset.

    Returns
    -------
    PatientScore
        A proportion of no scan is NaN.

    Raises
    ------
    UsageError
        The scans were scored by different presets.
    """
    if len({scan.preset for scan in scans}) > 1:
        presets = sorted({scan.preset.name for scan in scans})
        raise UsageError(f"the scans were scored by the presets {presets}; score all by one")
    bearing = [scan for scan in scans if scan.n_truth > 0]
    free = [scan for scan in scans if scan.truth_mm3 == 0]
    return PatientScore(
        proportion(sum(scan.detected > 0 for scan in bearing), len(bearing)),
        proportion(sum(scan.n_predicted > 0 for scan in bearing), len(bearing)),
        proportion(sum(scan.n_predicted == 0 for scan in free), len(free)),
    )


def proportion(count: int, n: int) -> Proportion:
    """Share of n scans with its 95 % Wilson interval.

    References
    ----------
    Wilson 1927, "Probable inference, the law of succession, and statistical inference", Journal of
    the American Statistical Association 22.
    """
    if n == 0:
        return Proportion(float("nan"), float("nan"), float("nan"), 0, 0)
    low, high = stats.binomtest(count, n).proportion_ci(CONFIDENCE, method="wilson")
    return Proportion(count / n, float(low), float(high), n, count)
