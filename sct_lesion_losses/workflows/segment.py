"""One scan in; its lesion mask, and everything that goes with it, out."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sct_lesion_losses import logs
from sct_lesion_losses.bundle.store import Bundle
from sct_lesion_losses.centerline import find
from sct_lesion_losses.errors import UsageError
from sct_lesion_losses.geometry.centerline import Centerline
from sct_lesion_losses.geometry.grid import Grid
from sct_lesion_losses.images import atomic, nifti
from sct_lesion_losses.images.nifti import Scan
from sct_lesion_losses.images.outputs import Outputs
from sct_lesion_losses.inference import engine as engines
from sct_lesion_losses.inference import predict
from sct_lesion_losses.inference import predict as models
from sct_lesion_losses.metrics import lesionwise
from sct_lesion_losses.report import sidecar as lesion_table
from sct_lesion_losses.report.figures import scan as figure
from sct_lesion_losses.report.figures import style
from sct_lesion_losses.report.sidecar import Filtered, Found, Result, sidecar
from sct_lesion_losses.sct import lesion as sct_lesion
from sct_lesion_losses.sct import qc as sct_qc
from sct_lesion_losses.thresholds import binarize, lesion_filter

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Settings:
    """How a scan is to be segmented, and what is to be written beside the mask.

    Attributes
    ----------
    bundle : str
        Name or folder of a model bundle, or ``sct`` for SCT's own lesion model.
    contrast : {"t2", "t2_ax", "t2s"}
        Which of SCT's models, for the bundle ``sct`` and SCT's centerline detection.
    threshold : float, optional
        Decision threshold in (0, 1]; the bundle's own by default; 0 writes the p-map alone.
    lesion_point : bool
        Keep those predicted lesions only that the bundle's second operating point lets through.
    centerline : {"auto", "svm", "cnn", "viewer", "file", "embedded"}
        How the cord is found.
    centerline_file : Path, optional
        Cord mask or centerline image, for ``file``.
    brain : bool
        Whether the scan shows the brain; used by ``cnn``.
    sct_rule : bool
        With the bundle ``sct``: exactly what `sct_deepseg_lesion` does, double threshold included.
    pmap, lesions, figure, keep_centerline : bool
        Also write the p-map; the lesion table and the numbered lesions; a picture; the centerline.
    qc, qc_dataset, qc_subject, qc_plane
        Folder of SCT's quality-control report and the labels of its entry.
    engine, precision : str
        Inference engine and the precision it computes in; SCT's rule is computed in ONNX Runtime.
    command : str
        What was typed, base names only, for the sidecar.
    """

    bundle: str = "default"
    contrast: str = "t2"
    threshold: float | None = None
    lesion_point: bool = False
    centerline: str = "auto"
    centerline_file: Path | None = None
    brain: bool = True
    sct_rule: bool = False
    pmap: bool = False
    lesions: bool = False
    figure: bool = False
    keep_centerline: bool = False
    qc: Path | None = None
    qc_dataset: str | None = None
    qc_subject: str | None = None
    qc_plane: str = "axial"
    engine: str = "auto"
    precision: str = "float32"
    command: str = ""

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise UsageError(
                f"-thr is {self.threshold}, expected a number in (0, 1], or 0 for the p-map alone"
            )
        if self.lesion_point and self.threshold is not None:
            raise UsageError(
                "-lesion_point 1 was chosen for the tuned threshold: leave out -thr, or the filter"
            )
        if self.sct_rule:
            if self.bundle != "sct":
                raise UsageError("-sct_rule 1 is a rule of SCT's own model; add -bundle sct")
            if self.threshold is not None or self.pmap or self.lesions:
                raise UsageError(
                    "-sct_rule 1 keeps no p-map: leave out -thr, -pmap and -lesions, or use "
                    "-bundle sct without the rule"
                )
            if self.precision != "float32":
                raise UsageError("-sct_rule 1 computes in float32, as SCT does")
            if self.engine not in ("auto", sct_lesion.RULE_ENGINE):
                raise UsageError(
                    "-sct_rule 1 computes in ONNX Runtime, as SCT does: leave out -engine"
                )
        if self.pmap_alone and (self.lesions or self.qc is not None):
            raise UsageError(
                "-thr 0 writes the p-map alone: leave out -lesions and -qc, or give a threshold"
            )
        if self.centerline == "file" and self.centerline_file is None:
            raise UsageError("-centerline file needs the file: add -file_centerline <file>")

    @property
    def pmap_alone(self) -> bool:
        """Whether only the p-map is asked for."""
        return self.threshold == 0


def run(
    image: Path, settings: Settings, outputs: Outputs, progress: Progress | None = None
) -> Result:
    """Segment one scan.

    Parameters
    ----------
    image : Path
        NIfTI file, 3-D, any orientation.
    settings : Settings
    outputs : Outputs
        Where to write; existing files are replaced, each whole or not at all.
    progress : callable, optional
        Called with the number of patches done and of all.

    Returns
    -------
    Result

    Raises
    ------
    LesionError
        The scan, the centerline or the bundle cannot be used (nothing has been written then), or
        the output folder cannot; or SCT's report fails, after the mask was written.
    """
    require(settings)
    bundle, network = opened(settings)
    with logs.collected_warnings() as warnings, logs.about(image):
        scan = nifti.read(image)
        centerline = _located(scan, settings)
        logger.info("centerline by %s; %s", centerline.method, find.coverage(centerline))
        threshold = _threshold(settings, bundle)
        pmap, mask, filtered = None, None, None
        if settings.sct_rule:
            mask = sct_lesion.sct_rule(
                scan.array, scan.grid, centerline, settings.contrast, network
            )
        else:
            pmap = predict.pmap(
                bundle, scan.array, scan.grid, centerline, network=network, progress=progress
            )
            mask = None if threshold is None else binarize(pmap, threshold)
            if settings.lesion_point and mask is not None:
                mask, filtered = _filtered(mask, pmap, bundle, scan.grid)
        found = None if mask is None else _found(mask, pmap, scan.grid)
        paths = written(settings, outputs)
        _say(bundle, threshold, found)
        _say_stale(outputs, paths)
    result = Result(
        paths,
        found,
        threshold,
        bundle.tuned_threshold,
        centerline.method,
        f"{network.name} {network.version}, {network.precision}",
        tuple(warnings),
        filtered,
    )
    _write(scan, centerline, pmap, mask, outputs, result, sidecar(result, bundle, settings.command))
    if settings.qc is not None and mask is not None:
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


def opened(settings: Settings) -> tuple[Bundle, engines.Network]:
    """Open the bundle, if it has what the settings ask for.

    Raises
    ------
    BundleError, SctError, EngineError
        See `models.opened`.
    UsageError
        A filter of lesions is asked for, and the bundle has none.
    """
    engine = sct_lesion.RULE_ENGINE if settings.sct_rule else settings.engine
    bundle, network = models.opened(settings.bundle, settings.contrast, engine, settings.precision)
    if settings.lesion_point and bundle.info.operating_point.lesions is None:
        raise UsageError(
            f"bundle {bundle.name} has no second operating point, per lesion; choose one with "
            "sct_tune_lesion -lesion_point 1, or leave out -lesion_point"
        )
    return bundle, network


def _filtered(
    mask: npt.NDArray[np.bool_], pmap: npt.NDArray[np.float32], bundle: Bundle, grid: Grid
) -> tuple[npt.NDArray[np.bool_], Filtered | None]:
    """Remove the lesions that the bundle's second operating point does not keep."""
    point = bundle.info.operating_point.lesions
    if point is None:
        return mask, None
    rule = lesion_filter.Filter(point.peak, point.volume_mm3)
    kept = lesion_filter.apply(mask, pmap, grid.voxel_volume_mm3, rule)
    before, after = (int(lesionwise.components(some).max()) for some in (mask, kept))
    logger.info(
        "of %d predicted lesions %d are kept: highest probability at least %g, at least %g mm³",
        before,
        after,
        point.peak,
        point.volume_mm3,
    )
    return kept, Filtered(point.peak, point.volume_mm3, before - after)


