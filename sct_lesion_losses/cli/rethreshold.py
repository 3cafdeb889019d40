"""`sct_rethreshold_lesion`: other masks from stored p-maps."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import click

from sct_lesion_losses.cli import talk
from sct_lesion_losses.cli.options import LESION_POINT, LESIONS
from sct_lesion_losses.cli.parser import FAILED, command, float_range, option, stop_if_terminated
from sct_lesion_losses.errors import UsageError, describe

logger = logging.getLogger(__name__)


@command("sct_rethreshold_lesion", help="Make other lesion masks from p-maps that `-pmap 1` wrote.")
@option(
    "-i <file>",
    "P-map (3-D NIfTI file, probabilities), or a TSV or CSV with the columns pmap and threshold, "
    "as the page of -qc_page saves it: paths from its folder, each mask is written beside its "
    "p-map.",
    dest="image",
    mandatory=True,
)
@option(
    "-thr <float>",
    "Decision threshold in (0, 1]: voxels of at least this probability are lesion. Needed for a "
    "single p-map.",
    kind=float_range(0, 1, min_open=True),
    dest="threshold",
    shown="that of the table",
)
@option(
    "-o <file>",
    "Name of the mask.",
    dest="out",
    shown="the p-map's name without _pmap, with _thr<threshold>",
)
@option("-ofolder <folder>", "Folder of the outputs.", dest="folder", shown="the current folder")
@option(
    "-cord <file>",
    "Cord mask on the grid of the p-map: lesions are cut to it, and those outside are dropped.",
)
@LESION_POINT
@LESIONS
def main(
    image: Path,
    threshold: float | None,
    out: Path | None,
    folder: Path | None,
    lesion_point: bool | None,
    **values: Any,
) -> int:
    """Threshold the p-maps and print what was written; return 1 where a row of a table failed."""
    table = image.suffix.lower() in (".tsv", ".csv")
    if table and (threshold, out, folder) != (None, None, None):
        raise UsageError(
            "-i with a table writes each mask beside its p-map, at the threshold of its row: leave "
            "out -thr, -o and -ofolder"
        )
    if table and values["cord"] is not None:
        raise UsageError(
            "-cord belongs to one p-map: leave it out with a table; p-maps that were segmented "
            "with -cord are cut to the cord already"
        )
    if not table and threshold is None:
        raise UsageError("-thr is missing; it is needed for a single p-map")
    from sct_lesion_losses.images import outputs
    from sct_lesion_losses.workflows.rethreshold import default_outputs, listed, rethreshold

    failed, shown = 0, []
    rows = listed(image) if table else [(image, str(threshold), None)]
    for number, (pmap, text, own) in enumerate(rows, start=1):
        stop_if_terminated()
        try:
            level = _threshold(text)
            if out is None:
                names = default_outputs(pmap, level, pmap.parent if table else folder)
            else:
                names = outputs.for_scan(pmap, out=out, folder=folder)
            result = rethreshold(
                pmap,
                level,
                names,
                lesion_point=own if lesion_point is None else lesion_point,
                **values,
                command=talk.command_line(),
            )
        except Exception as error:
            stop_if_terminated()
            if not table:
                raise
            debug = logger.isEnabledFor(logging.DEBUG)
            logger.error("%s, row %d: %s", image, number, describe(error), exc_info=debug)
            failed += 1
            continue
        logger.info("%s: %s", pmap.name, result.found.load)
        shown.append((pmap, names.mask))
        for path in result.written:
            click.echo(path)
    if shown and logger.isEnabledFor(logging.INFO):
        click.echo(talk.view_hint(shown))
    if failed:
        logger.error("%d of %d rows failed", failed, len(rows))
    return FAILED if failed else 0


def _threshold(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        given = repr(text) if text else "missing"
        raise UsageError(f"the threshold is {given}, expected a number in (0, 1]") from error
