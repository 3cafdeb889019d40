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
    FOLDER,
    SWITCH,
    TEXT,
    Kind,
    choice,
    command,
    execute,
    int_range,
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
    choice(
        *("median_v_f1", "mean_v_f1", "median_l_f1", "mean_l_f1"),
        *("median_v_fbeta", "mean_v_fbeta", "l_f1_at_specificity"),
    ),
    "What the threshold is to make best, over the scans with lesions: voxel- or lesion-wise F1, "
    "F-beta, or the median L-F1 where -specificity is reached on the lesion-free scans.",
    default="median_v_f1",
)
@option(
    "-beta",
    "beta",
    Kind("<float>", click.FloatRange(0, min_open=True)),
    "How many times as much as precision sensitivity counts in F-beta.",
    default=2.0,
)
@option(
    "-preset",
    "preset",
    choice("paper", "anima", "candidate"),
    "By which rule lesion-wise objectives count lesions as detected.",
    default="paper",
)
@option(
    "-specificity",
    "specificity",
    Kind("<float>", click.FloatRange(0, 1, min_open=True)),
    "Share of the lesion-free scans that the threshold must leave without a lesion; for "
    "-objective l_f1_at_specificity.",
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
@option(
    "-results",
    "results",
    FOLDER,
    "Folder in which the counts of each scan are kept: tuning that was stopped, or another "
    "objective, computes only what is missing there, and so does sct_evaluate_lesion with it as "
    "-ofolder.",
)
@option("-jobs", "jobs", int_range(1), "Scans segmented at the same time.", default=1)
def tune_lesion(
    bundle: str,
    data: Path,
    results: Path | None,
    jobs: int,
    verbosity: int,
    **settings: Any,
) -> int:
    """Tune, and print the threshold."""
    from sct_lesion_losses import tune
    from sct_lesion_losses.bundle.schema import command_line

    with talk.progress_bar("tuning", verbosity > 0) as progress:
        choice_made = tune.run(
            bundle,
            data,
            tune.Settings(**settings),
            results=results,
            jobs=jobs,
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
        choice_made.best,
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
