"""Train: cohort, split, cord crops, intensity landmarks, network, bundle."""

from __future__ import annotations

import logging
import platform
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import keras
from pydantic import ValidationError

from sct_lesion_losses import __version__
from sct_lesion_losses.bundle import schema, store
from sct_lesion_losses.bundle.check import INFO as BUNDLE_FILE
from sct_lesion_losses.bundle.schema import BundleInfo, Recipe
from sct_lesion_losses.bundle.store import Bundle
from sct_lesion_losses.cohorts import corrections, splits
from sct_lesion_losses.cohorts import table as cohorts
from sct_lesion_losses.cohorts.table import CohortScan
from sct_lesion_losses.errors import BundleError, DataError, TrainingError, UsageError
from sct_lesion_losses.executor import Progress
from sct_lesion_losses.images import atomic
from sct_lesion_losses.preprocessing import augmentation, intensity
from sct_lesion_losses.preprocessing import cache as crop_cache
from sct_lesion_losses.preprocessing.cache import CachedCrop, CacheSettings
from sct_lesion_losses.report import card
from sct_lesion_losses.report.figures import learning, style
from sct_lesion_losses.training import callbacks, export, fit, warm_start
from sct_lesion_losses.training import recipe as recipes
from sct_lesion_losses.training.callbacks import CHECKPOINT, TrainingState

