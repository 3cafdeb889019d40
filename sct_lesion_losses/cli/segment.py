"""`sct_deepseg_lesion_tuned` and `sct_deepseg_lesion_tversky`: lesion masks of scans."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sct_lesion_losses.cli import options, talk
from sct_lesion_losses.cli.parser import FAILED, command, float_range, option, stop_if_terminated
from sct_lesion_losses.errors import UsageError

if TYPE_CHECKING:
    from sct_lesion_losses.workflows.batch import BatchScan, BatchSettings
    from sct_lesion_losses.workflows.segment import SegmentSettings

SHOWN = 5  # scans in the closing lines
QC_PAGE = "sct_lesion_losses.html"

logger = logging.getLogger(__name__)


@command(
    "sct_deepseg_lesion_tuned",
    help="Segment multiple sclerosis lesions on T2-weighted scans of the spinal cord, at the "
    "decision threshold that the model bundle was tuned to. Research software, not a medical "
    "device.",
)
@option(
    "-i <file> [<file> ...]",
    "Scans (3-D NIfTI files), or a BIDS folder, of which all T2w scans are segmented (with -c t2s "
    "all T2star scans). Of several, those are skipped that are done already, from the same file by "
    "the same bundle, threshold, lesion filter, centerline, cord mask and levels; two tables of "
    "them, segmented_scans.tsv and segmented_lesions.tsv, are written beside the outputs.",
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
    "-bids {0,1}",
    "Names of BIDS derivatives (label-L_mask, label-L_probseg, label-L_dseg) in a tree of subjects "
    "and sessions, instead of SCT's.",
    dest="derivatives",
    shown="1 for a BIDS folder, else 0",
)
@option(
    "-include <str>",
    "Regular expression, as of sct_run_batch: of several scans only those are segmented in whose "
    "path it is found, the path in the BIDS folder, sub-01/ses-02/anat/sub-01_ses-02_T2w.nii.gz "
    "for example, or the name of the file.",
)
@option("-exclude <str>", "The same for scans that are left out, of those included.")
@option("-force {0,1}", "Segment also the scans that are done already.")
@options.JOBS
@option(
    "-scheduler <str>",
    "Segment on the workers of this cluster of dask.distributed, tcp://host:8786 for example. The "
    "workers see the files by the same paths.",
    shown="here",
)
@options.SCHEDULER_FILE
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
    "Centerline or cord mask on the grid of the scan, or the CSV of sct_get_centerline "
    "(SCT 7 and newer).",
    dest="centerline_file",
)
@option(
    "-cord <file>",
    "Cord mask on the grid of the scan: lesions are cut to it, and those outside are dropped, so "
    "that sct_analyze_lesion -s takes the mask. For several scans a folder of cord masks, named "
    "<scan>_label-SC_seg or <scan>_seg, the BIDS folder's derivatives/labels for example; or sct, "
    "which asks sct_deepseg spinalcord for it.",
)
@option(
    "-levels <file>",
    "Labels on the grid of the scan by which the table of lesions tells their vertebral levels: "
    "the toolbox's labelled segmentation (t2_seg_labeled) or disc labels (t2_labels-disc); single "
    "voxels are taken as discs. For several scans a folder of such files, named as the scans, the "
    "BIDS folder's derivatives/labels for example.",
)
@option("-brain {0,1}", "Whether the scan shows the brain; for -centerline cnn.", default=True)
@options.ENGINE
@options.PRECISION
@option("-pmap {0,1}", "Also write the p-map.")
@options.LESIONS_OF_MANY
@option("-figure {0,1}", "Also write a picture (PNG).")
@option(
    "-qc_page <file>",
    "Write one page (HTML) of all scans of this run, those skipped included: slices with the "
    "outlined mask, redrawn in the browser at any threshold, the lesions, warnings, and marks by "
    "keyboard (pass, fail, another threshold), which it exports.",
)
@option(
    "-qc <folder>",
    "Add an entry to the toolbox's QC report in this folder; without the toolbox, write the page "
    f"of -qc_page into it, as {QC_PAGE}.",
)
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
    images: tuple[Path, ...],
    out: Path | None,
    folder: Path | None,
    derivatives: bool | None,
    remove: bool,
    **values: Any,
) -> int:
    """Segment the scans; return 1 where one of several failed."""
    several = len(images) > 1 or images[0].is_dir()
    _refuse(several, out, derivatives, values)
    page = _page(values)
    if values["lesions"] is None:
        asked = several or values["levels"] is not None
        values["lesions"] = asked and values["threshold"] != 0 and not values.get("sct_rule")
    # From here on the arguments are good: the heavy libraries are loaded.
    from sct_lesion_losses.images import atomic
    from sct_lesion_losses.inference.predict import InferenceSettings
    from sct_lesion_losses.workflows import batch, segment

    names = ("include", "exclude", "force")
    of_batch = {name: values.pop(name) for name in names}
    cluster, jobs = options.cluster(values), values.pop("jobs")
    if cluster and jobs > 1:
        raise UsageError(
            "-jobs is of this machine, and a cluster has workers of its own: leave it out"
        )
    inference = InferenceSettings.taken_from(values)
    if str(values["cord"]) == segment.BY_SCT:
        values["cord"] = segment.BY_SCT
    given = {name: values[name] for name in batch.LABELS if isinstance(values[name], Path)}
    folders = {name: values.pop(name) for name, path in given.items() if path.is_dir()}
    settings = segment.SegmentSettings(
        keep_centerline=not remove, page_entry=page is not None, inference=inference, **values
    )
    many = batch.BatchSettings(settings, **of_batch, jobs=cluster or jobs)
    scans = batch.find(
        images, out=out, folder=folder, contrast=inference.contrast, derivatives=derivatives
    )
    for name, labels in folders.items():
        taken = [scan for scan in scans if many.takes(scan)]
        own = dict(zip(taken, batch.with_labels(taken, name, labels), strict=True)) if taken else {}
        scans = [own.get(scan, scan) for scan in scans]
    scans = [replace(scan, command=talk.command_line(scan.image)) for scan in scans]
    if page is not None:
        atomic.require_writable(page.parent)
    if several:
        return _segment_many(scans, many, page)
    return _segment_one(scans[0], settings, page)


def _page(values: dict[str, Any]) -> Path | None:
    """Take the page to write out of values: without SCT's `sct_qc`, that of -qc, too."""
    from sct_lesion_losses.sct import qc

    page: Path | None = values.pop("qc_page")
    if values["qc"] is None or values["threshold"] == 0 or qc.installed():
        return page
    page = page or values["qc"] / QC_PAGE
    logger.warning("SCT's %s was not found: the page %s takes its report's place", qc.COMMAND, page)
    values["qc"] = None
    return page


