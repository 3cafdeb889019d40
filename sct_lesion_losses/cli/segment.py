"""`sct_deepseg_lesion_tuned` and `sct_deepseg_lesion_tversky`: lesion masks of scans."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from sct_lesion_losses.cli import talk
from sct_lesion_losses.cli.options import CONTRAST, ENGINE, PRECISION
from sct_lesion_losses.cli.parser import (
    FAILED,
    FILE,
    FOLDER,
    SWITCH,
    TEXT,
    Command,
    Kind,
    choice,
    command,
    describe,
    execute,
    leave,
    option,
    stop_if_terminated,
    typed,
    words,
)
from sct_lesion_losses.errors import UsageError

if TYPE_CHECKING:
    from sct_lesion_losses.images.outputs import Outputs
    from sct_lesion_losses.workflows import segment


def of(
    images: Sequence[Path], out: Path | None, folder: Path | None, contrast: str
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
    """
    from sct_lesion_losses.images import bids, outputs

    jobs: list[tuple[Path, Outputs]] = []
    for image in images:
        if image.is_dir():
            derivatives = folder or image / bids.DERIVATIVES
            scans = bids.find_scans(image, bids.SUFFIXES[contrast])
            jobs += [(scan, outputs.for_bids_scan(scan, image, derivatives)) for scan in scans]
        else:
            jobs.append((image, outputs.for_scan(image, out=out, folder=folder)))
    return jobs


def check(jobs: Sequence[tuple[Path, Outputs]], settings: segment.Settings) -> None:
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
    from sct_lesion_losses.images.atomic import require_writable
    from sct_lesion_losses.workflows import segment

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


def describe_derivatives(images: Sequence[Path], folder: Path | None) -> None:
    """Write the description of the derivatives of BIDS folders, where there is none."""
    from sct_lesion_losses.images import bids

    for image in filter(Path.is_dir, images):
        bids.describe_derivatives(folder or image / bids.DERIVATIVES)


logger = logging.getLogger(__name__)

