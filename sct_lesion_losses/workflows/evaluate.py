"""Bundles, and SCT's own model, on scans that none of them has seen: scores, tests, tables."""

from __future__ import annotations

import logging
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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
    ModelCounts,
    refuse_seen,
)
from sct_lesion_losses.inference.predict import InferenceSettings
from sct_lesion_losses.metrics import PRESETS, UNTUNED, lesionwise
from sct_lesion_losses.metrics.scores import ScanScore, TruthLesion
from sct_lesion_losses.report import columns, figures, tables
from sct_lesion_losses.report.tables import PUBLISHED, Table
from sct_lesion_losses.thresholds import THRESHOLDS, Choice, choose
from sct_lesion_losses.thresholds.curves import LesionCurve

SCT_RULE = "sct as shipped"
TABLES, FIGURES = "tables", "figures"
SCORES, LESIONS = "scores", "lesions"
MAIN_TABLE = "table2"

Results = Mapping[CohortScan, Mapping[Model, ModelCounts]]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluateSettings:
    """How models are evaluated.

    Attributes
    ----------
    inference : InferenceSettings
        How scans are segmented; the contrast is that of SCT's models, too.
    preset : str
        Rule of the tables' lesion-wise scores; those by all presets are in the long table.
    """

    inference: InferenceSettings = IN_COHORT
    preset: str = "paper"


