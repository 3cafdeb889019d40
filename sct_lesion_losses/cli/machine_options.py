"""The options that say what a training runs on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sct_lesion_losses.cli import accelerator
from sct_lesion_losses.cli.common import choice, option
from sct_lesion_losses.cli.recipe_options import COUNT

_OPTIONS = (
    option(
        "-backend",
        "backend",
        choice(*accelerator.BACKENDS),
        "What Keras runs on.",
        shown="$KERAS_BACKEND, else the first that is installed",
    ),
    option(
        "-device",
        "device",
        choice(*accelerator.DEVICES),
        "auto: a GPU where there is one. $CUDA_VISIBLE_DEVICES says which.",
        default="auto",
    ),
    option(
        "-gpus",
        "devices",
        COUNT,
        "GPUs that share each batch. On TensorFlow every one pools the loss over its own part.",
        default=1,
    ),
    option(
        "-micro_batch",
        "micro_batch",
        COUNT,
        "Patches of a batch on the device at a time, with the result of the whole batch: for small "
        "memories. Halved by itself where the memory does not suffice.",
        shown="all",
    ),
    option("-threads", "threads", COUNT, "CPU threads to compute with.", shown="all cores"),
)


def of_machine(callback: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a command."""
    for add in reversed(_OPTIONS):
        callback = add(callback)
    return callback
