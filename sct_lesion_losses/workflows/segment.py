"""One scan in; its lesion mask, and everything that goes with it, out."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sct_lesion_losses import logs
from sct_lesion_losses.bundle.store import Bundle
from sct_lesion_losses.centerline import find
from sct_lesion_losses.cohorts.table import file_hash
from sct_lesion_losses.errors import GeometryError, UsageError
from sct_lesion_losses.geometry import levels
from sct_lesion_losses.geometry.centerline import Centerline
from sct_lesion_losses.geometry.grid import Grid
from sct_lesion_losses.geometry.location import VERTEBRAE
from sct_lesion_losses.images import atomic, cord_mask, nifti
from sct_lesion_losses.images.cord_mask import CordMask
from sct_lesion_losses.images.nifti import Scan
from sct_lesion_losses.images.outputs import Outputs, for_scan
from sct_lesion_losses.inference import engine as engines
from sct_lesion_losses.inference import predict
from sct_lesion_losses.inference.predict import InferenceSettings
from sct_lesion_losses.metrics import lesionwise
from sct_lesion_losses.report import columns, qc_page, sidecar
from sct_lesion_losses.report.columns import PREDICTED_LESIONS
from sct_lesion_losses.report.figures import scan as figure
from sct_lesion_losses.report.figures import style
from sct_lesion_losses.report.sidecar import (
    Filtered,
    Found,
    Levels,
    Outside,
    Segmentation,
    cut_to_cord,
)
from sct_lesion_losses.sct import lesion as sct_lesion
from sct_lesion_losses.sct import mask as sct_mask
from sct_lesion_losses.sct import qc as sct_qc
from sct_lesion_losses.thresholds import lesion_filter
from sct_lesion_losses.thresholds.binarization import binarize
from sct_lesion_losses.thresholds.lesion_filter import Filter

BY_SCT = "sct"  # in place of a cord mask: SCT is asked for it

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SegmentSettings:
    """Settings of segmenting a scan, and the outputs beside its mask.

    Attributes
    ----------
    bundle : str
        Name or folder of a model bundle, or ``sct`` for SCT's own lesion model.
    threshold : float, optional
        Decision threshold in (0, 1]; the bundle's own by default; 0 writes the p-map alone.
    inference : InferenceSettings
        How the cord is found, and what the network is computed with.
    centerline_file : Path, optional
        Cord mask or centerline image, for the centerline method ``file``.
    cord : Path or "sct", optional
        Cord mask that lesions are cut to, see `CordMask.cut`; or SCT is asked for one, which is
        written beside the mask.
    levels : Path, optional
        Labels of vertebral levels or discs, for the lesion table; see `geometry.levels.along`.
    lesion_point : bool, optional
        Keep those predicted lesions only that the bundle's second operating point lets through:
        where it has one, by default; True demands that it has.
    sct_rule : bool
        With the bundle ``sct``: exactly what `sct_deepseg_lesion` does, double threshold included.
    pmap, lesions, figure, keep_centerline : bool
        Also write the p-map; the lesion table and the numbered lesions; a picture; the centerline.
    page_entry : bool
        Also write the scan's entry of the page of `report.qc_page`.
    qc, qc_dataset, qc_subject, qc_plane
        Folder of SCT's quality-control report and the labels of its entry.
    command : str
        What was typed, base names only, for the sidecar.
    """

    bundle: str = "default"
    threshold: float | None = None
    inference: InferenceSettings = field(default_factory=InferenceSettings)
    centerline_file: Path | None = None
    cord: Path | str | None = None
    levels: Path | None = None
    lesion_point: bool | None = None
    sct_rule: bool = False
    pmap: bool = False
    lesions: bool = False
    figure: bool = False
    keep_centerline: bool = False
    page_entry: bool = False
    qc: Path | None = None
    qc_dataset: str | None = None
    qc_subject: str | None = None
    qc_plane: str = "axial"
    command: str = ""

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise UsageError(
                f"-thr is {self.threshold}, expected a number in (0, 1], or 0 for the p-map alone"
            )
        if self.sct_rule:
            if self.bundle != "sct":
                raise UsageError("-sct_rule 1 is a rule of SCT's own model; add -bundle sct")
            if self.threshold is not None or self.pmap or self.lesions:
                raise UsageError(
                    "-sct_rule 1 keeps no p-map: leave out -thr, -pmap and -lesions, or use "
                    "-bundle sct without the rule"
                )
            if self.inference.precision != "float32":
                raise UsageError("-sct_rule 1 computes in float32, as SCT does")
            if self.inference.engine not in ("auto", sct_lesion.RULE_ENGINE):
                raise UsageError(
                    "-sct_rule 1 computes in ONNX Runtime, as SCT does: leave out -engine"
                )
        if self.pmap_alone and (self.lesions or self.lesion_point or self.qc is not None):
            raise UsageError(
                "-thr 0 writes the p-map alone: leave out -lesions, -lesion_point and -qc, or give "
                "a threshold"
            )
        if self.levels is not None and (self.pmap_alone or not (self.lesions or self.page_entry)):
            raise UsageError(
                "-levels is for the table of lesions: add -lesions 1, which goes with neither "
                "-thr 0 nor -sct_rule 1, or leave it out"
            )
        if self.inference.centerline == "file" and self.centerline_file is None:
            raise UsageError("-centerline file needs the file: add -file_centerline <file>")

    @property
    def pmap_alone(self) -> bool:
        """True where only the p-map is asked for."""
        return self.threshold == 0


def segment(
    image: Path,
    settings: SegmentSettings,
    outputs: Outputs,
    progress: Callable[[int, int], None] | None = None,
) -> Segmentation:
    """Segment one scan.

    Parameters
    ----------
    image : Path
        NIfTI file, 3-D, any orientation.
    settings : SegmentSettings
    outputs : Outputs
        Where to write; existing files are replaced, each whole or not at all.
    progress : callable, optional
        Called with the number of patches done and of all.

    Returns
    -------
    Segmentation

    Raises
    ------
    LesionError
        The scan, the centerline or the bundle cannot be used (nothing has been written then), or
        the output folder cannot; or SCT's report fails, after the mask was written.
    """
    require(settings, outputs)
    bundle, network = opened(settings)
    threshold, _ = decided(bundle, settings)
    filtered = None
    began = time.monotonic()
    with logs.collected_warnings() as warnings, logs.about(image):
        scan = nifti.read(image)
        _warn_of_contrast(bundle, settings)
        cord = _cord(scan, settings)
        given = settings.centerline_file and find.read(settings.centerline_file)
        line = find.centerline(
            scan.array,
            scan.grid,
            settings.inference.centerline,
            contrast=settings.inference.contrast,
            file=given,
            brain=settings.inference.brain,
            as_sct=settings.bundle == "sct",
        )
        logger.info("centerline by %s; %s", line.method, find.coverage(line))
        known = _levels(scan, line, settings)
        pmap, mask, outside = _predicted(scan, line, cord, bundle, network, settings, progress)
        of_pmap = len(warnings)
        if pmap is not None and not settings.pmap_alone:
            mask, filtered = _mask(pmap, scan.grid, bundle, settings)
        labels = None if mask is None else lesionwise.components(mask)
        found = None if labels is None else Found.of(labels, pmap, scan.grid)
        if found is not None and not found.lesions:
            logger.warning("%s", found.emptiness(filtered, outside))
        files = written(settings, outputs)
        _warn_of_stale(settings, outputs, files)
    result = Segmentation(
        files,
        mask,
        pmap,
        found,
        None if settings.sct_rule or settings.pmap_alone else threshold,
        None if settings.sct_rule else bundle.tuned_threshold,
        line,
        f"{network.name} {network.version}, {network.precision}",
        tuple(record.getMessage() for record in warnings),
        filtered,
        file_hash(image),
        inference_sha256(bundle, settings),
        cord,
        outside,
        find.drawn_cord(given, scan.grid) if cord is None else cord.array,
        known,
        time.monotonic() - began,
    )
    entries, before = sidecar.pmap_entries(result, bundle), result.warnings[:of_pmap]
    described = {
        outputs.sidecar: sidecar.sidecar(result, bundle, settings.command),
        outputs.pmap_sidecar: sidecar.of_lesions(settings.command, entries, before),
    }
    if settings.page_entry:
        described[outputs.page_entry] = qc_page.entry(scan, result, bundle, outputs)
    _write(scan, result, labels, outputs, described)
    if settings.qc is not None:
        sct_qc.entry(
            image,
            outputs.mask,
            outputs.centerline,
            settings.qc_plane,
            settings.qc,
            settings.qc_dataset,
            settings.qc_subject,
        )
    return result


def segment_file(
    image: str | Path,
    *,
    bundle: str = "default",
    threshold: float | None = None,
    ofolder: str | Path | None = None,
    **options: Any,
) -> Segmentation:
    """Segment the lesions of a scan, as `sct_deepseg_lesion_tuned` does.

    Parameters
    ----------
    image : str or Path
        NIfTI file, 3-D, any orientation.
    bundle : str
        Name or folder of a model bundle, or ``sct`` for SCT's own lesion model.
    threshold : float, optional
        Decision threshold in (0, 1]; the bundle's tuned one by default; 0 writes the p-map alone.
    ofolder : str or Path, optional
        Folder of the outputs; the current folder by default.
    **options
        Other entries of `SegmentSettings` and `InferenceSettings`: ``lesions=True`` writes a table
        of the lesions, ``pmap=True`` the p-map, ``centerline_file=Path("cord.nii.gz")`` gives the
        cord.

    Returns
    -------
    Segmentation
        `mask`, (X, Y, Z) bool, and `pmap`, (X, Y, Z) float32, on the scan's own grid; `found` with
        the number of `lesions`, their `load_mm3` and the highest probability; `threshold`;
        `written`, the paths of the files, the mask first; `warnings`.

    Raises
    ------
    LesionError
        The scan, the cord or the bundle cannot be used, or the folder cannot be written.
    """
    image = Path(image)
    inference = InferenceSettings.taken_from(options)
    options.setdefault("command", f"segment {image.name}")
    settings = SegmentSettings(bundle, threshold, inference, **options)
    folder = None if ofolder is None else Path(ofolder)
    return segment(image, settings, for_scan(image, folder=folder))


def require(settings: SegmentSettings, outputs: Outputs) -> None:
    """Raise an error where what the settings ask for is not installed or cannot be written.

    Raises
    ------
    OutputError
        Something is not installed, or the mask of another scan has the sidecar of this one.
    """
    if settings.figure:
        style.require()
    if settings.qc is not None:
        sct_qc.require()
    if settings.cord == BY_SCT:
        sct_mask.require_cord()
    if not settings.pmap_alone:
        outputs.require_own()


def opened(settings: SegmentSettings) -> tuple[Bundle, engines.Network]:
    """Open the bundle, if it has what the settings ask for.

    Raises
    ------
    BundleError, SctError, EngineError
        See `predict.opened`.
    UsageError
        A filter of lesions is asked for, and the bundle has none.
    """
    inference = settings.inference
    bundle, network = predict.opened(
        settings.bundle,
        inference.contrast,
        sct_lesion.RULE_ENGINE if settings.sct_rule else inference.engine,
        inference.precision,
    )
    if settings.lesion_point and bundle.info.operating_point.lesions is None:
        raise UsageError(
            f"bundle {bundle.name} has no second operating point, per lesion; choose one with "
            "sct_tune_lesion -lesion_point 1, or leave out -lesion_point"
        )
    return bundle, network


def decided(bundle: Bundle, settings: SegmentSettings) -> tuple[float, Filter | None]:
    """Decision threshold and filter of the predicted lesions that settings mean for a bundle."""
    threshold = bundle.threshold if settings.threshold is None else settings.threshold
    return threshold, None if settings.lesion_point is False else predict.filter_of(bundle)


def inference_sha256(bundle: Bundle, settings: SegmentSettings) -> str | None:
    """Hash what a p-map follows from beside its scan; None where the centerline is from a file.

    The engine is not in it: they agree to rounding.
    """
    inference = settings.inference
    if inference.centerline == "file" or settings.centerline_file is not None:
        return None
    facts = [
        *(bundle.pmap_sha256, settings.sct_rule, inference.precision),
        *(find.identity(inference.centerline, inference.contrast), inference.contrast),
        inference.brain,
    ]
    if settings.cord == BY_SCT:
        facts.append(sct_mask.cord_identity())
    elif settings.cord is not None:
        facts.append(file_hash(Path(settings.cord)))
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def written(settings: SegmentSettings, outputs: Outputs) -> tuple[Path, ...]:
    """Files that these settings ask for, the main one first and the sidecar last."""
    asked = {
        outputs.mask: not settings.pmap_alone,
        outputs.pmap: settings.pmap or settings.pmap_alone,
        outputs.labels: settings.lesions,
        outputs.table: settings.lesions,
        outputs.columns: settings.lesions,
        outputs.centerline: settings.keep_centerline or settings.qc is not None,
        outputs.points: settings.keep_centerline,
        outputs.cord: settings.cord == BY_SCT,
        outputs.figure: settings.figure,
        outputs.page_entry: settings.page_entry,
        outputs.pmap_sidecar: settings.pmap or settings.pmap_alone,
        outputs.sidecar: not settings.pmap_alone,
    }
    return tuple(path for path, wanted in asked.items() if wanted)


def _cord(scan: Scan, settings: SegmentSettings) -> CordMask | None:
    """Read the cord mask that settings name, or let SCT draw it; None without one."""
    if settings.cord is None:
        return None
    if settings.cord == BY_SCT:
        return sct_mask.cord(scan.array, scan.grid)
    return cord_mask.read(Path(settings.cord), scan.grid)


def _levels(scan: Scan, line: Centerline, settings: SegmentSettings) -> Levels | None:
    """Read the vertebral levels along a line from the labels that settings name."""
    file = settings.levels
    if file is None:
        return None
    labels = nifti.read_labels(file, scan.grid)
    rpi, reorientation = scan.grid.to_rpi()
    try:
        known = levels.along(reorientation.apply(labels.array), line.on(rpi))
    except GeometryError as error:
        raise GeometryError(f"{file}: {error}") from error
    names = [VERTEBRAE[level - 1] for level in np.unique(known[known > 0])]
    logger.info("vertebral levels by %s: %s", file.name, ", ".join(names))
    return Levels(known, file.name, file_hash(file))


def _predicted(
    scan: Scan,
    line: Centerline,
    cord: CordMask | None,
    bundle: Bundle,
    network: engines.Network,
    settings: SegmentSettings,
    progress: Callable[[int, int], None] | None,
) -> tuple[npt.NDArray[np.float32] | None, npt.NDArray[np.bool_] | None, Outside | None]:
    """Compute the p-map, or the mask by SCT's rule, cut to the cord; and what was cut off."""
    array, grid = scan.array, scan.grid
    if settings.sct_rule:
        mask = sct_lesion.sct_rule(array, grid, line, settings.inference.contrast, network)
        if cord is None:
            return None, mask, None
        return None, *cut_to_cord(mask, mask, cord, grid)
    pmap = predict.pmap(bundle, array, grid, line, network=network, progress=progress)
    if cord is None:
        return pmap, None, None
    whole = None if settings.pmap_alone else binarize(pmap, decided(bundle, settings)[0])
    pmap, outside = cut_to_cord(pmap, whole, cord, grid)
    return pmap, None, outside


