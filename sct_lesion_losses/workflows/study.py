"""The whole study of a cohort: split, train every loss, tune, evaluate, and one report.

Each step skips what is done in the folder and goes on where it was stopped.
"""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median_low

from sct_lesion_losses import __version__, executor
from sct_lesion_losses.bundle import store
from sct_lesion_losses.bundle.schema import Recipe
from sct_lesion_losses.bundle.store import SCT_NAME
from sct_lesion_losses.cohorts import splits
from sct_lesion_losses.cohorts import table as cohorts
from sct_lesion_losses.cohorts.splits import Rules
from sct_lesion_losses.cohorts.table import CohortScan
from sct_lesion_losses.errors import (
    BundleError,
    DataError,
    LesionError,
    SctError,
    TrainingError,
    UsageError,
)
from sct_lesion_losses.executor import Jobs
from sct_lesion_losses.images import atomic
from sct_lesion_losses.inference import predict
from sct_lesion_losses.inference.models import locate
from sct_lesion_losses.inference.predict import InferenceSettings
from sct_lesion_losses.metrics import UNTUNED
from sct_lesion_losses.metrics.scores import ScanScore
from sct_lesion_losses.report import counted, figures, page
from sct_lesion_losses.report.figures import style
from sct_lesion_losses.thresholds import lesion_filter
from sct_lesion_losses.workflows import evaluate, evaluated, split, tune
from sct_lesion_losses.workflows.evaluate import EvaluateSettings, Evaluation

SPLIT, BUNDLES, EVALUATION = "split.tsv", "bundles", "evaluation"
FIGURES, PAGE = "figures", "report.html"
WORK_SUFFIX, LOG = ".training", "training.csv"  # of a training, which is not imported for them
_OF_KERAS = ("KERAS_BACKEND", "TF_ENABLE_ONEDNN_OPTS")  # what workers elsewhere have to know

Opened = Callable[..., AbstractContextManager[Callable[..., None] | None]]

logger = logging.getLogger(__name__)


def _unseen(*_: str) -> AbstractContextManager[None]:
    return nullcontext()


@dataclass(frozen=True)
class StudySettings:
    """Settings of a study.

    Attributes
    ----------
    recipes : tuple of Recipe
        One for each loss to train, whose name its bundle takes.
    bundles : tuple of str
        Names or folders of bundles that are taken in place of training, with their thresholds.
    rules : Rules
        How to split a cohort that comes without a split.
    evaluation : EvaluateSettings
        How bundles are tuned and evaluated; its command line is the study's.
    workers : int, str or Path
        Where to train, see `executor.pool`: here, one loss after the other, by default.
    cache : Path or None
        Folder of prepared scans; ``training_cache`` beside the bundles by default.
    about : str
        A sentence on the scans, for the model cards.
    """

    recipes: tuple[Recipe, ...] = ()
    bundles: tuple[str, ...] = ()
    rules: Rules = Rules()  # noqa: RUF009 (frozen)
    evaluation: EvaluateSettings = EvaluateSettings()  # noqa: RUF009
    workers: Jobs = 1
    cache: Path | None = None
    about: str = ""

    def __post_init__(self) -> None:
        if bool(self.losses) == bool(self.bundles):
            raise UsageError(
                "losses are trained, the bundles of -bundle are not: give one of the two"
            )
        for named in (self.losses, self.bundles):
            if len(set(named)) < len(named):
                raise UsageError(f"one of {', '.join(named)} is given twice")

    @property
    def losses(self) -> tuple[str, ...]:
        """Names of the losses to train with."""
        return tuple(recipe.loss.name for recipe in self.recipes)


