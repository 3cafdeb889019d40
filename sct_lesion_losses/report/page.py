"""The report of a study as one HTML file: style and pictures inlined, no script, no font."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sct_lesion_losses import logs
from sct_lesion_losses.cohorts.splits import SHARES, PartLoad
from sct_lesion_losses.images.bids import UNKNOWN
from sct_lesion_losses.report import card
from sct_lesion_losses.report.figures import FIGURES, style
from sct_lesion_losses.report.tables import (
    REFERENCE,
    Columns,
    Table,
    frame,
)

TEMPLATE = "report.html.j2"
TITLE = "Loss functions and decision thresholds for spinal cord MS lesions"
_TYPES = {".png": "image/png", ".svg": "image/svg+xml"}


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
    ("thresholds", "Over thresholds, and between models", ("thresholds", "models")),
    ("published", "Beside the published values", ("published",)),
    ("breakdown", "By site and by size of lesion", ("lesion_sizes", "sites")),
    ("how", "How it was made", ("facts",)),
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


def facts_table(facts: Mapping[str, str]) -> Table:
    """List entries and their values."""
    rows = {(name,): value or UNKNOWN for name, value in facts.items()}
    return Table("Software and settings", frame(("Entry",), rows, {"Value": str}))
