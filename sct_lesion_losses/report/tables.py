"""The tables of an evaluation: the study's two, the tests, and the published values.

References
----------
Hussein et al., ISBI 2023, tables 1 and 2
"""

from __future__ import annotations

import csv
import math
import re
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from types import MappingProxyType

import numpy as np

from sct_lesion_losses.errors import DataError, OutputError, UsageError
from sct_lesion_losses.metrics import UNTUNED, Preset, scores, statistics
from sct_lesion_losses.metrics.scores import (
    ALPHA,
    MEASURES,
    ByBundle,
    Comparison,
    ScanScore,
    TruthLesion,
    between_bundles,
    between_thresholds,
)
from sct_lesion_losses.metrics.statistics import Interval, Spread

try:
    import pandas as pd
except ImportError as error:  # raised before any work: the flows import this module first
    raise OutputError("tables need pandas: pip install 'sct_lesion_losses[report]'") from error

UNKNOWN = "n/a"  # a missing value, as in BIDS tables
EDGES_MM3 = (30.0, 100.0)  # between small, middle and large lesions
PATIENT = ("P-sensitivity", "P-specificity")
NEAR = 0.1  # below the best median V-F1; less is noise where some 40 scans make the median
_TESTS = "two-sided Wilcoxon signed-rank tests on the same scans, p corrected by Holm over"
_EMPTY: Mapping[str, str] = MappingProxyType({})


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


def bounds(found: Interval, written: Callable[[float], str] = score) -> str:
    """``low to high``, each as `written`; ``n/a`` where they are not known."""
    if math.isnan(found.low) or math.isnan(found.high):
        return UNKNOWN
    return f"{written(found.low)} to {written(found.high)}"


def with_bounds(found: Interval, written: Callable[[float], str] = score) -> str:
    """``value (low to high)``; ``value (n/a)`` of one subject."""
    return f"{written(found.value)} ({bounds(found, written)})" if found.n else UNKNOWN


def p_value(p: float) -> str:
    """Four decimals, never rounded to 0."""
    return UNKNOWN if math.isnan(p) else "<0.0001" if p < 0.0001 else f"{p:.4f}"


def threshold_text(value: float | None) -> str:
    """As it is typed; a rank sum with its half ranks, too."""
    return UNKNOWN if value is None or math.isnan(value) else f"{value:g}"


def rules(*groups: ByBundle) -> tuple[str, ...]:
    """Name the lesion preset of the rows; nothing where there is none."""
    scans = (scan for some in groups for of_bundle in some.values() for scan in of_bundle.values())
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


class Strong(str):
    """The text of a cell in bold."""

    bold = True


def frame(header: Sequence[str], rows: Iterable[Sequence[str]] = ()) -> pd.DataFrame:
    """Texts of a table, one column for each name of the header."""
    return pd.DataFrame(list(rows), columns=list(header), dtype=object)


@dataclass(frozen=True, eq=False)
class Table:
    """A table, its cells written out already.

    Attributes
    ----------
    title : str
    body : DataFrame of str
        `Strong` texts are in bold.
    footer : DataFrame of str
        Rows of the same columns below a rule, such as the numbers of scans.
    notes : tuple of str
        Sentences below.
    """

    title: str
    body: pd.DataFrame
    footer: pd.DataFrame = field(default_factory=pd.DataFrame)
    notes: tuple[str, ...] = ()


def rows_of(part: pd.DataFrame) -> list[tuple[str, ...]]:
    """Rows of a part of a table."""
    return list(part.itertuples(index=False, name=None))


def to_tsv(content: pd.DataFrame) -> str:
    """Header and rows separated by tabs, full digits, ``n/a`` where a value is missing or empty."""
    content = content.map(
        lambda value: " ".join(value.split()) if isinstance(value, str) else value
    )
    written: str = content.to_csv(
        sep="\t", index=False, na_rep=UNKNOWN, quoting=csv.QUOTE_NONE, lineterminator="\n"
    )
    return written


