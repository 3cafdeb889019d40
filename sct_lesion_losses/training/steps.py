"""How the steps of a training are laid out on the machine; none of it changes the recipe."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras

from sct_lesion_losses.errors import TrainingError, UsageError
from sct_lesion_losses.preprocessing.augmentation import Augmentation
from sct_lesion_losses.preprocessing.sampler import TrainingTube
from sct_lesion_losses.training import devices, microbatch, resident
from sct_lesion_losses.training import devices as memory
from sct_lesion_losses.training.devices import TrainStep

KEEP_EVERY_S = 60.0  # a kill loses no more than this of a training

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Machine:
    """How the work is laid out; no entry changes the recipe.

    Attributes
    ----------
    devices : int
        Devices that share a batch; see `devices.shared_by` for what that means on TensorFlow.
    on_device : bool or None
        Keep the tubes in the memory of the device and cut the patches there. By default on a
        single GPU whose memory holds them, unless intensities are changed.
    micro_batch : int or None
        Patches of a batch that are on the device at a time, with the result of the whole batch;
        None takes them all. Where the device has too little memory, it is halved until it suffices.
    keep_every_s : float
        Time after which the state is kept within an epoch, too.
    """

    devices: int = 1
    on_device: bool | None = None
    micro_batch: int | None = None
    keep_every_s: float = KEEP_EVERY_S


@dataclass(frozen=True)
class Steps:
    """What is done with a batch of patches and lesion masks; each returns the loss of the batch.

    Attributes
    ----------
    train : callable
        Takes one step of the optimiser.
    test : callable
        Leaves the network as it is.
    """

    train: Callable[[Any, Any], float]
    test: Callable[[Any, Any], float]


def of(model: keras.Model, train_step: TrainStep, machine: Machine) -> Steps:
    """Return the steps of a compiled model; `train_step` is that of `devices.shared_by`."""
    micro = machine.micro_batch
    if micro is None:
        return Steps(
            lambda patches, lesions: train_step(model, patches, lesions),
            lambda patches, lesions: float(model.test_on_batch(patches, lesions)),
        )
    network = microbatch.prepare(model)
    return Steps(
        lambda patches, lesions: microbatch.step(network, patches, lesions, micro),
        lambda patches, lesions: microbatch.loss(model, patches, lesions, micro),
    )


def check(batch_size: int, machine: Machine) -> None:
    """Refuse entries that do not fit each other.

    Raises
    ------
    UsageError
        A batch is to be shared and taken in parts, or cannot be shared evenly.
    """
    if machine.devices > 1 and (machine.micro_batch or batch_size) < batch_size:
        raise UsageError("a batch is either shared among devices or taken in parts, not both")
    if batch_size % machine.devices:
        raise UsageError(
            f"a batch of {batch_size} patches cannot be shared by {machine.devices} devices; give "
            "a -batch that is a multiple of -gpus"
        )


def laid_out(
    machine: Machine,
    batch_size: int,
    tubes: Sequence[TrainingTube],
    augmentation: Augmentation,
) -> Machine:
    """Fill in what was left to the default."""
    micro = machine.micro_batch
    if micro is not None and micro >= batch_size:
        micro = None
    on_device = machine.on_device
    if on_device is None:
        alone = machine.devices == 1 and micro is None
        on_device = devices.device() == "gpu" and alone and resident.possible(tubes, augmentation)
    return replace(machine, micro_batch=micro, on_device=on_device)


def smaller(machine: Machine, batch_size: int) -> Machine:
    """Lay out the steps for less memory than they took, and say so.

    Raises
    ------
    TrainingError
        There is nothing left to save.
    """
    if machine.on_device:
        logger.warning("the device has too little memory for the cohort: patches are cut outside")
        return replace(machine, on_device=False)
    if machine.devices > 1:
        raise TrainingError(
            f"a share of a batch of {batch_size} patches does not fit into the memory of each of "
            f"{machine.devices} devices; give a smaller -batch, or train on one device, which "
            "takes a batch in parts"
        )
    micro = memory.halved(machine.micro_batch or batch_size)
    logger.warning(
        "the device has too little memory: %d of the %d patches of a batch are taken at a time, "
        "with the result of the whole batch but slower",
        micro,
        batch_size,
    )
    return replace(machine, micro_batch=micro)
