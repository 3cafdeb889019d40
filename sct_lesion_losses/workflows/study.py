"""The whole study of a cohort: split, train every loss, tune, evaluate, and one report.

Each step skips what is done in the folder and goes on where it was stopped.
"""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median

from filelock import FileLock, Timeout

from sct_lesion_losses import __version__, executor
from sct_lesion_losses.bundle import store
from sct_lesion_losses.bundle.schema import Recipe
from sct_lesion_losses.bundle.store import SCT_NAME, Bundle
from sct_lesion_losses.cohorts import splits
from sct_lesion_losses.cohorts import table as cohorts
from sct_lesion_losses.cohorts.splits import Rules
from sct_lesion_losses.cohorts.table import CohortScan
from sct_lesion_losses.errors import (
    BundleError,
    DataError,
    LesionError,
    OutputError,
    SctError,
    TrainingError,
    UsageError,
)
from sct_lesion_losses.executor import Jobs
from sct_lesion_losses.images import atomic
from sct_lesion_losses.inference import predict
from sct_lesion_losses.inference.cohort import locate
from sct_lesion_losses.inference.predict import InferenceSettings
from sct_lesion_losses.metrics import UNTUNED
from sct_lesion_losses.report import figures, page, tables
from sct_lesion_losses.report.figures import style
from sct_lesion_losses.report.page import Section
from sct_lesion_losses.thresholds import binarize
from sct_lesion_losses.workflows import evaluate, split, tune
from sct_lesion_losses.workflows.evaluate import EvaluateSettings, Evaluation

SPLIT, FIGURE_1 = "split.tsv", "figure1"
BUNDLES, CACHE, WORK_SUFFIX, LOG = "bundles", "training_cache", ".training", "training.csv"
EVALUATION, FIGURES, PAGE = "evaluation", "figures", "report.html"
TITLE = "Loss functions and decision thresholds for spinal cord MS lesions"
LOCK = ".lock"
DONE, MISSING = "done", "missing"

Opened = Callable[..., AbstractContextManager[Callable[..., None] | None]]

logger = logging.getLogger(__name__)


def _unseen(*_: str) -> AbstractContextManager[None]:
    return nullcontext()


@dataclass(frozen=True)
class StudySettings:
    """How a study is made.

    Attributes
    ----------
    recipes : tuple of Recipe
        One for each loss to train, whose name its bundle takes.
    bundles : tuple of str
        Names or folders of bundles that are taken in place of training.
    retune : bool
        Tune copies of these bundles; they keep their own thresholds otherwise.
    rules : Rules
        How to split a cohort that comes without a split.
    evaluation : EvaluateSettings
        How bundles are tuned and evaluated.
    cache : Path or None
        Folder of prepared scans; ``training_cache`` beside the bundles by default.
    about : str
        A sentence on the scans, for the model cards.
    command : str
        The command line, for the report and the model cards.
    """

    recipes: tuple[Recipe, ...] = ()
    bundles: tuple[str, ...] = ()
    retune: bool = False
    rules: Rules = field(default_factory=Rules)
    evaluation: EvaluateSettings = field(default_factory=EvaluateSettings)
    cache: Path | None = None
    about: str = ""
    command: str = ""

    def __post_init__(self) -> None:
        losses = [recipe.loss.name for recipe in self.recipes]
        if bool(losses) == bool(self.bundles):
            raise UsageError(
                "losses are trained, the bundles of -bundle are not: give one of the two"
            )
        for named in (losses, self.bundles):
            if len(set(named)) < len(named):
                raise UsageError(f"one of {', '.join(named)} is given twice")
        if self.retune and not self.bundles:
            raise UsageError("-retune 1 goes with -bundle; trained bundles are tuned anyway")


