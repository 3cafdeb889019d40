"""Bundles, SCT's model and what other tools marked, on unseen scans: scores, tests, tables."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

from sct_lesion_losses import __version__, executor
from sct_lesion_losses.bundle.schema import NAME_PATTERN
from sct_lesion_losses.cohorts import corrections, splits
from sct_lesion_losses.cohorts import table as cohorts
from sct_lesion_losses.cohorts.table import CohortScan
from sct_lesion_losses.errors import DataError, UsageError
from sct_lesion_losses.executor import Progress
from sct_lesion_losses.images import atomic
from sct_lesion_losses.inference import cohort
from sct_lesion_losses.inference.cohort import SCANS, ModelCounts, refuse_seen
from sct_lesion_losses.inference.instances import InstanceTask, number
from sct_lesion_losses.inference.models import IN_COHORT, RULE_THRESHOLDS, Model
from sct_lesion_losses.inference.predict import InferenceSettings
from sct_lesion_losses.metrics import UNTUNED, lesionwise
from sct_lesion_losses.metrics.froc import FrocScore, froc
from sct_lesion_losses.metrics.repeat import repeat
from sct_lesion_losses.metrics.scores import ScanScore, TruthLesion
from sct_lesion_losses.report import agreement, columns, figures, tables
from sct_lesion_losses.report.tables import Table
from sct_lesion_losses.thresholds import Choice, ScanCounts, choose
from sct_lesion_losses.workflows.evaluated import (
    EvaluatedModel,
    given_models,
    models_of,
    require_told_apart,
)

TABLES, FIGURES = "tables", "figures"
CHALLENGE = "challenge"
SCORES, LESIONS = "scores", "lesions"
MAIN_TABLE = "table2"
MANUAL = "manual masks"

Counts = Mapping[CohortScan, Mapping[Model, ScanCounts]]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluateSettings:
    """Settings of an evaluation.

    Attributes
    ----------
    inference : InferenceSettings
        How scans are segmented; the contrast is that of SCT's models, too.
    preset : str
        Rule of the tables' lesion-wise scores; those by all presets are in the long table.
    jobs : int
        Scans at a time, each in a process of its own.
    command : str
        The command line that evaluates like this, for the description of the scores.
    masks, pmaps : mapping of str to Path
        Folders of masks and of p-maps by other tools, or people, by their names in the tables; see
        `evaluated.given_models`.
    challenge : bool
        Also write numbered masks and the probabilities of their lesions, see `inference.instances`.
    repeat : bool
        Also compare scans of one session, see `metrics.repeat`.
    """

    inference: InferenceSettings = IN_COHORT
    preset: str = "paper"
    jobs: int = 1
    command: str = ""
    masks: Mapping[str, Path] = field(default_factory=dict)
    pmaps: Mapping[str, Path] = field(default_factory=dict)
    challenge: bool = False
    repeat: bool = False

    def __post_init__(self) -> None:
        lesionwise.find(self.preset)
        for name in (*self.masks, *self.pmaps):
            if not re.fullmatch(NAME_PATTERN, name):
                raise UsageError(
                    f"{name!r} is no name for masks or p-maps in the tables; expected letters, "
                    "digits, dots, dashes and underscores"
                )


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Scores of models on a cohort, and their tables.

    Attributes
    ----------
    models : tuple of EvaluatedModel
    rows : tuple of ScanScore
        Scan by scan, by every model, threshold and preset.
    without_cord : tuple of str
        Scans that were to be evaluated, and are left out.
    engines : tuple of str
        Name, version and precision of whatever computed the p-maps.
    tables : dict of str to Table
        See `report.tables.study`; and ``froc``, and ``repeat`` where that is asked for.
    """

    models: tuple[EvaluatedModel, ...]
    rows: tuple[ScanScore, ...]
    without_cord: tuple[str, ...]
    engines: tuple[str, ...]
    tables: dict[str, Table]