def _located(scan: Scan, settings: Settings) -> Centerline:
    return find.centerline(
        scan.array,
        scan.grid,
        settings.centerline,
        contrast=settings.contrast,
        file=settings.centerline_file,
        brain=settings.brain,
        as_sct=settings.bundle == "sct",
    )


def _threshold(settings: Settings, bundle: Bundle) -> float | None:
    """Threshold to apply to the p-map; None where the p-map is kept, or SCT's rule cuts it."""
    if settings.sct_rule or settings.pmap_alone:
        return None
    return bundle.threshold if settings.threshold is None else settings.threshold


def require(settings: Settings) -> None:
    """Raise an error where something that the settings ask for is not installed."""
    if settings.figure:
        style.require()
    if settings.qc is not None:
        sct_qc.require()


def _found(mask: npt.NDArray[np.bool_], pmap: npt.NDArray[np.float32] | None, grid: Grid) -> Found:
    """Count the lesions of a mask and find the highest probability."""
    count = int(lesionwise.components(mask).max())
    load_mm3 = float(np.count_nonzero(mask)) * grid.voxel_volume_mm3
    if pmap is None:
        return Found(count, load_mm3, None, None)
    peak = np.unravel_index(int(np.argmax(pmap)), pmap.shape)
    x, y, z = (round(float(mm), 1) for mm in grid.to_world(peak))
    return Found(count, load_mm3, float(pmap[peak]), (x, y, z))


