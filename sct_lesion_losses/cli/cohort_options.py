"""What the commands that take a cohort have in common."""

from __future__ import annotations

import click

from sct_lesion_losses.cli.common import FILE, Kind, option

SHARE = Kind("<float>", click.FloatRange(0, 1))
COHORT = option(
    "-i",
    "data",
    FILE,
    "Cohort: a BIDS folder with derivatives/labels, or a TSV with the columns scan, lesion_mask, "
    "subject and, optionally, site, split, centerline.",
    mandatory=True,
)