def run(
    bundles: Sequence[str | Path],
    data: Path,
    folder: Path,
    settings: EvaluateSettings = EvaluateSettings(),
    report: Progress | None = None,
) -> Evaluation:
    """Evaluate models on a cohort and write scores, lesions, tables and figures.

    The counts of each model on each scan are kept in ``scans``; another run into the same folder
    computes only those that are missing there, or have changed. The other files are replaced, each
    whole or not at all.

    Parameters
    ----------
    bundles : sequence of str or Path
        See `evaluated.models_of`. The p-maps of SCT's model, and those that are given, get a
        threshold that is tuned on the scans of ``thr-optimization``, where there are such.
    data : Path
        BIDS folder or TSV. Where it holds a split, the scans of ``unseen`` are evaluated; else all.
        Scans in which no cord is found are left out.
    folder : Path
        Where to write.
    settings : EvaluateSettings
    report : callable, optional
        Told of the scans that are computed.

    Returns
    -------
    Evaluation

    Raises
    ------
    UsageError
        There is no model, two cannot be told apart, or an output is the cohort's table.
    DataError
        A bundle was trained or tuned on a scan, there is none to evaluate, or what is given is not
        there for all of them.
    LesionError
        A model or a scan cannot be used. The results of other scans stay.
    """
    if not (bundles or settings.masks or settings.pmaps):
        raise UsageError("there is nothing to evaluate; give -bundle, -masks or -pmaps")
    _require_outputs(data, folder, challenge=settings.challenge)
    models = models_of(bundles, settings.inference.contrast)
    scans = cohorts.read(data)
    names = cohorts.names(scans)
    unseen = splits.part_or_all(scans, "unseen", "are then evaluated")
    corrections.say(unseen)
    own = {one.model: one.bundle for one in models if one.bundle is not None}
    refuse_seen(list(own.values()), unseen, "which would flatter its scores")
    if settings.repeat and not _sessions(unseen):
        raise DataError(
            f"none of the {len(unseen)} scans to evaluate is repeated: no subject has two of one "
            "session, by the ses- of their names; leave out -repeat"
        )
    tuning = splits.part(scans, "thr-optimization")
    models += given_models(settings.masks, settings.pmaps, unseen, tuning, names)
    require_told_apart(models)
    tuned_by = {
        scan: [one.model for one in models if one.to_tune and one.model.sees(scan)]
        for scan in tuning
    }
    tuning = [scan for scan in tuning if tuned_by[scan]]
    results = cohort.gather(
        {scan: [one.model for one in models] for scan in unseen}
        | {scan: tuned_by[scan] for scan in tuning},
        names,
        folder / SCANS,
        settings.inference,
        own,
        jobs=settings.jobs,
        report=report,
    )
    counts = cohort.with_cord(results)
    chose = [scan for scan in tuning if scan in counts]
    models = [replace(one, choice=_choice(one, chose, counts)) for one in models]
    lost = tuple(names[scan.scan] for scan in unseen if scan not in counts)
    notes = _notes(models, lost, len(unseen))
    seen = [scan for scan in unseen if scan in counts]
    if settings.repeat and not _sessions(seen):
        notes += ("Without repeated scans: a cord was found in no two scans of one session.",)
        logger.warning("%s", notes[-1].removesuffix("."))
    rows, lesions = _rows(seen, models, names, counts)
    engines = {one.engine for of_scan in results.values() for one in of_scan.values()} - {""}
    facts = {
        **_about(settings),
        "Engines": sorted(engines),
        "ScansEvaluated": len(seen),
        "ScansWithoutCord": list(lost),
        "TuningScansWithoutCord": [names[scan.scan] for scan in tuning if scan not in counts],
    }
    _write_long(folder, models, rows, lesions, facts)
    curves = _froc(models, [results[scan] for scan in seen])
    made = _write_tables(folder, models, rows, lesions, curves, settings.preset, notes)
    again = _number(models, seen, names, folder, settings, report)
    made |= _write_noted(folder, again, notes)
    return Evaluation(tuple(models), rows, lost, tuple(sorted(engines)), made)


def _sessions(scans: Sequence[CohortScan]) -> list[list[CohortScan]]:
    """Group scans by subject and session, and keep the groups of two and more."""
    groups: dict[tuple[str, str], list[CohortScan]] = {}
    for scan in scans:
        groups.setdefault((scan.subject, scan.session), []).append(scan)
    return [own for own in groups.values() if len(own) > 1]


