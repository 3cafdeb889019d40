"""What an evaluation shows of each model over its thresholds, in numbers.

All of it follows from the unseen scans' scores at every threshold. A loss is called stable where
its median V-F1 changes little with the threshold: its plateau is wide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sct_lesion_losses.metrics import scores
from sct_lesion_losses.metrics.patientwise import Proportion
from sct_lesion_losses.metrics.scores import UNTUNED, Comparison, ScanScore, between_thresholds
from sct_lesion_losses.report import tables
from sct_lesion_losses.report.tables import Table, row
from sct_lesion_losses.thresholds import THRESHOLDS

NEAR = 0.1  # below the best median V-F1; less is noise where some 40 scans make the median
STEP = 1e-9  # thresholds are k/20, and sums of them are off by rounding


@dataclass(frozen=True)
class Trend:
    """One model over its thresholds, on the unseen scans.

    Attributes
    ----------
    bundle : str
    best : float
        Threshold of the highest median V-F1: of equal ones that nearest to 0.5.
    best_v_f1 : float
    plateau : (float, float)
        First and last threshold around it whose median V-F1 is at most 0.1 below the best.
    tuned : float
        Its tuned threshold.
    v_f1, v_f1_untuned : float
        Median V-F1 there, and at 0.5.
    test : Comparison
        V-F1 there against that at 0.5; corrected with all measures of all models.
    specificity, specificity_untuned : Proportion
        P-specificity there, and at 0.5.
    sensitivity, sensitivity_untuned : Proportion
        P-sensitivity there, and at 0.5.
    """

    bundle: str
    best: float
    best_v_f1: float
    plateau: tuple[float, float]
    tuned: float
    v_f1: float
    v_f1_untuned: float
    test: Comparison
    specificity: Proportion
    specificity_untuned: Proportion
    sensitivity: Proportion
    sensitivity_untuned: Proportion

    @property
    def width(self) -> float:
        """Width of the plateau."""
        return self.plateau[1] - self.plateau[0]

    @property
    def gain(self) -> float:
        """What tuning adds to the median V-F1."""
        return self.v_f1 - self.v_f1_untuned

    @property
    def cost(self) -> float:
        """What tuning takes from P-specificity; NaN without lesion-free scans."""
        return self.specificity_untuned.value - self.specificity.value


def of(rows: Sequence[ScanScore]) -> list[Trend]:
    """Follow every model over its thresholds.

    Parameters
    ----------
    rows : sequence of ScanScore
        Of the unseen scans at all thresholds, by one lesion preset.

    Returns
    -------
    list of Trend
        Of the models that have a tuned threshold, in the order of their rows; none where no scan
        holds lesions.

    Raises
    ------
    DataError
        The rows do not belong together; see `scan_score.tuned`.
    """
    swept = [row for row in rows if row.threshold is not None]
    at_half, at_tuned = scores.untuned(swept), scores.tuned(swept)
    tests = between_thresholds(at_half, at_tuned)
    found = []
    for bundle, scans in at_tuned.items():
        test = next((t for t in tests if (t.second, t.measure) == (bundle, "V-F1")), None)
        if test is None or not test.difference.n:
            continue
        curve = medians([row for row in swept if row.bundle == bundle])
        best = best_of(curve)
        here = scores.patients(scans.values())
        before = scores.patients(at_half[bundle].values())
        tuned = test.thresholds[1]
        assert tuned is not None
        found.append(
            Trend(
                bundle,
                best,
                curve[best],
                plateau(curve),
                tuned,
                scores.spread(scans.values(), "V-F1").median,
                scores.spread(at_half[bundle].values(), "V-F1").median,
                test,
                here.specificity,
                before.specificity,
                here.sensitivity,
                before.sensitivity,
            )
        )
    return found


def medians(rows: Sequence[ScanScore], measure: str = "V-F1") -> dict[float, float]:
    """Median of a measure of one model at each of the thresholds 0 to 1 by 0.05."""
    at: dict[float, list[ScanScore]] = {threshold: [] for threshold in THRESHOLDS}
    for one in rows:
        if one.threshold in at:
            at[one.threshold].append(one)
    return {t: scores.spread(scans, measure).median for t, scans in at.items() if scans}


def best_of(curve: Mapping[float, float]) -> float:
    """Threshold of the highest value: of equal ones that nearest to 0.5, then the higher."""
    return min(curve, key=lambda t: (-curve[t], round(abs(t - UNTUNED), 12), -t))


def plateau(curve: Mapping[float, float]) -> tuple[float, float]:
    """First and last threshold around the best whose value is at most 0.1 below it.

    Parameters
    ----------
    curve : mapping of float to float
        Not empty.

    >>> plateau({0.4: 0.5, 0.45: 0.7, 0.5: 0.61, 0.55: 0.59, 0.6: 0.7})
    (0.45, 0.5)
    """
    grid = sorted(curve)
    best = best_of(curve)
    first = last = grid.index(best)
    enough = curve[best] - NEAR - 1e-12
    while first > 0 and curve[grid[first - 1]] >= enough:
        first -= 1
    while last < len(grid) - 1 and curve[grid[last + 1]] >= enough:
        last += 1
    return grid[first], grid[last]


def span(plateau: tuple[float, float]) -> str:
    """First and last threshold of a plateau, as they are typed; one where it is one alone."""
    low, high = plateau
    return f"{low:g}" if high - low < STEP else f"{low:g} to {high:g}"


def table(trends: Sequence[Trend]) -> Table:
    """List what the sentences are made of, a row per model."""
    rows = tuple(
        row(
            t.bundle,
            tables.threshold_text(t.best),
            span(t.plateau),
            tables.score(t.width),
            tables.threshold_text(t.tuned),
            *map(tables.score, (t.v_f1_untuned, t.v_f1)),
            tables.change(t.gain),
            tables.p_value(t.test.test.p),
            tables.p_value(t.test.p_holm),
            *map(tables.score, (t.specificity_untuned.value, t.specificity.value)),
        )
        for t in trends
    )
    header = (
        *("Model", "Best", "Plateau", "Width", "Tuned", "V-F1 at 0.5", "V-F1 tuned", "Change"),
        *("p", "p (Holm)", "P-specificity at 0.5", "P-specificity tuned"),
    )
    notes = (
        "Best: threshold of the highest median V-F1 of the unseen scans. Plateau: thresholds "
        "around it at most 0.1 below that. V-F1: medians. p: two-sided Wilcoxon signed-rank test "
        "of V-F1 at the tuned threshold against 0.5, corrected by Holm with those of the other "
        "measures.",
    )
    return Table("Models over thresholds", header, rows, notes=notes)
