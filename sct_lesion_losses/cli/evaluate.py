"""`sct_evaluate_lesion`: bundles, and SCT's own model, on scans that none of them has seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sct_lesion_losses.cli import talk
from sct_lesion_losses.cli.options import COHORT_CENTERLINE, CONTRAST, ENGINE, JOBS, PRESET
from sct_lesion_losses.cli.parser import command, option


@command(
    "sct_evaluate_lesion",
    help="Evaluate model bundles, and the lesion model of SCT, on scans that none of them has "
    "seen: voxel-wise and lesion-wise scores of every scan at every threshold, the tables of the "
    "study, and paired tests between thresholds and between models. What is done already in the "
    "output folder is not computed again.",
)
@option(
    "-bundle <str> [<str> ...]",
    "Model bundles: names or folders. sct: the lesion model of SCT, by its p-map and as "
    "sct_deepseg_lesion runs it.",
    dest="bundles",
    mandatory=True,
)
@option(
    "-i <file>",
    "Cohort: a BIDS folder, or a TSV; with a column split (sct_train_lesion writes split.tsv), the "
    "scans of unseen are evaluated, and those of thr-optimization tune the threshold of sct.",
    dest="data",
    mandatory=True,
)
@option(
    "-ofolder <folder>",
    "Where to write scores.tsv, lesions.tsv, their descriptions, and the tables.",
    dest="folder",
    mandatory=True,
)
@COHORT_CENTERLINE
@CONTRAST
@PRESET
@ENGINE
@JOBS
def main(bundles: tuple[str, ...], data: Path, folder: Path, **values: Any) -> None:
    """Evaluate, and print the table at the tuned thresholds."""
    from sct_lesion_losses.inference.predict import InferenceSettings
    from sct_lesion_losses.workflows import evaluate

    inference = InferenceSettings.taken_from(values)
    settings = evaluate.EvaluateSettings(inference, command=talk.command_line(), **values)
    with talk.progress("evaluating") as report:
        evaluate.run(bundles, data, folder, settings, report)
    click.echo(folder / evaluate.TABLES / f"{evaluate.MAIN_TABLE}.md")