_THRESHOLD = Kind("<float>", click.FloatRange(0, 1))
_INPUTS = [
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
]
_BUNDLE = [
    option(
        "-bundle",
        "bundle",
        TEXT,
        "Model bundle: a name, a folder, or sct for the toolbox's own lesion model.",
        default="default",
    ),
    option(
        "-sct_rule",
        "sct_rule",
        SWITCH,
        "With -bundle sct: exactly what sct_deepseg_lesion does, with its two fixed thresholds "
        "and without overlapping patches.",
        default=False,
    ),
]
_METHOD = [
    option(
        "-c",
        "contrast",
        CONTRAST,
        "Contrast, where a model of the toolbox is used (lesions with -bundle sct, centerline).",
        default="t2",
    ),
    option(
        "-thr",
        "threshold",
        _THRESHOLD,
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
    option(
        "-centerline",
        "centerline",
        choice("auto", "svm", "cnn", "viewer", "file", "embedded"),
        "How the spinal cord is found. auto: svm where the toolbox is found, else embedded; "
        "svm, cnn, viewer: the toolbox's; file: -file_centerline; embedded: this package's own.",
        shown="auto; file with -file_centerline",
    ),
    option(
        "-file_centerline",
        "centerline_file",
        FILE,
        "Centerline or cord mask on the grid of the scan.",
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
]
_OUTPUTS = [
    option("-pmap", "pmap", SWITCH, "Also write the p-map.", default=False),
    option(
        "-lesions",
        "lesions",
        SWITCH,
        "Also write a table of the lesions (TSV) and a mask in which they are numbered.",
        default=False,
    ),
    option("-figure", "figure", SWITCH, "Also write a picture (PNG).", default=False),
    option("-qc", "qc", FOLDER, "Add an entry to the toolbox's QC report in this folder."),
    option("-qc-dataset", "qc_dataset", TEXT, "Dataset named in the QC report."),
    option("-qc-subject", "qc_subject", TEXT, "Subject named in the QC report."),
    option(
        "-qc-plane",
        "qc_plane",
        choice("axial", "sagittal"),
        "Plane of the QC report's images.",
        default="axial",
    ),
    option(
        "-r",
        "remove",
        SWITCH,
        "Remove temporary files; 0 also leaves the centerline beside the mask.",
        default=True,
        misc=True,
    ),
]


def _command(name: str, help: str, options: list[Any], **fixed: Any) -> Command:  # noqa: A002
    def callback(**values: Any) -> int:
        return _segment(name, **{**fixed, **values})

    decorated = callback
    for decorate in reversed(options):
        decorated = decorate(decorated)
    return command(name, help)(decorated)


TUNED = _command(
    "sct_deepseg_lesion_tuned",
    "Segment multiple sclerosis lesions on T2-weighted scans of the spinal cord, at the decision "
    "threshold that the model bundle was tuned to. Research software, not a medical device.",
    [*_INPUTS, *_BUNDLE, *_METHOD, *_OUTPUTS],
)
TVERSKY = _command(
    "sct_deepseg_lesion_tversky",
    "Segment multiple sclerosis lesions on T2-weighted scans of the spinal cord with the bundle "
    "tversky, at its tuned decision threshold. Research software, not a medical device.",
    [*_INPUTS, *_METHOD, *_OUTPUTS],
    bundle="tversky",
    sct_rule=False,
)


def _segment(
    name: str,
    images: tuple[Path, ...],
    out: Path | None,
    folder: Path | None,
    verbosity: int,
    remove: bool,
    **values: Any,
) -> int:
    """Segment every scan; return 1 where one of several failed."""
    if out is not None and (len(images) > 1 or images[0].is_dir()):
        raise UsageError("-o names one mask: for several scans, use -ofolder")
    _imply_file(values)
    if values["centerline"] == "file" and (len(images) > 1 or images[0].is_dir()):
        raise UsageError("-file_centerline belongs to one scan: segment the scans one by one")
    # From here on the arguments are good: the heavy libraries are loaded.
    from sct_lesion_losses.workflows import segment

    settings = segment.Settings(keep_centerline=not remove, **values)
    scans = of(images, out, folder, settings.contrast)
    check(scans, settings)
    describe_derivatives(images, folder)
    if len(scans) > 1:  # a bundle that cannot be used is one error, not one for every scan
        segment.opened(settings)
    failures: list[str] = []
    shown: list[tuple[Path, Path]] = []
    for number, (image, names) in enumerate(scans, start=1):
        mine = dataclasses.replace(settings, command=talk.command_line(name, typed(), image))
        label = image.name if len(scans) == 1 else f"{number}/{len(scans)} {image.name}"
        stop_if_terminated()
        try:
            with talk.progress_bar(label, verbosity > 0, unit="patch") as progress:
                result = segment.run(image, mine, names, progress)
        except Exception as error:
            stop_if_terminated()
            if len(scans) == 1:
                raise
            said = describe(error)
            named = said.startswith(f"{image}:")
            failures.append(said if named else f"{image}: {said}")
            logger.debug("%s failed", image.name, exc_info=True)
            continue
        logger.info("%s: %s", image.name, result.sentence)
        shown.append((image, result.written[0]))
        for path in result.written:
            click.echo(path)
    if verbosity and shown:
        click.echo(talk.view_hint(shown))
    return _report(failures, len(scans), verbosity)


def _imply_file(values: dict[str, Any]) -> None:
    """Let `-file_centerline` choose `-centerline file`, and refuse it with anything else."""
    chosen, file = values["centerline"], values["centerline_file"]
    if chosen is None:
        values["centerline"] = "auto" if file is None else "file"
    elif file is not None and chosen != "file":
        raise UsageError(f"-file_centerline goes with -centerline file, not {chosen}")


def _report(failures: Sequence[str], count: int, verbosity: int) -> int:
    """List the scans that failed on stderr; return the exit status."""
    if not failures:
        return 0
    click.echo(f"{len(failures)} of {count} scans failed:", err=True)
    for failure in failures:
        line = " ".join(failure.split())
        click.echo(f"  {line if verbosity >= 2 else talk.without_folders(line, words())}", err=True)
    return FAILED


def main(argv: Sequence[str] | None = None) -> int:
    """Run `sct_deepseg_lesion_tuned`; return its exit status."""
    return execute(TUNED, argv)


def main_tversky(argv: Sequence[str] | None = None) -> int:
    """Run `sct_deepseg_lesion_tversky`; return its exit status."""
    return execute(TVERSKY, argv)


def run() -> NoReturn:
    """Run `sct_deepseg_lesion_tuned` as a program."""
    leave(main)


def run_tversky() -> NoReturn:
    """Run `sct_deepseg_lesion_tversky` as a program."""
    leave(main_tversky)
