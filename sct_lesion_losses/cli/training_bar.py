"""What a command shows while a network trains."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sct_lesion_losses.model.running import StepReport


@contextmanager
def training_bar(epochs: int, shown: bool = True) -> Iterator[Callable[[StepReport], None] | None]:
    """One bar over all steps, with loss, rate and time left, on stderr where that is a terminal."""
    if not (shown and sys.stderr.isatty()):
        yield None
        return
    from tqdm import tqdm

    with ExitStack() as stack:
        bars: list[Any] = []

        def update(now: StepReport) -> None:
            done = now.epoch * now.steps + now.step
            if not bars:  # the time left is reckoned from here
                total = epochs * now.steps
                bar = tqdm(
                    desc="training",
                    file=sys.stderr,
                    leave=False,
                    unit="step",
                    total=total,
                    initial=done - 1,
                )
                bars.append(stack.enter_context(bar))
            bars[0].n = done
            bars[0].set_postfix(
                epoch=f"{now.epoch + 1}/{epochs}",
                loss=f"{now.loss:.4f}",
                rate=f"{now.rate:.2g}",
            )

        yield update
