"""The tables of an evaluation: the study's two, the tests, and the published values.

References
----------
Hussein et al., ISBI 2023, tables 1 and 2
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from types import MappingProxyType

from sct_lesion_losses.metrics import scan_score
from sct_lesion_losses.metrics.comparison import (
    ALPHA,
    Comparison,
    between_bundles,
    between_thresholds,
)
from sct_lesion_losses.metrics.scan_score import MEASURES, ByBundle, ScanScore, TruthLesion
from sct_lesion_losses.report import breakdowns, intervals, numbers
from sct_lesion_losses.report.markup import Cell, Row, Table, row
from sct_lesion_losses.report.published import PUBLISHED, REFERENCE

PATIENT = ("P-sensitivity", "P-specificity")
_TESTS = "two-sided Wilcoxon signed-rank tests on the same scans, p corrected by Holm over"
_EMPTY: Mapping[str, str] = MappingProxyType({})


def study(
    rows: Sequence[ScanScore],
    lesions: Sequence[TruthLesion],
    published: Mapping[str, str] = _EMPTY,
) -> dict[str, Table]:
    """All tables of an evaluation.

    Parameters
    ----------
    rows : sequence of ScanScore
        Of the unseen scans, by one lesion preset; thresholds other than 0.5 and the tuned ones are
        passed over.
    lesions : sequence of TruthLesion
        Of the same scans.
    published : mapping of str to str
        The key of `PUBLISHED` of each bundle that is not named so.

    Returns
    -------
    dict of str to Table
        By a name for its file.

    Raises
    ------
    DataError
        The rows do not belong together; see `scan_score.tuned`.
    """
    at_half, at_tuned = scan_score.untuned(rows), scan_score.tuned(rows)
    thresholds = between_thresholds(at_half, at_tuned)
    rules = numbers.rules(at_tuned)
    itself = "A model that was tuned to 0.5 is not tested against itself: it has no p (Holm)."
    return {
        "table1": untuned(at_half),
        "table2": tuned(at_tuned, thresholds),
        "intervals": intervals.table(at_half, at_tuned),
        "thresholds": comparisons(thresholds, "Tuned thresholds against 0.5", (itself, *rules)),
        "models": comparisons(between_bundles(at_tuned), "Models at their tuned thresholds", rules),
        "patients": breakdowns.patients(at_tuned),
        "sites": breakdowns.sites(at_tuned),
        "lesion_sizes": breakdowns.lesion_sizes(lesions, rules=rules),
        "published": beside_published(at_tuned, published),
    }


def untuned(scores: ByBundle) -> Table:
    """Table 1 of the study: the unseen scans at threshold 0.5.

    Parameters
    ----------
    scores : ByBundle
        From `scan_score.untuned`.
    """
    rows = tuple(
        row(bundle, *_summaries(scans), *_patients(scans)) for bundle, scans in scores.items()
    )
    return Table(
        "Unseen scans at threshold 0.5",
        ("Model", *MEASURES, *PATIENT),
        rows,
        tuple(_numbers_of_scans(scores)),
        _notes(scores),
    )


def tuned(scores: ByBundle, found: Sequence[Comparison]) -> Table:
    """Table 2 of the study: the unseen scans at the tuned thresholds.

    Parameters
    ----------
    scores : ByBundle
        From `scan_score.tuned`.
    found : sequence of Comparison
        From `between_thresholds`; what differs significantly is set in bold.
    """
    bold = {(c.second, c.measure) for c in found if c.significant}
    rows = tuple(_tuned_row(bundle, scans, bold) for bundle, scans in scores.items())
    tests = sum(not math.isnan(comparison.p_holm) for comparison in found)
    note = (
        f"Bold (in TSV: *): differs from the same model at threshold 0.5, p < {ALPHA:g}; {_TESTS} "
        f"{tests} tests. {' and '.join(PATIENT)} are not tested."
    )
    return Table(
        "Unseen scans at the tuned thresholds",
        ("Model", "Threshold", *MEASURES, *PATIENT),
        rows,
        tuple(_numbers_of_scans(scores, "")),
        (*_notes(scores), note),
    )


def comparisons(found: Sequence[Comparison], title: str, more: Sequence[str] = ()) -> Table:
    """List paired comparisons, corrected p in bold where it is significant.

    Parameters
    ----------
    found : sequence of Comparison
        Corrected together.
    title : str
    more : sequence of str
        More notes: the lesion preset, for one; see `numbers.rules`.
    """
    header = (
        "Measure",
        "First",
        "First at",
        "Second",
        "Second at",
        "n",
        "Median difference",
        "Pairs",
        "W",
        "r",
    )
    rows = []
    for c in found:
        first, second = map(numbers.threshold, c.thresholds)
        sides = row(c.measure, c.first, first, c.second, second)
        tested = row(
            str(c.difference.n),
            numbers.difference(c.difference),
            str(c.test.n),
            numbers.rank_sum(c.test.statistic),
            numbers.change(c.test.rank_biserial),
            numbers.p_value(c.test.p),
        )
        rows.append((*sides, *tested, Cell(numbers.p_value(c.p_holm), bold=c.significant)))
    notes = (
        "Median difference: second less first over n scans, with its 95 % interval by resampling "
        "subjects.",
        "W: the smaller rank sum, over the pairs that differ. r: rank-biserial correlation, "
        "positive where second is higher.",
        f"Bold (in TSV: *): p < {ALPHA:g}; {_TESTS} the table.",
        *more,
    )
    return Table(title, (*header, "p", "p (Holm)"), tuple(rows), notes=notes)


def beside_published(scores: ByBundle, published: Mapping[str, str] = _EMPTY) -> Table:
    """Set what is measured at the tuned thresholds beside what the study reports.

    Parameters
    ----------
    scores : ByBundle
        From `scan_score.tuned`.
    published : mapping of str to str
        The key of `PUBLISHED` of each bundle that is not named so.
    """
    names = ("Threshold", "V-F1", "L-F1", *PATIENT)
    rows = []
    for bundle, scans in scores.items():
        medians = (scan_score.spread(scans.values(), name).median for name in names[1:3])
        measured = (breakdowns.threshold(scans), *map(numbers.score, medians), *_patients(scans))
        beside = _published(published.get(bundle, bundle))
        both = (text for pair in zip(measured, beside, strict=True) for text in pair)
        rows.append(row(bundle, *both))
    notes = (
        f"Published: {REFERENCE}, on scans of its own. V-F1 and L-F1: medians over the unseen "
        "scans with lesions.",
        *numbers.rules(scores),
    )
    header = ("Model", *(text for name in names for text in (name, f"{name}, published")))
    return Table("Beside the published values", header, tuple(rows), notes=notes)


def _tuned_row(
    bundle: str, scans: Mapping[str, ScanScore], bold: AbstractSet[tuple[str, str]]
) -> Row:
    summaries = zip(MEASURES, _summaries(scans), strict=True)
    return (
        *row(bundle, breakdowns.threshold(scans)),
        *(Cell(text, bold=(bundle, measure) in bold) for measure, text in summaries),
        *row(*_patients(scans)),
    )


def _summaries(scans: Mapping[str, ScanScore]) -> list[str]:
    return [numbers.spread(scan_score.spread(scans.values(), measure)) for measure in MEASURES]


def _patients(scans: Mapping[str, ScanScore]) -> tuple[str, str]:
    found = scan_score.patients(scans.values())
    return numbers.score(found.sensitivity.value), numbers.score(found.specificity.value)


def _numbers_of_scans(scores: ByBundle, *before: str) -> Iterator[Row]:
    """Yield a row of n for all models, or one for each group of models that have the same."""
    groups: dict[tuple[int, ...], list[str]] = {}
    for bundle, scans in scores.items():
        found = scan_score.patients(scans.values())
        counts = [scan_score.spread(scans.values(), measure).n for measure in MEASURES]
        counts += [found.sensitivity.n, found.specificity.n]
        groups.setdefault(tuple(counts), []).append(bundle)
    for key, bundles in groups.items():
        name = "n" if len(groups) == 1 else f"n ({', '.join(bundles)})"
        yield row(name, *before, *map(str, key))


def _notes(scores: ByBundle) -> tuple[str, ...]:
    return (
        "Median (mean±standard deviation) over the n scans with lesions. P-sensitivity: share of "
        "these in which a lesion is detected. P-specificity: share of the others in which none is "
        "predicted.",
        *numbers.rules(scores),
    )


def _published(name: str) -> tuple[str, ...]:
    known = PUBLISHED.get(name)
    if known is None:
        return (numbers.UNKNOWN,) * 5
    scores = (known.v_f1, known.l_f1, known.p_sensitivity, known.p_specificity)
    return (numbers.threshold(known.threshold), *map(numbers.score, scores))