def run(
    data: Path, folder: Path, settings: StudySettings, progress: Opened = _unseen
) -> dict[str, str]:
    """Make a study, or what of it is missing in its folder.

    Parameters
    ----------
    data : Path
        BIDS folder or TSV; see `cohorts.table.read`. A split in the TSV is kept.
    folder : Path
        Receives ``split.tsv``, ``figure1``, ``bundles``, ``evaluation``, ``figures`` and
        ``report.html``.
    settings : StudySettings
    progress : callable
        Opens a context for what is done scan by scan, or step by step, by a word for it and for
        what is counted.

    Returns
    -------
    dict of str to str
        Why a step has failed, by its name. A training or a tuning that fails ends no other.

    Raises
    ------
    OutputError
        The folder cannot be written, or another study is writing it.
    LesionError
        The cohort cannot be split, there is nothing to evaluate, or the evaluation fails.
    """
    folder = folder.absolute()
    _require_bundles(settings)
    style.require()
    cohorts.read(data)  # nothing is written for a cohort that cannot be read
    with executor.pool(settings.workers):  # nor for a cluster that is not there
        pass
    failures: dict[str, str] = {}
    busy = f"{folder}: another study is writing this folder; wait for it to end, or choose another"
    atomic.require_writable(folder)
    with atomic.locked(folder / atomic.LOCK, busy):
        _split(data.absolute(), folder, settings.rules, progress)
        _train(folder, settings, progress, failures)
        _tune(folder, settings, progress, failures)
        models = _models(folder, settings, failures)
        with progress("evaluating") as report:
            evaluation = evaluate.run(
                models, folder / SPLIT, folder / EVALUATION, settings.evaluation, report
            )
        scans = cohorts.read(folder / SPLIT)
        _draw(scans, folder, evaluation, settings.evaluation.inference)
        text = _report(models, scans, folder, evaluation, settings, failures)
        atomic.write_text(folder / PAGE, text)
    return failures


def listed(folder: Path, settings: StudySettings) -> list[tuple[str, str]]:
    """Say of every step of a study what is there; nothing is written.

    Raises
    ------
    UsageError, LesionError
        See `run`, as far as it can be told before.
    """
    folder = folder.absolute()
    _require_bundles(settings)
    bundles = folder / BUNDLES
    return [
        ("split", _state((folder / SPLIT).is_file())),
        *((f"train {r.loss.name}", _trained(bundles / r.loss.name, r)) for r in settings.recipes),
        *((f"tune {loss}", _state(_is_tuned(bundles / loss))) for loss in settings.losses),
        ("evaluate", _state((folder / EVALUATION / f"{evaluate.SCORES}.tsv").is_file())),
        ("report", _state((folder / PAGE).is_file())),
    ]


def _state(done: bool) -> str:
    return "done" if done else "missing"


def _trained(folder: Path, recipe: Recipe) -> str:
    with suppress(BundleError):
        made = store.load(folder).info.recipe
        if made is not None and made.epochs_planned == recipe.epochs_planned:
            return _state(done=True)
    try:
        epochs = len((_work(folder) / LOG).read_text(encoding="utf-8").splitlines()) - 1
    except OSError:
        return _state(done=False)
    return f"{epochs} of {counted(recipe.epochs_planned, 'epoch')}"


def _is_tuned(folder: Path) -> bool:
    with suppress(BundleError):
        return store.load(folder).tuned_threshold is not None
    return False


def _work(bundle: Path) -> Path:
    """Folder of the training of a bundle."""
    return bundle.with_name(bundle.name + WORK_SUFFIX)


def _require_bundles(settings: StudySettings) -> None:
    """Raise an error where a given bundle is not there, or two cannot be told apart."""
    evaluated.models_of(settings.bundles, settings.evaluation.inference.contrast)


@contextmanager
def _step(name: str, failures: dict[str, str]) -> Iterator[None]:
    """Note why a step fails: the other steps are done."""
    try:
        yield
    except Exception as error:  # whatever it is
        failures[name] = _why(name, error)


def _why(step: str, error: BaseException) -> str:
    """Say why a step failed; it is logged as well."""
    known = isinstance(error, LesionError)
    why = str(error) if known else f"{type(error).__name__}: {error}"
    logger.error("%s failed: %s", step, why)
    logger.debug("what ended it", exc_info=error)
    return why


def _split(data: Path, folder: Path, rules: Rules, progress: Opened) -> None:
    """Write the split of the cohort with its picture; keep one that is there."""
    table, drawings = folder / SPLIT, style.paths_of(folder / "figure1")
    if all(file.is_file() for file in (table, *drawings)):
        _require_same(data, table, rules)
        return
    with progress("splitting") as report:
        split.split(data, table, rules, figures=drawings, keep=True, force=True, report=report)


