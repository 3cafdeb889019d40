"""The stages of a study: split, train, tune, evaluate, draw, report."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from sct_lesion_losses.bundle import store
from sct_lesion_losses.bundle.check import MANIFEST, WEIGHTS
from sct_lesion_losses.bundle.store import SCT_NAME
from sct_lesion_losses.cohorts import table as cohorts
from sct_lesion_losses.errors import SctError, TrainingError
from sct_lesion_losses.inference import predict
from sct_lesion_losses.inference.cohort import SCANS
from sct_lesion_losses.report import card
from sct_lesion_losses.study import contents, damage, hashes, pictures, training
from sct_lesion_losses.study.contents import Made
from sct_lesion_losses.study.settings import Listener, Settings
from sct_lesion_losses.study.stages import Estimate, Facts, Results, Stage
from sct_lesion_losses.study.training import Training
from sct_lesion_losses.training.recipe import Recipe
from sct_lesion_losses.workflows import evaluate, split, tune

SPLIT_TABLE = "split.tsv"
FIGURE_1 = ("figure1.png", "figure1.svg")
BUNDLES, EVALUATION, CACHE = "bundles", "evaluation", "training_cache"
SPLIT, EVALUATE, DRAW, REPORT = "split", "evaluate", "draw", "report"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Study:
    """A study of a cohort in a folder.

    Attributes
    ----------
    data : Path
        BIDS folder or TSV; see `data.cohort.read`.
    folder : Path
        Where everything is written.
    settings : Settings
    listener : Listener
    train : callable
        Does a training; for one that is sent away it can be sent, too.
    measured : callable
        Estimates a training by a recipe on a cohort that no epoch is known of.
    """

    data: Path
    folder: Path
    settings: Settings
    listener: Listener
    train: Callable[[Training, Results], None]
    measured: Callable[[Recipe, Path], Estimate | None] = lambda _recipe, _data: None

    @property
    def table(self) -> Path:
        """The cohort with its split."""
        return self.folder / SPLIT_TABLE

    @functools.cached_property
    def sct(self) -> str | None:
        """Hash of SCT's lesion model, None where SCT is not found or not asked for."""
        return sct_hash(self.settings.contrast)

    def stages(self) -> list[Stage]:
        """Everything that is to be done, in order."""
        trained = [self._train(recipe) for recipe in self.settings.recipes]
        tuned = [self._tune(recipe.loss) for recipe in self.settings.recipes]
        if self.settings.retune:
            given = [name for name in self.settings.bundles if name != SCT_NAME]
            tuned += [self._tune_copy(name) for name in given]
        before = tuple(stage.name for stage in (*trained, *tuned))
        last = (self._evaluate(before), self._draw(before), self._report((*before, DRAW)))
        return [self._split(), *trained, *tuned, *last]

    def bundles(self, results: Results) -> list[str]:
        """Return what is evaluated: what was given, what could be trained, and SCT's model.

        A trained bundle that does not load is left out.
        """
        given = list(self.settings.bundles)
        if self.settings.retune:
            given = [
                name if name == SCT_NAME else str(self.folder / BUNDLES / own_name(name))
                for name in given
                if name == SCT_NAME or results[f"tune {own_name(name)}"].good
            ]
        lost = self._lost(results)
        trained = [
            str(self.folder / BUNDLES / recipe.loss)
            for recipe in self.settings.recipes
            if results[f"train {recipe.loss}"].good and recipe.loss not in lost
        ]
        found = [*trained, *given]
        if not found:
            raise TrainingError(_why_none({**failures(results), **lost}))
        return found if self.sct is None or SCT_NAME in found else [*found, SCT_NAME]

    def _lost(self, results: Results) -> dict[str, str]:
        """Return the trained bundles that do not load, and why."""
        good = [r.loss for r in self.settings.recipes if results[f"train {r.loss}"].good]
        found = {loss: damage.of(self.folder / BUNDLES / loss) for loss in good}
        return {loss: why for loss, why in found.items() if why is not None}

    def training(self, recipe: Recipe) -> Training:
        """Return the training of one loss, which may begin when the cohort is split."""
        settings, bundles = self.settings, self.folder / BUNDLES
        return Training(
            table=self.table,
            folder=bundles / recipe.loss,
            recipe=recipe,
            machine=settings.machine,
            cache=settings.cache or bundles / CACHE,
            data=settings.data,
            commands=(settings.command,) if settings.command else (),
        )

    def _split(self) -> Stage:
        rules = self.settings.rules

        def inputs(_: Results) -> Facts:
            scans = cohorts.read(self.data)
            return {
                **{f"split.{name}": json.dumps(value) for name, value in asdict(rules).items()},
                **hashes.of_scans(scans),
                **hashes.places(scans, self.folder),
            }

        def run(_: Results) -> None:
            with self.listener.scans("splitting") as progress:
                split.split(
                    self.data,
                    self.table,
                    rules,
                    figures=[self.folder / name for name in FIGURE_1],
                    keep=True,
                    force=True,
                    report=progress,
                )

        def outputs() -> list[Path]:
            return [self.table, *(self.folder / name for name in FIGURE_1)]

        return Stage(SPLIT, inputs, run, outputs, essential=True)

    def _train(self, recipe: Recipe) -> Stage:
        asked = self.training(recipe)
        return Stage(
            f"train {recipe.loss}",
            functools.partial(_training_inputs, asked),
            functools.partial(self.train, asked),
            lambda: [asked.weights],
            needs=(SPLIT,),
            remote=True,
            estimate=lambda: training.estimate(asked) or self._measured(recipe),
            begun=lambda: training.is_begun(asked),
            damage=lambda: damage.of(asked.folder),
        )

    def _measured(self, recipe: Recipe) -> Estimate | None:
        return self.measured(recipe, self.table if self.table.is_file() else self.data)

    def _tune(self, name: str) -> Stage:
        folder = self.folder / BUNDLES / name

        def inputs(_: Results) -> Facts:
            weights = hashes.of_file(folder / WEIGHTS)
            return {"weights": weights, **self._tuning_inputs()}

        return Stage(
            f"tune {name}",
            inputs,
            lambda _: self._tuned(folder),
            lambda: _files_of(folder),
            needs=(SPLIT, f"train {name}"),
        )

    def _tune_copy(self, given: str) -> Stage:
        name = own_name(given)
        folder = self.folder / BUNDLES / name

        def inputs(_: Results) -> Facts:
            return {"bundle": _manifest(given), **self._tuning_inputs()}

        def run(_: Results) -> None:
            bundle = store.load(given)
            text = card.text(bundle.info)
            damage.clear(folder)
            store.save(folder, bundle.info, bundle.network, bundle.weights, text, overwrite=True)
            self._tuned(folder)

        return Stage(f"tune {name}", inputs, run, lambda: _files_of(folder), needs=(SPLIT,))

    def _tuning_inputs(self) -> Facts:
        settings = self.settings
        return {
            "objective": settings.objective,
            "centerline": settings.centerline,
            "engine": settings.engine,
            **hashes.of_parts(self.table, "thr-optimization", "unseen"),
        }

    def _tuned(self, folder: Path) -> None:
        settings = self.settings
        with self.listener.scans(f"tuning {folder.name}") as progress:
            tune.run(
                folder,
                self.table,
                tune.Settings(
                    objective=settings.objective,
                    centerline=settings.centerline,
                    engine=settings.engine,
                ),
                results=self.folder / EVALUATION,
                jobs=settings.jobs,
                command=settings.command or None,
                report=progress,
            )

    def _evaluate(self, before: tuple[str, ...]) -> Stage:
        settings, folder = self.settings, self.folder / EVALUATION

        def inputs(results: Results) -> Facts:
            named = self.bundles(results)
            return {
                **{f"bundle {own_name(n)}": _manifest(n) for n in named if n != SCT_NAME},
                "sct": self.sct if SCT_NAME in named else None,
                "centerline": settings.centerline,
                "contrast": settings.contrast,
                "preset": settings.preset,
                "engine": settings.engine,
                **hashes.of_parts(self.table, "thr-optimization", "unseen"),
            }

        def run(results: Results) -> None:
            with self.listener.scans("evaluating") as progress:
                evaluate.run(
                    self.bundles(results),
                    self.table,
                    folder,
                    evaluate.Settings(
                        centerline=settings.centerline,
                        contrast=settings.contrast,
                        preset=settings.preset,
                        engine=settings.engine,
                    ),
                    jobs=settings.jobs,
                    command=settings.command,
                    report=progress,
                )

        return Stage(
            EVALUATE,
            inputs,
            run,
            lambda: _written(folder),
            needs=(SPLIT,),
            follows=before,
            essential=True,
        )

    def _draw(self, before: tuple[str, ...]) -> Stage:
        settings, folder = self.settings, self.folder / pictures.FOLDER
        scores = self.folder / EVALUATION / f"{evaluate.SCORES}.json"

        def inputs(results: Results) -> Facts:
            named = self.bundles(results)
            return {
                **{f"bundle {own_name(n)}": _manifest(n) for n in named if n != SCT_NAME},
                "scores": hashes.of_file(scores),
                "split": hashes.of_file(self.table),
                "contrast": settings.contrast,
                "engine": settings.engine,
                "centerline": settings.centerline,
                **hashes.of_parts(self.table, "unseen"),
            }

        return Stage(
            DRAW,
            inputs,
            lambda results: pictures.draw(
                folder, self.table, scores, self.bundles(results), settings
            ),
            lambda: _written(folder),
            needs=(SPLIT, EVALUATE),
            follows=before,
        )

    def _report(self, before: tuple[str, ...]) -> Stage:
        page = self.folder / contents.PAGE

        def inputs(results: Results) -> Facts:
            made = self._made(results)
            paths = [
                *(self.folder / name for name in FIGURE_1),
                *made.logs.values(),
                *_written(made.evaluation),
                *_written(made.figures),
            ]
            return {
                "command": self.settings.command,
                "split": hashes.of_file(self.table),
                "failures": json.dumps(made.failures),
                "sct": self.sct,
                **{p.relative_to(self.folder).as_posix(): hashes.of_file(p) for p in paths},
            }

        return Stage(
            REPORT,
            inputs,
            lambda results: contents.write(self._made(results), page),
            lambda: [page],
            needs=(SPLIT, EVALUATE),
            follows=before,
            essential=True,
        )

    def _made(self, results: Results) -> Made:
        """Gather what the report is about."""
        settings = self.settings
        good = [r for r in settings.recipes if results[f"train {r.loss}"].good]
        return Made(
            table=self.table,
            split_figure=self.folder / FIGURE_1[1],
            evaluation=self.folder / EVALUATION,
            figures=self.folder / pictures.FOLDER,
            preset=settings.preset,
            command=settings.command,
            recipes={r.loss: r for r in settings.recipes},
            logs={r.loss: self.training(r).work / training.LOG for r in good},
            bundles=tuple(name for name in self.bundles(results) if name != SCT_NAME),
            failures={**failures(results), **self._lost(results)},
            sct_found=self.sct is not None,
            retuned=settings.retune,
        )


