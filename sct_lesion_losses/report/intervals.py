"""Medians over scans with the intervals that resampling their subjects gives."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator

from sct_lesion_losses.metrics import scan_score, summary
from sct_lesion_losses.metrics.scan_score import MEASURES, UNTUNED, ByBundle, ScanScore
from sct_lesion_losses.report import numbers
from sct_lesion_losses.report.markup import Row, Table, row

FEWEST_SUBJECTS = 2  # one subject resampled is always the same


def table(untuned: ByBundle, tuned: ByBundle) -> Table:
    """List the median of every measure with its 95 % interval, a row per model and threshold.

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
            rows += list(_rows(bundle, numbers.threshold(threshold), scans))
    return Table(
        "Medians with 95 % intervals by resampling subjects",
        ("Model", "Threshold", "Measure", "Median", "95 % interval", "n", "Subjects"),
        tuple(rows),
        notes=(
            "Over the n scans with lesions in which the measure is defined. The subjects are "
            f"resampled with all of their scans, {summary.BOOTSTRAPS} times.",
            *numbers.rules(untuned, tuned),
        ),
    )


def text(scans: Collection[ScanScore], measure: str) -> str:
    """95 % interval of the median of a measure, a key of `MEASURES`; ``n/a`` of one subject."""
    if _subjects(scans, measure) < FEWEST_SUBJECTS:
        return numbers.UNKNOWN
    return numbers.bounds(scan_score.interval(scans, measure))


def _rows(bundle: str, threshold: str, scans: Collection[ScanScore]) -> Iterator[Row]:
    for measure in MEASURES:
        found = scan_score.spread(scans, measure)
        counts = (str(found.n), str(_subjects(scans, measure)))
        median = numbers.score(found.median)
        yield row(bundle, threshold, measure, median, text(scans, measure), *counts)


def _subjects(scans: Collection[ScanScore], measure: str) -> int:
    """Count the subjects of the scans in which a measure is defined."""
    return len({scan.subject for scan in scans if not math.isnan(MEASURES[measure](scan))})