def _require_same(data: Path, table: Path, rules: Rules) -> None:
    """Raise a DataError if the split in a table is not the one that the cohort would get."""
    asked = cohorts.read(data)
    if not any(scan.split for scan in asked):  # no mask has to be read: the table knows the loads
        loads = {_place(file): load.volume_mm3 for file, load in splits.noted(table).items()}
        volumes = {scan.scan: loads.get(_place(scan.scan), 0.0) for scan in asked}
        asked = splits.assign(asked, volumes, rules)
    before = cohorts.read(table)
    changed = {one.scan for one in {*map(_placed, asked)} ^ {*map(_placed, before)}}
    if changed:
        raise DataError(
            f"{table} is the split of other scans, or by other rules ({len(changed)} differ, "
            f"{min(changed).name} first); choose another -ofolder, or remove it for a new "
            "split: what was trained on the same scans is kept"
        )


def _placed(scan: CohortScan) -> CohortScan:
    """Return a scan whose paths are the same whatever folder they are seen from."""
    line = None if scan.centerline is None else _place(scan.centerline)
    mask = _place(scan.lesion_mask)
    return replace(scan, scan=_place(scan.scan), lesion_mask=mask, centerline=line)


def _place(file: Path) -> Path:
    """Path of a file by the real folder that it is in; its own name stays."""
    return Path(os.path.realpath(file.parent), file.name)


def _train(
    folder: Path, settings: StudySettings, progress: Opened, failures: dict[str, str]
) -> None:
    """Train every loss; note why that failed."""
    known = {name: os.environ[name] for name in _OF_KERAS if name in os.environ}
    one = partial(_train_one, folder, settings, known)
    found = executor.run(
        partial(one, progress=progress) if settings.workers == 1 else one,
        settings.recipes,
        settings.workers,
        name=lambda recipe: recipe.loss.name,
        failed=lambda _, error: _why("a training", error),  # for its worker was lost
    )
    for loss, why in zip(settings.losses, found, strict=True):
        if why:
            failures[f"train {loss}"] = why


def _train_one(
    folder: Path,
    settings: StudySettings,
    environment: Mapping[str, str],
    recipe: Recipe,
    progress: Opened = _unseen,
) -> str:
    """Train a loss, or go on with it, here or in a worker; say why that failed, if it did."""
    os.environ.update(environment)
    from sct_lesion_losses.workflows import train

    loss = recipe.loss.name
    how = train.TrainSettings(
        resume=True,
        cache=settings.cache,
        jobs=settings.evaluation.jobs,
        about=settings.about or train.TrainSettings.about,
        command=settings.evaluation.command,
    )
    try:
        with (
            progress(f"preparing for {loss}") as on_scan,
            progress(f"training {loss}", "step") as on_step,
        ):
            made = folder / BUNDLES / loss
            train.run(folder / SPLIT, made, recipe, how, on_scan=on_scan, on_step=on_step)
    except Exception as error:  # whatever it is, the other losses are trained
        return _why(f"train {loss}", error)
    return ""


def _tune(
    folder: Path, settings: StudySettings, progress: Opened, failures: dict[str, str]
) -> None:
    """Tune what was trained; note why that failed."""
    evaluation = settings.evaluation
    for loss in settings.losses:
        if f"train {loss}" in failures:
            continue
        how = tune.TuneSettings(
            inference=evaluation.inference,
            folder=folder / BUNDLES / loss,
            force=True,
            results=folder / EVALUATION,
            jobs=evaluation.jobs,
            command=evaluation.command,
        )
        with _step(f"tune {loss}", failures), progress(f"tuning {loss}") as report:
            tune.run(folder / BUNDLES / loss, folder / SPLIT, how, report)