def _say(bundle: Bundle, threshold: float | None, found: Found | None) -> None:
    """Warn of an empty mask, and of a threshold that was not tuned."""
    tuned = bundle.tuned_threshold
    if threshold and tuned is None:
        logger.warning(
            "threshold %g; the bundle %r was never tuned to scans", threshold, bundle.name
        )
    elif threshold and threshold != tuned:
        logger.warning(
            "threshold %g instead of %g, the one the bundle %r was tuned to",
            threshold,
            tuned,
            bundle.name,
        )
    if found is not None and not found.lesions:
        logger.warning("the mask is empty%s", found.peak)


def _say_stale(outputs: Outputs, written: tuple[Path, ...]) -> None:
    """Warn of files of an earlier run that stay beside the new ones and do not belong to them."""
    stale = [path.name for path in astuple(outputs) if path not in written and path.exists()]
    if stale:
        logger.warning(
            "%s: from an earlier run, not of this one; remove what you do not need",
            ", ".join(stale),
        )


def written(settings: Settings, outputs: Outputs) -> tuple[Path, ...]:
    """Files that these settings ask for, the main one first and the sidecar last."""
    wanted = [] if settings.pmap_alone else [outputs.mask]
    if settings.pmap or settings.pmap_alone:
        wanted.append(outputs.pmap)
    if settings.lesions:
        wanted += [outputs.labels, outputs.table, outputs.columns]
    if settings.keep_centerline or settings.qc is not None:
        wanted.append(outputs.centerline)
    if settings.figure:
        wanted.append(outputs.figure)
    return (*wanted, outputs.pmap_sidecar if settings.pmap_alone else outputs.sidecar)


def _write(
    scan: Scan,
    centerline: Centerline,
    pmap: npt.NDArray[np.float32] | None,
    mask: npt.NDArray[np.bool_] | None,
    outputs: Outputs,
    result: Result,
    described: dict[str, Any],
) -> None:
    """Write what `result` names, the mask last: where it is, the rest is complete."""
    if outputs.figure in result.written:
        figure.draw(scan.array, scan.grid, centerline, mask, pmap, outputs.figure, result.sentence)
    if outputs.centerline in result.written:
        nifti.write(outputs.centerline, _drawn(centerline, scan.grid), scan, np.uint8)
    if outputs.table in result.written and mask is not None and pmap is not None:
        labels = lesionwise.components(mask)
        nifti.write(outputs.labels, labels, scan, np.uint16)
        lesion_table.write(outputs.table, lesionwise.measures(labels, pmap, scan.grid.affine))
    if outputs.pmap in result.written and pmap is not None:
        nifti.write(outputs.pmap, pmap, scan, np.float32)
    atomic.write_json(result.written[-1], described)
    if mask is not None:
        nifti.write(outputs.mask, mask, scan, np.uint8)


def _drawn(centerline: Centerline, grid: Grid) -> npt.NDArray[np.uint8]:
    """Image of a centerline on the stored grid: one voxel per axial slice, (X, Y, Z) uint8."""
    rpi, reorientation = grid.to_rpi()
    image = np.zeros(rpi.shape, np.uint8)
    line = centerline.on(rpi)
    z = np.flatnonzero(line.covered)
    xy = np.clip(np.round(line.xy[z]).astype(int), 0, np.array(rpi.shape[:2]) - 1)
    image[xy[:, 0], xy[:, 1], z] = 1
    return np.ascontiguousarray(reorientation.undo(image))
