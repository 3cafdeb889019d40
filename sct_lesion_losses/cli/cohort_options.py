"""What the commands that take a cohort have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from sct_lesion_losses.cli.common import FILE, TEXT, Kind, int_range, option

SHARE = Kind("<float>", click.FloatRange(0, 1))
COHORT = option(
    "-i",
    "data",
    FILE,
    "Cohort: a BIDS folder with derivatives/labels, or a TSV with the columns scan, lesion_mask, "
    "subject and, optionally, site, split, centerline.",
    mandatory=True,
)
_SPLIT = (
    option(
        "-split_seed",
        "split_seed",
        int_range(0),
        "Seed of the split, where the cohort has none.",
        default=0,
    ),
    option(
        "-lesion_free",
        "lesion_free",
        SHARE,
        "Share of the lesion-free subjects to train on; the others are unseen.",
        default=0.0,
    ),
    option(
        "-lesion_free_tuning",
        "lesion_free_tuning",
        SHARE,
        "Share of the lesion-free subjects in thr-optimization, for sct_tune_lesion.",
        default=0.0,
    ),
    option("-unseen_sites", "unseen_sites", TEXT, "Sites that are never trained on.", many=True),
)


def of_split(callback: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say how a cohort without a split is split, as `splits.Rules` does."""
    for add in reversed(_SPLIT):
        callback = add(callback)
    return callback
