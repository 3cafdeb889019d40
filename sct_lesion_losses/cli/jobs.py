"""Which scans a command line means, and where their outputs go."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from sct_lesion_losses.data import bids, outputs
from sct_lesion_losses.data.outputs import Outputs
from sct_lesion_losses.errors import UsageError
from sct_lesion_losses.files import require_writable


def of(
    images: Sequence[Path],
    out: Path | None,
    folder: Path | None,
    contrast: str,
    centerline: Path | None,
) -> list[tuple[Path, Outputs]]:
    """Pair every scan with the names of its outputs.

    Parameters
    ----------
    images : sequence of Path
        Scans, or BIDS folders.
    out, folder : Path or None
        The options -o and -ofolder.
    contrast : {"t2", "t2_ax", "t2s"}
        Which scans of a BIDS folder.
    centerline : Path or None
        The file of a given centerline, which no output may replace.

    Raises
    ------
    UsageError
        Two scans have one output, or an output is one of the inputs.
    OutputError
        A folder cannot be written.
    """
    jobs: list[tuple[Path, Outputs]] = []
    for image in images:
        if image.is_dir():
            derivatives = folder or image / bids.DERIVATIVES
            scans = bids.find_scans(image, bids.SUFFIXES[contrast])
            jobs += [(scan, outputs.for_bids_scan(scan, image, derivatives)) for scan in scans]
        else:
            jobs.append((image, outputs.for_scan(image, out=out, folder=folder)))
    _check_names(jobs, centerline)
    for place in {names.mask.parent for _, names in jobs}:
        require_writable(place)
    for image in filter(Path.is_dir, images):
        bids.describe_derivatives(folder or image / bids.DERIVATIVES)
    return jobs


def _check_names(jobs: Sequence[tuple[Path, Outputs]], centerline: Path | None) -> None:
    """Refuse two scans with one output, and an output that is one of the inputs."""
    inputs = {os.path.realpath(image): "a scan" for image, _ in jobs}
    if centerline is not None:
        inputs[os.path.realpath(centerline)] = "the centerline file"
    owners: dict[str, Path] = {}
    for image, names in jobs:
        for path in dataclasses.astuple(names):
            real = os.path.realpath(path)
            if real in inputs:
                raise UsageError(f"{path.name} would overwrite {inputs[real]}; choose an -ofolder")
            if real in owners:
                raise UsageError(
                    f"{owners[real]} and {image} would both be written to {path.name}; "
                    "segment them one by one with an -ofolder each"
                )
            owners[real] = image
