"""The tables of an evaluation: the study's two, the tests, and the published values.

References
----------
Hussein et al., ISBI 2023, tables 1 and 2
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from types import MappingProxyType

import numpy as np

from sct_lesion_losses.errors import DataError, UsageError
from sct_lesion_losses.metrics import scores as scan_score
from sct_lesion_losses.metrics import statistics
from sct_lesion_losses.metrics.lesionwise import Preset
from sct_lesion_losses.metrics.patientwise import Proportion
from sct_lesion_losses.metrics.scores import (
    ALPHA,
    MEASURES,
    UNTUNED,
    ByBundle,
    Comparison,
    ScanScore,
    TruthLesion,
    between_bundles,
    between_thresholds,
)
from sct_lesion_losses.metrics.statistics import Interval, Spread

UNKNOWN = "n/a"  # a missing value, as in BIDS tables


def score(value: float) -> str:
    """Two decimals."""
    return UNKNOWN if math.isnan(value) else f"{value:.2f}"


def change(value: float) -> str:
    """Two decimals with a sign, which 0.00 has none of."""
    rounded = round(value, 2)
    return score(0.0) if rounded == 0 else UNKNOWN if math.isnan(value) else f"{rounded:+.2f}"


def spread(found: Spread) -> str:
    """``median (mean±std)``."""
    if not found.n:
        return UNKNOWN
    return f"{score(found.median)} ({score(found.mean)}±{score(found.std)})"


def share(found: Interval | Proportion) -> str:
    """``value (low to high)``; ``value (n/a)`` of one subject."""
    return f"{score(found.value)} ({bounds(found)})" if found.n else UNKNOWN


def difference(found: Interval) -> str:
    """``value (low to high)``, with signs; ``value (n/a)`` of one subject."""
    return f"{change(found.value)} ({bounds(found, change)})" if found.n else UNKNOWN


def p_value(p: float) -> str:
    """Four decimals, never rounded to 0."""
    return UNKNOWN if math.isnan(p) else "<0.0001" if p < 0.0001 else f"{p:.4f}"


def threshold_text(value: float | None) -> str:
    """As it is typed."""
    return UNKNOWN if value is None else f"{value:g}"


def rank_sum(value: float) -> str:
    """With half ranks."""
    return UNKNOWN if math.isnan(value) else f"{value:g}"


def bounds(found: Interval | Proportion, written: Callable[[float], str] = score) -> str:
    """``low to high``, each as `written`; ``n/a`` where they are not known."""
    if math.isnan(found.low) or math.isnan(found.high):
        return UNKNOWN
    return f"{written(found.low)} to {written(found.high)}"


def rules(*scores: ByBundle) -> tuple[str, ...]:
    """Name the lesion preset of the rows; nothing where there is none."""
    scans = (scan for some in scores for of_bundle in some.values() for scan in of_bundle.values())
    return tuple(map(rule, dict.fromkeys(scan.lesions.preset for scan in scans)))


def rule(preset: Preset) -> str:
    """Sentence on what makes a lesion count as detected."""
    least = "more than" if preset.strict else "at least"
    volume = f" of more than {preset.min_volume_mm3:g} mm³" if preset.min_volume_mm3 else ""
    if preset.reach is None:
        by = "by a single lesion"
    else:
        by = f"and the largest overlaps, up to {100 * preset.reach:g} % of it, are with lesions"
    return (
        f"Lesion-wise scores by the preset {preset.name}: {preset.connectivity}-neighbour lesions"
        f"{volume}, detected where {least} {100 * preset.min_overlap:g} % is covered {by} of which "
        f"at most {100 * preset.max_outside:g} % lies outside."
    )


_MARKDOWN = re.compile(r"[\\`*|]|<(?=[A-Za-z/!?])|(?<!\w)_|_(?!\w)")
_MINUS = re.compile(r"(?<!\w)-(?=\d)")
_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        **{mark: f"\\{mark}" for mark in "&%$#_{}"},
        **{mark: f"${mark}$" for mark in "<>|"},
        "±": r"$\pm$",
        "³": "$^3$",
    }
)


@dataclass(frozen=True)
class Cell:
    """What stands in one place of a table."""

    text: str
    bold: bool = False


Row = tuple[Cell, ...]


def row(*texts: str) -> Row:
    """Cells with nothing in bold."""
    return tuple(Cell(text) for text in texts)


@dataclass(frozen=True)
class Table:
    """A table, its cells written out already.

    Attributes
    ----------
    title : str
    header : tuple of str
    rows : tuple of Row
        Each as long as the header.
    footer : tuple of Row
        Rows below a rule, such as the numbers of scans.
    notes : tuple of str
        Sentences below.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[Row, ...]
    footer: tuple[Row, ...] = ()
    notes: tuple[str, ...] = ()


