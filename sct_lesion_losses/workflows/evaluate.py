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
    AS_IN_COHORT,
    SCANS,
    Conditions,
    Model,
    Result,
    refuse_seen,
)
from sct_lesion_losses.metrics import lesionwise
from sct_lesion_losses.metrics.lesionwise import PRESETS
from sct_lesion_losses.metrics.scores import UNTUNED, ScanScore, TruthLesion
from sct_lesion_losses.report import figures, scores, tables
from sct_lesion_losses.report import tables as markup
from sct_lesion_losses.report.scores import LesionRow
from sct_lesion_losses.report.tables import PUBLISHED, Table
from sct_lesion_losses.thresholds import THRESHOLDS, Choice, Tally, choose

SCT_RULE = "sct as shipped"


@dataclass(frozen=True)
class Entrant:
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


def enter(bundles: Sequence[str | Path], loaded: Sequence[Bundle]) -> list[Entrant]:
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
    entrants = []
    for given, bundle in zip(bundles, loaded, strict=True):
        info, tuned = bundle.info, bundle.tuned_threshold
        label = bundle.name if often[bundle.name] == 1 else f"{bundle.name} {info.version}"
        cuts = tuple(sorted({*THRESHOLDS, *(() if tuned is None else (tuned,))}))
        model = Model(str(given), bundle.pmap_sha256, cuts)
        first = Entrant(label, info.version, info.loss.name, bundle.sha256, tuned, model)
        entrants.append(first)
        if str(given) == SCT_NAME:
            rule = replace(model, thresholds=cohort.RULE_THRESHOLDS, sct_rule=True)
            entrants.append(replace(first, label=SCT_RULE, model=rule))
    labels = Counter(entrant.label for entrant in entrants)
    for label, count in labels.items():
        if count > 1:
            raise UsageError(
                f"{count} of the models are named {label}; give each of them once, or train or "
                "import one under another name or version"
            )
    return entrants


def scores_of(entrant: Entrant, scan: CohortScan, name: str, counts: Tally) -> Iterator[ScanScore]:
    """Yield the scores of a scan, called `name`, at every threshold and by every preset."""
    for k, threshold in enumerate(entrant.thresholds):
        voxels = counts.voxel_score(k)
        for preset in PRESETS:
            yield ScanScore(
                name,
                scan.subject,
                scan.site,
                entrant.label,
                threshold,
                entrant.is_tuned(threshold),
                voxels,
                counts.lesion_score(preset, k),
            )


def lesions_of(entrant: Entrant, scan: CohortScan, name: str, counts: Tally) -> Iterator[LesionRow]:
    """Yield the lesions of its manual mask at 0.5 and at the tuned threshold, by every preset."""
    for k, threshold in enumerate(entrant.thresholds):
        tuned = entrant.is_tuned(threshold)
        if not tuned and threshold != UNTUNED:
            continue
        for preset, curve in counts.lesions.items():
            for number, (size, detected) in enumerate(
                zip(curve.truth_sizes, curve.found[k], strict=True), start=1
            ):
                volume_mm3 = int(size) * counts.voxel_mm3
                lesion = TruthLesion(
                    name,
                    scan.subject,
                    entrant.label,
                    threshold,
                    tuned,
                    number,
                    volume_mm3,
                    bool(detected),
                )
                yield LesionRow(lesion, preset)


def described(entrants: Sequence[Entrant], sct: Choice | None) -> dict[str, dict[str, Any]]:
    """Say of every model what it is; `sct` is how SCT's was tuned."""
    found = {}
    for e in entrants:
        entry: dict[str, Any] = {
            "Description": "SCT's own lesion model" if e.is_sct else "Model bundle",
            "Version": e.version,
            "NetworkSHA256": e.sha256,
            "Loss": e.loss,
            "TunedThreshold": None if e.model.sct_rule else e.tuned,
        }
        if e.model.sct_rule:
            entry["Description"] = "SCT's own lesion model exactly as sct_deepseg_lesion runs it"
        elif e.is_sct and sct is not None:
            entry["Tuning"] = {
                "Objective": sct.objective,
                "Scans": sct.n_scans,
                "Subjects": sct.n_subjects,
                "Interval": None if math.isnan(sct.interval[0]) else list(sct.interval),
            }
        found[e.label] = entry
    return found


