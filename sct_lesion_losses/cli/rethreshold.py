"""`sct_rethreshold_lesion`: another mask from a stored p-map."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import click

from sct_lesion_losses.cli import talk
from sct_lesion_losses.cli.options import LESION_POINT, LESIONS
from sct_lesion_losses.cli.parser import command, float_range, option

logger = logging.getLogger(__name__)


@command(
    "sct_rethreshold_lesion", help="Make another lesion mask from a p-map that `-pmap 1` wrote."
)
@option("-i <file>", "P-map (3-D NIfTI file, probabilities).", dest="image", mandatory=True)
@option(
    "-thr <float>",
    "Decision threshold in (0, 1]: voxels of at least this probability are lesion.",
    kind=float_range(0, 1, min_open=True),
    dest="threshold",
    mandatory=True,
)
@option("-o <file>", "Name of the mask.", dest="out", shown="<p-map>_thr<threshold>.<extension>")
@option("-ofolder <folder>", "Folder of the outputs.", dest="folder", shown="the current folder")
@LESION_POINT
@LESIONS
def main(
    image: Path, threshold: float, out: Path | None, folder: Path | None, **values: Any
) -> None:
    """Threshold the p-map and print what was written."""
    from sct_lesion_losses.images import outputs
    from sct_lesion_losses.workflows.rethreshold import default_outputs, rethreshold

    if out is None:
        names = default_outputs(image, threshold, folder)
    else:
        names = outputs.for_scan(image, out=out, folder=folder)
    result = rethreshold(image, threshold, names, **values, command=talk.command_line())
    logger.info("%s: %s", image.name, result.found.load)
    for path in result.written:
        click.echo(path)
    if logger.isEnabledFor(logging.INFO):
        click.echo(talk.view_hint([(image, names.mask)]))
