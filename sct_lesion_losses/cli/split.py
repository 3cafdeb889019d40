"""`sct_split_lesion`: which scans of a cohort are trained on, tuned on, and never seen."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import click

from sct_lesion_losses.cli import options, talk
from sct_lesion_losses.cli.parser import command, int_range, option

logger = logging.getLogger(__name__)


@command(
    "sct_split_lesion",
    help="Split a cohort into training, validation, thr-optimization and unseen, in the "
    "proportions of the study: all scans of a subject into one part, balanced for lesion load, and "
    "each site in every part as far as its subjects suffice. Subjects without lesions are unseen. "
    "The same cohort and options give the same split.",
)
@options.COHORT
@option(
    "-ofile <file>",
    "TSV to write: the cohort with its split, and lesion number and volume of each scan. "
    "sct_train_lesion and sct_tune_lesion take it with -i.",
    dest="table",
    mandatory=True,
)
@option(
    "-seed <int>",
    "Seed of the split: another one gives another split.",
    kind=int_range(0),
    dest="split_seed",
    default=0,
)
@options.SPLIT
@option(
    "-tuning <file>",
    "Another cohort, a BIDS folder or a TSV, all of whose scans join thr-optimization: a threshold "
    "that a dozen scans choose is loose.",
)
@option(
    "-figure {0,1}",
    "Draw lesion number and volume of the scans of each part, as a PNG beside the TSV.",
    dest="picture",
    shown="1 where matplotlib is installed",
)
@option(
    "-resplit {0,1}", "Make a new split where the cohort has one already; it is refused otherwise."
)
@option("-force {0,1}", "Overwrite the TSV and the PNG that are there already.")
def main(cohort: Path, table: Path, picture: bool | None, **values: Any) -> None:
    """Split, and print the table."""
    from sct_lesion_losses.errors import OutputError
    from sct_lesion_losses.report.figures import style
    from sct_lesion_losses.workflows import split

    if picture is None:
        try:
            style.require()
        except OutputError as error:
            logger.warning("no picture of the split: %s", error)
            picture = False
    rules = options.rules(values)
    figures = [] if picture is False else [table.with_suffix(".png")]
    with talk.progress("reading masks") as report:
        written = split.split(cohort, table, rules, figures=figures, report=report, **values)
    click.echo(written)