def _number(
    models: Sequence[EvaluatedModel],
    seen: Sequence[CohortScan],
    names: Mapping[Path, str],
    folder: Path,
    settings: EvaluateSettings,
    report: Progress | None,
) -> dict[str, Table]:
    """Label lesions for the challenge, and compare repeated scans, where that is asked for."""
    groups = _sessions(seen) if settings.repeat else []
    repeated = [scan for own in groups for scan in own]
    tasks = []
    for scan in seen if settings.challenge else repeated:
        own = [(one, one.model.on(scan)) for one in models]
        thresholds = {model: one.own_threshold or RULE_THRESHOLDS[0] for one, model in own}
        files = {
            model: folder / CHALLENGE / one.file_name / f"{names[scan.scan]}.nii.gz"
            for one, model in own
            if settings.challenge
        }
        tasks.append(InstanceTask(scan, thresholds, files, scan in repeated, settings.inference))
    found = executor.run(
        number, tasks, settings.jobs, name=lambda task: task.scan.scan.name, progress=report
    )
    if not groups:
        return {}
    lesions = {task.scan: of_scan for task, of_scan in zip(tasks, found, strict=True)}
    compared: dict[tuple[str, float | None], Model | None] = {(MANUAL, None): None}
    compared |= {(one.label, one.own_threshold): one.model for one in models}
    agreeing = {
        key: [(own[0].subject, repeat([lesions[scan][model] for scan in own])) for own in groups]
        for key, model in compared.items()
    }
    return {"repeat": agreement.over_repeats(agreeing)}


def _about(settings: EvaluateSettings) -> dict[str, Any]:
    """Entries of the description of the scores that follow from the settings."""
    return {
        "GeneratedBy": {
            "Name": "sct_lesion_losses",
            "Version": __version__,
            "Command": settings.command,
        },
        "Centerline": settings.inference.centerline,
        "Contrast": settings.inference.contrast,
        "PresetOfTables": settings.preset,
    }


def _write_tables(
    folder: Path,
    models: Sequence[EvaluatedModel],
    rows: Sequence[ScanScore],
    lesions: Sequence[TruthLesion],
    curves: Mapping[tuple[str, float | None], FrocScore],
    preset: str,
    notes: tuple[str, ...],
) -> dict[str, Table]:
    """Write the tables and the figures of the scores by a preset; return the tables."""
    by_preset = [row for row in rows if row.lesions.preset.name == preset]
    of_preset = [one for one in lesions if one.of.lesions.preset.name == preset]
    published = {one.label: one.published_as for one in models if one.published_as}
    made = tables.study(by_preset, of_preset, published)
    made["froc"] = agreement.over_false_lesions(curves)
    made = _write_noted(folder, made, notes)
    at_own = {label: curve for (label, _), curve in curves.items()}  # the last one of each
    figures.write(by_preset, folder / FIGURES, froc=at_own)
    return made


def _write_noted(
    folder: Path, made: Mapping[str, Table], notes: tuple[str, ...]
) -> dict[str, Table]:
    """Write tables with these notes added, and return them so."""
    noted = {name: replace(table, notes=(*table.notes, *notes)) for name, table in made.items()}
    for name, table in noted.items():
        for ending, writer in tables.WRITERS.items():
            atomic.write_text(folder / TABLES / f"{name}.{ending}", writer(table))
    return noted


def _write_long(
    folder: Path,
    models: Sequence[EvaluatedModel],
    rows: Sequence[ScanScore],
    lesions: Sequence[TruthLesion],
    facts: Mapping[str, Any],
) -> None:
    """Write the long tables of scans and of lesions."""
    levels = {
        "bundle": {one.label: one.description for one in models},
        "preset": columns.PRESET_LEVELS,
    }
    of_scans = columns.of_scans({one.label: one.version for one in models})
    columns.write(folder / f"{SCORES}.tsv", of_scans, rows, levels, facts)
    columns.write(folder / f"{LESIONS}.tsv", columns.TRUTH_LESIONS, lesions, levels, facts)


def _require_outputs(data: Path, folder: Path, *, challenge: bool) -> None:
    for name in (SCORES, LESIONS):
        if os.path.realpath(folder / f"{name}.tsv") == os.path.realpath(data):
            raise UsageError(f"{data} would be overwritten; choose another -ofolder")
    asked = (SCANS, TABLES, FIGURES, *([CHALLENGE] if challenge else []))
    for place in (folder, *(folder / name for name in asked)):
        atomic.require_writable(place)