def tsv(table: Table) -> str:
    """Header, rows and footer, separated by tabs; a bold cell ends in ``*``.

    Title and notes are left out, so that every line has the same columns.
    """
    lines = [[_plain(name) for name in table.header]]
    lines += [
        [_plain(cell.text) + "*" * cell.bold for cell in line]
        for line in (*table.rows, *table.footer)
    ]
    return "".join("\t".join(line) + "\n" for line in lines)


def markdown(table: Table) -> str:
    """Title, table and notes in GitHub's Markdown, its columns aligned in the text, too."""
    lines = [[_escaped(name) for name in table.header]]
    lines += [
        [f"**{_escaped(c.text)}**" if c.bold else _escaped(c.text) for c in line]
        for line in (*table.rows, *table.footer)
    ]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    shown = [_piped(lines[0], widths), _piped(rule, widths)]
    shown += [_piped(line, widths) for line in lines[1:]]
    notes = "".join(f"\n{_escaped(note)}\n" for note in table.notes)
    return f"**{_escaped(table.title)}**\n\n" + "\n".join(shown) + "\n" + notes


def latex(table: Table) -> str:
    """Return a ``table`` environment, to be set with the package booktabs."""
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_set(table.title)}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}",
        r"\toprule",
        " & ".join(map(_set, table.header)) + r" \\",
        r"\midrule",
        *map(_set_row, table.rows),
    ]
    if table.footer:
        lines += [r"\midrule", *map(_set_row, table.footer)]
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [rf"\par {_set(note)}" for note in table.notes]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def html(table: Table) -> str:
    """Return a ``table`` element in a box of its own that scrolls, its notes below."""
    caption = f"<caption>{escape(table.title)}</caption>"
    head = "".join(f'<th scope="col">{escape(_plain(name))}</th>' for name in table.header)
    lines = [f"<thead><tr>{head}</tr></thead>", "<tbody>", *map(_html_row, table.rows), "</tbody>"]
    if table.footer:
        lines += ["<tfoot>", *map(_html_row, table.footer), "</tfoot>"]
    box = f'<div class="table" role="region" tabindex="0" aria-label="{escape(table.title)}">'
    notes = [f'<p class="note">{escape(_plain(note))}</p>' for note in table.notes]
    return "\n".join([box, "<table>", caption, *lines, "</table>", "</div>", *notes]) + "\n"


def _plain(text: str) -> str:
    return " ".join(text.split())


def _escaped(text: str) -> str:
    return _MARKDOWN.sub(r"\\\g<0>", _plain(text))


