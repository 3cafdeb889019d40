"""`sct_tune_lesion`: choose a bundle's decision threshold on scans it was not trained on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from sct_lesion_losses.cli import talk
from sct_lesion_losses.cli.common import (
    FILE,
    SWITCH,
    TEXT,
    choice,
    command,
    execute,
    leave,
    option,
    words,
)

NAME = "sct_tune_lesion"
logger = logging.getLogger(__name__)


@command(
    NAME,
    "Choose the decision threshold of a model bundle on scans that it was not trained on, and "
    "write it into the bundle together with the whole curve, its interval, and what the bundle "
    "then reaches on the unseen scans.",
)
@option("-bundle", "bundle", TEXT, "Model bundle: a name or a folder.", mandatory=True)
@option(
    "-i",
    "data",
    FILE,
    "Cohort: a BIDS folder, or a TSV; with a column split (sct_train_lesion writes split.tsv), the "
    "scans of thr-optimization choose and those of unseen are measured.",
    mandatory=True,
)
@option(
    "-objective",
    "objective",
    choice("median_v_f1", "mean_v_f1"),
    "What the threshold is to make best, over the scans with lesions.",
    default="median_v_f1",
)
@option(
    "-centerline",
    "centerline",
    choice("cohort", "auto", "svm", "cnn", "embedded"),
    "How the spinal cord is found. cohort: the cohort's own centerline where it has one.",
    default="cohort",
)
@option("-measure", "measure", SWITCH, "Measure the bundle on the unseen scans.", default=True)
@option(
    "-engine",
    "engine",
    choice("auto", "onnxruntime", "openvino"),
    "Inference engine. auto: openvino where it is installed.",
    default="auto",
)
@option(
    "-precision",
    "precision",
    choice("float32", "bfloat16"),
    "Precision of the network; bfloat16 needs openvino.",
    default="float32",
)
@option(
    "-limits",
    "limits",
    TEXT,
    "Sentences on where the bundle fails, for its model card.",
    many=True,
)
def tune_lesion(bundle: str, data: Path, verbosity: int, **settings: Any) -> int:
    """Tune, and print the threshold."""
    from sct_lesion_losses import tune
    from sct_lesion_losses.bundle.schema import command_line

    with talk.progress_bar("tuning", verbosity > 0) as progress:
        choice_made = tune.run(
            bundle,
            data,
            tune.Settings(**settings),
            command=command_line([NAME, *words()]),
            report=progress,
        )
    low, high = choice_made.interval
    logger.info(
        "threshold %g (95 %% interval %g to %g): %s %.3f over %d scans of %d subjects",
        choice_made.threshold,
        low,
        high,
        choice_made.objective,
        choice_made.curve.max(),
        choice_made.n_scans,
        choice_made.n_subjects,
    )
    click.echo(f"{choice_made.threshold:g}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    return execute(tune_lesion, argv)


def run() -> NoReturn:
    """Run the command as a program."""
    leave(main)
