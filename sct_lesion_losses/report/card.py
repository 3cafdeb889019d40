"""The model card of a bundle: the facts of `bundle.json`, for a person to read.

References
----------
Mitchell et al. 2019, "Model Cards for Model Reporting"
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from sct_lesion_losses.bundle.schema import BundleInfo, Epoch, OperatingPoint
from sct_lesion_losses.errors import OutputError
from sct_lesion_losses.report.figures.style import counted

try:
    from jinja2 import Environment, PackageLoader, StrictUndefined
except ImportError as error:  # raised before any work: the flows import this module first
    raise OutputError(
        "a model card needs jinja2: pip install 'sct_lesion_losses[report]'"
    ) from error

DISCLAIMER = "Research software, not a medical device: not for diagnosis or treatment."
TEMPLATE = "card.md.j2"
_ROWS = 25  # rows of the training's curves, about
_BAR_LENGTH = 40  # characters of the longest bar


def text(info: BundleInfo) -> str:
    """Render the model card in Markdown.

    Parameters
    ----------
    info : BundleInfo

    Returns
    -------
    str
        The same for the same `info`; every number in it is one of `info`.
    """
    templates = Environment(  # Markdown: nothing is escaped as HTML
        loader=PackageLoader(__package__),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters |= {
        "g": "{:g}".format,
        "score": _score,
        "pairs": _pairs,
        "counted": counted,
        "cell": lambda content: content.replace("|", "\\|"),
        "curve": curve,
        "learning": learning,
    }
    packages = [f"{name} {version}" for name, version in info.packages.items()]
    rendered = templates.get_template(TEMPLATE).render(
        info=info,
        disclaimer=DISCLAIMER,
        network=info.network,
        preparation=info.preparation,
        recipe=info.recipe,
        provenance=info.provenance,
        point=info.operating_point,
        lesions=info.operating_point.lesions,
        facts={
            "git commit": info.git_commit,
            "split": info.split_hash,
            "seeds": _pairs(info.seeds),
            "packages": ", ".join(packages),
        },
        zip=zip,
    )
    return re.sub(r"\n{3,}", "\n\n", rendered)


def learning(history: tuple[Epoch, ...]) -> str:
    """Return the training's curves as a text table with a bar for the validation loss.

    At most about 25 epochs, evenly apart; the last and the best, marked by `*`, are among them. The
    bar's length is the share of the largest validation loss shown.
    """
    known = [line for line in history if line.val_loss is not None]
    best = min(known, key=lambda line: line.val_loss or 0.0, default=None)
    step = -(-len(history) // _ROWS)
    shown = [
        line
        for k, line in enumerate(history)
        if k % step == 0 or line is history[-1] or line is best
    ]
    top = max((line.val_loss for line in shown if line.val_loss is not None), default=0.0)
    rows = ["epoch    loss  validation    rate"]
    for line in shown:
        share = line.val_loss / top if line.val_loss is not None and top > 0 else 0.0
        rate = "-" if line.rate is None else f"{line.rate:.2g}"
        mark = "*" if line is best else ""
        row = f"{line.epoch:>5}  {_score(line.loss):>6}  {_score(line.val_loss):>10}  {rate:>6}  "
        rows.append(f"{row}{'█' * round(max(share, 0.0) * _BAR_LENGTH)} {mark}".rstrip())
    return _fenced(rows)


def curve(point: OperatingPoint) -> str:
    """Return the sweep as a text table, worst and best scan beside it; `*` marks the choice."""
    width = max(len(point.objective), 9)
    rows = [f"threshold  {point.objective:>{width}}  worst scan  best scan"]
    for i, (threshold, value) in enumerate(zip(point.thresholds, point.curve, strict=True)):
        known = [v for scan in point.per_scan if (v := scan.values[i]) is not None]
        low, high = (min(known), max(known)) if known else (None, None)
        mark = "*" if abs(threshold - point.threshold) < 1e-9 else ""
        row = f"{threshold:>9.2f}  {_score(value):>{width}}  {_score(low):>10}"
        rows.append(f"{row}  {_score(high):>9} {mark}".rstrip())
    return _fenced(rows)


def _fenced(rows: Iterable[str]) -> str:
    return "```\n" + "\n".join(rows) + "\n```"


def _pairs(table: Mapping[str, object]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in table.items())


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