def tsv(table: Table) -> str:
    """Header, rows and footer, separated by tabs; a bold cell ends in ``*``.

    Title and notes are left out, so that every line has the same columns.
    """
    whole = pd.concat([table.body, table.footer])[list(table.body.columns)]
    return to_tsv(whole.map(lambda text: f"{text}*" if isinstance(text, Strong) else text))


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


def markdown(table: Table) -> str:
    """Title, table and notes in GitHub's Markdown, its columns aligned in the text, too."""

    def escaped(text: str) -> str:
        plain = _MARKDOWN.sub(r"\\\g<0>", " ".join(text.split()))
        return f"**{plain}**" if isinstance(text, Strong) else plain

    rows = [tuple(table.body.columns), *rows_of(table.body), *rows_of(table.footer)]
    lines = [[escaped(text) for text in row] for row in rows]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])])
    shown = [
        [
            first.ljust(widths[0]),
            *(text.rjust(w) for text, w in zip(others, widths[1:], strict=True)),
        ]
        for first, *others in lines
    ]
    body = "".join(f"| {' | '.join(line)} |\n" for line in shown)
    return f"**{escaped(table.title)}**\n\n{body}" + "".join(
        f"\n{escaped(note)}\n" for note in table.notes
    )


def latex(table: Table) -> str:
    """Return a ``table`` environment, to be set with the package booktabs."""

    def typeset(text: str) -> str:
        plain = _MINUS.sub("$-$", " ".join(text.split()).translate(_LATEX))
        return rf"\textbf{{{plain}}}" if isinstance(text, Strong) else plain

    header, body, footer = (
        [" & ".join(map(typeset, row)) + r" \\" for row in rows]
        for rows in ([tuple(table.body.columns)], rows_of(table.body), rows_of(table.footer))
    )
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{typeset(table.title)}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(table.body.columns) - 1)}}}",
        r"\toprule",
        *header,
        r"\midrule",
        *body,
        *([r"\midrule", *footer] if footer else []),
        r"\bottomrule",
        r"\end{tabular}",
        *(rf"\par {typeset(note)}" for note in table.notes),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


WRITERS: Mapping[str, Callable[[Table], str]] = {"tsv": tsv, "md": markdown, "tex": latex}


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
    """

    threshold: float
    v_f1: float
    l_f1: float
    p_sensitivity: float
    p_specificity: float

    @property
    def texts(self) -> tuple[str, ...]:
        """Values in the order of the attributes, as they are printed."""
        shares = (self.v_f1, self.l_f1, self.p_sensitivity, self.p_specificity)
        return (threshold_text(self.threshold), *map(score, shares))


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
    "focal_tversky": Published(0.15, 0.31, 0.26, 0.65, 0.22),
    "generalized_dice": Published(0.75, 0.41, 0.34, 0.66, 0.20),
    "log_cosh_dice": Published(0.20, 0.37, 0.17, 0.54, 0.20),
    "sct": Published(0.05, 0.39, 0.38, 0.62, 0.33),
    "tversky": Published(0.30, 0.41, 0.40, 0.65, 0.26),
}


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
        The rows do not belong together; see `scores.tuned`.
    """
    at_half, at_tuned = scores.untuned(rows), scores.tuned(rows)
    thresholds = between_thresholds(at_half, at_tuned)
    used = rules(at_tuned)
    itself = "A model that was tuned to 0.5 is not tested against itself: it has no p (Holm)."
    return {
        "table1": untuned(at_half),
        "table2": tuned(at_tuned, thresholds),
        "intervals": intervals(at_half, at_tuned),
        "thresholds": comparisons(thresholds, "Tuned thresholds against 0.5", (itself, *used)),
        "models": comparisons(between_bundles(at_tuned), "Models at their tuned thresholds", used),
        "patients": patients(at_tuned),
        "sites": sites(at_tuned),
        "lesion_sizes": lesion_sizes(lesions, rules=used),
        "published": beside_published(at_tuned, published),
    }


