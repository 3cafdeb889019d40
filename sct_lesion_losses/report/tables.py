"""The tables of an evaluation: the study's two, the tests, and the published values.

References
----------
Hussein et al., ISBI 2023, tables 1 and 2
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy as np

from sct_lesion_losses.errors import OutputError
from sct_lesion_losses.images.bids import UNKNOWN
from sct_lesion_losses.metrics import scores, statistics
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
from sct_lesion_losses.report.columns import rule

try:
    import pandas as pd
except ImportError as error:  # raised before any work: the flows import this module first
    raise OutputError("tables need pandas: pip install 'sct_lesion_losses[report]'") from error

SIZES_MM3 = {"under 30": (0, 30), "30 to 100": (30, 100), "100 or more": (100, math.inf)}
_TESTS = "two-sided Wilcoxon signed-rank tests on the same scans, p corrected by Holm over"

# Threshold, V-F1, L-F1, P-sensitivity and P-specificity of the study's models on its unseen set, as
# they are printed, by the name of the loss, and of SCT's own lesion model.
REFERENCE = "Hussein et al., ISBI 2023"
PUBLISHED = {
    "bce": ("0.15", "0.33", "0.27", "0.58", "0.24"),
    "combo": ("0.05", "0.30", "0.18", "0.54", "0.17"),
    "dice": ("0.3", "0.36", "0.31", "0.62", "0.26"),
    "focal_tversky": ("0.15", "0.31", "0.26", "0.65", "0.22"),
    "generalized_dice": ("0.75", "0.41", "0.34", "0.66", "0.20"),
    "log_cosh_dice": ("0.2", "0.37", "0.17", "0.54", "0.20"),
    "sct": ("0.05", "0.39", "0.38", "0.62", "0.33"),
    "tversky": ("0.3", "0.41", "0.40", "0.65", "0.26"),
}


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


class Strong(str):
    """The text of a cell in bold."""

    bold = True


Item = TypeVar("Item")
Columns = Mapping[str, Callable[[Item], str]]


def frame(keys: Sequence[str], rows: Mapping[Any, Item], columns: Columns[Item]) -> pd.DataFrame:
    """Texts of a table: the keys of each row, a tuple, then what every column says of its item."""
    texts = [(*key, *(text(item) for text in columns.values())) for key, item in rows.items()]
    return pd.DataFrame(texts, columns=[*keys, *columns], dtype=object)


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


def tsv(table: Table) -> str:
    """Header, rows and footer, separated by tabs; a bold cell ends in ``*``.

    Title and notes are left out, so that every line has the same columns.
    """

    def marked(text: str) -> str:
        return " ".join(text.split()) + "*" * isinstance(text, Strong)

    whole = pd.concat([table.body, table.footer])[list(table.body.columns)]
    whole = whole.apply(lambda column: column.map(marked))  # DataFrame.map is younger than SCT's
    written: str = whole.to_csv(sep="\t", index=False, quoting=csv.QUOTE_NONE, lineterminator="\n")
    return written


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

    rows = [[*table.body.columns], *table.body.values.tolist(), *table.footer.values.tolist()]
    lines = [[escaped(text) for text in row] for row in rows]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])])
    aligned = ["<", *">" * (len(widths) - 1)]
    body = "".join(
        f"| {' | '.join(map('{:{}{}}'.format, line, aligned, widths))} |\n" for line in lines
    )
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
        for rows in ([table.body.columns], table.body.values, table.footer.values)
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

# What the columns say of the scans of one model at one threshold.
Scans = Sequence[ScanScore]
Models = Mapping[tuple[str, ...], Scans]


def _spread(measure: str, scans: Scans, bold: Collection[tuple[str, str]] = ()) -> str:
    text = spread(scores.spread(scans, measure))
    return Strong(text) if (scans[0].bundle, measure) in bold else text


def _interval(measure: str, scans: Scans) -> str:
    return with_bounds(scores.interval(scans, measure))


def _known(scans: Iterable[ScanScore]) -> list[ScanScore]:
    return [scan for scan in scans if not math.isnan(MEASURES["V-F1"](scan))]


_THRESHOLD: Columns[Scans] = {"Threshold": lambda scans: threshold_text(scans[0].threshold)}
_SHARES: Columns[Scans] = {
    "P-sensitivity": lambda scans: score(scores.patients(scans).sensitivity.value),
    "P-specificity": lambda scans: score(scores.patients(scans).specificity.value),
}
_COUNTS: Columns[Scans] = {
    "With lesions": lambda scans: str(scores.patients(scans).sensitivity.n),
    "Without": lambda scans: str(scores.patients(scans).specificity.n),
}
_INTERVALS: Columns[Scans] = {
    **{measure: partial(_interval, measure) for measure in MEASURES},
    "n": lambda scans: str(len(_known(scans))),
    "Subjects": lambda scans: str(len({scan.subject for scan in _known(scans)})),
}
_PATIENTS: Columns[Scans] = {
    **_THRESHOLD,
    "P-sensitivity (detected)": lambda scans: with_bounds(scores.patients(scans).sensitivity),
    "P-sensitivity (any_lesion)": lambda scans: with_bounds(scores.patients(scans).any_lesion),
    "P-specificity": lambda scans: with_bounds(scores.patients(scans).specificity),
    **_COUNTS,
}
_SITES: Columns[Scans] = {
    **_THRESHOLD,
    "V-F1": partial(_spread, "V-F1"),
    "V-F1, 95 % interval": lambda scans: bounds(scores.interval(scans, "V-F1")),
    "L-F1": partial(_spread, "L-F1"),
    "L-F1, 95 % interval": lambda scans: bounds(scores.interval(scans, "L-F1")),
    **_SHARES,
    **_COUNTS,
}
_MEASURED: Columns[Scans] = {
    **_THRESHOLD,
    "V-F1": lambda scans: score(scores.spread(scans, "V-F1").median),
    "L-F1": lambda scans: score(scores.spread(scans, "L-F1").median),
    **_SHARES,
}
_LESIONS: Columns[Sequence[TruthLesion]] = {
    "Lesions": lambda own: str(len(own)),
    "Detected": lambda own: str(sum(lesion.detected for lesion in own)),
    "Share": lambda own: with_bounds(
        statistics.interval(
            [float(lesion.detected) for lesion in own], [one.of.subject for one in own], np.mean
        )
    ),
}
_COMPARED: Columns[Comparison] = {
    "Measure": lambda c: c.measure,
    "First": lambda c: c.first,
    "First at": lambda c: threshold_text(c.thresholds[0]),
    "Second": lambda c: c.second,
    "Second at": lambda c: threshold_text(c.thresholds[1]),
    "n": lambda c: str(c.difference.n),
    "Median difference": lambda c: with_bounds(c.difference, change),
    "Pairs": lambda c: str(c.test.n),
    "W": lambda c: threshold_text(c.test.statistic),
    "r": lambda c: change(c.test.rank_biserial),
    "p": lambda c: p_value(c.test.p),
    "p (Holm)": lambda c: Strong(p_value(c.p_holm)) if c.significant else p_value(c.p_holm),
}


def study(
    rows: Sequence[ScanScore],
    lesions: Sequence[TruthLesion],
    published: Mapping[str, str],
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
        A bundle has two rows for one scan; see `scores.tuned`.
    """
    at_half, at_tuned = scores.untuned(rows), scores.tuned(rows)
    half, tuned = _models(at_half), _models(at_tuned)
    compared = between_thresholds(at_half, at_tuned)
    rules = tuple(map(rule, dict.fromkeys(row.lesions.preset for row in rows)))
    itself = "A model that was tuned to 0.5 is not tested against itself: it has no p (Holm)."
    bold = {(c.second, c.measure) for c in compared if c.significant}
    tests = sum(not math.isnan(comparison.p_holm) for comparison in compared)
    tested = (
        f"Bold (in TSV: *): differs from the same model at threshold 0.5, p < {ALPHA:g}; {_TESTS} "
        f"{tests} tests. {' and '.join(_SHARES)} are not tested."
    )

    def by_rules(title: str, body: pd.DataFrame, note: str) -> Table:
        return Table(title, body, notes=(note, *rules))

    return {
        "table1": _main("Unseen scans at threshold 0.5", half, {}, rules),
        "table2": _main(
            "Unseen scans at the tuned thresholds", tuned, _THRESHOLD, (*rules, tested), bold
        ),
        "intervals": by_rules(
            "Medians with 95 % intervals by resampling subjects",
            frame(("Model", "Threshold"), _by_threshold(half, tuned), _INTERVALS),
            "Over the n scans with lesions. The subjects are resampled with all of their scans, "
            f"{statistics.BOOTSTRAPS} times.",
        ),
        "thresholds": _comparisons(compared, "Tuned thresholds against 0.5", (itself, *rules)),
        "models": _comparisons(
            between_bundles(at_tuned), "Models at their tuned thresholds", rules
        ),
        "patients": by_rules(
            "Patient-wise scores at the tuned thresholds",
            frame(("Model",), tuned, _PATIENTS),
            "Share of scans with its 95 % Wilson interval. A scan with lesions is found where one "
            "of them is detected, or, by any_lesion, where any lesion is predicted.",
        ),
        "sites": by_rules(
            "Sites, at the tuned thresholds",
            frame(("Site", "Model"), _by_site(tuned), _SITES),
            "V-F1 and L-F1: median (mean±standard deviation), and the 95 % interval of the median "
            "by resampling subjects.",
        ),
        "lesion_sizes": by_rules(
            "Lesions detected, by volume, at the tuned thresholds",
            frame(("Volume, mm³", "Model", "Threshold"), _by_size(lesions), _LESIONS),
            "Share of the lesions of all scans, with its 95 % interval by resampling subjects.",
        ),
        "published": by_rules(
            "Beside the published values",
            frame(("Model",), tuned, _beside(published)),
            f"Published: {REFERENCE}, on scans of its own. V-F1 and L-F1: medians over the unseen "
            "scans with lesions.",
        ),
    }


