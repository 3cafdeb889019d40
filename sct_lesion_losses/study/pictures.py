"""The figures of a study that its evaluation does not draw: one scan by every model, and losses."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt

from sct_lesion_losses import logs
from sct_lesion_losses.bundle import store
from sct_lesion_losses.bundle.store import SCT_NAME
from sct_lesion_losses.cohorts import splits
from sct_lesion_losses.cohorts import table as cohorts
from sct_lesion_losses.cohorts.table import CohortScan
from sct_lesion_losses.inference import predict
from sct_lesion_losses.inference import predict as models
from sct_lesion_losses.inference.cohort import Located, line_for_sct, located
from sct_lesion_losses.metrics.scores import UNTUNED
from sct_lesion_losses.report.figures import learning, overlay, style
from sct_lesion_losses.study.settings import Settings
from sct_lesion_losses.thresholds import binarize

FOLDER = "figures"
SCAN, CURVES = "figure3", "learning_curves"


def draw(
    folder: Path,
    table: Path,
    scores: Path,
    bundles: Sequence[str],
    settings: Settings,
) -> None:
    """Draw learning curves, and one scan with the lesions that each model marks in it.

    Each is left out where there is nothing to draw: no training, no unseen scan with lesions.
    Those of an earlier call are removed first.

    Parameters
    ----------
    folder : Path
        Receives the figures, as PNG and SVG.
    table : Path
        The cohort with its split.
    scores : Path
        ``scores.json`` of the evaluation.
    bundles : sequence of str
        Names or folders, and ``sct``.
    settings : Settings

    Raises
    ------
    LesionError
        The scan or a model cannot be used, or a figure not be written.
    """
    for stem in (SCAN, CURVES):
        for path in style.paths_of(folder / stem):
            path.unlink(missing_ok=True)
    own = [store.load(name).info for name in bundles if name != SCT_NAME]
    histories = {info.name: info.history for info in own if info.history}
    if histories:
        learning.draw(histories, folder / CURVES)
    described = json.loads(scores.read_text(encoding="utf-8"))
    scan = typical(table, described["ScansWithoutCord"])
    if scan is None:
        return
    found = located(scan, settings.centerline, settings.contrast)
    levels = described["bundle"]["Levels"]
    masks = {}
    for name in bundles:
        label, threshold, mask = _marked(name, found, levels, settings)
        masks[f"{label}\nthreshold {threshold:g}"] = mask
    overlay.draw(found.image.array, found.image.grid, found.truth, masks, folder / SCAN)


def typical(table: Path, left_out: Sequence[str] = ()) -> CohortScan | None:
    """Unseen scan of the median lesion volume, of those with lesions: the lower of two.

    Parameters
    ----------
    table : Path
        The cohort with its split, which holds lesion volumes.
    left_out : sequence of str
        Names of scans that are not to be chosen.
    """
    loads = splits.noted(table)
    scans = cohorts.read(table)
    names = cohorts.names(scans)
    volumes = {
        scan: loads[scan.scan].volume_mm3
        for scan in scans
        if scan.split == "unseen" and loads[scan.scan].lesions and names[scan.scan] not in left_out
    }
    if not volumes:
        return None
    middle = median(sorted(volumes.values()))
    below = [scan for scan in volumes if volumes[scan] <= middle]
    return max(below, key=lambda scan: (volumes[scan], names[scan.scan]))


def _marked(
    name: str, found: Located, levels: Mapping[str, Mapping[str, object]], settings: Settings
) -> tuple[str, float, npt.NDArray[np.bool_]]:
    """Name, threshold and mask of a model: at its own threshold, SCT's at the one tuned here."""
    bundle, network = models.opened(name, settings.contrast, settings.engine, "float32")
    threshold = bundle.threshold
    line = found.line
    if name == SCT_NAME:
        tuned = levels[SCT_NAME]["TunedThreshold"]
        threshold = UNTUNED if tuned is None else float(str(tuned))
        line = line_for_sct(found, settings.centerline)
    image = found.image
    with logs.about(found.scan.scan):
        pmap = predict.pmap(bundle, image.array, image.grid, line, network=network)
    return bundle.name, threshold, binarize(pmap, threshold)