def untuned(by_bundle: ByBundle) -> Table:
    """Table 1 of the study: the unseen scans at threshold 0.5.

    Parameters
    ----------
    by_bundle : ByBundle
        From `scores.untuned`.
    """
    header = ("Model", *MEASURES, *PATIENT)
    rows = [(bundle, *_summaries(scans), *_patients(scans)) for bundle, scans in _models(by_bundle)]
    return Table(
        "Unseen scans at threshold 0.5",
        frame(header, rows),
        frame(header, _numbers_of_scans(by_bundle)),
        _notes(by_bundle),
    )


def tuned(by_bundle: ByBundle, found: Sequence[Comparison]) -> Table:
    """Table 2 of the study: the unseen scans at the tuned thresholds.

    Parameters
    ----------
    by_bundle : ByBundle
        From `scores.tuned`.
    found : sequence of Comparison
        From `between_thresholds`; what differs significantly is set in bold.
    """
    header = ("Model", "Threshold", *MEASURES, *PATIENT)
    bold = {(c.second, c.measure) for c in found if c.significant}
    rows = []
    for bundle, scans in _models(by_bundle):
        summaries = zip(MEASURES, _summaries(scans), strict=True)
        marked = (Strong(text) if (bundle, m) in bold else text for m, text in summaries)
        rows.append((bundle, _threshold(scans), *marked, *_patients(scans)))
    tests = sum(not math.isnan(comparison.p_holm) for comparison in found)
    note = (
        f"Bold (in TSV: *): differs from the same model at threshold 0.5, p < {ALPHA:g}; {_TESTS} "
        f"{tests} tests. {' and '.join(PATIENT)} are not tested."
    )
    return Table(
        "Unseen scans at the tuned thresholds",
        frame(header, rows),
        frame(header, _numbers_of_scans(by_bundle, "")),
        (*_notes(by_bundle), note),
    )


def intervals(at_half: ByBundle, at_tuned: ByBundle) -> Table:
    """Give the median of every measure with its 95 % interval, a row per model and threshold.

    Parameters
    ----------
    at_half, at_tuned : ByBundle
        From `scores.untuned` and `scores.tuned`; a model that is tuned to 0.5 is listed once.
    """
    rows = []
    for bundle in dict.fromkeys((*at_half, *at_tuned)):
        listed = {
            _threshold(scans): scans
            for by_bundle in (at_half, at_tuned)
            if (scans := list(by_bundle.get(bundle, {}).values()))
        }
        for threshold, scans in listed.items():
            known = [scan for scan in scans if not math.isnan(MEASURES["V-F1"](scan))]
            medians = (with_bounds(scores.interval(scans, measure)) for measure in MEASURES)
            subjects = {scan.subject for scan in known}
            rows.append((bundle, threshold, *medians, str(len(known)), str(len(subjects))))
    return Table(
        "Medians with 95 % intervals by resampling subjects",
        frame(("Model", "Threshold", *MEASURES, "n", "Subjects"), rows),
        notes=(
            "Over the n scans with lesions. The subjects are resampled with all of their scans, "
            f"{statistics.BOOTSTRAPS} times.",
            *rules(at_half, at_tuned),
        ),
    )


