"""`sct_deepseg_lesion_tuned` and `sct_deepseg_lesion_tversky`: lesion masks of scans."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sct_lesion_losses.cli import talk
from sct_lesion_losses.cli.options import CENTERLINE, CONTRAST, ENGINE, LESIONS, PRECISION, together
from sct_lesion_losses.cli.parser import (
    FAILED,
    FILE,
    FOLDER,
    SWITCH,
    TEXT,
    choice,
    command,
    describe,
    float_range,
    option,
    stop_if_terminated,
    words,
)
from sct_lesion_losses.errors import UsageError

if TYPE_CHECKING:
    from sct_lesion_losses.images.outputs import Outputs
    from sct_lesion_losses.workflows.segment import SegmentSettings

logger = logging.getLogger(__name__)

_INPUTS = together(
    option(
        "-i",
        "images",
        FILE,
        "Scans (3-D NIfTI files), or a BIDS folder.",
        mandatory=True,
        many=True,
    ),
    option(
        "-o", "out", FILE, "Name of the mask; for one scan.", shown="<scan>_lesionseg.<extension>"
    ),
    option(
        "-ofolder",
        "folder",
        FOLDER,
        "Folder of the outputs.",
        shown="the current folder; for a BIDS folder, derivatives/sct_lesion_losses in it",
    ),
)
_METHOD = together(
    CONTRAST,
    option(
        "-thr",
        "threshold",
        float_range(0, 1),
        "Decision threshold in (0, 1]; 0 writes the p-map alone.",
        shown="the bundle's tuned threshold",
    ),
    option(
        "-lesion_point",
        "lesion_point",
        SWITCH,
        "Keep those predicted lesions only whose highest probability and volume reach what the "
        "bundle was tuned to, if it was so by sct_tune_lesion -lesion_point 1.",
        default=False,
    ),
    CENTERLINE,
    option(
        "-file_centerline",
        "centerline_file",
        FILE,
        "Centerline or cord mask on the grid of the scan, or the CSV of sct_get_centerline.",
    ),
    option(
        "-brain",
        "brain",
        SWITCH,
        "Whether the scan shows the brain; for -centerline cnn.",
        default=True,
    ),
    ENGINE,
    PRECISION,
)
_OUTPUTS = together(
    option("-pmap", "pmap", SWITCH, "Also write the p-map.", default=False),
    LESIONS,
    option("-figure", "figure", SWITCH, "Also write a picture (PNG).", default=False),
    option("-qc", "qc", FOLDER, "Add an entry to the toolbox's QC report in this folder."),
    option("-qc-dataset", "qc_dataset", TEXT, "Dataset named in the QC report."),
    option("-qc-subject", "qc_subject", TEXT, "Subject named in the QC report."),
    option(
        "-qc-plane",
        "qc_plane",
        choice(("axial", "sagittal")),
        "Plane of the QC report's images.",
        default="axial",
    ),
    option(
        "-r",
        "remove",
        SWITCH,
        "Remove temporary files; 0 also leaves the centerline beside the mask.",
        default=True,
    ),
)


@command(
    "sct_deepseg_lesion_tuned",
    "Segment multiple sclerosis lesions on T2-weighted scans of the spinal cord, at the decision "
    "threshold that the model bundle was tuned to. Research software, not a medical device.",
)
@_INPUTS
@option(
    "-bundle",
    "bundle",
    TEXT,
    "Model bundle: a name, a folder, or sct for the toolbox's own lesion model.",
    default="default",
)
@option(
    "-sct_rule",
    "sct_rule",
    SWITCH,
    "With -bundle sct: exactly what sct_deepseg_lesion does, with its two fixed thresholds "
    "and without overlapping patches.",
    default=False,
)
@_METHOD
@_OUTPUTS
def main(**values: Any) -> int:
    """Segment the scans with any bundle."""
    return _segment(**values)


@command(
    "sct_deepseg_lesion_tversky",
    "Segment multiple sclerosis lesions on T2-weighted scans of the spinal cord with the bundle "
    "tversky, at its tuned decision threshold. Research software, not a medical device.",
)
@_INPUTS
@_METHOD
@_OUTPUTS
def main_tversky(**values: Any) -> int:
    """Segment the scans with the bundle tversky."""
    return _segment(bundle="tversky", **values)


def _segment(
    images: tuple[Path, ...],
    out: Path | None,
    folder: Path | None,
    remove: bool,
    **values: Any,
) -> int:
    """Segment every scan; return 1 where one of several failed."""
    several = len(images) > 1 or images[0].is_dir()
    file = values["centerline_file"]
    centerline = values["centerline"] = values["centerline"] or ("file" if file else "auto")
    if out is not None and several:
        raise UsageError("-o names one mask: for several scans, use -ofolder")
    if file is not None and centerline != "file":
        raise UsageError(f"-file_centerline goes with -centerline file, not {centerline}")
    if centerline == "file" and several:
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
        mine = dataclasses.replace(settings, command=talk.command_line(words(image)))
        label = image.name if len(scans) == 1 else f"{number}/{len(scans)} {image.name}"
        stop_if_terminated()
        try:
            with talk.progress(label, "patch") as progress:
                result = segment.segment(image, mine, outputs, progress)
        except Exception as error:
            stop_if_terminated()
            if len(scans) == 1:
                raise
            said = describe(error)
            said = " ".join((said if said.startswith(f"{image}:") else f"{image}: {said}").split())
            logger.error("%s", said, exc_info=logger.isEnabledFor(logging.DEBUG))
            failures.append(said)
            continue
        logger.info("%s: %s", image.name, result.sentence)
        shown.append((image, result.written[0]))
        for path in result.written:
            click.echo(path)
    if shown and logger.isEnabledFor(logging.INFO):
        click.echo(talk.view_hint(shown))
    if failures:
        listed = [f"{len(failures)} of {len(scans)} scans failed:", *failures]
        click.echo(talk.without_folders("\n  ".join(listed), words()), err=True)
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
        Two scans have one output, or an output is one of the inputs.
    OutputError
        A folder cannot be written.
    LesionError
        Something that the settings ask for is not installed.
    """
    from sct_lesion_losses.images.atomic import require_writable
    from sct_lesion_losses.workflows import segment

    inputs = {os.path.realpath(image): "a scan" for image, _ in scans}
    if settings.centerline_file is not None:
        inputs[os.path.realpath(settings.centerline_file)] = "the centerline file"
    owners: dict[str, Path] = {}
    for image, outputs in scans:
        segment.require(settings, outputs)
        for path in segment.written(settings, outputs):
            real = os.path.realpath(path)
            if real in inputs:
                raise UsageError(f"{path.name} would overwrite {inputs[real]}; choose an -ofolder")
            if real in owners:
                raise UsageError(
                    f"{owners[real]} and {image} would both be written to {path.name}; "
                    "segment them one by one with an -ofolder each"
                )
            owners[real] = image
    folders = {outputs.mask.parent for _, outputs in scans}
    for place in folders if settings.qc is None else {*folders, settings.qc}:
        require_writable(place)
