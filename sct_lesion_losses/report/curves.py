"""The learning curves of a training: a picture, and event files for TensorBoard."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sct_lesion_losses import files
from sct_lesion_losses.errors import OutputError, UsageError
from sct_lesion_losses.report import figure

if TYPE_CHECKING:
    from sct_lesion_losses.model.progress import Progress

PICTURE = "training.png"
EVENTS = "tensorboard"
AGAIN_S = 60.0  # drawing takes a fraction of a second, an epoch of a small cohort hardly more
TRAINING_COLOUR = "#0072b2"  # Okabe and Ito 2008, told apart by everybody
VALIDATION_COLOUR = "#d55e00"
RATE_COLOUR = "#666666"
RATES_LABELLED = 4

logger = logging.getLogger(__name__)


@contextmanager
def drawn(folder: Path, tensorboard: bool = False) -> Iterator[Callable[[Progress], None]]:
    """Keep the learning curves of a training up to date for the length of the block.

    Parameters
    ----------
    folder : Path
        Receives ``training.png``, once a minute at most and at the end.
    tensorboard : bool
        Write event files into its subfolder ``tensorboard``, too.

    Yields
    ------
    callable
        To be called with the progress after each epoch.

    Raises
    ------
    OutputError
        Matplotlib is not installed.
    UsageError
        Event files cannot be written because tensorboardX is not installed.
    """
    figure.require()
    last: list[Progress] = []
    drawn_at = float("-inf")
    with ExitStack() as stack:
        write = stack.enter_context(_events(folder / EVENTS)) if tensorboard else None

        def after_epoch(progress: Progress) -> None:
            nonlocal drawn_at
            last[:] = [progress]
            if write is not None:
                write(progress)
            if time.monotonic() - drawn_at >= AGAIN_S:
                _redraw(progress, folder / PICTURE)
                drawn_at = time.monotonic()
                last.clear()

        yield after_epoch
        if last:
            _redraw(last[0], folder / PICTURE)


def _redraw(progress: Progress, path: Path) -> None:
    """Draw, but do not end a long training for a picture."""
    try:
        draw(progress, path)
    except OutputError as error:
        logger.warning("no picture of the learning curves: %s", error)


@contextmanager
def _events(folder: Path) -> Iterator[Callable[[Progress], None]]:
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise UsageError(
            "TensorBoard's event files need tensorboardX: pip install tensorboardX"
        ) from error
    writers: list[SummaryWriter] = []

    def write(progress: Progress) -> None:
        line = progress.history[-1]
        if not writers:  # what an earlier call wrote of later epochs is not shown
            writers.append(
                SummaryWriter(
                    str(folder), purge_step=line.epoch, filename_suffix=f".from{line.epoch:05d}"
                )
            )
        writers[0].add_scalar("loss/training", line.loss, line.epoch)
        writers[0].add_scalar("loss/validation", line.val_loss, line.epoch)
        writers[0].add_scalar("rate", line.rate, line.epoch)
        writers[0].flush()

    try:
        yield write
    finally:
        for writer in writers:
            writer.close()


def draw(progress: Progress, path: Path) -> None:
    """Draw loss and learning rate over the epochs, the best one marked.

    Parameters
    ----------
    progress : Progress
        At least one epoch of it.
    path : Path
        PNG or SVG to write.

    Raises
    ------
    OutputError
        Matplotlib is not installed, or the file cannot be written.
    """
    figure.require()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, NullFormatter

    lines = progress.history
    epochs = [line.epoch for line in lines]
    marker = "o" if len(lines) < 20 else None
    sheet = Figure(figsize=(7, 5), layout="constrained")
    FigureCanvasAgg(sheet)
    loss, rate = sheet.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    for name, values, colour in (
        ("training", [line.loss for line in lines], TRAINING_COLOUR),
        ("validation", [line.val_loss for line in lines], VALIDATION_COLOUR),
    ):
        loss.plot(epochs, values, color=colour, label=name, marker=marker, markersize=3)
    loss.plot(
        progress.best_epoch,
        progress.best_loss,
        "*",
        color=VALIDATION_COLOUR,
        markersize=13,
        markeredgecolor="white",
        label=f"best: {progress.best_loss:.4f} in epoch {progress.best_epoch}",
    )
    loss.set_ylabel("loss")
    loss.legend(frameon=False)
    rate.step(epochs, [line.rate for line in lines], where="mid", color=RATE_COLOUR)
    rates = sorted({line.rate for line in lines})
    rates = rates[:: len(rates) // RATES_LABELLED + 1]
    rate.set_yscale("log")
    rate.set_yticks(rates, [f"{value:.2g}" for value in rates], minor=False)
    rate.yaxis.set_minor_formatter(NullFormatter())
    rate.set_ylabel("rate")
    rate.set_xlabel("epoch")
    rate.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (loss, rate):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    with files.replacing(path) as temporary:
        sheet.savefig(temporary, format=path.suffix[1:], dpi=150)