def comparisons(found: Sequence[Comparison], title: str, more: Sequence[str] = ()) -> Table:
    """List paired comparisons, corrected p in bold where it is significant.

    Parameters
    ----------
    found : sequence of Comparison
        Corrected together.
    title : str
    more : sequence of str
        More notes: the lesion preset, for one; see `rules`.
    """
    header = (
        *("Measure", "First", "First at", "Second", "Second at", "n", "Median difference"),
        *("Pairs", "W", "r", "p", "p (Holm)"),
    )
    rows = []
    for c in found:
        first, second = map(threshold_text, c.thresholds)
        sides = (c.measure, c.first, first, c.second, second)
        effect = (str(c.difference.n), with_bounds(c.difference, change))
        test = (str(c.test.n), threshold_text(c.test.statistic), change(c.test.rank_biserial))
        corrected = Strong(p_value(c.p_holm)) if c.significant else p_value(c.p_holm)
        rows.append((*sides, *effect, *test, p_value(c.test.p), corrected))
    notes = (
        "Median difference: second less first over n scans, with its 95 % interval by resampling "
        "subjects.",
        "W: the smaller rank sum, over the pairs that differ. r: rank-biserial correlation, "
        "positive where second is higher.",
        f"Bold (in TSV: *): p < {ALPHA:g}; {_TESTS} the table.",
        *more,
    )
    return Table(title, frame(header, rows), notes=notes)


def patients(by_bundle: ByBundle) -> Table:
    """P-sensitivity and P-specificity with 95 % Wilson intervals, by both rules.

    Parameters
    ----------
    by_bundle : ByBundle
        From `scores.tuned`.
    """
    header = (
        *("Model", "Threshold", "P-sensitivity (detected)", "P-sensitivity (any_lesion)"),
        *("P-specificity", "With lesions", "Without"),
    )
    rows = []
    for bundle, scans in _models(by_bundle):
        found = scores.patients(scans)
        shares = (found.sensitivity, found.any_lesion, found.specificity)
        counts = (str(found.sensitivity.n), str(found.specificity.n))
        rows.append((bundle, _threshold(scans), *map(with_bounds, shares), *counts))
    return Table(
        "Patient-wise scores at the tuned thresholds",
        frame(header, rows),
        notes=(
            "Share of scans with its 95 % Wilson interval. A scan with lesions is found where one "
            "of them is detected, or, by any_lesion, where any lesion is predicted.",
            *rules(by_bundle),
        ),
    )


