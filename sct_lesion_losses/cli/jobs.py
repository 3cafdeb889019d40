"""Which scans a command line means, and where their outputs go."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from sct_lesion_losses import segment
from sct_lesion_losses.data import bids, outputs
from sct_lesion_losses.data.outputs import Outputs
from sct_lesion_losses.errors import UsageError
from sct_lesion_losses.files import require_writable

Job = tuple[Path, Outputs]


def of(images: Sequence[Path], out: Path | None, folder: Path | None, contrast: str) -> list[Job]:
    """Pair every scan with the names of its outputs.

    Parameters
    ----------
    images : sequence of Path
        Scans, or BIDS folders.
    out, folder : Path or None
        The options -o and -ofolder.
    contrast : {"t2", "t2_ax", "t2s"}
        Which scans of a BIDS folder.
    """
    jobs: list[Job] = []
    for image in images:
        if image.is_dir():
            derivatives = folder or image / bids.DERIVATIVES
            scans = bids.find_scans(image, bids.SUFFIXES[contrast])
            jobs += [(scan, outputs.for_bids_scan(scan, image, derivatives)) for scan in scans]
        else:
            jobs.append((image, outputs.for_scan(image, out=out, folder=folder)))
    return jobs


def check(jobs: Sequence[Job], settings: segment.Settings) -> None:
    """Refuse what no job could do, before any of them begins.

    Raises
    ------
    UsageError
        Two scans have one output, or an output is one of the inputs.
    OutputError
        A folder cannot be written.
    LesionError
        Something that the settings ask for is not installed.
    """
    segment.require(settings)
    inputs = {os.path.realpath(image): "a scan" for image, _ in jobs}
    if settings.centerline_file is not None:
        inputs[os.path.realpath(settings.centerline_file)] = "the centerline file"
    owners: dict[str, Path] = {}
    for image, names in jobs:
        for path in segment.written(settings, names):
            real = os.path.realpath(path)
            if real in inputs:
                raise UsageError(f"{path.name} would overwrite {inputs[real]}; choose an -ofolder")
            if real in owners:
                raise UsageError(
                    f"{owners[real]} and {image} would both be written to {path.name}; "
                    "segment them one by one with an -ofolder each"
                )
            owners[real] = image
    folders = {names.mask.parent for _, names in jobs}
    for place in folders if settings.qc is None else {*folders, settings.qc}:
        require_writable(place)


def describe(images: Sequence[Path], folder: Path | None) -> None:
    """Write the description of the derivatives of BIDS folders, where there is none."""
    for image in filter(Path.is_dir, images):
        bids.describe_derivatives(folder or image / bids.DERIVATIVES)