def _mask(
    pmap: npt.NDArray[np.float32], grid: Grid, bundle: Bundle, settings: SegmentSettings
) -> tuple[npt.NDArray[np.bool_], Filtered | None]:
    """Lesion mask of a p-map, and what the filter of the bundle removed."""
    threshold, rule = decided(bundle, settings)
    mask, *lesions = lesion_filter.mask_at(pmap, threshold, grid.voxel_volume_mm3, rule)
    filtered = None if rule is None else Filtered(rule, bundle.threshold, *lesions)
    if filtered is not None and filtered.predicted:
        logger.info("%s", filtered.sentence)
    if doubt := sidecar.threshold_doubt(threshold, bundle.tuned_threshold, bundle.name):
        logger.warning("%s", doubt)
    elif source := bundle.info.operating_point.source:  # which no model card tells of
        logger.info("threshold %g, published (%s)", threshold, source)
    return mask, filtered


def _warn_of_contrast(bundle: Bundle, settings: SegmentSettings) -> None:
    """Warn of a contrast that bundles are not trained on; SCT's model has one for each."""
    if settings.inference.contrast == "t2s" and settings.bundle != "sct":
        logger.warning(
            "the bundle %r is for T2w scans, not to be trusted on T2*w ones; use -bundle sct",
            bundle.name,
        )