def _models(by_bundle: ByBundle) -> Models:
    return {(bundle,): list(scans.values()) for bundle, scans in by_bundle.items()}


def _by_threshold(half: Models, tuned: Models) -> Models:
    """List every model at 0.5 and at its own threshold, once where that is 0.5."""
    return {
        (*model, threshold_text(by[model][0].threshold)): by[model]
        for model in {**half, **tuned}
        for by in (half, tuned)
        if model in by
    }


def _by_site(models: Models) -> Models:
    """Group the scans by site and model; those of no site come last."""
    sites = {scan.site for scans in models.values() for scan in scans}
    return {
        (site or UNKNOWN, *model): own
        for site in sorted(sites, key=lambda name: (not name, name))
        for model, scans in models.items()
        if (own := [scan for scan in scans if scan.site == site])
    }


def _by_size(lesions: Sequence[TruthLesion]) -> dict[tuple[str, ...], list[TruthLesion]]:
    """Group the lesions at tuned thresholds by class of volume and model."""
    tuned = [lesion for lesion in lesions if lesion.of.tuned]
    models = {lesion.of.bundle: threshold_text(lesion.of.threshold) for lesion in tuned}
    return {
        (name, model, threshold): [
            one for one in tuned if one.of.bundle == model and low <= one.volume_mm3 < high
        ]
        for name, (low, high) in SIZES_MM3.items()
        for model, threshold in models.items()
    }


