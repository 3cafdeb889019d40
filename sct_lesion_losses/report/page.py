"""The report of a study as one HTML file: style and pictures inlined, no script, no font."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path
from typing import Any

from sct_lesion_losses import logs
from sct_lesion_losses.bundle.schema import BundleInfo
from sct_lesion_losses.cohorts.splits import SHARES, PartLoad
from sct_lesion_losses.images.bids import UNKNOWN
from sct_lesion_losses.report import card
from sct_lesion_losses.report.figures import FIGURES, style
from sct_lesion_losses.report.tables import (
    REFERENCE,
    Columns,
    Table,
    frame,
    threshold_text,
)

TEMPLATE = "report.html.j2"
TITLE = "Loss functions and decision thresholds for spinal cord MS lesions"
_TYPES = {".png": "image/png", ".svg": "image/svg+xml"}
_RESULTS = {"epochs_run", "best_epoch", "minutes"}  # of a recipe, in the table of bundles


@dataclass(frozen=True)
class Picture:
    """A drawn figure with its caption; `source` is its content as a data URL."""

    source: str
    caption: str

    @property
    def alt(self) -> str:
        """The caption's first sentence that says what is drawn."""
        sentences = [s for s in self.caption.split(". ") if not s.startswith("Figure")]
        return (sentences or [self.caption])[0].rstrip(".")


# Anchor, title and names of the tables of every section; its figures come after them, those of
# `FIGURES` by its anchor.
SECTIONS = (
    ("cohort", "The cohort and its split", ("parts",)),
    ("scores", "Scores on the unseen scans", ("table1", "table2", "intervals", "patients", "froc")),
    (
        "thresholds",
        "Over thresholds, and between models",
        ("over_thresholds", "thresholds", "models"),
    ),
    ("published", "Beside the published values", ("published",)),
    ("breakdown", "By site and by size of lesion", ("lesion_sizes", "sites")),
    ("how", "How it was made", ("facts", "recipes", "bundles")),
)


def html(
    lead: str,
    alerts: Sequence[str],
    tables: Mapping[str, Table],
    command: str = "",
    folders: Sequence[Path] = (),
) -> str:
    """Render the report.

    Parameters
    ----------
    lead : str
        Sentence below the title.
    alerts : sequence of str
        Whatever is missing from the study, a sentence each; folders of this machine are cut away.
    tables : mapping of str to Table
        By the names in `SECTIONS`; those that are not there are left out.
    command : str
        The command line that makes the study.
    folders : sequence of Path
        Where figures were drawn; those that were not are left out.
    """
    from jinja2 import Environment, PackageLoader

    numbered = {
        name: replace(table, title=f"Table {name[-1]}. {table.title}")
        for name, table in tables.items()
        if name in ("table1", "table2")
    }
    templates = Environment(loader=PackageLoader(__package__), autoescape=True)
    return templates.get_template(TEMPLATE).render(
        title=TITLE,
        disclaimer=card.DISCLAIMER,
        lead=lead,
        alerts=[logs.without_folders(alert) for alert in alerts],
        sections=SECTIONS,
        tables={**tables, **numbered},
        command=command,
        pictures=pictures(folders),
    )


def pictures(folders: Sequence[Path]) -> dict[str, list[Picture]]:
    """Return the smaller of PNG and SVG of every figure that was drawn, by section."""
    found: dict[str, list[Picture]] = {}
    for name, figure in FIGURES.items():
        drawn = [p for folder in folders for p in style.paths_of(folder / name) if p.is_file()]
        if drawn:
            smaller = min(drawn, key=lambda path: path.stat().st_size)
            content = base64.b64encode(smaller.read_bytes()).decode("ascii")
            source = f"data:{_TYPES[smaller.suffix]};base64,{content}"
            found.setdefault(figure.section, []).append(Picture(source, figure.caption))
    return found


def cohort_table(parts: Sequence[PartLoad]) -> Table:
    """List what each part of a split holds, beside the published study's parts."""
    columns: Columns[PartLoad] = {
        "Scans": lambda part: str(len(part.loads)),
        "Subjects": lambda part: str(part.subjects),
        "Sites": lambda part: str(part.sites),
        "With lesions": lambda part: str(len(part.bearing)),
        "Without": lambda part: str(part.lesion_free),
        "Scans, published": lambda part: (
            f"{SHARES[part.name]}{' with, 46 without' if part.name == 'unseen' else ''}"
        ),
    }
    return Table(
        "Scans of each part",
        frame(("Part",), {(part.name,): part for part in parts}, columns),
        notes=(
            f"Published: {REFERENCE}: 161 scans of 108 subjects from 13 sites. All scans of a "
            "subject are in one part.",
        ),
    )


def facts_table(facts: Mapping[str, str], title: str = "Software and settings") -> Table:
    """List entries and their values."""
    rows = {(name,): value or UNKNOWN for name, value in facts.items()}
    return Table(title, frame(("Entry",), rows, {"Value": str}))


def recipe_table(bundles: Sequence[BundleInfo]) -> Table:
    """List the entries of the bundles' recipes; one that differs is given for each bundle."""
    found: dict[str, dict[str, list[str]]] = {}
    for info in bundles:
        if info.recipe is None:
            continue
        recipe = {
            "loss numbers": info.loss.numbers,
            "filters": info.network.filters,
            **info.recipe.model_dump(exclude=_RESULTS),
            "seeds": info.seeds,
        }
        for name, value in recipe.items():
            found.setdefault(name, {}).setdefault(_value(value), []).append(info.name)
    facts = {}
    for name, values in found.items():
        each = [f"{value} ({', '.join(of)})" for value, of in values.items()]
        facts[name.replace("_", " ")] = "; ".join(each if len(each) > 1 else values)
    return facts_table(facts, "Recipes of the trainings")


def _value(entry: Any) -> str:
    if isinstance(entry, Mapping):
        return ", ".join(f"{name} {_value(value)}" for name, value in entry.items()) or "default"
    if isinstance(entry, list | tuple):
        return ", ".join(map(_value, entry))
    if isinstance(entry, bool):
        return "yes" if entry else "no"
    return "none" if entry is None else f"{entry:g}" if isinstance(entry, float) else str(entry)


_TRAINED = ("Epochs", "Best epoch", "Its validation loss", "Minutes")
_OPERATED = ("Threshold", "Tuned", "95 % interval", "Tuned on scans")


def bundle_table(bundles: Sequence[BundleInfo]) -> Table:
    """List training and operating point of every bundle."""
    rows = {}
    for info in bundles:
        recipe, point, known = info.recipe, info.operating_point, dict.fromkeys(_TRAINED, UNKNOWN)
        if recipe is not None:
            known["Epochs"] = str(recipe.epochs_run)
            if recipe.minutes is not None:
                known["Minutes"] = f"{recipe.minutes:.0f}"
            for best in info.history:
                if best.epoch == recipe.best_epoch:
                    known["Best epoch"] = str(best.epoch)
                    if best.val_loss is not None:
                        known["Its validation loss"] = f"{best.val_loss:.4f}"
        known["Threshold"] = threshold_text(point.threshold)
        known["Tuned"] = "yes" if point.kind == "tuned" else "no"
        known["95 % interval"] = (
            "{:g} to {:g}".format(*point.interval) if point.interval else UNKNOWN
        )
        known["Tuned on scans"] = str(point.n_scans)
        rows[info.name, info.version, info.loss.name] = known
    columns = {name: itemgetter(name) for name in (*_TRAINED, *_OPERATED)}
    return Table("Bundles", frame(("Bundle", "Version", "Loss"), rows, columns))