@dataclass(frozen=True)
class EvaluatedModel:
    """A model as the tables name it.

    Attributes
    ----------
    label : str
        Name in the tables.
    version, loss : str
    sha256 : str
        Of its network.
    tuned : float or None
        Its tuned threshold.
    model : Model
    """

    label: str
    version: str
    loss: str
    sha256: str
    tuned: float | None
    model: Model

    @property
    def is_sct(self) -> bool:
        """Whether it is SCT's own model."""
        return self.model.name == SCT_NAME

    @property
    def thresholds(self) -> tuple[float | None, ...]:
        """Thresholds of its rows; a rule has none."""
        return (None,) if self.model.sct_rule else self.model.thresholds

    def is_tuned(self, threshold: float | None) -> bool:
        """Whether a threshold of `thresholds` is its own operating point."""
        return self.model.sct_rule or (threshold is not None and threshold == self.tuned)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What `run` finds.

    Attributes
    ----------
    models : tuple of EvaluatedModel
    rows : tuple of ScanScore
        Scan by scan, by every model, threshold and preset.
    lesions : tuple of TruthLesion
        Of the manual masks, at 0.5 and at the tuned thresholds, by every preset.
    without_cord, tuning_without_cord : tuple of str
        Scans left out: of those to evaluate, and of those that tune SCT's model.
    engines : tuple of str
        Name, version and precision of whatever computed the p-maps.
    tables : dict of str to Table
        See `report.tables.study`.
    """

    models: tuple[EvaluatedModel, ...]
    rows: tuple[ScanScore, ...]
    lesions: tuple[TruthLesion, ...]
    without_cord: tuple[str, ...]
    tuning_without_cord: tuple[str, ...]
    engines: tuple[str, ...]
    tables: dict[str, Table]


def run(
    bundles: Sequence[str | Path],
    data: Path,
    folder: Path,
    settings: EvaluateSettings = EvaluateSettings(),
    *,
    jobs: int = 1,
    command: str = "",
    report: Progress | None = None,
) -> Evaluation:
    """Evaluate models on a cohort and write scores, lesions, tables and figures.

    The counts of each model on each scan are kept in ``scans``; another run into the same folder
    computes only those that are missing there, or have changed. The other files are replaced, each
    whole or not at all.

    Parameters
    ----------
    bundles : sequence of str or Path
        Names or folders of bundles, and ``sct`` for SCT's own lesion model, which enters twice: by
        its p-map of overlapping patches, its threshold tuned on the scans of ``thr-optimization``
        where there are such, and as `sct_deepseg_lesion` runs it.
    data : Path
        BIDS folder or TSV. Where it holds a split, the scans of ``unseen`` are evaluated; else all.
        Scans in which no cord is found are left out.
    folder : Path
        Where to write.
    settings : EvaluateSettings
    jobs : int
        Scans at a time, each in a process of its own.
    command : str
        The command line that evaluates like this, for the description of the scores.
    report : callable, optional

    Returns
    -------
    Evaluation

    Raises
    ------
    UsageError
        No preset has this name, two models cannot be told apart, or an output is the cohort's
        table.
    DataError
        A bundle was trained or tuned on a scan, or there is none to evaluate.
    LesionError
        A model or a scan cannot be used. The results of other scans stay.
    """
    lesionwise.find(settings.preset)
    how = settings.inference
    _require_outputs(data, folder)
    loaded = [predict.load(str(bundle), how.contrast) for bundle in bundles]
    models = models_of(bundles, loaded)
    scans = cohorts.read(data)
    names = cohorts.names(scans)
    unseen = splits.part_or_all(scans, "unseen", "are then evaluated")
    refuse_seen(loaded, unseen, "which would flatter its scores")
    seen_by: dict[CohortScan, Sequence[EvaluatedModel]] = dict.fromkeys(unseen, models)
    sct = next((one for one in models if one.is_sct and not one.model.sct_rule), None)
    tuning = [] if sct is None else splits.part(scans, "thr-optimization")
    seen_by.update((scan, [sct]) for scan in tuning if sct is not None)
    given = dict(zip(map(str, bundles), loaded, strict=True))
    results = cohort.gather(
        {scan: [one.model for one in some] for scan, some in seen_by.items()},
        names,
        folder / SCANS,
        how,
        {one.model: given[one.model.name] for one in models},
        jobs=jobs,
        report=report,
    )
    shown = [s for s in seen_by if all(r.counts is not None for r in results[s].values())]
    choice = None if sct is None else _choice([s for s in tuning if s in shown], sct.model, results)
    if choice is not None:
        models = [replace(m, tuned=choice.threshold) if m is sct else m for m in models]
    evaluated = [scan for scan in unseen if scan in shown]
    notes = _notes(models, [scan.name for scan in unseen if scan not in shown], len(unseen))
    rows, lesions = _rows(evaluated, models, names, results)
    by_preset = [row for row in rows if row.lesions.preset.name == settings.preset]
    made = tables.study(
        by_preset,
        [lesion for lesion in lesions if lesion.preset == settings.preset],
        {one.label: one.loss for one in models if not one.is_sct and one.loss in PUBLISHED},
    )
    evaluation = Evaluation(
        tuple(models),
        rows,
        lesions,
        tuple(names[scan.scan] for scan in unseen if scan not in shown),
        tuple(names[scan.scan] for scan in tuning if scan not in shown),
        tuple(sorted({r.engine for of in results.values() for r in of.values() if r.engine})),
        {name: replace(table, notes=(*table.notes, *notes)) for name, table in made.items()},
    )
    facts = {
        "GeneratedBy": {"Name": "sct_lesion_losses", "Version": __version__, "Command": command},
        "Engines": list(evaluation.engines),
        "Centerline": how.centerline,
        "Contrast": how.contrast,
        "PresetOfTables": settings.preset,
        "ScansEvaluated": len(evaluated),
        "ScansWithoutCord": list(evaluation.without_cord),
        "TuningScansWithoutCord": list(evaluation.tuning_without_cord),
    }
    _write(folder, evaluation, _described(models, choice), facts)
    figures.write(by_preset, folder / FIGURES)
    return evaluation


def models_of(bundles: Sequence[str | Path], loaded: Sequence[Bundle]) -> list[EvaluatedModel]:
    """Name the models; bundles of one name are told apart by their versions.

    Parameters
    ----------
    bundles : sequence of str or Path
        As they were given; ``sct`` enters twice, once by its own rule.
    loaded : sequence of Bundle
        The same, loaded.

    Raises
    ------
    UsageError
        Two cannot be told apart.
    """
    often = Counter(bundle.name for bundle in loaded)
    models = []
    for given, bundle in zip(bundles, loaded, strict=True):
        info, tuned = bundle.info, bundle.tuned_threshold
        label = bundle.name if often[bundle.name] == 1 else f"{bundle.name} {info.version}"
        cuts = tuple(sorted({*THRESHOLDS, *(() if tuned is None else (tuned,))}))
        model = Model(str(given), bundle.pmap_sha256, cuts)
        one = EvaluatedModel(label, info.version, info.loss.name, bundle.sha256, tuned, model)
        models.append(one)
        if one.is_sct:
            rule = replace(model, thresholds=cohort.RULE_THRESHOLDS, sct_rule=True)
            models.append(replace(one, label=SCT_RULE, model=rule))
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


def _choice(tuning: Sequence[CohortScan], model: Model, results: Results) -> Choice | None:
    """Tune SCT's model; None where no scan holds lesions, or where no threshold is any good."""
    counts = [(scan.subject, results[scan][model].counts) for scan in tuning]
    curves = [(subject, one) for subject, one in counts if one is not None]
    if not any(curve.n_truth for _, curve in curves):
        return None
    choice = choose([curve for _, curve in curves], [subject for subject, _ in curves])
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
    untuned = ", ".join(m.label for m in models if m.tuned is None and not m.model.sct_rule)
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
    results: Results,
) -> tuple[tuple[ScanScore, ...], tuple[TruthLesion, ...]]:
    """Score every scan by every model, threshold and preset, and list its lesions."""
    rows: list[ScanScore] = []
    lesions: list[TruthLesion] = []
    for scan in scans:
        name = names[scan.scan]
        for one in models:
            counts = results[scan][one.model].counts
            assert counts is not None
            for k, threshold in enumerate(one.thresholds):
                tuned, voxels = one.is_tuned(threshold), counts.voxel_score(k)
                about = (name, scan.subject, scan.site, one.label, threshold, tuned, voxels)
                rows += [ScanScore(*about, counts.lesion_score(preset, k)) for preset in PRESETS]
                if tuned or threshold == UNTUNED:
                    lesions += [
                        TruthLesion(
                            name, scan.subject, one.label, threshold, tuned, preset, *lesion
                        )
                        for preset, curve in counts.lesions.items()
                        for lesion in _detected(curve, k, counts.voxel_mm3)
                    ]
    return tuple(rows), tuple(lesions)