def _choice(one: EvaluatedModel, tuning: Sequence[CohortScan], counts: Counts) -> Choice | None:
    """Tune p-maps; None where no scan holds lesions, or where no threshold is any good."""
    if not one.to_tune:
        return None
    seen = [scan for scan in tuning if one.model in counts[scan]]
    curves = [counts[scan][one.model] for scan in seen]
    if not any(curve.n_truth for curve in curves):
        return None
    choice = choose(curves, [scan.subject for scan in seen])
    if not choice.useful:
        return None
    logger.info("%s tuned to threshold %g on %d scans", one.label, choice.threshold, choice.n_scans)
    return choice


def _notes(
    models: Sequence[EvaluatedModel], left_out: Sequence[str], total: int
) -> tuple[str, ...]:
    """Warn of whatever the tables do not hold; return the same as notes for them.

    Raises
    ------
    DataError
        No scan is left.
    """
    notes = []
    if left_out:
        said = f"Left out, because no cord was found: {len(left_out)} of {total} scans"
        logger.warning("%s (%s)", said, ", ".join(left_out))
        notes.append(f"{said}.")
    if len(left_out) == total:
        raise DataError(
            f"no cord was found in any of the {total} scans; check the scans and their contrast "
            "(-c), or give centerlines with the cohort"
        )
    for one in models:
        source = "" if one.bundle is None else one.bundle.info.operating_point.source
        if one.choice is None and source and one.tuned is not None:
            notes.append(f"{one.label} at {one.tuned:g}, published ({source}).")
            logger.info("%s", notes[-1])
    if given := ", ".join(one.label for one in models if one.model.is_given):
        notes.append(
            f"Given as files, so that it is not known which scans they were made with: {given}."
        )
    untuned = ", ".join(
        one.label for one in models if one.tuned is None and not one.model.has_masks
    )
    if untuned:
        said = f"Without a tuned threshold, and so in table 1 alone: {untuned}"
        logger.warning(
            "%s; sct_tune_lesion tunes a bundle, sct and -pmaps are tuned on scans with lesions in "
            "the cohort's part thr-optimization",
            said,
        )
        notes.append(f"{said}.")
    return tuple(notes)


def _rows(
    scans: Sequence[CohortScan],
    models: Sequence[EvaluatedModel],
    names: Mapping[Path, str],
    counts: Counts,
) -> tuple[tuple[ScanScore, ...], tuple[TruthLesion, ...]]:
    """Score every scan by every model, threshold and preset; list its lesions where it matters."""
    rows: list[ScanScore] = []
    lesions: list[TruthLesion] = []
    for scan, one in product(scans, models):
        name, own = names[scan.scan], counts[scan][one.model]
        for k, threshold in enumerate(one.thresholds):
            tuned, voxels = one.is_tuned(threshold), own.voxel_score(k)
            about = (name, scan.subject, scan.site, one.label, threshold, tuned, voxels)
            for preset, curve in own.lesions.items():
                row = ScanScore(*about, own.lesion_score(preset, k))
                rows.append(row)
                if tuned or threshold == UNTUNED:
                    volumes = (curve.truth_sizes * own.voxel_mm3).tolist()
                    found = zip(volumes, curve.found[k].tolist(), strict=True)
                    lesions += [TruthLesion(row, n, *lesion) for n, lesion in enumerate(found, 1)]
    return tuple(rows), tuple(lesions)


def _froc(
    models: Sequence[EvaluatedModel], scans: Sequence[Mapping[Model, ModelCounts]]
) -> dict[tuple[str, float | None], FrocScore]:
    """Sweep the predicted lesions of every model at 0.5, then at its own operating point."""
    found: dict[tuple[str, float | None], FrocScore] = {}
    for one in models:
        for at in dict.fromkeys((None if one.model.has_masks else UNTUNED, one.own_threshold)):
            lesions = [own[one.model].lesions[at or RULE_THRESHOLDS[0]] for own in scans]
            found[one.label, at] = froc(lesions, with_probabilities=not one.model.has_masks)
    return found
