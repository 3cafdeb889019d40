"""Many scans through models: what is kept of them is taken over, the rest is computed."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from sct_lesion_losses import parallel, scan_results
from sct_lesion_losses.bundle.store import Bundle
from sct_lesion_losses.data.cohort import CohortScan
from sct_lesion_losses.judged import refuse_known
from sct_lesion_losses.parallel import Progress
from sct_lesion_losses.scan_results import Conditions, Model, Result, Task

SCANS = "scans"  # folder of the kept results inside that of an evaluation

logger = logging.getLogger(__name__)


def gather(
    seen_by: Mapping[CohortScan, Sequence[Model]],
    names: Mapping[Path, str],
    folder: Path,
    conditions: Conditions,
    loaded: Mapping[Model, Bundle],
    *,
    jobs: int = 1,
    report: Progress | None = None,
) -> dict[CohortScan, dict[Model, Result]]:
    """Take over the results that are kept in a folder, compute and keep the rest.

    Parameters
    ----------
    seen_by : mapping of CohortScan to sequence of Model
        The models that are to see each scan.
    names : mapping of Path to str
        Of the scans' files; see `cohort.names`.
    folder : Path
        Of the kept results, a file per scan.
    conditions : Conditions
    loaded : mapping of Model to Bundle
        Those that must not have been trained on a scan that they are to see.
    jobs : int
        Scans at a time, each in a process of its own.
    report : callable, optional
        Told of the scans that are computed.

    Returns
    -------
    dict of CohortScan to dict of Model to Result
        In the order of `seen_by`.

    Raises
    ------
    DataError
        A bundle was trained on a scan that its model is to see.
    LesionError
        A model or a scan cannot be used. The results of other scans stay.
    """
    keys = {
        model: scan_results.key(model, conditions) for some in seen_by.values() for model in some
    }
    found, tasks = {}, []
    for scan, wanted in seen_by.items():
        file = folder / f"{names[scan.scan]}.json"
        task = Task(scan, file, scan_results.content(scan, conditions), tuple(wanted), conditions)
        found[scan] = scan_results.kept(task)
        missing = tuple(model for model in wanted if keys[model] not in found[scan])
        if missing:
            tasks.append(replace(task, models=missing))
    total, missed = (sum(map(len, some)) for some in (seen_by.values(), [t.models for t in tasks]))
    if total > missed:
        logger.info(
            "%d of %d results (a scan by a model) taken over from %s; %d to compute",
            total - missed,
            total,
            folder,
            missed,
        )
    _refuse_known(tasks, loaded)
    computed = parallel.run(
        scan_results.compute, tasks, jobs, name=lambda task: task.scan.scan.name, progress=report
    )
    for task, results in zip(tasks, computed, strict=True):
        found[task.scan] |= results
    return {
        scan: {model: found[scan][keys[model]] for model in wanted}
        for scan, wanted in seen_by.items()
    }


def _refuse_known(tasks: Sequence[Task], loaded: Mapping[Model, Bundle]) -> None:
    """Ask each bundle about the scans of its own tasks only."""
    asked: dict[Bundle, dict[CohortScan, None]] = {}
    for task in tasks:
        for model in task.models:
            if model in loaded:
                asked.setdefault(loaded[model], {})[task.scan] = None
    refuse_known(asked)
