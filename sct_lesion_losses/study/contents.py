"""What the report of a study says: its sections, gathered from the files of the study."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sct_lesion_losses import __version__
from sct_lesion_losses.bundle import store
from sct_lesion_losses.bundle.schema import BundleInfo
from sct_lesion_losses.cohorts import splits
from sct_lesion_losses.cohorts import table as cohorts
from sct_lesion_losses.cohorts.splits import PartLoad
from sct_lesion_losses.errors import DataError
from sct_lesion_losses.images import atomic
from sct_lesion_losses.metrics.scores import ScanScore
from sct_lesion_losses.report import page, sentences, tables, trends
from sct_lesion_losses.report import scores as stored
from sct_lesion_losses.report import tables as numbers
from sct_lesion_losses.report import tables as published
from sct_lesion_losses.report.figures import style
from sct_lesion_losses.report.page import Section
from sct_lesion_losses.report.tables import PUBLISHED, Cell, Published, Table, row
from sct_lesion_losses.study import pictures
from sct_lesion_losses.training.callbacks import duration
from sct_lesion_losses.training.recipe import Recipe
from sct_lesion_losses.workflows import evaluate

PAGE = "report.html"
TITLE = "Loss functions and decision thresholds for spinal cord MS lesions"
_SAID = "Research software, not a medical device. Look at every mask."


@dataclass(frozen=True)
class Made:
    """What a study has made.

    Attributes
    ----------
    table : Path
        The cohort with its split.
    split_figure : Path
        Fig. 1.
    evaluation : Path
        Folder of `evaluate.run`.
    figures : Path
        Folder of `pictures.draw`.
    preset : str
        Rule of the lesion-wise scores.
    command : str
    recipes : dict of str to Recipe
        What was to be trained, by loss.
    logs : dict of str to Path
        ``training.csv`` of the losses that were.
    bundles : tuple of str
        What is evaluated, but SCT's model.
    failures : dict of str to str
        Stages that failed, and why.
    sct_found : bool
    retuned : bool
        Given bundles were tuned again.
    """

    table: Path
    split_figure: Path
    evaluation: Path
    figures: Path
    preset: str
    command: str
    recipes: Mapping[str, Recipe]
    logs: Mapping[str, Path]
    bundles: tuple[str, ...]
    failures: Mapping[str, str]
    sct_found: bool
    retuned: bool


def write(made: Made, path: Path) -> None:
    """Write the report of a study.

    Raises
    ------
    DataError
        A file of the evaluation is not there, or not as it was written.
    OutputError
        The page cannot be written.
    """
    atomic.write_text(path, text(made))


def text(made: Made) -> str:
    """Put the report of a study together, as HTML."""
    described = _described(made.evaluation)
    levels: Mapping[str, Mapping[str, Any]] = described["bundle"]["Levels"]
    scores = stored.read_scores(made.evaluation / f"{evaluate.SCORES}.tsv")
    rows = [r for r in scores if r.lesions.preset.name == made.preset]
    lesions = stored.read_lesions(made.evaluation / f"{evaluate.LESIONS}.tsv")
    losses = {name: about["Loss"] for name, about in levels.items() if about["Loss"] in PUBLISHED}
    made_tables = tables.study(
        rows, [one.lesion for one in lesions if one.preset == made.preset], losses
    )
    bundles = [store.load(name).info for name in made.bundles]
    parts = _parts(made.table)
    beside = {
        name: PUBLISHED[losses.get(name, name)]
        for name in levels
        if losses.get(name, name) in PUBLISHED
    }
    found = trends.of(rows)
    sections = [
        _summary(made, found, beside, described),
        _cohort(made, parts),
        _scores(made, made_tables),
        _thresholds(made, found, made_tables),
        _published(made_tables["published"]),
        _breakdown(made_tables),
        _how(made, bundles, described),
    ]
    before = [page.paragraph(_SAID, "aside"), page.paragraph(_lead(made, rows, parts), "lead")]
    return page.page(TITLE, before, sections)


def _lead(made: Made, rows: Sequence[ScanScore], parts: Sequence[PartLoad]) -> str:
    models = list(dict.fromkeys(r.bundle for r in rows))
    scans = len({r.scan for r in rows})
    how = "trained and evaluated" if made.recipes else "evaluated"
    return (
        f"{style.counted(len(models), 'model')} {how} on a cohort of "
        f"{sum(len(p.loads) for p in parts)} scans, {scans} of them unseen; "
        f"after {published.REFERENCE}, whose values stand beside."
    )


def _summary(
    made: Made,
    found: Sequence[trends.Trend],
    beside: Mapping[str, Published],
    described: Mapping[str, Any],
) -> Section:
    parts = []
    if made.failures:
        parts.append(page.paragraph("Not everything succeeded:"))
        parts.append(page.bullets(_failed(made)))
    if not made.sct_found:
        parts.append(
            page.paragraph("SCT's lesion model was not found, so that the baseline is missing.")
        )
    left_out = described["ScansWithoutCord"]
    if left_out:
        parts.append(page.paragraph(f"Left out, because no cord was found: {len(left_out)} scans."))
    for title, said in (
        ("Which models are stable over thresholds", sentences.stability(found)),
        ("What tuning buys", sentences.gains(found)),
        ("What tuning costs", sentences.costs(found)),
        ("Beside the published study", sentences.against(found, beside)),
    ):
        if said:
            parts += [page.heading(title), page.paragraph(" ".join(said))]
    if not found:
        parts.append(
            page.paragraph(
                "No model has a tuned threshold and unseen scans with lesions, so that nothing can "
                "be said of thresholds."
            )
        )
    return Section("summary", "Summary", tuple(parts))


def _cohort(made: Made, parts: Sequence[PartLoad]) -> Section:
    theirs = published.COHORT
    known = {
        "training": str(theirs.training),
        "validation": str(theirs.validation),
        "thr-optimization": str(theirs.thr_optimization),
        "unseen": f"{theirs.unseen_with_lesions} with, {theirs.unseen_without} without",
    }
    rows = tuple(
        row(
            part.name,
            *(str(n) for n in (len(part.loads), part.subjects, part.sites)),
            *(str(n) for n in (len(part.bearing), part.lesion_free)),
            known[part.name],
        )
        for part in parts
    )
    header = ("Part", "Scans", "Subjects", "Sites", "With lesions", "Without", "Scans, published")
    note = (
        f"Published: {published.REFERENCE}: {theirs.scans} scans of {theirs.subjects} subjects "
        f"from {theirs.sites} sites. All scans of a subject are in one part."
    )
    return Section(
        "cohort",
        "The cohort and its split",
        (
            page.table(Table("Scans of each part", header, rows, notes=(note,))),
            page.figure(
                made.split_figure,
                "Figure 1. Lesions and lesion volume of every scan with lesions, by part of the "
                "split. A box spans the quartiles, its line is the median, its whiskers reach the "
                "last scan within 1.5 box lengths.",
                "Lesion number and lesion volume per scan, in four rows: training, validation, "
                "thr-optimization, unseen.",
            ),
        ),
    )


def _scores(made: Made, tables_: Mapping[str, Table]) -> Section:
    return Section(
        "scores",
        "Scores on the unseen scans",
        (
            page.heading("Table 1. At threshold 0.5"),
            page.table(tables_["table1"]),
            page.heading("Table 2. At the tuned thresholds"),
            page.table(tables_["table2"]),
            page.table(tables_["intervals"]),
            page.table(tables_["patients"]),
            *_pictures(
                made.evaluation / evaluate.FIGURES / "patients",
                "P-sensitivity against P-specificity of every model on the unseen scans, at 0.5 "
                "and at its tuned threshold, with 95 % intervals.",
                "P-sensitivity against P-specificity, a panel for each model.",
            ),
            *_pictures(
                made.figures / pictures.SCAN,
                "Figure 3. The sagittal slice with most lesion of the unseen scan whose lesion "
                "volume is the median: the scan, the manual mask, and each model at its threshold. "
                "Green: true positive; white: false negative; red, hatched: false positive.",
                "A sagittal slice of the cord, once with the manual mask and once with the mask of "
                "each model.",
            ),
        ),
    )


def _thresholds(made: Made, found: Sequence[trends.Trend], tables_: Mapping[str, Table]) -> Section:
    return Section(
        "thresholds",
        "Over thresholds, and between models",
        (
            *_pictures(
                made.evaluation / evaluate.FIGURES / "stability",
                "Median V-F1 of the unseen scans over the thresholds, a line for each model. "
                "A flat line is a model whose threshold matters little.",
                "Median V-F1 over thresholds from 0 to 1, a line for each model.",
            ),
            *([page.table(trends.table(found))] if found else []),
            *_pictures(
                made.evaluation / evaluate.FIGURES / "figure2",
                "Figure 2. V-F1 of the unseen scans with lesions at every threshold, a panel for "
                "each model. A box spans the quartiles, its line is the median.",
                "Boxes of V-F1 at thresholds from 0 to 1, a panel for each model.",
            ),
            page.table(tables_["thresholds"]),
            page.table(tables_["models"]),
            *_pictures(
                made.figures / pictures.CURVES,
                "Learning curves: training and validation loss, and below them the learning rate, "
                "a panel for each training. Stars mark the lowest validation loss. Losses differ "
                "in scale.",
                "Training and validation loss over the epochs, a panel for each loss.",
            ),
        ),
    )


def _pictures(stem: Path, caption: str, alt: str) -> list[str]:
    """Inline a figure that was drawn as PNG and SVG, the smaller of them; nothing without one."""
    drawn = [path for path in style.paths_of(stem) if path.is_file()]
    if not drawn:
        return []
    return [page.figure(min(drawn, key=lambda path: path.stat().st_size), caption, alt)]


def _published(table: Table) -> Section:
    return Section("published", "Beside the published values", (page.table(table),))


def _breakdown(made: Mapping[str, Table]) -> Section:
    return Section(
        "breakdown",
        "By site and by size of lesion",
        (page.table(made["lesion_sizes"]), page.table(made["sites"])),
    )


def _how(made: Made, bundles: Sequence[BundleInfo], described: Mapping[str, Any]) -> Section:
    parts = []
    if made.command:
        parts.append(page.code(made.command))
    packages = dict(item for info in bundles for item in sorted(info.packages.items()))
    facts = [
        ("sct_lesion_losses", __version__),
        ("Python", platform.python_version()),
        ("Inference", ", ".join(described["Engines"]) or numbers.UNKNOWN),
        ("Centerline", described["Centerline"]),
        ("Lesion preset of the tables", made.preset),
        ("Thresholds", _origin(made)),
        ("SCT's lesion model", "evaluated" if made.sct_found else "not found"),
    ]
    if made.recipes:
        trained = ", ".join(f"{name} {version}" for name, version in packages.items())
        facts.append(("Trained with", trained or numbers.UNKNOWN))
    listed = Table("Software and settings", ("What", "Is"), tuple(row(*fact) for fact in facts))
    parts.append(page.table(listed, wrapped=True))
    if made.recipes:
        parts.append(page.table(_recipes(list(made.recipes.values())), wrapped=True))
    parts.append(page.table(_trainings(bundles)))
    if made.failures:
        parts += [page.heading("Failures"), page.bullets(_failed(made))]
    return Section("how", "How it was made", tuple(parts))


def _origin(made: Made) -> str:
    failed = any(name.startswith("tune ") for name in made.failures)
    but = ", but for those whose tuning failed" if failed else ""
    if made.recipes:
        return f"tuned on the part thr-optimization of this cohort{but}"
    if made.retuned:
        return f"tuned again, on the part thr-optimization of this cohort{but}"
    return "those that the given bundles came with"


def _recipes(recipes: Sequence[Recipe]) -> Table:
    """List the entries of the recipes; one that differs between losses is given for each."""
    plain = [recipe.to_dict() for recipe in recipes]
    rows = []
    for name in plain[0]:
        if name == "loss":
            continue
        values: dict[str, list[str]] = {}
        for entries in plain:
            values.setdefault(_value(entries[name]), []).append(entries["loss"])
        alone = len(values) == 1
        told = "; ".join(v if alone else f"{v} ({', '.join(of)})" for v, of in values.items())
        rows.append(row(name.replace("_", " "), told))
    return Table("Recipe of the trainings", ("Entry", "Value"), tuple(rows))


def _value(entry: Any) -> str:
    if isinstance(entry, Mapping):
        return ", ".join(f"{name} {_value(value)}" for name, value in entry.items()) or "default"
    if isinstance(entry, list | tuple):
        return ", ".join(map(_value, entry))
    if isinstance(entry, bool):
        return "yes" if entry else "no"
    return "none" if entry is None else f"{entry:g}" if isinstance(entry, float) else str(entry)


def _trainings(bundles: Sequence[BundleInfo]) -> Table:
    rows = []
    for info in bundles:
        recipe, point = info.recipe, info.operating_point
        line = next((e for e in info.history if recipe and e.epoch == recipe.best_epoch), None)
        minutes = None if recipe is None else recipe.minutes
        rows.append(
            (
                Cell(info.name),
                *row(
                    info.version,
                    info.loss.name,
                    numbers.UNKNOWN if recipe is None else str(recipe.epochs_run),
                    numbers.UNKNOWN if line is None else str(line.epoch),
                    numbers.UNKNOWN
                    if line is None or line.val_loss is None
                    else f"{line.val_loss:.4f}",
                    numbers.UNKNOWN if minutes is None else duration(60 * minutes),
                    numbers.threshold_text(point.threshold),
                    "yes" if point.kind == "tuned" else "no",
                    numbers.UNKNOWN
                    if point.interval is None
                    else f"{point.interval[0]:g} to {point.interval[1]:g}",
                    numbers.UNKNOWN if point.n_scans is None else str(point.n_scans),
                ),
            )
        )
    header = (
        *(
            "Bundle",
            "Version",
            "Loss",
            "Epochs",
            "Best epoch",
            "Its validation loss",
            "Trained for",
        ),
        *("Threshold", "Tuned", "95 % interval", "Tuned on scans"),
    )
    return Table("Bundles", header, tuple(rows))


def _failed(made: Made) -> list[str]:
    return [f"{name}: {page.without_folders(why)}" for name, why in made.failures.items()]


def _parts(table: Path) -> list[PartLoad]:
    loads = splits.noted(table)
    return splits.by_part(cohorts.read(table), loads)


def _described(evaluation: Path) -> dict[str, Any]:
    path = evaluation / f"{evaluate.SCORES}.json"
    try:
        read: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); remove it and start again") from error
    return read