def _refuse(
    several: bool, out: Path | None, derivatives: bool | None, values: Mapping[str, Any]
) -> None:
    """Raise a UsageError for options that do not go together."""
    file, method, page = values["centerline_file"], values["centerline"], values["qc_page"]
    if page is not None and page.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"-qc_page {page}: expected a file name that ends in .html")
    if out is not None and several:
        raise UsageError("-o names one mask: for several scans, use -ofolder")
    if out is not None and derivatives:
        raise UsageError("-bids 1 names the mask: leave out -o")
    if file is not None and method not in ("auto", "file"):
        raise UsageError(f"-file_centerline goes with -centerline file, not {method}")
    if several and (file is not None or method == "file"):
        raise UsageError("-file_centerline belongs to one scan: segment the scans one by one")
    cord, levels = values["cord"], values["levels"]
    if several and cord is not None and str(cord) != "sct" and not cord.is_dir():
        raise UsageError(
            f"-cord {cord}: for several scans give the folder that holds a cord mask of each, or "
            "sct, or segment the scans one by one"
        )
    if several and levels is not None and not levels.is_dir():
        raise UsageError(
            f"-levels {levels}: for several scans give the folder that holds the labels of each, "
            "or segment the scans one by one"
        )
    if not several and (values["include"] or values["exclude"]):
        raise UsageError("-include and -exclude choose among several scans: leave them out")


def _segment_one(scan: BatchScan, settings: SegmentSettings, page: Path | None) -> int:
    """Segment a single scan, whatever is there of it already, and print its files."""
    from sct_lesion_losses.images import bids
    from sct_lesion_losses.workflows import batch, segment

    batch.require([scan], settings)
    if scan.derivative:
        bids.describe_derivatives(scan.folder)
    with talk.progress(scan.image.name, "patch") as progress:
        result = segment.segment(
            scan.image, replace(settings, command=scan.command), scan.outputs, progress
        )
    logger.info("%s: %s", scan.image.name, result.sentence)
    files = [*result.written, *_paged(page, [scan])]
    _print(files, [(scan.image, result.written[0])])
    return 0


def _segment_many(scans: Sequence[BatchScan], settings: BatchSettings, page: Path | None) -> int:
    """Segment what is not done already; print the files of all scans, then tables and page."""
    from sct_lesion_losses.workflows import batch, segment

    with talk.progress("segmenting") as progress:

        def report(done: int, total: int) -> None:
            stop_if_terminated()
            progress(done, total)

        outcomes, tables = batch.run(scans, settings, report)
    failed = {scan: outcome.error for scan, outcome in outcomes.items() if outcome.error}
    done = [scan for scan in outcomes if scan not in failed]
    made = [segment.written(settings.segment, scan.outputs) for scan in done]
    errors = {scan.name: error for scan, error in failed.items()}
    shown = [(scan.image, files[0]) for scan, files in zip(done, made, strict=True)]
    _print([*chain(*made), *tables, *_paged(page, done, errors)], shown[:SHOWN])
    if failed:
        said = "\n  ".join(f"{scan.image}: {error}" for scan, error in failed.items())
        logger.error("%d of %d scans failed:\n  %s", len(failed), len(outcomes), said)
    return FAILED if failed else 0


def _paged(
    page: Path | None, scans: Sequence[BatchScan], failed: Mapping[str, str] | None = None
) -> list[Path]:
    """Write the page of segmented scans and of failed ones, where it is asked for."""
    if page is None:
        return []
    from sct_lesion_losses.report import qc_page

    qc_page.write(page, [scan.outputs.page_entry for scan in scans], failed)
    return [page]


def _print(files: Sequence[Path], shown: Sequence[tuple[Path, Path]]) -> None:
    """Print the files, and how to look at some of the scans with their masks."""
    for path in files:
        click.echo(path)
    if shown and logger.isEnabledFor(logging.INFO):
        click.echo(talk.view_hint(shown))
