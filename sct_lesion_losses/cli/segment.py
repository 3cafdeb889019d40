"""`sct_deepseg_lesion_tuned` and `sct_deepseg_lesion_tversky`: lesion masks of scans."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sct_lesion_losses.cli import options, talk
from sct_lesion_losses.cli.parser import (
    FAILED,
    command,
    describe,
    float_range,
    option,
    stop_if_terminated,
)
from sct_lesion_losses.errors import UsageError

if TYPE_CHECKING:
    from sct_lesion_losses.images.outputs import Outputs
    from sct_lesion_losses.workflows.segment import SegmentSettings

logger = logging.getLogger(__name__)


@command(
    "sct_deepseg_lesion_tuned",
    help="Segment multiple sclerosis lesions on T2-weighted scans of the spinal cord, at the "
    "decision threshold that the model bundle was tuned to. Research software, not a medical "
    "device.",
)
@option(
    "-i <file> [<file> ...]",
    "Scans (3-D NIfTI files), or a BIDS folder.",
    dest="images",
    mandatory=True,
)
@option(
    "-o <file>", "Name of the mask; for one scan.", dest="out", shown="<scan>_lesionseg.<extension>"
)
@option(
    "-ofolder <folder>",
    "Folder of the outputs.",
    dest="folder",
    shown="the current folder; for a BIDS folder, derivatives/sct_lesion_losses in it",
)
@option(
    "-bundle <str>",
    "Model bundle: a name, a folder, or sct for the toolbox's own lesion model.",
    default="default",
)
@option(
    "-sct_rule {0,1}",
    "With -bundle sct: exactly what sct_deepseg_lesion does, with its two fixed thresholds "
    "and without overlapping patches.",
)
@options.CONTRAST
@option(
    "-thr <float>",
    "Decision threshold in (0, 1]; 0 writes the p-map alone.",
    kind=float_range(0, 1),
    dest="threshold",
    shown="the bundle's tuned threshold",
)
@options.LESION_POINT
@options.CENTERLINE
@option(
    "-file_centerline <file>",
    "Centerline or cord mask on the grid of the scan, or the CSV of sct_get_centerline.",
    dest="centerline_file",
)
@option("-brain {0,1}", "Whether the scan shows the brain; for -centerline cnn.", default=True)
@options.ENGINE
@options.PRECISION
@option("-pmap {0,1}", "Also write the p-map.")
@options.LESIONS
@option("-figure {0,1}", "Also write a picture (PNG).")
@option("-qc <folder>", "Add an entry to the toolbox's QC report in this folder.")
@option("-qc-dataset <str>", "Dataset named in the QC report.")
@option("-qc-subject <str>", "Subject named in the QC report.")
@option("-qc-plane {axial,sagittal}", "Plane of the QC report's images.", default="axial")
@option(
    "-r {0,1}",
    "Remove temporary files; 0 also leaves the centerline beside the mask.",
    dest="remove",
    default=True,
)
def main(**values: Any) -> int:
    """Segment the scans with any bundle."""
    return _segment(**values)


@command(
    "sct_deepseg_lesion_tversky",
    help="Segment multiple sclerosis lesions on T2-weighted scans of the spinal cord with the "
    "bundle tversky, at its tuned decision threshold. Research software, not a medical device.",
    params=[one for one in main.params if one.name not in ("bundle", "sct_rule", "v")],
)
def main_tversky(**values: Any) -> int:
    """Segment the scans with the bundle tversky."""
    return _segment(bundle="tversky", **values)


def _segment(
    images: tuple[Path, ...], out: Path | None, folder: Path | None, remove: bool, **values: Any
) -> int:
    """Segment every scan; return 1 where one of several failed."""
    several = len(images) > 1 or images[0].is_dir()
    file, method = values["centerline_file"], values["centerline"]
    if out is not None and several:
        raise UsageError("-o names one mask: for several scans, use -ofolder")
    if file is not None and method not in ("auto", "file"):
        raise UsageError(f"-file_centerline goes with -centerline file, not {method}")
    if several and (file is not None or method == "file"):
        raise UsageError("-file_centerline belongs to one scan: segment the scans one by one")
    # From here on the arguments are good: the heavy libraries are loaded.
    from sct_lesion_losses.images import bids
    from sct_lesion_losses.inference.predict import InferenceSettings
    from sct_lesion_losses.workflows import segment

    inference = InferenceSettings.taken_from(values)
    settings = segment.SegmentSettings(keep_centerline=not remove, inference=inference, **values)
    scans = _with_outputs(images, out, folder, inference.contrast)
    _check(scans, settings)
    for dataset in filter(Path.is_dir, images):
        bids.describe_derivatives(folder or dataset / bids.DERIVATIVES)
    if several:  # a bundle that cannot be used is one error, not one for every scan
        segment.opened(settings)
    failures: list[str] = []
    shown: list[tuple[Path, Path]] = []
    for number, (image, outputs) in enumerate(scans, start=1):
        mine = dataclasses.replace(settings, command=talk.command_line(image))
        label = image.name if len(scans) == 1 else f"{number}/{len(scans)} {image.name}"
        stop_if_terminated()
        try:
            with talk.progress(label, "patch") as progress:
                result = segment.segment(image, mine, outputs, progress)
        except Exception as error:
            stop_if_terminated()
            if len(scans) == 1:
                raise
            said = f"{image}: {describe(error).removeprefix(f'{image}: ')}"
            failures.append(" ".join(said.split()))
            logger.error("%s", failures[-1], exc_info=logger.isEnabledFor(logging.DEBUG))
            continue
        logger.info("%s: %s", image.name, result.sentence)
        shown.append((image, result.written[0]))
        for path in result.written:
            click.echo(path)
    if shown and logger.isEnabledFor(logging.INFO):
        click.echo(talk.view_hint(shown))
    if failures:
        logger.error(
            "%d of %d scans failed:\n  %s", len(failures), len(scans), "\n  ".join(failures)
        )
    return FAILED if failures else 0


def _with_outputs(
    images: Sequence[Path], out: Path | None, folder: Path | None, contrast: str
) -> list[tuple[Path, Outputs]]:
    """Pair every scan, those of BIDS folders included, with the names of its outputs."""
    from sct_lesion_losses.images import bids, outputs

    scans: list[tuple[Path, Outputs]] = []
    for image in images:
        if image.is_dir():
            derivatives = folder or image / bids.DERIVATIVES
            found = bids.find_scans(image, bids.SUFFIXES[contrast])
            scans += [(scan, outputs.for_bids_scan(scan, image, derivatives)) for scan in found]
        else:
            scans.append((image, outputs.for_scan(image, out=out, folder=folder)))
    return scans


def _check(scans: Sequence[tuple[Path, Outputs]], settings: SegmentSettings) -> None:
    """Refuse what no scan could do, before any of them begins.

    Raises
    ------
    UsageError
        An output is one of the inputs, or that of another scan.
    OutputError
        A folder cannot be written.
    LesionError
        Something that the settings ask for is not installed.
    """
    from sct_lesion_losses.images.atomic import require_writable
    from sct_lesion_losses.workflows import segment

    owners = {os.path.realpath(image): f"the scan {image}" for image, _ in scans}
    if settings.centerline_file is not None:
        owners[os.path.realpath(settings.centerline_file)] = "the centerline file"
    for image, outputs in scans:
        segment.require(settings, outputs)
        for path in segment.written(settings, outputs):
            real = os.path.realpath(path)
            if real in owners:
                raise UsageError(
                    f"{path.name}, of {image}, would overwrite {owners[real]}; segment the scans "
                    "one by one with an -ofolder each"
                )
            owners[real] = f"that of {image}"
    folders = {outputs.mask.parent for _, outputs in scans}
    for place in folders if settings.qc is None else {*folders, settings.qc}:
        require_writable(place)
