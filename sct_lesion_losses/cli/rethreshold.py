"""`sct_rethreshold_lesion`: another mask from a stored p-map."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import click

from sct_lesion_losses.cli import talk
from sct_lesion_losses.cli.parser import (
    FILE,
    FOLDER,
    SWITCH,
    Kind,
    command,
    execute,
    leave,
    option,
    typed,
)

logger = logging.getLogger(__name__)

NAME = "sct_rethreshold_lesion"


@command(NAME, "Make another lesion mask from a p-map that `-pmap 1` wrote.")
@option("-i", "image", FILE, "P-map (3-D NIfTI file, probabilities).", mandatory=True)
@option(
    "-thr",
    "threshold",
    Kind("<float>", click.FloatRange(0, 1, min_open=True)),
    "Decision threshold in (0, 1]: voxels of at least this probability are lesion.",
    mandatory=True,
)
@option("-o", "out", FILE, "Name of the mask.", shown="<p-map>_thr<threshold>.<extension>")
@option("-ofolder", "folder", FOLDER, "Folder of the outputs.", shown="the current folder")
@option(
    "-lesions",
    "lesions",
    SWITCH,
    "Also write a table of the lesions (TSV) and a mask in which they are numbered.",
    default=False,
)
def rethreshold_lesion(
    image: Path,
    threshold: float,
    out: Path | None,
    folder: Path | None,
    lesions: bool,
    verbosity: int,
) -> int:
    """Threshold the p-map and print what was written."""
    from sct_lesion_losses.images import outputs
    from sct_lesion_losses.workflows import rethreshold

    if out is None:
        names = rethreshold.default_outputs(image, threshold, folder)
    else:
        names = outputs.for_scan(image, out=out, folder=folder)
    line = talk.command_line(NAME, typed(), image)
    result = rethreshold.run(image, threshold, names, lesions=lesions, command=line)
    logger.info("%s: %d lesions, %.0f mm³", image.name, result.n_lesions, result.load_mm3)
    for path in result.written:
        click.echo(path)
    if verbosity:
        click.echo(talk.view_hint([(image, names.mask)]))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    return execute(rethreshold_lesion, argv)


def run() -> NoReturn:
    """Run the command as a program."""
    leave(main)