def _detected(curve: LesionCurve, k: int, voxel_mm3: float) -> Iterator[tuple[int, float, bool]]:
    """Yield number, volume and detection of every lesion, at a model's k-th threshold."""
    for number, size in enumerate(curve.truth_sizes, start=1):
        yield number, int(size) * voxel_mm3, bool(curve.found[k][number - 1])


def _described(models: Sequence[EvaluatedModel], sct: Choice | None) -> dict[str, dict[str, Any]]:
    """Describe every model; `sct` is how SCT's was tuned."""
    found = {}
    for one in models:
        entry: dict[str, Any] = {
            "Description": "SCT's own lesion model" if one.is_sct else "Model bundle",
            "Version": one.version,
            "NetworkSHA256": one.sha256,
            "Loss": one.loss,
            "TunedThreshold": None if one.model.sct_rule else one.tuned,
        }
        if one.model.sct_rule:
            entry["Description"] = "SCT's own lesion model exactly as sct_deepseg_lesion runs it"
        elif one.is_sct and sct is not None:
            entry["Tuning"] = {
                "Objective": sct.objective.name,
                "Scans": sct.n_scans,
                "Subjects": sct.n_subjects,
                "Interval": None if math.isnan(sct.interval[0]) else list(sct.interval),
            }
        found[one.label] = entry
    return found


def _write(
    folder: Path,
    evaluation: Evaluation,
    about_models: Mapping[str, Mapping[str, Any]],
    facts: Mapping[str, Any],
) -> None:
    of_scans = columns.of_scans({one.label: one.version for one in evaluation.models})
    levels = {"bundle": about_models, "preset": columns.PRESET_LEVELS}
    columns.write(folder / f"{SCORES}.tsv", of_scans, evaluation.rows, levels, facts)
    columns.write(
        folder / f"{LESIONS}.tsv", columns.TRUTH_LESIONS, evaluation.lesions, levels, facts
    )
    for name, table in evaluation.tables.items():
        for ending, writer in tables.WRITERS.items():
            atomic.write_text(folder / TABLES / f"{name}.{ending}", writer(table))
