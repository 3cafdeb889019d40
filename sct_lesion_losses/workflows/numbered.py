"""Numbered lesions of an evaluation's models: files for a challenge, and repeated scans."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from sct_lesion_losses import executor
from sct_lesion_losses.cohorts.table import CohortScan
from sct_lesion_losses.executor import Progress
from sct_lesion_losses.inference.instances import InstanceTask, number
from sct_lesion_losses.inference.models import RULE_THRESHOLDS, Model
from sct_lesion_losses.inference.predict import InferenceSettings
from sct_lesion_losses.metrics import UNTUNED
from sct_lesion_losses.metrics.repeat import PlacedLesions, SessionRepeat, repeat
from sct_lesion_losses.workflows.evaluated import EvaluatedModel

MANUAL = "manual masks"

Lesions = Mapping[CohortScan, Mapping[Model | None, PlacedLesions]]

logger = logging.getLogger(__name__)


def sessions(scans: Sequence[CohortScan]) -> list[list[CohortScan]]:
    """Group scans by subject and session, and keep the groups of two and more."""
    groups: dict[tuple[str, str], list[CohortScan]] = {}
    for scan in scans:
        groups.setdefault((scan.subject, scan.session), []).append(scan)
    return [own for own in groups.values() if len(own) > 1]


def numbered(
    models: Sequence[EvaluatedModel],
    scans: Sequence[CohortScan],
    inference: InferenceSettings,
    files: Mapping[CohortScan, Mapping[str, Path]],
    jobs: int,
    report: Progress | None = None,
) -> Lesions:
    """Label the lesions of models in scans, at their own thresholds, or 0.5 where untuned.

    Parameters
    ----------
    models : sequence of EvaluatedModel
    scans : sequence of CohortScan
        Whose lesions are to be returned.
    inference : InferenceSettings
    files : mapping of CohortScan to mapping of str to Path
        Numbered masks to write, by the scan and the label of the model.
    jobs : int
        Scans at a time.
    report : callable, optional
        Told of the scans that are done.

    Raises
    ------
    LesionError
        A scan or a model cannot be used, or a file cannot be written.
    """
    tasks = []
    for scan in dict.fromkeys((*scans, *files)):
        own = {one.label: one.model.on(scan) for one in models}
        thresholds = {
            own[one.label]: RULE_THRESHOLDS[0] if one.model.has_masks else one.tuned or UNTUNED
            for one in models
        }
        written = {own[label]: path for label, path in files.get(scan, {}).items()}
        tasks.append(InstanceTask(scan, thresholds, written, scan in scans, inference))
    found = executor.run(
        number, tasks, jobs, name=lambda task: task.scan.scan.name, progress=report
    )
    return {task.scan: own for task, own in zip(tasks, found, strict=True) if task.placed}


def repeats(
    models: Sequence[EvaluatedModel], repeated: Sequence[Sequence[CohortScan]], lesions: Lesions
) -> dict[tuple[str, float | None], list[tuple[str, SessionRepeat]]]:
    """Compare the scans of each session by every model, the manual masks first.

    Returns
    -------
    dict of (str, float or None) to list of (str, SessionRepeat)
        By model and threshold: subject and agreement of each session.
    """
    every: dict[tuple[str, float | None], Model | None] = {(MANUAL, None): None}
    for one in models:
        at = None if one.model.has_masks else one.tuned or UNTUNED
        every[one.label, at] = one.model
    return {
        key: [(own[0].subject, repeat([lesions[scan][model] for scan in own])) for own in repeated]
        for key, model in every.items()
    }