def _beside(published: Mapping[str, str]) -> Columns[Scans]:
    """Columns of what is measured, each followed by what the study reports."""

    def reported(place: int, scans: Scans) -> str:
        name = published.get(scans[0].bundle, scans[0].bundle)
        return PUBLISHED[name][place] if name in PUBLISHED else UNKNOWN

    columns: dict[str, Callable[[Scans], str]] = {}
    for place, (name, text) in enumerate(_MEASURED.items()):
        columns |= {name: text, f"{name}, published": partial(reported, place)}
    return columns


def _main(
    title: str,
    models: Models,
    first: Columns[Scans],
    rules: Sequence[str],
    bold: Collection[tuple[str, str]] = (),
) -> Table:
    """Table 1 or 2 of the study, with a row of n for all models, or for each group alike."""
    spreads = {measure: partial(_spread, measure, bold=bold) for measure in MEASURES}
    numbers: dict[tuple[str, ...], list[str]] = {}
    for (model,), scans in models.items():
        counts = [str(scores.spread(scans, measure).n) for measure in MEASURES]
        counts += [count(scans) for count in _COUNTS.values()]
        numbers.setdefault(tuple(counts), []).append(model)
    body = frame(("Model",), models, {**first, **spreads, **_SHARES})
    footer = [
        ("n" if len(numbers) == 1 else f"n ({', '.join(alike)})", *[""] * len(first), *counts)
        for counts, alike in numbers.items()
    ]
    notes = (
        "Median (mean±standard deviation) over the n scans with lesions. P-sensitivity: share of "
        "these in which a lesion is detected. P-specificity: share of the others in which none is "
        "predicted.",
        *rules,
    )
    return Table(title, body, pd.DataFrame(footer, columns=body.columns, dtype=object), notes)


def _comparisons(found: Sequence[Comparison], title: str, more: Sequence[str]) -> Table:
    """List comparisons that were corrected together, p in bold where it is significant."""
    texts = [tuple(text(comparison) for text in _COMPARED.values()) for comparison in found]
    notes = (
        "Median difference: second less first over n scans, with its 95 % interval by resampling "
        "subjects.",
        "W: the smaller rank sum, over the pairs that differ. r: rank-biserial correlation, "
        "positive where second is higher.",
        f"Bold (in TSV: *): p < {ALPHA:g}; {_TESTS} the table.",
        *more,
    )
    return Table(title, pd.DataFrame(texts, columns=[*_COMPARED], dtype=object), notes=notes)
