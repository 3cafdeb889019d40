"""`sct_simulate_lesion`: a cohort of synthetic scans with exact lesion masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sct_lesion_losses.cli import talk
from sct_lesion_losses.cli.options import JOBS
from sct_lesion_losses.cli.parser import command, int_range, one_of, option

SUBJECTS = {"tiny": 12, "demo": 12, "study": 108, "wide": 108}


@command(
    "sct_simulate_lesion",
    help="Make a cohort of synthetic T2-weighted spinal cord scans with their lesion masks, cord "
    "masks and centerlines, as a BIDS folder. The same options give the same files, byte for byte.",
)
@option("-ofolder <folder>", "Folder of the cohort.", dest="out", mandatory=True)
@option(
    f"-preset {one_of(SUBJECTS)}",
    "tiny: small isotropic scans for trying things out. demo, study: the scans of 13 sites; 108 "
    "subjects have 161 scans. wide: any contrast and resolution, drawn anew for each scan.",
    default="demo",
)
@option(
    "-n <int>",
    "Number of subjects, at all sites.",
    dest="subjects",
    shown=", ".join(f"{count} for {name}" for name, count in SUBJECTS.items()),
)
@option("-seed <int>", "Seed of the random numbers.", kind=int_range(0), default=1)
@option(
    "-sites <str> [<str> ...]",
    "Sites, by their letters A to M, whose subjects are made; those of other sites are left out.",
    dest="only",
    shown="all",
)
@option(
    "-raters <int>",
    "Raters whose lesion masks are written beside the truth, in derivatives/rater-01 and so on: "
    "their borders are up to half a voxel off, and they overlook the faintest 10 to 20 % of the "
    "lesions.",
    kind=int_range(0),
    default=0,
)
@JOBS
@option(
    "-figure <file>",
    "PNG to draw: at most 16 of the scans beside their labels, on one sheet. Needs matplotlib.",
)
def main(subjects: int | None, figure: Path | None, **values: Any) -> None:
    """Make the cohort, and print its folder."""
    from sct_lesion_losses.cohorts import table
    from sct_lesion_losses.phantom import make_cohort
    from sct_lesion_losses.report.figures import contact_sheet, style

    if figure is not None:
        contact_sheet.check(figure)
    with talk.progress("simulating") as progress:
        made = make_cohort(subjects or SUBJECTS[values["preset"]], progress=progress, **values)
    if figure is not None:
        style.save(contact_sheet.figure(table.read(made)), figure)
    click.echo(made)