def _warn_of_stale(settings: SegmentSettings, outputs: Outputs, files: tuple[Path, ...]) -> None:
    """Warn of files of an earlier run that stay beside the new ones and do not belong to them."""
    given = {Path(file).resolve() for file in (settings.cord, settings.centerline_file) if file}
    others = [path for path in astuple(outputs) if path not in files and path.exists()]
    stale = [path.name for path in others if path.resolve() not in given]
    if stale:
        logger.warning(
            "%s: from an earlier run, not of this one; remove what you do not need",
            ", ".join(stale),
        )


def _write(
    scan: Scan,
    result: Segmentation,
    labels: npt.NDArray[np.int32] | None,
    outputs: Outputs,
    described: dict[Path, dict[str, Any]],
) -> None:
    """Write what `result` names, all of it or nothing."""
    line, mask, pmap = result.centerline.on(scan.grid.to_rpi()[0]), result.mask, result.pmap
    with atomic.together():
        marked = pmap if mask is None else mask
        if outputs.figure in result.written and marked is not None:
            made = figure.figure(scan.array, scan.grid, result.centerline, marked, result.sentence)
            style.save(made, outputs.figure)
        if outputs.centerline in result.written:
            nifti.write(outputs.centerline, _drawn(line, scan.grid), scan, np.uint8)
        if outputs.points in result.written:
            atomic.write_text(outputs.points, line.to_csv(scan.grid))
        if outputs.cord in result.written and result.cord is not None:
            nifti.write(outputs.cord, result.cord.array, scan, np.uint8)
        if outputs.table in result.written and labels is not None and pmap is not None:
            nifti.write(outputs.labels, labels, scan, np.uint16)
            rows = result.rows(labels, pmap, scan.grid)
            columns.write(outputs.table, PREDICTED_LESIONS, rows)
        if outputs.pmap in result.written and pmap is not None:
            nifti.write(outputs.pmap, pmap, scan, np.float32)
        for file, content in described.items():
            if file in result.written:
                atomic.write_json(file, content)
        if mask is not None:
            nifti.write(outputs.mask, mask, scan, np.uint8)


def _drawn(line: Centerline, grid: Grid) -> npt.NDArray[np.uint8]:
    """Image of a centerline on the stored grid: one voxel per axial slice, (X, Y, Z) uint8."""
    rpi, reorientation = grid.to_rpi()
    image = np.zeros(rpi.shape, np.uint8)
    z = np.flatnonzero(line.covered)
    xy = np.clip(np.round(line.xy[z]).astype(int), 0, np.array(rpi.shape[:2]) - 1)
    image[xy[:, 0], xy[:, 1], z] = 1
    return np.ascontiguousarray(reorientation.undo(image))
