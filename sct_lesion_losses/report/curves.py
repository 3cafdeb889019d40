"""The learning curves of a training: a picture, and event files for TensorBoard."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sct_lesion_losses.errors import OutputError, UsageError
from sct_lesion_losses.report.figures import learning, style

if TYPE_CHECKING:
    from sct_lesion_losses.model.progress import Progress

PICTURE = "training.png"
EVENTS = "tensorboard"
AGAIN_S = 60.0  # drawing takes a fraction of a second, an epoch of a small cohort hardly more
RATES_LABELLED = 4
DPI = 150  # to look at while it runs
_HEIGHT_INCH = 5.0

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
    style.require()
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
    style.require_ending(path)
    with style.drawing():
        sheet = style.sheet(_HEIGHT_INCH, layout="constrained")
        loss, rate = sheet.subplots(2, 1, sharex=True, height_ratios=[4, 1])
        best = f"best: {progress.best_loss:.4f} in epoch {progress.best_epoch}"
        learning.panel(loss, rate, progress.history, best, RATES_LABELLED)
        loss.set_ylabel("loss")
        loss.legend()
        rate.set_ylabel("rate")
        rate.set_xlabel("epoch")
        style.save(sheet, path, dpi=DPI)