TABLES, FIGURES = "tables", "figures"
SCORES, LESIONS = "scores", "lesions"
MAIN_TABLE = "table2"
_WRITERS = {"tsv": markup.tsv, "md": markup.markdown, "tex": markup.latex}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """How models are evaluated.

    Attributes
    ----------
    centerline : str
        ``cohort`` takes the cohort's own centerline where it has one; else a method of `locate`.
    contrast : {"t2", "t2_ax", "t2s"}
        Which of SCT's models, and the contrast for SCT's ways to find the cord.
    preset : str
        Rule of the tables' lesion-wise scores; those by all presets are in the long table.
    engine : str
        See `engine.load`.
    """

    centerline: str = AS_IN_COHORT
    contrast: str = "t2"
    preset: str = "paper"
    engine: str = "auto"


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What `run` finds.

    Attributes
    ----------
    rows : tuple of ScanScore
        Scan by scan, by every model, threshold and preset.
    lesions : tuple of LesionRow
        Of the manual masks, at 0.5 and at the tuned thresholds, by every preset.
    without_cord, tuning_without_cord : tuple of str
        Scans left out: of those to evaluate, and of those that tune SCT's model.
    tables : dict of str to Table
        See `report.tables.study`.
    """

    rows: tuple[ScanScore, ...]
    lesions: tuple[LesionRow, ...]
    without_cord: tuple[str, ...]
    tuning_without_cord: tuple[str, ...]
    tables: dict[str, Table]


def run(
    bundles: Sequence[str | Path],
    data: Path,
    folder: Path,
    settings: Settings = Settings(),
    *,
    jobs: int = 1,
    command: str = "",
    report: Progress | None = None,
) -> Evaluation:
    """Evaluate models on a cohort and write scores, lesions, tables and figures.

    What a model does on a scan is kept in ``scans``; another run into the same folder computes only
    what is missing there, or has changed. The other files are replaced, each whole or not at all.

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
    settings : Settings
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
    _require_outputs(data, folder)
    loaded = [predict.load(str(bundle), settings.contrast) for bundle in bundles]
    entrants, given = enter(bundles, loaded), dict(zip(map(str, bundles), loaded, strict=True))
    scans = cohorts.read(data)
    names = cohorts.names(scans)
    evaluated = splits.part_or_all(scans, "unseen", "are then evaluated")
    tuning = splits.part(scans, "thr-optimization")
    refuse_seen(loaded, evaluated, "which would flatter its scores")
    by_sct = next((e for e in entrants if e.is_sct and not e.model.sct_rule), None)
    seen_by: dict[CohortScan, Sequence[Entrant]] = dict.fromkeys(evaluated, entrants)
    if by_sct is not None:
        seen_by.update((scan, [by_sct]) for scan in tuning)
    conditions = Conditions.of(
        settings.centerline, settings.contrast, settings.engine, list(seen_by)
    )
    results = cohort.gather(
        {scan: [entrant.model for entrant in some] for scan, some in seen_by.items()},
        names,
        folder / SCANS,
        conditions,
        {entrant.model: given[entrant.model.name] for entrant in entrants},
        jobs=jobs,
        report=report,
    )

    without = [s for s in seen_by if any(r.tally is None for r in results[s].values())]
    choice = None
    if by_sct is not None:
        choice = _choice([s for s in tuning if s not in without], by_sct.model, results)
    if choice is not None:
        entrants = [replace(e, tuned=choice.threshold) if e is by_sct else e for e in entrants]
    notes = _said(entrants, [s for s in evaluated if s in without], len(evaluated))
    rows, lesions = _rows([s for s in evaluated if s not in without], entrants, names, results)
    evaluation = Evaluation(
        rows,
        lesions,
        tuple(names[scan.scan] for scan in evaluated if scan in without),
        tuple(names[scan.scan] for scan in tuning if scan in without),
        _tables(rows, lesions, entrants, settings.preset, notes),
    )
    facts = {
        "GeneratedBy": {"Name": "sct_lesion_losses", "Version": __version__, "Command": command},
        "Engines": sorted({r.engine for of in results.values() for r in of.values() if r.engine}),
        "Centerline": settings.centerline,
        "Contrast": settings.contrast,
        "PresetOfTables": settings.preset,
        "ScansEvaluated": sum(scan not in without for scan in evaluated),
        "ScansWithoutCord": list(evaluation.without_cord),
        "TuningScansWithoutCord": list(evaluation.tuning_without_cord),
    }
    _write(folder, evaluation, entrants, described(entrants, choice), facts)
    by_preset = [row for row in rows if row.lesions.preset.name == settings.preset]
    figures.write(by_preset, folder / FIGURES)
    return evaluation


