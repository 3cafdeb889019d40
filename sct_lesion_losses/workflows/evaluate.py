"""Bundles, and SCT's own model, on scans that none of them has seen: scores, tests, tables."""

from __future__ import annotations

import logging
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from sct_lesion_losses import __version__
from sct_lesion_losses.bundle.store import SCT_NAME, Bundle
from sct_lesion_losses.cohorts import splits
from sct_lesion_losses.cohorts import table as cohorts
from sct_lesion_losses.cohorts.table import CohortScan
from sct_lesion_losses.errors import DataError, UsageError
from sct_lesion_losses.executor import Progress
from sct_lesion_losses.images import atomic
from sct_lesion_losses.inference import cohort, predict
from sct_lesion_losses.inference.cohort import (
    IN_COHORT,
    SCANS,
    Model,
    refuse_seen,
)
from sct_lesion_losses.inference.predict import InferenceSettings
from sct_lesion_losses.metrics import UNTUNED, lesionwise
from sct_lesion_losses.metrics.scores import ScanScore, TruthLesion
from sct_lesion_losses.report import columns, figures, sidecar, tables
from sct_lesion_losses.report.tables import PUBLISHED, Table
from sct_lesion_losses.thresholds import THRESHOLDS, Choice, ScanCounts, choose

SCT_RULE = "sct as shipped"
TABLES, FIGURES = "tables", "figures"
SCORES, LESIONS = "scores", "lesions"
MAIN_TABLE = "table2"

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
    """

    inference: InferenceSettings = IN_COHORT
    preset: str = "paper"
    jobs: int = 1
    command: str = ""

    def __post_init__(self) -> None:
        lesionwise.find(self.preset)


@dataclass(frozen=True)
class EvaluatedModel:
    """A model as the tables name it.

    Attributes
    ----------
    label : str
        Name in the tables.
    bundle : Bundle
        SCT's model is one as well.
    model : Model
    choice : Choice or None
        How SCT's model was tuned by the evaluation.
    """

    label: str
    bundle: Bundle
    model: Model
    choice: Choice | None = None

    @property
    def is_sct(self) -> bool:
        """True for SCT's own model."""
        return self.bundle.name == SCT_NAME

    @property
    def loss(self) -> str:
        """Name of the loss that it was trained with."""
        return self.bundle.info.loss.name

    @property
    def tuned(self) -> float | None:
        """Its tuned threshold; a rule has none."""
        if self.model.sct_rule:
            return None
        return self.bundle.tuned_threshold if self.choice is None else self.choice.threshold

    @property
    def thresholds(self) -> tuple[float | None, ...]:
        """Thresholds of its rows; a rule has none."""
        return (None,) if self.model.sct_rule else self.model.thresholds

    def is_tuned(self, threshold: float | None) -> bool:
        """Tell whether a threshold of `thresholds` is its own operating point."""
        return self.model.sct_rule or (threshold is not None and threshold == self.tuned)

    @property
    def description(self) -> dict[str, Any]:
        """Entry of the description of the scores."""
        kind = "SCT's own lesion model" if self.is_sct else "Model bundle"
        if self.model.sct_rule:
            kind += " exactly as sct_deepseg_lesion runs it"
        entry = {
            "Description": kind,
            "Version": self.bundle.info.version,
            "NetworkSHA256": self.bundle.sha256,
            "Loss": self.loss,
            "TunedThreshold": self.tuned,
            "LesionFilter": sidecar.filter_entry(self.model.rule),
        }
        if self.choice is None:
            return entry
        low, high = self.choice.interval
        tuning = {
            "Objective": self.choice.objective.name,
            "Scans": self.choice.n_scans,
            "Subjects": self.choice.n_subjects,
            "Interval": None if math.isnan(low) else [low, high],
        }
        return {**entry, "Tuning": tuning}


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
        See `report.tables.study`.
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
        See `models_of`. The p-map of SCT's model gets a threshold that is tuned on the scans of
        ``thr-optimization``, where there are such, in place of its own.
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
        Two models cannot be told apart, or an output is the cohort's table.
    DataError
        A bundle was trained or tuned on a scan, or there is none to evaluate.
    LesionError
        A model or a scan cannot be used. The results of other scans stay.
    """
    how = settings.inference
    _require_outputs(data, folder)
    models = models_of(bundles, how.contrast)
    scans = cohorts.read(data)
    names = cohorts.names(scans)
    unseen = splits.part_or_all(scans, "unseen", "are then evaluated")
    refuse_seen([one.bundle for one in models], unseen, "which would flatter its scores")
    sct = next((one for one in models if one.label == SCT_NAME), None)
    tuning = [] if sct is None else splits.part(scans, "thr-optimization")
    results = cohort.gather(
        {scan: [one.model for one in models] for scan in unseen}
        | {scan: [one.model for one in models if one is sct] for scan in tuning},
        names,
        folder / SCANS,
        how,
        {one.model: one.bundle for one in models},
        jobs=settings.jobs,
        report=report,
    )
    counts = cohort.with_cord(results)
    if sct is not None:
        choice = _choice([scan for scan in tuning if scan in counts], sct.model, counts)
        models = [replace(one, choice=choice) if one is sct else one for one in models]
    lost = tuple(names[scan.scan] for scan in unseen if scan not in counts)
    notes = _notes(models, lost, len(unseen))
    rows, lesions = _rows([scan for scan in unseen if scan in counts], models, names, counts)
    by_preset = [row for row in rows if row.lesions.preset.name == settings.preset]
    made = tables.study(
        by_preset,
        [lesion for lesion in lesions if lesion.of.lesions.preset.name == settings.preset],
        {one.label: one.loss for one in models if not one.is_sct and one.loss in PUBLISHED},
    )
    made = {name: replace(table, notes=(*table.notes, *notes)) for name, table in made.items()}
    engines = {one.engine for of_scan in results.values() for one in of_scan.values()} - {""}
    facts = {
        "GeneratedBy": {
            "Name": "sct_lesion_losses",
            "Version": __version__,
            "Command": settings.command,
        },
        "Engines": sorted(engines),
        "Centerline": how.centerline,
        "Contrast": how.contrast,
        "PresetOfTables": settings.preset,
        "ScansEvaluated": len(unseen) - len(lost),
        "ScansWithoutCord": list(lost),
        "TuningScansWithoutCord": [names[scan.scan] for scan in tuning if scan not in counts],
    }
    levels = {
        "bundle": {one.label: one.description for one in models},
        "preset": columns.PRESET_LEVELS,
    }
    of_scans = columns.of_scans({one.label: one.bundle.info.version for one in models})
    columns.write(folder / f"{SCORES}.tsv", of_scans, rows, levels, facts)
    columns.write(folder / f"{LESIONS}.tsv", columns.TRUTH_LESIONS, lesions, levels, facts)
    for name, table in made.items():
        for ending, writer in tables.WRITERS.items():
            atomic.write_text(folder / TABLES / f"{name}.{ending}", writer(table))
    figures.write(by_preset, folder / FIGURES)
    return Evaluation(tuple(models), rows, lost, tuple(sorted(engines)), made)


def models_of(bundles: Sequence[str | Path], contrast: str) -> list[EvaluatedModel]:
    """Load and name the models; bundles of one name are told apart by their versions.

    Parameters
    ----------
    bundles : sequence of str or Path
        Names or folders of bundles, and ``sct`` for SCT's own lesion model, which enters twice: by
        its p-map of overlapping patches, and as `sct_deepseg_lesion` runs it.
    contrast : {"t2", "t2_ax", "t2s"}
        Which of SCT's models.

    Raises
    ------
    UsageError
        Two cannot be told apart.
    LesionError
        There is no such model, or it is damaged or refused.
    """
    loaded = [predict.load(str(bundle), contrast) for bundle in bundles]
    often = Counter(bundle.name for bundle in loaded)
    models = []
    for given, bundle in zip(bundles, loaded, strict=True):
        label = bundle.name if often[bundle.name] == 1 else f"{bundle.name} {bundle.info.version}"
        tuned = bundle.tuned_threshold
        thresholds = {*THRESHOLDS, *([] if tuned is None else [tuned])}
        rule = predict.filter_of(bundle)
        model = Model(str(given), bundle.pmap_sha256, tuple(sorted(thresholds)), rule=rule)
        models.append(EvaluatedModel(label, bundle, model))
        if bundle.name == SCT_NAME:
            shipped = replace(model, thresholds=cohort.RULE_THRESHOLDS, sct_rule=True)
            models.append(EvaluatedModel(SCT_RULE, bundle, shipped))
    for label, count in Counter(one.label for one in models).items():
        if count > 1:
            raise UsageError(
                f"{count} of the models are named {label}; give each of them once, or train or "
                "import one under another name or version"
            )
    return models


def _require_outputs(data: Path, folder: Path) -> None:
    for name in (SCORES, LESIONS):
        if os.path.realpath(folder / f"{name}.tsv") == os.path.realpath(data):
            raise UsageError(f"{data} would be overwritten; choose another -ofolder")
    for place in (folder, folder / SCANS, folder / TABLES, folder / FIGURES):
        atomic.require_writable(place)


def _choice(tuning: Sequence[CohortScan], model: Model, counts: Counts) -> Choice | None:
    """Tune SCT's model; None where no scan holds lesions, or where no threshold is any good."""
    curves = [counts[scan][model] for scan in tuning]
    if not any(curve.n_truth for curve in curves):
        return None
    choice = choose(curves, [scan.subject for scan in tuning])
    if not choice.useful:
        return None
    logger.info("sct tuned to threshold %g on %d scans", choice.threshold, choice.n_scans)
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
        source = one.bundle.info.operating_point.source
        if one.choice is None and source and one.tuned is not None:
            notes.append(f"{one.label} at {one.tuned:g}, published ({source}).")
            logger.info("%s", notes[-1])
    untuned = ", ".join(one.label for one in models if one.tuned is None and not one.model.sct_rule)
    if untuned:
        said = f"Without a tuned threshold, and so in table 1 alone: {untuned}"
        logger.warning(
            "%s; sct_tune_lesion tunes a bundle, sct is tuned on scans with lesions in the "
            "cohort's part thr-optimization",
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
