"""`sct_implant_lesion`: known lesions in real scans of people without any."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sct_lesion_losses.cli import talk
from sct_lesion_losses.cli.options import JOBS, SHARE
from sct_lesion_losses.cli.parser import choice, command, float_range, int_range, option
from sct_lesion_losses.errors import UsageError

ACQUISITIONS = ("native", "sagittal", "axial", "isotropic")


@command(
    "sct_implant_lesion",
    help="Implant lesions into real T2-weighted spinal cord scans of people without lesions, and "
    "write them as a cohort: a BIDS folder with lesion masks, cord masks, centerlines and a table "
    "of all lesions. Nothing can tell whether a scan is free of lesions: that is up to you. The "
    "same options give the same files, byte for byte. Needs no SCT.",
)
@option(
    "-i <file> [<file> ...]",
    "Scans of people without lesions, or one BIDS folder of them. A scan is named by its file, "
    "and by its folder where files have the same name.",
    dest="scans",
    mandatory=True,
)
@option("-ofolder <folder>", "Folder of the cohort.", dest="out", mandatory=True)
@option(
    "-cord <file> [<file> ...]",
    "Cord masks, one for each scan, in their order; those of a BIDS folder are found in "
    "derivatives/labels.",
    dest="cords",
    shown="estimated around the centerline",
)
@option("-n <int>", "Scans made of each one, all of them one subject.", dest="variants", default=5)
@option("-seed <int>", "Seed of the random numbers.", kind=int_range(0), default=1)
@option(
    "-free <float>",
    "Share of them without lesions. Where native it is a copy of the scan, so there is at most "
    "one such of each.",
    kind=SHARE,
    default=0.35,
)
@option(
    "-acquisition <str> [<str> ...]",
    "Acquisitions, taken in turn. native: as the scan is. sagittal, axial, isotropic: taken anew, "
    "with slices of 2.4 to 3.3 mm, slices of 3 to 7 mm, or voxels of 0.8 to 1.1 mm, and another "
    "resolution in plane, coil, contrast curve and noise; a scan too coarse for that is refused.",
    kind=choice(ACQUISITIONS),
    dest="acquisitions",
    shown="native",
)
@option(
    "-contrast <float> [<float> ...]",
    "Lowest and highest brightness of a lesion relative to the cord around it. Most are near the "
    "study's median of 1.38, or the end nearest to it.",
    kind=float_range(1, min_open=True),
    shown="1.12 2",
)
@JOBS
@option(
    "-figure <file>",
    "PNG to draw: at most 16 of the scans beside their labels, cut to the surroundings of the "
    "cord, so that no face is shown. Needs matplotlib.",
)
def main(
    scans: tuple[Path, ...],
    out: Path,
    cords: tuple[Path, ...],
    jobs: int,
    figure: Path | None,
    acquisitions: tuple[Any, ...],
    contrast: tuple[float, ...],
    **values: Any,
) -> None:
    """Make the cohort, and print its folder."""
    from sct_lesion_losses.cohorts import table
    from sct_lesion_losses.report.figures import contact_sheet, style
    from sct_lesion_losses.workflows import implant

    if figure is not None:
        contact_sheet.check(figure)
    if contrast:
        if len(contrast) != 2:
            raise UsageError(f"-contrast has {len(contrast)} values, expected two: lowest, highest")
        values["contrast"] = contrast
    settings = implant.ImplantSettings(acquisitions=acquisitions or ("native",), **values)
    with talk.progress("implanting") as progress:
        implant.run(scans, cords, out, settings, jobs=jobs, progress=progress)
    if figure is not None:
        style.save(contact_sheet.figure(table.read(out), near_mm=25.0), figure)
    click.echo(out)