@dataclass(frozen=True)
class Training:
    """One training of a study, complete: it can be sent to another machine.

    Attributes
    ----------
    table : Path
        The cohort with its split.
    folder : Path
        The bundle to write.
    recipe : Recipe
    cache : Path
    about, command : str
        See `StudySettings`.
    jobs : int
        Scans prepared at a time.
    backend : str or None
        Of Keras, where that is not loaded yet.
    """

    table: Path
    folder: Path
    recipe: Recipe
    cache: Path
    about: str = ""
    command: str = ""
    jobs: int = 1
    backend: str | None = None


def run(
    data: Path,
    folder: Path,
    settings: StudySettings,
    *,
    jobs: int = 1,
    workers: Jobs = 1,
    progress: Opened = _unseen,
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
    jobs : int
        Scans at a time.
    workers : int, str or Path
        Where to train, see `executor.pool`: here, one loss after the other, by default.
    progress : callable
        Opens a context for what is done scan by scan, or step by step, by a word for it and for
        what is counted.

    Returns
    -------
    dict of str to str
        Why a step has failed, by its name. A training or a tuning that fails ends no other.

    Raises
    ------
    UsageError
        Neither losses nor bundles are given, or both, or one twice.
    OutputError
        The folder cannot be written, or another study is writing it.
    LesionError
        The cohort cannot be split, there is nothing to evaluate, or the evaluation fails.
    """
    folder = folder.absolute()
    given = _check(settings, folder)
    style.require()
    cohorts.read(data)  # nothing is written for a cohort that cannot be read
    with executor.pool(workers):  # nor for a cluster that is not there
        pass
    with _alone_in(folder):
        table = _split(data.absolute(), folder, settings.rules, progress)
        failures = _train(table, folder, settings, jobs, workers, progress)
        _tune(given, table, folder, settings, jobs, progress, failures)
        bundles = _bundles(given, folder, settings, failures)
        if not bundles:
            why = next(iter(failures.values()))
            raise TrainingError(f"there is nothing to evaluate, every training has failed: {why}")
        with progress("evaluating") as report:
            evaluation = evaluate.run(
                bundles,
                table,
                folder / EVALUATION,
                settings.evaluation,
                jobs=jobs,
                command=settings.command,
                report=report,
            )
        _draw(bundles, table, folder, evaluation, settings.evaluation.inference)
        atomic.write_text(
            folder / PAGE, _report(bundles, table, folder, evaluation, settings, failures)
        )
    return failures


def listed(folder: Path, settings: StudySettings) -> list[tuple[str, str]]:
    """Say of every step of a study what is there; nothing is written.

    Raises
    ------
    UsageError, LesionError
        See `run`, as far as it can be told before.
    """
    folder = folder.absolute()
    given = _check(settings, folder)
    rows = [("split", _there(folder / SPLIT))]
    rows += [
        (f"train {r.loss.name}", _trained(folder / BUNDLES / r.loss.name, r))
        for r in settings.recipes
    ]
    rows += [
        (f"tune {name}", _tuned(folder / BUNDLES / name)) for name in _to_tune(given, settings)
    ]
    rows.append(("evaluate", _there(folder / EVALUATION / f"{evaluate.SCORES}.tsv")))
    rows.append(("report", _there(folder / PAGE)))
    return rows


def _there(file: Path) -> str:
    return DONE if file.is_file() else MISSING


def _trained(folder: Path, recipe: Recipe) -> str:
    with suppress(BundleError):
        made = store.load(folder).info.recipe
        if made is not None and made.epochs_planned == recipe.epochs_planned:
            return DONE
    try:
        epochs = len(_log(folder).read_text(encoding="utf-8").splitlines()) - 1
    except OSError:
        return MISSING
    return f"{epochs} of {style.counted(recipe.epochs_planned, 'epoch')}"


def _tuned(folder: Path) -> str:
    with suppress(BundleError):
        return DONE if store.load(folder).tuned_threshold is not None else MISSING
    return MISSING


def _log(bundle: Path) -> Path:
    return bundle.with_name(bundle.name + WORK_SUFFIX) / LOG


def _to_tune(given: Sequence[Bundle], settings: StudySettings) -> list[str]:
    copies = [bundle.name for bundle in given if settings.retune and bundle.name != SCT_NAME]
    return [*(recipe.loss.name for recipe in settings.recipes), *copies]


def _check(settings: StudySettings, folder: Path) -> list[Bundle]:
    """Load the given bundles; refuse what cannot be told apart, or would be lost."""
    given = [
        predict.load(name, settings.evaluation.inference.contrast) for name in settings.bundles
    ]
    evaluate.models_of(settings.bundles, given)
    names = [bundle.name for bundle in given if settings.retune]
    if len(set(names)) < len(names):
        raise UsageError(
            f"two of the bundles are named alike ({', '.join(names)}), and tuned copies of them "
            "would be, too; give one of them another name, or leave out -retune"
        )
    for name in names:
        if _log(folder / BUNDLES / name).parent.exists():
            raise OutputError(
                f"{folder / BUNDLES / name} was trained here, and the tuned copy of {name} would "
                "replace it; choose another -ofolder, or leave out -retune"
            )
    return given


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Hold the folder, in which one study works at a time."""
    atomic.require_writable(folder)
    try:
        with FileLock(folder / LOCK, timeout=0):
            yield
    except Timeout as error:
        raise OutputError(
            f"{folder}: another study is writing this folder; wait for it to end, or choose another"
        ) from error


def _split(data: Path, folder: Path, rules: Rules, progress: Opened) -> Path:
    """Write the split of the cohort with its picture; keep one that is there."""
    table, drawings = folder / SPLIT, style.paths_of(folder / FIGURE_1)
    if all(file.is_file() for file in (table, *drawings)):
        _require_same(data, table, rules)
        return table
    with progress("splitting") as report:
        return split.split(
            data, table, rules, figures=drawings, keep=True, force=True, report=report
        )


def _require_same(data: Path, table: Path, rules: Rules) -> None:
    """Raise a DataError if the split in a table is not the one that the cohort would get."""
    asked, there = cohorts.read(data), _places(cohorts.read(table))
    if not any(scan.split for scan in asked):
        splits.check(asked, rules)
        loads = {_place(scan): load for scan, load in splits.noted(table).items()}
        with suppress(KeyError):  # a scan is new, and is told of below
            volumes = {scan.scan: loads[_place(scan.scan)].volume_mm3 for scan in asked}
            if _places(splits.assign(asked, volumes, rules)) == there:  # no mask has to be read
                return
    now = _places(splits.of(asked, rules))
    changed = sorted(file for file in now.keys() | there.keys() if now.get(file) != there.get(file))
    if changed:
        raise DataError(
            f"{table} is the split of other scans, or by other rules ({len(changed)} differ, "
            f"{Path(changed[0]).name} first); choose another -ofolder, or remove it for a new "
            "split: what was trained on the same scans is kept"
        )


def _places(scans: Sequence[CohortScan]) -> dict[str, tuple[str, ...]]:
    """Part, subject, site and labels of every scan, by its file."""
    return {
        _place(scan.scan): (
            *(scan.split, scan.subject, scan.site, _place(scan.lesion_mask)),
            _place(scan.centerline) if scan.centerline else "",
        )
        for scan in scans
    }


def _place(file: Path) -> str:
    """Path by which a file is the same whatever folder it is seen from; its own name stays."""
    return str(Path(os.path.realpath(file.parent), file.name))


def _train(
    table: Path,
    folder: Path,
    settings: StudySettings,
    jobs: int,
    workers: Jobs,
    progress: Opened,
) -> dict[str, str]:
    """Train every loss; return why that failed, by the names of the steps."""
    trainings = {
        f"train {recipe.loss.name}": Training(
            table,
            folder / BUNDLES / recipe.loss.name,
            recipe,
            settings.cache or folder / BUNDLES / CACHE,
            settings.about,
            settings.command,
            jobs,
            os.environ.get("KERAS_BACKEND"),
        )
        for recipe in settings.recipes
    }
    found = executor.run(
        partial(train_one, progress=progress) if workers == 1 else train_one,
        list(trainings.values()),
        workers,
        name=lambda task: task.recipe.loss.name,
        failed=_lost,
    )
    return {step: why for step, why in zip(trainings, found, strict=True) if why}


def train_one(training: Training, progress: Opened = _unseen) -> str:
    """Train a bundle, or go on with it; return why that failed, empty where it did not."""
    if training.backend is not None:  # heeded where Keras is not loaded yet
        os.environ["KERAS_BACKEND"] = training.backend
    from sct_lesion_losses.workflows import train

    loss = training.recipe.loss.name
    settings = train.TrainSettings(
        resume=True,
        cache=training.cache,
        jobs=training.jobs,
        data=training.about or train.TrainSettings.data,
        commands=tuple(filter(None, [training.command])),
    )
    try:
        with (
            progress(f"preparing for {loss}") as on_scan,
            progress(f"training {loss}", "step") as on_step,
        ):
            train.run(
                training.table,
                training.folder,
                training.recipe,
                settings,
                on_scan=on_scan,
                on_step=on_step,
            )
    except Exception as error:  # whatever it is, the other losses are trained
        why = _why(error)
        logger.error("train %s failed: %s", loss, why)
        return why
    return ""


def _lost(error: BaseException) -> str:
    logger.error("a training failed: %s", why := _why(error))
    return why


def _why(error: BaseException) -> str:
    logger.debug("what ended it", exc_info=error)
    return str(error) if isinstance(error, LesionError) else f"{type(error).__name__}: {error}"


def _note(step: str, why: str, failures: dict[str, str]) -> None:
    if why:
        logger.error("%s failed: %s", step, why)
        failures[step] = why


def _tune(
    given: Sequence[Bundle],
    table: Path,
    folder: Path,
    settings: StudySettings,
    jobs: int,
    progress: Opened,
    failures: dict[str, str],
) -> None:
    """Tune what was trained, or copies of what was given; add why that failed."""
    sources = {bundle.name: bundle.folder for bundle in given}
    how = tune.TuneSettings(
        inference=settings.evaluation.inference,
        force=True,
        results=folder / EVALUATION,
        jobs=jobs,
        command=settings.command,
    )
    for name in _to_tune(given, settings):
        if f"train {name}" in failures:
            continue
        bundle = folder / BUNDLES / name
        try:
            with progress(f"tuning {name}") as report:
                tune.run(sources.get(name) or bundle, table, replace(how, folder=bundle), report)
        except Exception as error:  # whatever it is, the other bundles are tuned
            _note(f"tune {name}", _why(error), failures)


def _bundles(
    given: Sequence[Bundle], folder: Path, settings: StudySettings, failures: dict[str, str]
) -> list[str]:
    """Return what is to be evaluated: whatever could be made and loads, and SCT's model."""
    named = list(settings.bundles)
    if settings.retune:
        named = [name for name in named if name == SCT_NAME]
    for name in _to_tune(given, settings):
        copy_failed = settings.retune and f"tune {name}" in failures
        if f"train {name}" in failures or copy_failed:
            continue
        try:
            store.load(folder / BUNDLES / name)
            named.append(str(folder / BUNDLES / name))
        except BundleError as error:
            _note(name, str(error), failures)
    if not named or SCT_NAME in named:
        return named
    try:
        predict.load(SCT_NAME, settings.evaluation.inference.contrast)
    except SctError as error:
        logger.info("without the baseline: %s", error)
        return named
    return [*named, SCT_NAME]


def _draw(
    bundles: Sequence[str],
    table: Path,
    folder: Path,
    evaluation: Evaluation,
    how: InferenceSettings,
) -> None:
    """Draw learning curves, and one scan with the lesions that each model marks in it."""
    own = [store.load(name).info for name in bundles if name != SCT_NAME]
    histories = {info.name: info.history for info in own}
    figures.draw("learning_curves", folder / FIGURES, histories)
    scan = typical(table, evaluation.without_cord)
    if scan is None:
        for path in style.paths_of(folder / FIGURES / "figure3"):
            path.unlink(missing_ok=True)
        return
    found = locate(scan, how)
    image = found.image
    masks = {}
    for name in bundles:
        bundle, network = predict.opened(name, how.contrast, how.engine, how.precision)
        threshold = _sct_threshold(evaluation) if name == SCT_NAME else bundle.threshold
        mask = binarize(found.pmap(bundle, network), threshold)
        masks[f"{bundle.name}\nthreshold {threshold:g}"] = mask
    content = (image.array, image.grid, found.truth, masks)
    figures.draw("figure3", folder / FIGURES, *content)


def typical(table: Path, left_out: Sequence[str] = ()) -> CohortScan | None:
    """Unseen scan of the median lesion volume, of those with lesions: the lower of two.

    Parameters
    ----------
    table : Path
        The cohort with its split, which holds lesion volumes.
    left_out : sequence of str
        Names of scans that are not to be chosen.
    """
    loads, scans = splits.noted(table), cohorts.read(table)
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


def _sct_threshold(evaluation: Evaluation) -> float:
    tuned = next(one.tuned for one in evaluation.models if one.label == SCT_NAME)
    return UNTUNED if tuned is None else tuned


def _report(
    bundles: Sequence[str],
    table: Path,
    folder: Path,
    evaluation: Evaluation,
    settings: StudySettings,
    failures: Mapping[str, str],
) -> str:
    """Render the report: every table and figure of the study with its caption."""
    infos = [store.load(name).info for name in bundles if name != SCT_NAME]
    scans, made = cohorts.read(table), evaluation.tables
    alerts = [f"{step} failed: {why}" for step, why in failures.items()]
    if SCT_NAME not in bundles:
        alerts.append("SCT's lesion model was not found: the baseline is missing.")
    if left_out := len(evaluation.without_cord):
        alerts.append(f"No cord was found in {style.counted(left_out, 'unseen scan')}, left out.")
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
    numbered = [
        replace(made[f"table{k}"], title=f"Table {k}. {made[f'table{k}'].title}") for k in (1, 2)
    ]
    sections = (
        Section(
            "cohort",
            "The cohort and its split",
            (page.cohort_table(splits.by_part(scans, splits.noted(table))),),
        ),
        Section(
            "scores",
            "Scores on the unseen scans",
            (*numbered, made["intervals"], made["patients"]),
        ),
        Section(
            "thresholds",
            "Over thresholds, and between models",
            (tables.over_thresholds(evaluation.rows), made["thresholds"], made["models"]),
        ),
        Section("published", "Beside the published values", (made["published"],)),
        Section(
            "breakdown", "By site and by size of lesion", (made["lesion_sizes"], made["sites"])
        ),
        Section(
            "how",
            "How it was made",
            (page.facts_table(how), page.recipe_table(infos), page.bundle_table(infos)),
            settings.command,
        ),
    )
    models = style.counted(len(evaluation.models), "model")
    unseen = len({row.scan for row in evaluation.rows})
    lead = f"{models} on a cohort of {len(scans)} scans, {unseen} of them unseen."
    drawn = (folder, folder / FIGURES, folder / EVALUATION / evaluate.FIGURES)
    return page.html(TITLE, lead, alerts, sections, drawn)


def _origin(settings: StudySettings, failures: Mapping[str, str]) -> str:
    failed = any(step.startswith("tune ") for step in failures)
    if settings.recipes or settings.retune:
        return "tuned on the part thr-optimization" + ", but for the failed" * failed
    return "those that the given bundles came with"