def sites(by_bundle: ByBundle) -> Table:
    """Scores of each site, a row per model.

    Parameters
    ----------
    by_bundle : ByBundle
        From `scores.tuned`.
    """
    header = (
        *("Site", "Model", "Threshold", "V-F1", "V-F1, 95 % interval", "L-F1"),
        *("L-F1, 95 % interval", *PATIENT, "With lesions", "Without"),
    )
    names = {scan.site for _, scans in _models(by_bundle) for scan in scans}
    rows = []
    for site in sorted(names, key=lambda name: (not name, name)):
        for bundle, scans in _models(by_bundle):
            own = [scan for scan in scans if scan.site == site]
            if not own:
                continue
            summaries = (
                text
                for measure in ("V-F1", "L-F1")
                for text in (
                    spread(scores.spread(own, measure)),
                    bounds(scores.interval(own, measure)),
                )
            )
            found = scores.patients(own)
            counts = (str(found.sensitivity.n), str(found.specificity.n))
            where = (site or UNKNOWN, bundle, _threshold(scans))
            rows.append((*where, *summaries, *_patients(own), *counts))
    return Table(
        "Sites, at the tuned thresholds",
        frame(header, rows),
        notes=(
            "V-F1 and L-F1: median (mean±standard deviation), and the 95 % interval of the median "
            "by resampling subjects.",
            *rules(by_bundle),
        ),
    )


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
            rows.append((name, bundle, threshold_text(at), *counts, with_bounds(found)))
    return Table(
        "Lesions detected, by volume, at the tuned thresholds",
        frame(("Volume, mm³", "Model", "Threshold", "Lesions", "Detected", "Share"), rows),
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


def beside_published(by_bundle: ByBundle, published: Mapping[str, str] = _EMPTY) -> Table:
    """Set what is measured at the tuned thresholds beside what the study reports.

    Parameters
    ----------
    by_bundle : ByBundle
        From `scores.tuned`.
    published : mapping of str to str
        The key of `PUBLISHED` of each bundle that is not named so.
    """
    names = ("Threshold", "V-F1", "L-F1", *PATIENT)
    rows = []
    for bundle, scans in _models(by_bundle):
        medians = (score(scores.spread(scans, name).median) for name in ("V-F1", "L-F1"))
        measured = (_threshold(scans), *medians, *_patients(scans))
        known = PUBLISHED.get(published.get(bundle, bundle))
        beside = (UNKNOWN,) * 5 if known is None else known.texts
        both = (text for pair in zip(measured, beside, strict=True) for text in pair)
        rows.append((bundle, *both))
    header = ("Model", *(text for name in names for text in (name, f"{name}, published")))
    notes = (
        f"Published: {REFERENCE}, on scans of its own. V-F1 and L-F1: medians over the unseen "
        "scans with lesions.",
        *rules(by_bundle),
    )
    return Table("Beside the published values", frame(header, rows), notes=notes)


def over_thresholds(rows: Sequence[ScanScore]) -> Table:
    """List the range of thresholds over which each model stays near its best median V-F1.

    Parameters
    ----------
    rows : sequence of ScanScore
        Of the unseen scans at all thresholds, by one lesion preset. Models without thresholds, and
        those without a scan that has lesions, are left out.
    """
    tuned_at = {one.bundle: one.threshold for one in rows if one.tuned}
    at: dict[str, dict[float, list[ScanScore]]] = {}
    for one in rows:
        if one.threshold is not None:
            at.setdefault(one.bundle, {}).setdefault(one.threshold, []).append(one)
    lines = []
    for bundle, scans in at.items():
        found = {t: scores.spread(some, "V-F1").median for t, some in sorted(scans.items())}
        curve = {t: median for t, median in found.items() if not math.isnan(median)}
        if not curve:
            continue
        best, (low, high) = best_of(curve), plateau(curve)
        span = f"{low:g}" if low == high else f"{low:g} to {high:g}"
        texts = (threshold_text(best), score(curve[best]), span, score(high - low))
        lines.append((bundle, *texts, threshold_text(tuned_at.get(bundle))))
    note = (
        "Best: threshold of the highest median V-F1 of the unseen scans. Plateau: thresholds "
        f"around it at most {NEAR:g} below that."
    )
    header = ("Model", "Best", "V-F1 there", "Plateau", "Width", "Tuned")
    return Table("Models over thresholds", frame(header, lines), notes=(note,))


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


def _models(by_bundle: ByBundle) -> Iterator[tuple[str, list[ScanScore]]]:
    """Yield every model with its scans."""
    return ((bundle, list(scans.values())) for bundle, scans in by_bundle.items())


def _threshold(scans: Sequence[ScanScore]) -> str:
    """Threshold of the rows of one model."""
    return threshold_text(scans[0].threshold)


def _summaries(scans: Collection[ScanScore]) -> list[str]:
    return [spread(scores.spread(scans, measure)) for measure in MEASURES]


def _patients(scans: Collection[ScanScore]) -> tuple[str, str]:
    found = scores.patients(scans)
    return score(found.sensitivity.value), score(found.specificity.value)


def _numbers_of_scans(by_bundle: ByBundle, *before: str) -> Iterator[tuple[str, ...]]:
    """Yield a row of n for all models, or one for each group of models that have the same."""
    groups: dict[tuple[int, ...], list[str]] = {}
    for bundle, scans in _models(by_bundle):
        found = scores.patients(scans)
        counts = [scores.spread(scans, measure).n for measure in MEASURES]
        counts += [found.sensitivity.n, found.specificity.n]
        groups.setdefault(tuple(counts), []).append(bundle)
    for key, bundles in groups.items():
        name = "n" if len(groups) == 1 else f"n ({', '.join(bundles)})"
        yield (name, *before, *map(str, key))


def _notes(by_bundle: ByBundle) -> tuple[str, ...]:
    return (
        "Median (mean±standard deviation) over the n scans with lesions. P-sensitivity: share of "
        "these in which a lesion is detected. P-specificity: share of the others in which none is "
        "predicted.",
        *rules(by_bundle),
    )