def _piped(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(cells, widths, strict=True)
    padded = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
    return f"| {' | '.join(padded)} |"


def _set(text: str) -> str:
    return _MINUS.sub("$-$", _plain(text).translate(_LATEX))


def _set_row(line: Row) -> str:
    cells = (rf"\textbf{{{_set(c.text)}}}" if c.bold else _set(c.text) for c in line)
    return " & ".join(cells) + r" \\"


def _html_row(line: Row) -> str:
    first, *others = (
        f"<strong>{escape(_plain(c.text))}</strong>" if c.bold else escape(_plain(c.text))
        for c in line
    )
    cells = "".join(f"<td>{text}</td>" for text in others)
    return f'<tr><th scope="row">{first}</th>{cells}</tr>'


REFERENCE = "Hussein et al., ISBI 2023"


@dataclass(frozen=True)
class Published:
    """The study's values for one model on its unseen set.

    Attributes
    ----------
    threshold : float
        Tuned on its thr-optimization set.
    v_f1, l_f1 : float
        Medians at that threshold over the scans with lesions.
    p_sensitivity, p_specificity : float
        Share of the scans with lesions in which one is detected, of those without in which none is
        predicted.
    v_f1_untuned : float or None
        Median V-F1 at 0.5, where it is known here.
    """

    threshold: float
    v_f1: float
    l_f1: float
    p_sensitivity: float
    p_specificity: float
    v_f1_untuned: float | None = None


@dataclass(frozen=True)
class PublishedCohort:
    """Scans of the study; those of the unseen set with and without lesions are apart."""

    scans: int
    subjects: int
    sites: int
    training: int
    validation: int
    thr_optimization: int
    unseen_with_lesions: int
    unseen_without: int


COHORT = PublishedCohort(
    scans=161,
    subjects=108,
    sites=13,
    training=62,
    validation=13,
    thr_optimization=14,
    unseen_with_lesions=26,
    unseen_without=46,
)

# By the name of the loss, and SCT's own lesion model.
PUBLISHED = {
    "bce": Published(0.15, 0.33, 0.27, 0.58, 0.24),
    "combo": Published(0.05, 0.30, 0.18, 0.54, 0.17),
    "dice": Published(0.30, 0.36, 0.31, 0.62, 0.26),
    "focal_tversky": Published(0.15, 0.31, 0.26, 0.65, 0.22, v_f1_untuned=0.40),
    "generalized_dice": Published(0.75, 0.41, 0.34, 0.66, 0.20),
    "log_cosh_dice": Published(0.20, 0.37, 0.17, 0.54, 0.20),
    "sct": Published(0.05, 0.39, 0.38, 0.62, 0.33),
    "tversky": Published(0.30, 0.41, 0.40, 0.65, 0.26),
}


def table(untuned: ByBundle, tuned: ByBundle) -> Table:
    """Give the median of every measure with its 95 % interval, a row per model and threshold.

    Parameters
    ----------
    untuned, tuned : ByBundle
        From `scan_score.untuned` and `scan_score.tuned`; a model that is tuned to 0.5 is listed
        once.
    """
    rows = []
    for bundle in dict.fromkeys((*untuned, *tuned)):
        for scores in (untuned, tuned):
            scans = scores.get(bundle, {}).values()
            at = {scan.threshold for scan in scans}
            if not at or (scores is tuned and bundle in untuned and at == {UNTUNED}):
                continue
            (threshold,) = at
            every = (_cell(scans, measure) for measure in MEASURES)
            rows.append(row(bundle, threshold_text(threshold), *every, *_counts(scans)))
    return Table(
        "Medians with 95 % intervals by resampling subjects",
        ("Model", "Threshold", *MEASURES, "n", "Subjects"),
        tuple(rows),
        notes=(
            "Over the n scans with lesions. The subjects are resampled with all of their scans, "
            f"{statistics.BOOTSTRAPS} times.",
            *rules(untuned, tuned),
        ),
    )


def text(scans: Collection[ScanScore], measure: str) -> str:
    """95 % interval of the median of a measure, a key of `MEASURES`; ``n/a`` of one subject."""
    return bounds(scan_score.interval(scans, measure))


def _cell(scans: Collection[ScanScore], measure: str) -> str:
    median = score(scan_score.spread(scans, measure).median)
    return f"{median} ({text(scans, measure)})"


def _counts(scans: Collection[ScanScore]) -> tuple[str, str]:
    """Count the scans with lesions, in which every measure is defined, and their subjects."""
    first = next(iter(MEASURES))
    return str(scan_score.spread(scans, first).n), str(_subjects(scans, first))


def _subjects(scans: Collection[ScanScore], measure: str) -> int:
    """Count the subjects of the scans in which a measure is defined."""
    return len({scan.subject for scan in scans if not math.isnan(MEASURES[measure](scan))})


_OF_SITES = ("V-F1", "L-F1")
EDGES_MM3 = (30.0, 100.0)  # between small, middle and large lesions


def threshold(scans: Mapping[str, ScanScore]) -> str:
    """Threshold of the rows of one bundle."""
    return threshold_text(next(iter(scans.values())).threshold)


def patients(scores: ByBundle) -> Table:
    """P-sensitivity and P-specificity with 95 % Wilson intervals, by both rules.

    Parameters
    ----------
    scores : ByBundle
        From `scan_score.tuned`.
    """
    rows = []
    for bundle, scans in scores.items():
        found = scan_score.patients(scans.values())
        any_lesion = scan_score.patients(scans.values(), "any_lesion")
        shares = (found.sensitivity, any_lesion.sensitivity, any_lesion.specificity)
        counts = (str(found.sensitivity.n), str(found.specificity.n))
        rows.append(row(bundle, threshold(scans), *map(share, shares), *counts))
    return Table(
        "Patient-wise scores at the tuned thresholds",
        (
            "Model",
            "Threshold",
            "P-sensitivity (detected)",
            "P-sensitivity (any_lesion)",
            "P-specificity",
            "With lesions",
            "Without",
        ),
        tuple(rows),
        notes=(
            "Share of scans with its 95 % Wilson interval. A scan with lesions is found where one "
            "of them is detected, or, by any_lesion, where any lesion is predicted.",
            *rules(scores),
        ),
    )


def sites(scores: ByBundle) -> Table:
    """Scores of each site, a row per model.

    Parameters
    ----------
    scores : ByBundle
        From `scan_score.tuned`.
    """
    names = {r.site for scans in scores.values() for r in scans.values()}
    rows = []
    for site in sorted(names, key=lambda name: (not name, name)):
        for bundle, scans in scores.items():
            own = [r for r in scans.values() if r.site == site]
            if not own:
                continue
            found = scan_score.patients(own)
            shares = (found.sensitivity, found.specificity)
            rows.append(
                row(
                    site or UNKNOWN,
                    bundle,
                    threshold(scans),
                    *(text for m in _OF_SITES for text in _summary(own, m)),
                    *(score(share.value) for share in shares),
                    *(str(share.n) for share in shares),
                )
            )
    return Table(
        "Sites, at the tuned thresholds",
        (
            "Site",
            "Model",
            "Threshold",
            *(text for m in _OF_SITES for text in (m, f"{m}, 95 % interval")),
            "P-sensitivity",
            "P-specificity",
            "With lesions",
            "Without",
        ),
        tuple(rows),
        notes=(
            f"{' and '.join(_OF_SITES)}: median (mean±standard deviation), and the 95 % interval "
            "of the median by resampling subjects.",
            *rules(scores),
        ),
    )


def _summary(scans: Sequence[ScanScore], measure: str) -> tuple[str, str]:
    return spread(scan_score.spread(scans, measure)), text(scans, measure)


def lesion_sizes(
    lesions: Sequence[TruthLesion],
    edges_mm3: Sequence[float] = EDGES_MM3,
    rules: Sequence[str] = (),
) -> Table:
    """Share of the lesions that is detected, by class of volume, a row per model.

    Parameters
    ----------
    lesions : sequence of TruthLesion
        Those at tuned thresholds are used.
    edges_mm3 : sequence of float
        Rising; a lesion as large as an edge is in the class above it.
    rules : sequence of str
        Notes on the preset by which lesions count as detected; see the function of this name.

    Raises
    ------
    UsageError
        The edges do not rise.
    DataError
        A lesion has two rows for one bundle.
    """
    edges = list(edges_mm3)
    if any(low >= high for low, high in pairwise(edges)):
        raise UsageError(f"the edges of lesion size are {edges} mm3, expected rising numbers")
    tuned = [lesion for lesion in lesions if lesion.tuned]
    if len({(lesion.bundle, lesion.scan, lesion.label) for lesion in tuned}) < len(tuned):
        raise DataError("a lesion has two tuned rows for one bundle; every scan needs its own name")
    bundles = {lesion.bundle: lesion.threshold for lesion in tuned}
    rows = []
    for k, name in enumerate(_classes(edges) if tuned else []):
        for bundle, at in bundles.items():
            own = [
                lesion
                for lesion in tuned
                if lesion.bundle == bundle and bisect_right(edges, lesion.volume_mm3) == k
            ]
            detected = [float(lesion.detected) for lesion in own]
            found = statistics.interval(detected, [lesion.subject for lesion in own], np.mean)
            counts = (str(len(own)), str(int(sum(detected))))
            rows.append(row(name, bundle, threshold_text(at), *counts, share(found)))
    return Table(
        "Lesions detected, by volume, at the tuned thresholds",
        ("Volume, mm³", "Model", "Threshold", "Lesions", "Detected", "Share"),
        tuple(rows),
        notes=(
            "Share of the lesions of all scans, with its 95 % interval by resampling subjects.",
            *rules,
        ),
    )


def _classes(edges: Sequence[float]) -> list[str]:
    """Names of the classes that the edges part."""
    if not edges:
        return ["all"]
    between = [f"{low:g} to {high:g}" for low, high in pairwise(edges)]
    return [f"under {edges[0]:g}", *between, f"{edges[-1]:g} or more"]


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
    used = rules(at_tuned)
    itself = "A model that was tuned to 0.5 is not tested against itself: it has no p (Holm)."
    return {
        "table1": untuned(at_half),
        "table2": tuned(at_tuned, thresholds),
        "intervals": table(at_half, at_tuned),
        "thresholds": comparisons(thresholds, "Tuned thresholds against 0.5", (itself, *used)),
        "models": comparisons(between_bundles(at_tuned), "Models at their tuned thresholds", used),
        "patients": patients(at_tuned),
        "sites": sites(at_tuned),
        "lesion_sizes": lesion_sizes(lesions, rules=used),
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
        first, second = map(threshold_text, c.thresholds)
        sides = row(c.measure, c.first, first, c.second, second)
        tested = row(
            str(c.difference.n),
            difference(c.difference),
            str(c.test.n),
            rank_sum(c.test.statistic),
            change(c.test.rank_biserial),
            p_value(c.test.p),
        )
        rows.append((*sides, *tested, Cell(p_value(c.p_holm), bold=c.significant)))
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
        measured = (threshold(scans), *map(score, medians), *_patients(scans))
        beside = _published(published.get(bundle, bundle))
        both = (text for pair in zip(measured, beside, strict=True) for text in pair)
        rows.append(row(bundle, *both))
    notes = (
        f"Published: {REFERENCE}, on scans of its own. V-F1 and L-F1: medians over the unseen "
        "scans with lesions.",
        *rules(scores),
    )
    header = ("Model", *(text for name in names for text in (name, f"{name}, published")))
    return Table("Beside the published values", header, tuple(rows), notes=notes)


def _tuned_row(
    bundle: str, scans: Mapping[str, ScanScore], bold: AbstractSet[tuple[str, str]]
) -> Row:
    summaries = zip(MEASURES, _summaries(scans), strict=True)
    return (
        *row(bundle, threshold(scans)),
        *(Cell(text, bold=(bundle, measure) in bold) for measure, text in summaries),
        *row(*_patients(scans)),
    )


def _summaries(scans: Mapping[str, ScanScore]) -> list[str]:
    return [spread(scan_score.spread(scans.values(), measure)) for measure in MEASURES]


def _patients(scans: Mapping[str, ScanScore]) -> tuple[str, str]:
    found = scan_score.patients(scans.values())
    return score(found.sensitivity.value), score(found.specificity.value)


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
        *rules(scores),
    )


def _published(name: str) -> tuple[str, ...]:
    known = PUBLISHED.get(name)
    if known is None:
        return (UNKNOWN,) * 5
    scores = (known.v_f1, known.l_f1, known.p_sensitivity, known.p_specificity)
    return (threshold_text(known.threshold), *map(score, scores))


NEAR = 0.1  # below the best median V-F1; less is noise where some 40 scans make the median


def over_thresholds(rows: Sequence[ScanScore]) -> Table:
    """List the range of thresholds over which each model stays near its best median V-F1.

    Parameters
    ----------
    rows : sequence of ScanScore
        Of the unseen scans at all thresholds, by one lesion preset. Models without thresholds, and
        those without a scan that has lesions, are left out.
    """
    tuned_at = {row.bundle: row.threshold for row in rows if row.tuned}
    at: dict[str, dict[float, list[ScanScore]]] = {}
    for one in rows:
        if one.threshold is not None:
            at.setdefault(one.bundle, {}).setdefault(one.threshold, []).append(one)
    lines = []
    for bundle, scans in at.items():
        found = {t: scan_score.spread(some, "V-F1").median for t, some in sorted(scans.items())}
        curve = {t: median for t, median in found.items() if not math.isnan(median)}
        if not curve:
            continue
        best, (low, high) = best_of(curve), plateau(curve)
        span = f"{low:g}" if low == high else f"{low:g} to {high:g}"
        texts = (threshold_text(best), score(curve[best]), span, score(high - low))
        lines.append(row(bundle, *texts, threshold_text(tuned_at.get(bundle))))
    note = (
        "Best: threshold of the highest median V-F1 of the unseen scans. Plateau: thresholds "
        f"around it at most {NEAR:g} below that."
    )
    header = ("Model", "Best", "V-F1 there", "Plateau", "Width", "Tuned")
    return Table("Models over thresholds", header, tuple(lines), notes=(note,))


def best_of(curve: Mapping[float, float]) -> float:
    """Threshold of the highest value: of equal ones that nearest to 0.5, then the higher."""
    return min(curve, key=lambda t: (-curve[t], round(abs(t - UNTUNED), 12), -t))


def plateau(curve: Mapping[float, float]) -> tuple[float, float]:
    """First and last threshold around the best whose value is at most 0.1 below it.

    >>> plateau({0.4: 0.5, 0.45: 0.7, 0.5: 0.61, 0.55: 0.59, 0.6: 0.7})
    (0.45, 0.5)
    """
    grid = sorted(curve)
    first = last = grid.index(best_of(curve))
    enough = max(curve.values()) - NEAR - 1e-12
    while first > 0 and curve[grid[first - 1]] >= enough:
        first -= 1
    while last < len(grid) - 1 and curve[grid[last + 1]] >= enough:
        last += 1
    return grid[first], grid[last]