def _require_outputs(data: Path, folder: Path) -> None:
    for name in (SCORES, LESIONS):
        if os.path.realpath(folder / f"{name}.tsv") == os.path.realpath(data):
            raise UsageError(f"{data} would be overwritten; choose another -ofolder")
    for place in (folder, folder / SCANS, folder / TABLES, folder / FIGURES):
        atomic.require_writable(place)


def _choice(
    tuning: Sequence[CohortScan],
    model: Model,
    results: Mapping[CohortScan, Mapping[Model, Result]],
) -> Choice | None:
    """Tune SCT's model; None where no scan holds lesions, or where no threshold is any good."""
    tallies = [(scan.subject, results[scan][model].tally) for scan in tuning]
    curves = [(subject, counts.voxels) for subject, counts in tallies if counts is not None]
    if not any(curve.n_truth for _, curve in curves):
        return None
    choice = choose([curve for _, curve in curves], [subject for subject, _ in curves])
    if not choice.useful:
        return None
    logger.info("sct tuned to threshold %g on %d scans", choice.threshold, choice.n_scans)
    return choice


def _said(
    entrants: Sequence[Entrant], left_out: Sequence[CohortScan], total: int
) -> tuple[str, ...]:
    """Warn of what the tables do not hold; return the same as notes for them.

    Raises
    ------
    DataError
        No scan is left.
    """
    notes = []
    if left_out:
        said = f"left out, because no cord was found: {len(left_out)} of {total} scans"
        logger.warning("%s (%s)", said, ", ".join(scan.name for scan in left_out))
        notes.append(f"{said.capitalize()}.")
    if len(left_out) == total:
        raise DataError(
            f"no cord was found in any of the {total} scans; check the scans and their contrast "
            "(-c), or give centerlines with the cohort"
        )
    untuned = ", ".join(e.label for e in entrants if e.tuned is None and not e.model.sct_rule)
    if untuned:
        said = f"without a tuned threshold, and so in table 1 alone: {untuned}"
        logger.warning(
            "%s; sct_tune_lesion tunes a bundle, sct is tuned on scans with lesions in the "
            "cohort's part thr-optimization",
            said,
        )
        notes.append(f"W{said[1:]}.")
    return tuple(notes)


def _rows(
    scans: Sequence[CohortScan],
    entrants: Sequence[Entrant],
    names: Mapping[Path, str],
    results: Mapping[CohortScan, Mapping[Model, Result]],
) -> tuple[tuple[ScanScore, ...], tuple[LesionRow, ...]]:
    rows: list[ScanScore] = []
    lesions: list[LesionRow] = []
    for scan in scans:
        for entrant in entrants:
            counts = results[scan][entrant.model].tally
            assert counts is not None
            rows += scores_of(entrant, scan, names[scan.scan], counts)
            lesions += lesions_of(entrant, scan, names[scan.scan], counts)
    return tuple(rows), tuple(lesions)


def _tables(
    rows: Sequence[ScanScore],
    lesions: Sequence[LesionRow],
    entrants: Sequence[Entrant],
    preset: str,
    notes: tuple[str, ...],
) -> dict[str, Table]:
    found = tables.study(
        [row for row in rows if row.lesions.preset.name == preset],
        [row.lesion for row in lesions if row.preset == preset],
        {e.label: e.loss for e in entrants if not e.is_sct and e.loss in PUBLISHED},
    )
    return {name: replace(table, notes=(*table.notes, *notes)) for name, table in found.items()}


def _write(
    folder: Path,
    evaluation: Evaluation,
    entrants: Sequence[Entrant],
    about_models: Mapping[str, Mapping[str, Any]],
    facts: Mapping[str, Any],
) -> None:
    columns = scores.scores({entrant.label: entrant.version for entrant in entrants})
    atomic.write_text(folder / f"{SCORES}.tsv", scores.tsv(columns, evaluation.rows))
    about = {**scores.dictionary(columns, about_models), **facts}
    atomic.write_json(folder / f"{SCORES}.json", about)
    atomic.write_text(folder / f"{LESIONS}.tsv", scores.tsv(scores.LESIONS, evaluation.lesions))
    about = {**scores.dictionary(scores.LESIONS, about_models), **facts}
    atomic.write_json(folder / f"{LESIONS}.json", about)
    for name, table in evaluation.tables.items():
        for ending, writer in _WRITERS.items():
            atomic.write_text(folder / TABLES / f"{name}.{ending}", writer(table))