def _models(folder: Path, settings: StudySettings, failures: dict[str, str]) -> list[str]:
    """Return what is to be evaluated: whatever could be made and loads, and SCT's model."""
    models = [*settings.bundles]
    for loss in settings.losses:
        if f"train {loss}" in failures:
            continue
        with _step(loss, failures):
            store.load(folder / BUNDLES / loss)
            models.append(str(folder / BUNDLES / loss))
    if not models:
        why = next(iter(failures.values()))
        raise TrainingError(f"there is nothing to evaluate, every training has failed: {why}")
    if SCT_NAME in models:
        return models
    try:
        predict.load(SCT_NAME, settings.evaluation.inference.contrast)
    except SctError as error:
        logger.info("without the baseline: %s", error)
        return models
    return [*models, SCT_NAME]


def _draw(
    scans: Sequence[CohortScan], folder: Path, evaluation: Evaluation, how: InferenceSettings
) -> None:
    """Draw learning curves, and one scan with the lesions that each model marks in it."""
    shown = [one for one in evaluation.models if one.model.kind == "network"]
    histories = {one.label: one.bundle.info.history for one in shown if one.bundle is not None}
    figures.draw("learning_curves", folder / FIGURES, histories)
    names = cohorts.names(scans)
    middle = typical(evaluation.rows)
    scan = next((scan for scan in scans if names[scan.scan] == middle), None)
    if scan is None:
        for path in style.paths_of(folder / FIGURES / "figure3"):
            path.unlink(missing_ok=True)
        return
    found = locate(scan, how)
    image, masks = found.image, {}
    for one in shown:
        threshold, pmap = one.tuned or UNTUNED, one.model.pmap(found)[0]
        mask, *_ = lesion_filter.mask_at(
            pmap, threshold, image.grid.voxel_volume_mm3, one.model.rule
        )
        masks[f"{one.label}\nthreshold {threshold:g}"] = mask
    figures.draw("figure3", folder / FIGURES, image.array, image.grid, found.truth, masks)


def typical(rows: Iterable[ScanScore]) -> str | None:
    """Name the scan of the median lesion volume, of those with lesions: the lower of two."""
    volumes = {row.scan: row.lesions.truth_mm3 for row in rows if row.lesions.truth_mm3}
    if not volumes:
        return None
    middle = median_low(volumes.values())
    return max(scan for scan, volume in volumes.items() if volume == middle)


def _report(
    bundles: Sequence[str],
    scans: Sequence[CohortScan],
    folder: Path,
    evaluation: Evaluation,
    settings: StudySettings,
    failures: Mapping[str, str],
) -> str:
    """Render the report: every table and figure of the study with its caption."""
    infos = [store.load(name).info for name in bundles if name != SCT_NAME]
    alerts = [f"{step} failed: {why}" for step, why in failures.items()]
    if SCT_NAME not in bundles:
        alerts.append("SCT's lesion model was not found: the baseline is missing.")
    if left_out := len(evaluation.without_cord):
        alerts.append(f"No cord was found in {counted(left_out, 'unseen scan')}, left out.")
    packages = dict(item for info in infos for item in sorted(info.packages.items()))
    how = {
        "sct_lesion_losses": __version__,
        "Python": platform.python_version(),
        "Inference": ", ".join(evaluation.engines),
        "Centerline": settings.evaluation.inference.centerline,
        "Lesion preset of the tables": settings.evaluation.preset,
        "Thresholds": _origin(settings, failures),
        "Trained with": ", ".join(f"{name} {version}" for name, version in packages.items()),
    }
    every = {
        **evaluation.tables,
        "parts": page.cohort_table(splits.by_part(scans, splits.noted(folder / SPLIT))),
        "facts": page.facts_table(how),
    }
    models = counted(len(evaluation.models), "model")
    unseen = len({row.scan for row in evaluation.rows})
    lead = f"{models} on a cohort of {len(scans)} scans, {unseen} of them unseen."
    drawn = (folder, folder / FIGURES, folder / EVALUATION / evaluate.FIGURES)
    return page.html(lead, alerts, every, settings.evaluation.command, drawn)


def _origin(settings: StudySettings, failures: Mapping[str, str]) -> str:
    failed = any(step.startswith("tune ") for step in failures)
    if settings.recipes:
        return "tuned on the part thr-optimization" + ", but for the failed" * failed
    return "those that the given bundles came with"
