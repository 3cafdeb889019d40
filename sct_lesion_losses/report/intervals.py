"""Medians over scans with the intervals that resampling their subjects gives."""

from __future__ import annotations

import math
from collections.abc import Collection

from sct_lesion_losses.metrics import scan_score, summary
from sct_lesion_losses.metrics.scan_score import MEASURES, UNTUNED, ByBundle, ScanScore
from sct_lesion_losses.report import numbers
from sct_lesion_losses.report.markup import Table, row


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
            rows.append(row(bundle, numbers.threshold(threshold), *every, *_counts(scans)))
    return Table(
        "Medians with 95 % intervals by resampling subjects",
        ("Model", "Threshold", *MEASURES, "n", "Subjects"),
        tuple(rows),
        notes=(
            "Over the n scans with lesions. The subjects are resampled with all of their scans, "
            f"{summary.BOOTSTRAPS} times.",
            *numbers.rules(untuned, tuned),
        ),
    )


def text(scans: Collection[ScanScore], measure: str) -> str:
    """95 % interval of the median of a measure, a key of `MEASURES`; ``n/a`` of one subject."""
    return numbers.bounds(scan_score.interval(scans, measure))


def _cell(scans: Collection[ScanScore], measure: str) -> str:
    median = numbers.score(scan_score.spread(scans, measure).median)
    return f"{median} ({text(scans, measure)})"


def _counts(scans: Collection[ScanScore]) -> tuple[str, str]:
    """Count the scans with lesions, in which every measure is defined, and their subjects."""
    first = next(iter(MEASURES))
    return str(scan_score.spread(scans, first).n), str(_subjects(scans, first))


def _subjects(scans: Collection[ScanScore], measure: str) -> int:
    """Count the subjects of the scans in which a measure is defined."""
    return len({scan.subject for scan in scans if not math.isnan(MEASURES[measure](scan))})
