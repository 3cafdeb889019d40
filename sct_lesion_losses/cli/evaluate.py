"""`sct_evaluate_lesion`: bundles, SCT's model and what other tools marked, on unseen scans."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sct_lesion_losses.cli import talk
from sct_lesion_losses.cli.options import COHORT_CENTERLINE, CONTRAST, ENGINE, JOBS, PRESET
from sct_lesion_losses.cli.parser import command, option
from sct_lesion_losses.errors import UsageError


@command(
    "sct_evaluate_lesion",
    help="Evaluate model bundles, the lesion model of SCT, and masks or p-maps of any other tool, "
    "on scans that no bundle has seen: voxel-wise and lesion-wise scores of every scan at every "
    "threshold, the tables of the study, and paired tests between thresholds and between models. "
    "What is done already in the output folder is not computed again.",
)
@option(
    "-bundle <str> [<str> ...]",
    "Model bundles: names or folders. sct: the lesion model of SCT, by its p-map and as "
    "sct_deepseg_lesion runs it.",
    dest="bundles",
)
@option(
    "-masks <str> [<str> ...]",
    "Masks of other tools, or of a second rater, as NAME=FOLDER: for every scan one of 0 and 1 on "
    "its grid, anywhere under the folder, named as the scan with _lesionseg, _label-L_mask, "
    "_label-lesion_seg, _lesion-manual or the like behind, or, where there is none of these, _seg, "
    "_mask or nothing. They stand beside the bundles, without a threshold.",
)
@option(
    "-pmaps <str> [<str> ...]",
    "P-maps of other tools, as NAME=FOLDER, named with _label-L_probseg, _lesionseg_pmap, _pmap or "
    "the like behind. They are cut at every threshold, and tuned as sct is, where the folder holds "
    "those of thr-optimization as well.",
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
@option(
    "-challenge {0,1}",
    "Also write what the MS-Multi-Spine challenge takes: of every scan and model the mask at the "
    "model's threshold (0.5 where untuned) with its lesions numbered, and a CSV of their "
    "probabilities, into challenge/MODEL. Segments the scans once more.",
)
@option(
    "-repeat {0,1}",
    "Also compare scans that a subject has in one session (ses- of their names): coefficient of "
    "variation of the lesion volume, and lesions found again; the table repeat. Segments these "
    "scans once more.",
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

    for name in ("masks", "pmaps"):
        values[name] = _folders(f"-{name}", values[name])
    inference = InferenceSettings.taken_from(values)
    settings = evaluate.EvaluateSettings(inference, command=talk.command_line(), **values)
    with talk.progress("evaluating") as report:
        evaluate.run(bundles, data, folder, settings, report)
    click.echo(folder / evaluate.TABLES / f"{evaluate.MAIN_TABLE}.md")


def _folders(option_name: str, words: tuple[str, ...]) -> dict[str, Path]:
    """Folders by their names, of ``lst=results/lst``."""
    found: dict[str, Path] = {}
    for word in words:
        name, equals, folder = word.partition("=")
        if not (name and equals and folder):
            raise UsageError(
                f"{option_name} {word}: expected NAME=FOLDER, lst=results/lst for example"
            )
        if name in found:
            raise UsageError(f"{option_name} names two folders {name}; give each a name of its own")
        found[name] = Path(folder)
    return found
