"""Learning curves of trainings: a panel for each of several, or a picture of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sct_lesion_losses.errors import DataError
from sct_lesion_losses.report.figures import style

TRAINING_COLOUR, VALIDATION_COLOUR, RATE_COLOUR = style.BLUE, style.VERMILLION, style.GREY
DPI = 150  # of the picture of one training, to look at while it runs
_FEW = 20  # epochs that are marked one by one
_ROW_INCH, _REST_INCH, _ALONE_INCH = 2.1, 0.35, 5.0
_RATIOS = (4, 1)  # heights of loss and rate


@style.drawing()
def figure(histories: Mapping[str, Sequence[Any]]) -> Any:
    """Draw the learning curves of several trainings, a panel for each.

    A panel has two axes, loss and rate, and the name of its model as title. Losses differ in scale,
    and so do the axes. Stars mark the epoch of the lowest validation loss.

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
    height_inch = _ROW_INCH * style.shape(len(shown))[0] + _REST_INCH
    made = style.sheet(height_inch, layout="constrained")
    loss = _draw(made, shown, "lowest validation loss", rates_labelled=2)
    handles, labels = loss.get_legend_handles_labels()
    made.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return made


@style.drawing()
def draw_history(history: Sequence[Any], path: Path) -> None:
    """Draw loss and learning rate over the epochs of one training, the best one marked.

    Parameters
    ----------
    history : sequence of Epoch
        At least one.
    path : Path
        PNG or SVG to write.

    Raises
    ------
    OutputError
        Matplotlib is not installed, or the file cannot be written.
    """
    made = style.sheet(_ALONE_INCH, dpi=DPI, layout="constrained")
    _draw(made, {"": history}, "best: {loss:.4f} in epoch {epoch}", rates_labelled=4).legend()
    style.save(made, path)


def _draw(made: Any, histories: Mapping[str, Sequence[Any]], best: str, rates_labelled: int) -> Any:
    """Draw two axes for each training; return the last one's of the loss.

    Parameters
    ----------
    made : matplotlib.figure.Figure
    histories : mapping of str to sequence of Epoch
    best : str
        What to call the epoch of the lowest validation loss, with its ``{loss}`` and ``{epoch}``.
    rates_labelled : int
        At most, from the lowest to the highest.
    """
    from matplotlib.ticker import MaxNLocator, NullFormatter

    rows, columns = style.shape(len(histories))
    grid = made.add_gridspec(2 * rows, columns, height_ratios=_RATIOS * rows)
    for place, (name, lines) in enumerate(histories.items()):
        row, column = divmod(place, columns)
        loss = made.add_subplot(grid[2 * row, column], title=name)
        rate = made.add_subplot(grid[2 * row + 1, column], sharex=loss)
        epochs = [line.epoch for line in lines]
        # Matplotlib leaves a gap at NaN.
        training, validation, rates = (
            np.array([getattr(line, key) for line in lines], dtype=float)
            for key in ("loss", "val_loss", "rate")
        )
        options: dict[str, Any] = {
            "marker": "o" if len(lines) < _FEW else None,
            "ms": 2.5,
            "lw": 1.3,
        }
        loss.plot(epochs, training, label="training", color=TRAINING_COLOUR, ls="--", **options)
        loss.plot(epochs, validation, label="validation", color=VALIDATION_COLOUR, **options)
        trained = np.where(np.array(epochs) > 0, validation, np.nan)
        if np.isfinite(trained).any():
            k = int(np.nanargmin(trained))
            label = best.format(loss=validation[k], epoch=epochs[k])
            star = {"color": VALIDATION_COLOUR, "ms": 11, "mec": "white", "zorder": 4}
            loss.plot(epochs[k], validation[k], "*", label=label, **star)
        rate.step(epochs, rates, where="mid", color=RATE_COLOUR)
        known = np.unique(rates[np.isfinite(rates)])
        if len(known):
            at = np.linspace(0, len(known) - 1, min(rates_labelled, len(known))).round().astype(int)
            rate.set_yscale("log")
            rate.set_yticks(known[at], [f"{value:.2g}" for value in known[at]], minor=False)
            rate.yaxis.set_minor_formatter(NullFormatter())
            rate.tick_params(axis="y", which="minor", left=False)
            rate.margins(y=0.3)
        rate.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        loss.tick_params(labelbottom=False)
        for axes in (loss, rate):
            style.plain(axes, "both")
        if column == 0:
            loss.set_ylabel("loss")
            rate.set_ylabel("rate")
        if place + columns >= len(histories):
            rate.set_xlabel("epoch")
    return loss