SPLIT_TABLE = "split.tsv"
WORK_SUFFIX = ".training"
CACHE = "training_cache"
PICTURE = "training.png"
EVENTS = "tensorboard"
INTENDED_USE = "research on T2-weighted spinal cord MRI of people with multiple sclerosis"
LIMITS = (
    "not a medical device; its masks need the eye of an expert",
    "trained for T2-weighted scans of the spinal cord; other contrasts are out of its reach",
)
_PACKAGES = (
    *("numpy", "scipy", "nibabel", "keras", "onnx"),
    *("tensorflow", "tensorflow-cpu", "jax", "jaxlib", "torch"),
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainSettings:
    """All that a training is told besides its scans and its recipe.

    Attributes
    ----------
    rules : Rules
        How to split a cohort that comes without a split.
    init : Bundle or None
        Start from its weights, and keep its intensity landmarks, which its weights know; SCT's
        model (`warm_start.load`) is given landmarks of the cohort. The recipe has to ask for its
        network (`warm_start.entries`).
    resume : bool
        Go on where an earlier call ended or was killed.
    force : bool
        Start anew where a bundle or a training is there already; refused otherwise.
    tensorboard : bool
        Write event files for TensorBoard into the folder of the training, too.
    cache : Path or None
        Folder of prepared scans; ``training_cache`` beside the bundle by default.
    jobs : int
        Scans prepared at the same time.
    tta : bool, optional
        The bundle predicts with test-time augmentation; as the start does by default.
    version, about, command : str
        For `bundle.json` and the model card: the bundle's version, a sentence on the scans, and the
        command line that trains like this.
    """

    rules: splits.Rules = splits.Rules()  # noqa: RUF009 (frozen)
    init: Bundle | None = None
    resume: bool = False
    force: bool = False
    tensorboard: bool = False
    cache: Path | None = None
    jobs: int = 1
    tta: bool | None = None
    version: str = "1.0.0"
    about: str = "scans of the user's own"
    command: str = ""

    def __post_init__(self) -> None:
        if self.resume and self.force:
            raise UsageError("-resume 1 goes on and -force 1 starts anew: choose one of them")


def run(
    data: Path | Sequence[Path],
    folder: Path,
    recipe: Recipe,
    settings: TrainSettings = TrainSettings(),
    *,
    on_scan: Progress | None = None,
    on_step: Callable[[int, int, str], None] | None = None,
) -> Path:
    """Train a network on one or more cohorts and write it as a bundle, its threshold still 0.5.

    The bundle is called as its folder. The state of the training, its log, the picture of its
    learning curves and the split are kept beside it, in the folder ``<folder>.training``;
    `tune.run` takes its ``split.tsv``. What is prepared of the scans is kept as well, for other
    trainings on them; see `preprocessing.cache`. A bundle that a resumed training has no epoch to
    add to stays as it is, with the threshold that it may have by now.

    Parameters
    ----------
    data : Path or sequence of Path
        BIDS folder or TSV, or several; see `cohorts.table.read_several`. A split in a TSV is kept.
    folder : Path
        The bundle to write.
    recipe : Recipe
        See `training.recipe.study`.
    settings : TrainSettings
    on_scan : callable, optional
        Told of every scan that is prepared, by (done, total).
    on_step : callable, optional
        Told of every step; see `training.callbacks.StepReports`.

    Returns
    -------
    Path
        `folder`.

    Raises
    ------
    DataError
        There are no training or validation scans, or no lesions among them.
    TrainingError
        A bundle or a training is there already; else see `training.fit.fit`.
    UsageError
        The settings cannot be written into a bundle, or do not fit each other or the cohorts.
    OutputError
        The folder or the cache cannot be written, or another training is writing the folder.
    WorkerError
        A process that prepared a scan was killed.
    """
    folder = folder.absolute()
    recipe = fit.computable(recipe, fit.cpu_flags())
    fit.check(recipe)
    if _tta(settings) and augmentation.MIRRORS not in recipe.augmentations:
        raise UsageError(
            "the bundle would predict with mirrored patches (-tta 1, or that of the start) after a "
            "training without any; leave out -mirrors 0, or add -tta 0"
        )
    draft = _draft(folder.name, recipe, settings)
    store.check_replaceable(folder, overwrite=True)
    cache = folder.with_name(CACHE) if settings.cache is None else settings.cache
    if folder.resolve() in (cache.resolve(), *cache.resolve().parents):
        raise UsageError(
            f"{cache} would lie in the bundle {folder.name}; choose another -cache, or another "
            "-ofolder"
        )
    style.require()  # draws the learning curves
    crop_settings = CacheSettings(cache, recipes.margin(recipe), settings.jobs, on_scan)
    with _work_folder(folder, settings) as work:
        if settings.resume:
            fit.resumable(recipe, work)  # known before any scan is read
        given = [data] if isinstance(data, Path) else list(data)
        made = _trained(given, work, draft, recipe, settings, crop_settings, on_step)
        if made is None:
            logger.info(
                "%s: this training is finished, and its bundle stays as it is; a -bundle_version "
                "or -about given now is not written into it",
                folder.name,
            )
            return folder
        info, model = made
        network, weights = export.to_onnx(model), export.to_safetensors(model)
        store.save(folder, info, network, weights, card.text(info), overwrite=True)
    return folder


def _tta(settings: TrainSettings) -> bool:
    """Tell whether the bundle predicts with test-time augmentation."""
    if settings.tta is not None:
        return settings.tta
    before = None if settings.init is None else settings.init.preparation
    return isinstance(before, schema.StudyPreparation) and before.tta


def _draft(name: str, recipe: Recipe, settings: TrainSettings) -> BundleInfo:
    """Bundle as far as it is known before the training, which must not fail for a name."""
    init = settings.init
    if init is not None:
        warm_start.require_same(init, recipe.network)
    before = schema.Provenance(data="nothing") if init is None else init.info.provenance
    try:
        return BundleInfo(
            name=name,
            version=settings.version,
            loss=schema.Loss(name=recipe.loss.name, numbers=fit.loss_arguments(recipe)),
            preparation=schema.StudyPreparation(percentiles=(0.0, 100.0), landmarks=(0.0, 1.0)),
            network=recipe.network,
            packages=_packages(),
            git_commit=_git_commit(),
            provenance=schema.Provenance(
                data=settings.about,
                commands=(*before.commands, *filter(None, [settings.command])),
                trained_on=before.trained_on,
                ancestor=None if init is None else warm_start.ancestor(init),
            ),
            intended_use=INTENDED_USE,
            limits=(*LIMITS, *warm_start.inherited_limits(init)),
        )
    except ValidationError as error:
        raise UsageError(
            f"the bundle cannot be described so: {schema.problems(error)}; choose another "
            "folder name, version (1.0.0) or description, without absolute paths"
        ) from error


def _trained(
    data: Sequence[Path],
    work: Path,
    draft: BundleInfo,
    recipe: Recipe,
    settings: TrainSettings,
    crop_settings: CacheSettings,
    on_step: Callable[[int, int, str], None] | None,
) -> tuple[BundleInfo, Any] | None:
    """Train in the folder `work`; the description `draft` completed, and the Keras model.

    None where there is no epoch to add and the bundle is there.
    """
    given = cohorts.read_several(data)
    scans = splits.of_several(given, settings.rules)
    logger.info("split: %s", ", ".join(f"{n} {k}" for k, n in splits.counts(scans).items()))
    _require_cohorts(scans, recipe)
    corrections.say(splits.part(scans, "training", "validation"))
    every = crop_cache.crop_scans(splits.part(scans, "training", "validation"), crop_settings)
    hashes = {one.scan.scan: one.content for one in every}
    splits.refuse_copies(scans, hashes)
    training, validation = (_part(every, name) for name in ("training", "validation"))
    if recipe.free_share and all(scan.lesion_vox for scan in training):
        logger.warning(
            "no scan of the training set is free of lesions, and -free_share draws none of them; "
            "-lesion_free takes a share of those subjects into the training set"
        )
    init = settings.init
    preparation = None if init is None else init.preparation  # which its weights know
    if not isinstance(preparation, schema.StudyPreparation):
        preparation = intensity.fit(scan.percentiles for scan in training)
    preparation = preparation.model_copy(update={"tta": _tta(settings)})
    trained_on = [(_in_split(one.scan), one.seen) for one in every]
    if init is not None:
        trained_on.append((f"the weights of {init.name}", init.weights_sha256))
    state = fit.begin(recipe, work, trained_on, settings.resume)
    if _is_made(work.with_name(draft.name), recipe, state, settings.tta):
        return None
    cohorts.write(scans, work / SPLIT_TABLE)
    watching: list[Any] = [
        callbacks.LearningCurves(state, partial(learning.draw_history, path=work / PICTURE))
    ]
    if on_step is not None:
        watching.append(callbacks.StepReports(state, on_step))
    if settings.tensorboard:
        watching.append(callbacks.EventFiles(state, work / EVENTS))
    model = fit.fit(
        crop_cache.standardise_scans(training, preparation, crop_settings),
        crop_cache.standardise_scans(validation, preparation, crop_settings),
        recipe,
        work,
        state,
        initial=None if init is None else init.weights,
        watching=watching,
    )
    hosts = filter(None, (cohorts.host_hash(one.scan) for one in every))
    seen = {*draft.provenance.trained_on, *hashes.values(), *hosts}
    seeds = {"training": recipe.seed}
    if not all(scan.split for own in given for scan in own):
        seeds["split"] = settings.rules.seed
    ran = {
        "epochs_run": state.epoch,
        "best_epoch": state.best_epoch if recipe.keep == "best" else None,
        "backend": keras.backend.backend(),
        "device": fit.device(),
        "minutes": sum(line.seconds for line in state.history) / 60,
    }
    facts = {
        "created": date.today(),
        "preparation": preparation,
        "network": recipe.network.model_copy(update={"parameters": model.count_params()}),
        "recipe": recipe.model_copy(update=ran),
        "history": state.history,
        "split_hash": splits.split_hash([one.scan for one in every], hashes),
        "seeds": seeds,
        "provenance": draft.provenance.model_copy(
            update={"scans": splits.counts(scans), "trained_on": tuple(sorted(seen))}
        ),
    }
    return BundleInfo.model_validate(draft.model_copy(update=facts)), model


def _is_made(folder: Path, recipe: Recipe, state: TrainingState, tta: bool | None) -> bool:
    """Tell whether a training has ended and the bundle of its last epoch is there, undamaged.

    Its test-time augmentation has to be that which is asked for, unless None.
    """
    if not state.ended(recipe):
        return False
    try:
        info = store.load(folder).info
    except BundleError:
        return False
    made = info.preparation
    if info.recipe is None or not isinstance(made, schema.StudyPreparation):
        return False
    if tta not in (None, made.tta):
        return False
    ends = {**recipe.model_dump(include=recipes.ENDS), "epochs_run": state.epoch}
    return info.recipe.model_dump(include=set(ends)) == ends


def _in_split(scan: CohortScan) -> str:
    """Name of a scan and of its part, which tells the scans of a training apart."""
    return f"{scan.cohort}/{scan.name} in {scan.split}".removeprefix("/")


def _require_cohorts(scans: Sequence[CohortScan], recipe: Recipe) -> None:
    """Raise an error where the recipe's shares are not those of the cohorts there are.

    A cohort that nobody is trained on of is warned of, unless its share is 0 or it is for tuning.
    """
    shares, there = recipe.cohort_shares, {scan.cohort for scan in scans if scan.cohort}
    trained = {scan.cohort for scan in splits.part(scans, "training")}
    if shares and not trained <= set(shares) <= there:
        named = ", ".join(sorted(there)) or "one without a name; give several to -i"
        raise UsageError(f"-cohort_shares names {', '.join(shares)}; the cohorts are {named}")
    for name, share in (shares or {}).items():
        if share and name not in trained:
            raise DataError(
                f"the cohort {name} is to give {share:.0%} of the patches, and no scan of it is in "
                "the training set; give it another split, or no share"
            )
    unseen = {scan.cohort for scan in splits.part(scans, "validation", "unseen")}
    for name in sorted((there & unseen) - trained - (shares or {}).keys()):
        logger.warning(
            "no scan of the cohort %s is in the training set; to train on some of its subjects "
            "without lesions give -lesion_free, on others a column split in its table",
            name,
        )


def _part(scans: Sequence[CachedCrop], name: str) -> list[CachedCrop]:
    """Choose the scans of a part of the split, which must hold lesions."""
    chosen = [scan for scan in scans if scan.scan.split == name]
    if not chosen:
        raise DataError(f"the {name} set is empty; give more subjects, or a split of your own")
    if not any(scan.lesion_vox for scan in chosen):
        raise DataError(
            f"no scan of the {name} set holds lesions within 12 mm of its centerline; check the "
            "lesion masks and the centerlines, or give a split of your own"
        )
    return chosen


@contextmanager
def _work_folder(folder: Path, settings: TrainSettings) -> Iterator[Path]:
    """Folder of the training's state, locked; refused where another training would be lost."""
    work = folder.with_name(folder.name + WORK_SUFFIX)
    busy = (
        f"{folder}: another training is writing this bundle; wait for it to end, or train into a "
        "new folder"
    )
    atomic.require_writable(work)
    with atomic.locked(work / atomic.LOCK, busy):
        checkpoint = (work / CHECKPOINT).exists()
        if checkpoint and not (settings.resume or settings.force):
            raise TrainingError(
                f"{work} holds a training already; go on with it by -resume 1, lose it by "
                "-force 1, or train into a new folder"
            )
        if (folder / BUNDLE_FILE).exists() and not (checkpoint or settings.force):
            raise TrainingError(
                f"{folder} holds a bundle already, and no training to go on with; lose it by "
                "-force 1, or train into a new folder"
            )
        yield work


def _packages() -> dict[str, str]:
    installed = {"python": platform.python_version(), "sct_lesion_losses": __version__}
    for name in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            installed[name] = metadata.version(name)
    return installed


def _git_commit() -> str | None:
    """Commit of the checkout that this package runs from; None where it is not one."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(
            [*command, "--exclude=*"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