def failures(results: Results) -> dict[str, str]:
    """Return what has failed, and why; what was left out for it is not named."""
    return {name: found.why for name, found in results.items() if found.outcome == "failed"}


def sct_hash(contrast: str) -> str | None:
    """Hash of SCT's lesion model; None, and a line in the log, where it is not found."""
    try:
        return predict.load(SCT_NAME, contrast).sha256
    except SctError as error:
        logger.info("without the baseline: %s", error)
        return None


@functools.cache
def own_name(bundle: str) -> str:
    """Name of a bundle that was given by its name or folder."""
    return store.load(bundle).name


def _training_inputs(asked: Training, _: Results) -> Facts:
    scans = hashes.of_parts(asked.table, *training.PARTS)
    return {**training.facts(asked.recipe), **scans}


def _manifest(bundle: str) -> str | None:
    return hashes.of_file(store.find(bundle) / MANIFEST)


def _files_of(bundle: Path) -> list[Path]:
    return sorted(path for path in bundle.iterdir() if path.is_file())


def _written(folder: Path) -> list[Path]:
    """Files of an evaluation, but what it keeps of each scan, or of a folder of figures."""
    kept = folder / SCANS
    return sorted(p for p in folder.rglob("*") if p.is_file() and kept not in p.parents)


def _why_none(failed: Mapping[str, str]) -> str:
    first = next(iter(failed.values()), "no loss and no bundle was given")
    return f"there is nothing to evaluate, every training has failed: {first}"
