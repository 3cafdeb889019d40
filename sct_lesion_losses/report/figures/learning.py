"""Learning curves of trainings: a panel for each of several, or a picture of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sct_lesion_losses.errors import DataError
from sct_lesion_losses.report.figures import style

TRAINING_COLOUR, VALIDATION_COLOUR, RATE_COLOUR = style.BLUE, style.VERMILLION, style.GREY
_FEW = 20  # epochs that are marked one by one
_ROW_INCH, _REST_INCH = 2.1, 0.35
_RATIOS = (4, 1)  # heights of loss and rate


@style.drawing()
def figure(histories: Mapping[str, Sequence[Any]]) -> Any:
    """Draw the learning curves of several trainings, a panel for each.

    A panel has two axes, loss and rate, and the name of its model as title. Losses differ in scale,
    and so do the axes. Stars mark the lowest validation loss.

    Parameters
    ----------
    histories : mapping of str to sequence of Epoch
        By the name of the model, such as `BundleInfo.history`; empty ones are left out.

    Raises
    ------
    DataError
        No training has an epoch.
    """
    shown = {name: lines for name, lines in histories.items() if lines}
    if not shown:
        raise DataError("no training has an epoch to draw; give bundles that hold their history")
    rows, columns = style.shape(len(shown))
    made = style.sheet(_ROW_INCH * rows + _REST_INCH, layout="constrained")
    grid = made.add_gridspec(2 * rows, columns, height_ratios=_RATIOS * rows)
    for place, (name, lines) in enumerate(shown.items()):
        row, column = divmod(place, columns)
        loss = made.add_subplot(grid[2 * row, column])
        rate = made.add_subplot(grid[2 * row + 1, column], sharex=loss)
        panel(loss, rate, lines)
        loss.set_title(name)
        loss.tick_params(labelbottom=False)
        if column == 0:
            loss.set_ylabel("loss")
            rate.set_ylabel("rate")
        if place + columns >= len(shown):
            rate.set_xlabel("epoch")
    handles, labels = loss.get_legend_handles_labels()
    made.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return made


def panel(
    loss: Any,
    rate: Any,
    lines: Sequence[Any],
    best: str = "lowest validation loss",
    rates_labelled: int = 2,
) -> None:
    """Draw one training.

    Parameters
    ----------
    loss, rate : matplotlib.axes.Axes
        For the two losses with the best epoch, and for the learning rate.
    lines : sequence of Epoch
    best : str
        What to call the epoch of the lowest validation loss, with its ``{loss}`` and ``{epoch}``.
    rates_labelled : int
        At most, from the lowest to the highest.
    """
    from matplotlib.ticker import MaxNLocator, NullFormatter

    epochs = [line.epoch for line in lines]
    # Matplotlib leaves a gap at NaN.
    training, validation, rates = (
        np.array([getattr(line, name) for line in lines], dtype=float)
        for name in ("loss", "val_loss", "rate")
    )
    marker = "o" if len(lines) < _FEW else None
    for name, values, colour, dashes in (
        ("training", training, TRAINING_COLOUR, "--"),
        ("validation", validation, VALIDATION_COLOUR, "-"),
    ):
        options = {"color": colour, "ls": dashes, "marker": marker, "ms": 2.5}
        loss.plot(epochs, values, label=name, lw=1.3, **options)
    if np.isfinite(validation).any():
        k = int(np.nanargmin(validation))
        named = best.format(loss=validation[k], epoch=epochs[k])
        star = {"color": VALIDATION_COLOUR, "ms": 11, "mec": "white"}
        loss.plot(epochs[k], validation[k], "*", label=named, zorder=4, **star)
    rate.step(epochs, rates, where="mid", color=RATE_COLOUR)
    known = sorted(set(rates[np.isfinite(rates)]))
    if known:
        places = np.linspace(0, len(known) - 1, min(rates_labelled, len(known))).round()
        shown = [known[int(place)] for place in places]
        rate.set_yscale("log")
        rate.set_yticks(shown, [f"{value:.2g}" for value in shown], minor=False)
        rate.yaxis.set_minor_formatter(NullFormatter())
        rate.tick_params(axis="y", which="minor", left=False)
        rate.margins(y=0.3)
    rate.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    for axes in (loss, rate):
        style.plain(axes, "both")


RATES_LABELLED = 4
DPI = 150  # to look at while it runs
_HEIGHT_INCH = 5.0


@style.drawing()
def draw_history(history: Sequence[Any], path: Path) -> None:
    """Draw loss and learning rate over the epochs of one training, the best one marked.

    Parameters
    ----------
    history : sequence of Epoch
        At least one epoch, every validation loss measured.
    path : Path
        PNG or SVG to write.

    Raises
    ------
    OutputError
        Matplotlib is not installed, or the file cannot be written.
    """
    made = style.sheet(_HEIGHT_INCH, dpi=DPI, layout="constrained")
    loss, rate = made.subplots(2, 1, sharex=True, height_ratios=_RATIOS)
    panel(loss, rate, history, "best: {loss:.4f} in epoch {epoch}", RATES_LABELLED)
    loss.set_ylabel("loss")
    loss.legend()
    rate.set_ylabel("rate")
    rate.set_xlabel("epoch")
    style.save(made, path)
