"""The model card of a bundle, and the scores on unseen scans that it shows.

References
----------
Mitchell et al. 2019, "Model Cards for Model Reporting"
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from sct_lesion_losses.bundle.schema import BundleInfo, Epoch, Metric
from sct_lesion_losses.errors import OutputError
from sct_lesion_losses.metrics import UNTUNED, patientwise, statistics
from sct_lesion_losses.metrics.statistics import Interval
from sct_lesion_losses.report import counted
from sct_lesion_losses.thresholds import ScanCounts
from sct_lesion_losses.thresholds.lesion_filter import Candidates, Filter

try:
    from jinja2 import Environment, PackageLoader, StrictUndefined
except ImportError as error:  # raised before any work: the flows import this module first
    raise OutputError(
        "a model card needs jinja2: pip install 'sct_lesion_losses[report]'"
    ) from error

DISCLAIMER = "Research software, not a medical device: not for diagnosis or treatment."
PRESET = "paper"
TEMPLATE = "card.md.j2"
_DETECTED = "scans with lesions in which one is detected"
_ROWS = 25  # rows of the training's curves, about
_BAR_LENGTH = 40  # characters of the longest bar


def text(info: BundleInfo) -> str:
    """Render the model card in Markdown.

    Parameters
    ----------
    info : BundleInfo

    Returns
    -------
    str
        The same for the same `info`; every number in it is one of `info`.
    """
    templates = Environment(  # Markdown: nothing is escaped as HTML
        loader=PackageLoader(__package__),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters |= {
        "g": "{:g}".format,
        "score": lambda value: "-" if value is None else f"{value:.3f}",
        "pairs": _pairs,
        "counted": counted,
        "kept": lambda point: Filter(point.peak, point.volume_mm3).words,
        "cell": lambda content: content.replace("|", "\\|"),
        "learning": _learning,
    }
    rendered = templates.get_template(TEMPLATE).render(info=info, disclaimer=DISCLAIMER, zip=zip)
    return re.sub(r"\n{3,}", "\n\n", rendered)


def _learning(history: Sequence[Epoch]) -> Iterator[tuple[Epoch, str]]:
    """Yield at most about 25 epochs, evenly apart, each with a bar for its validation loss.

    The start, the last and the best, marked by `*`, are among them. The bar's length is the share
    of the largest validation loss shown.
    """
    losses = {line: line.val_loss for line in history if line.val_loss is not None}
    best = min((line for line in losses if line.epoch), key=lambda line: losses[line], default=None)
    step = -(-len(history) // _ROWS)
    shown = [
        line
        for k, line in enumerate(history)
        if k % step == 0 or line is history[-1] or line is best
    ]
    top = max((losses[line] for line in shown if line in losses), default=0.0)
    for line in shown:
        share = max(losses.get(line, 0.0) / top, 0.0) if top > 0 else 0.0
        yield line, f"{'█' * round(share * _BAR_LENGTH)} {'*' * (line is best)}"


def _pairs(table: Mapping[str, object]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in table.items())


def metrics(
    counts: Sequence[ScanCounts], subjects: Sequence[str], threshold: float, refused: int = 0
) -> dict[str, Metric]:
    """Return the bundle's `metrics`: summaries over unseen scans with lesions, and shares.

    Parameters
    ----------
    counts : sequence of ScanCounts
        Of the unseen scans; `threshold` and 0.5 are among their thresholds.
    subjects : sequence of str
        Whose scan each is; the intervals of medians and means resample them.
    threshold : float
        The tuned one.
    refused : int
        Unseen scans in which no cord was found: they have no scores; their share is a metric.

    Returns
    -------
    dict of str to Metric
        Without those that no scan tells of.
    """
    voxels = [scan.voxel_score(scan.index(threshold)) for scan in counts]
    untuned = [scan.voxel_score(scan.index(UNTUNED)) for scan in counts]
    lesions = [scan.lesion_score(PRESET, scan.index(threshold)) for scan in counts]
    patients = patientwise.score(lesions)
    refusals = patientwise.proportion(refused, len(counts) + refused)
    half, rule = "at threshold 0.5", f"tuned, preset {PRESET}"

    def summary(
        values: list[float], note: str, statistic: Callable[..., Any] = np.median
    ) -> tuple[Interval, str]:
        return statistics.interval(values, subjects, statistic), note

    return _known(
        {
            "v_f1_median": summary([s.f1 for s in voxels], "tuned"),
            "v_f1_mean": summary([s.f1 for s in voxels], "tuned", np.mean),
            "v_f1_median_at_0.5": summary([s.f1 for s in untuned], half),
            "v_f1_mean_at_0.5": summary([s.f1 for s in untuned], half, np.mean),
            "v_sensitivity_median": summary([s.sensitivity for s in voxels], "tuned"),
            "v_precision_median": summary([s.precision for s in voxels], "tuned"),
            "l_sensitivity_median": summary([s.sensitivity for s in lesions], rule),
            "l_precision_median": summary([s.precision for s in lesions], rule),
            "l_f1_median": summary([s.f1 for s in lesions], rule),
            "p_sensitivity": (patients.sensitivity, f"{rule}: {_DETECTED}"),
            "p_specificity": (
                patients.specificity,
                f"{rule}: lesion-free scans in which none is predicted",
            ),
            "scans_refused": (refusals, "unseen scans in which no cord was found"),
        }
    )


def metrics_filtered(
    scans: Sequence[Candidates], subjects: Sequence[str], rule: Filter
) -> dict[str, Metric]:
    """Return what a bundle reaches on unseen scans as it is used: with its filter of lesions.

    Parameters
    ----------
    scans : sequence of Candidates
        The predicted lesions of the unseen scans, at the tuned threshold.
    subjects : sequence of str
        Whose scan each is.
    rule : Filter
        Which of them are kept.

    Returns
    -------
    dict of str to Metric
        By the names of `metrics` with ``_filtered``, without those that no scan tells of.
    """
    lesions = [scan.score(rule) for scan in scans]
    voxels = [scan.voxel_score(rule).f1 for scan in scans]
    medians = statistics.interval([score.f1 for score in lesions], subjects)
    patients = patientwise.score(lesions)
    note = f"tuned, lesions of {rule.words}, preset {PRESET}"
    return _known(
        {
            "v_f1_median_filtered": (statistics.interval(voxels, subjects), note),
            "l_f1_median_filtered": (medians, note),
            "p_sensitivity_filtered": (patients.sensitivity, f"{note}: {_DETECTED}"),
            "p_specificity_filtered": (
                patients.specificity,
                f"{note}: lesion-free scans in which none is left",
            ),
        }
    )


def _known(found: Mapping[str, tuple[Interval, str]]) -> dict[str, Metric]:
    return {
        name: Metric(value=at.value, low=at.low, high=at.high, n=at.n, note=note)
        for name, (at, note) in found.items()
        if at.n
    }
