"""A training step in micro-batches that is, up to rounding, the step on the whole batch.

Gradients of micro-batches do not add up to that of the batch: batch normalisation takes its mean
and variance over the batch, and the losses pool their sums over it. So each stage between
normalisations is computed for all micro-batches, one by one, and the mean m and the variance v of
its output y are put together before the next stage begins; the loss is that of all probabilities.
Backward, in reverse order, each stage is computed again for each micro-batch and its slope is
pulled back to its weights and to y, m and v of its sources, of which m and v hang on all N voxels:

    dL/dy = ∂L/∂y + ∂L/∂m / N + 2 (y − m) ∂L/∂v / N

The device holds one stage of one micro-batch at a time, the host the outputs of all stages.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from sct_lesion_losses.training import stages as pure
from sct_lesion_losses.training.functional import compiled, descend, pulled_back
from sct_lesion_losses.training.stages import PATCHES, Stage

Array = NDArray[Any]  # float32, or the half precision in which a network computes
Moments = tuple[Array, Array]  # mean and biased variance of each channel, (C,) float32


@dataclass(frozen=True, eq=False)
class Network:
    """A model in stages, with what is compiled of it.

    Attributes
    ----------
    model : keras.Model
    stages : tuple of Stage
    norms : tuple of keras.layers.BatchNormalization
        Number k normalises the output of stage k; the last stage gives the probabilities.
    forward, backward : tuple of callable
        `stages.forward` and `stages.backward` of each stage, from and to arrays on the host.
    slope : callable
        Loss of lesions and probabilities, and its gradient by the probabilities, likewise.
    """

    model: keras.Model
    stages: tuple[Stage, ...]
    norms: tuple[keras.layers.BatchNormalization, ...]
    forward: tuple[Callable[..., Any], ...]
    backward: tuple[Callable[..., Any], ...]
    slope: Callable[..., Any]


@dataclass(frozen=True, eq=False)
class Gradient:
    """What a batch says of the weights.

    Attributes
    ----------
    loss : float
    weights : list of array
        Gradient by each of the model's trainable variables, in their order.
    moments : list of (array, array)
        Mean and biased variance, over the batch, of what each normalisation takes.
    """

    loss: float
    weights: list[Array]
    moments: list[Moments]


def prepare(model: keras.Model) -> Network:
    """Take a model apart, once for all steps; it is compiled when first used with a size.

    Parameters
    ----------
    model : keras.Model
        Of `unet.build`, compiled with its loss and optimiser.

    Raises
    ------
    ValueError
        A layer has a state other than the moving averages of a trained batch normalisation.
    """

    def slope(lesions: Any, probabilities: Any) -> Any:
        loss = functools.partial(_loss, model, lesions)
        return pulled_back(loss, [probabilities], ops.ones_like)

    make = functools.partial(compiled, jit=bool(model.jit_compile))
    stages = pure.take_apart(model)
    return Network(
        model,
        stages,
        pure.normalisations(model),
        tuple(make(functools.partial(pure.forward, stage)) for stage in stages),
        tuple(make(functools.partial(pure.backward, stage)) for stage in stages),
        make(slope),
    )


def step(network: Network, patches: Array, lesions: Array, micro: int) -> float:
    """Take one optimiser step on a batch, and move the averages of the normalisations.

    Parameters
    ----------
    network : Network
    patches, lesions : (B, P, P, P, 1) float32
    micro : int
        How many patches are on the device at a time, 1 or more; it need not divide B.

    Returns
    -------
    float
        The loss before the step, as `train_on_batch` returns it.
    """
    optimizer = network.model.optimizer
    if not optimizer.built:
        optimizer.build(network.model.trainable_variables)
    scale = float(ops.convert_to_numpy(optimizer.scale_loss(1.0)))
    found = gradient(network, patches, lesions, micro, scale=scale)
    descend(network.model, [ops.convert_to_tensor(weights) for weights in found.weights])
    for norm, moments in zip(network.norms, found.moments, strict=True):
        for average, new in zip((norm.moving_mean, norm.moving_variance), moments, strict=True):
            share = ops.convert_to_tensor(new * (1 - norm.momentum))
            average.assign(average * norm.momentum + share)
    return found.loss


def loss(model: keras.Model, patches: Array, lesions: Array, micro: int) -> float:
    """Loss of a batch as `test_on_batch` returns it; see `step` for the arguments."""
    found = [model.predict_on_batch(patches[part]) for part in _parts(patches, micro)]
    return float(ops.convert_to_numpy(_loss(model, lesions, np.concatenate(found))))


def gradient(
    network: Network, patches: Array, lesions: Array, micro: int, *, scale: float = 1.0
) -> Gradient:
    """Gradient of the loss of a batch by the weights; the model stays as it is.

    Parameters
    ----------
    network, patches, lesions, micro
        See `step`.
    scale : float
        Factor of the gradients, against underflow in half precision.
    """
    parts = _parts(patches, micro)
    outputs: dict[int, list[Array]] = {PATCHES: [patches[part] for part in parts]}
    moments: dict[int, Any] = {PATCHES: ()}
    for number in range(len(network.stages)):
        outputs[number], moments[number] = _forward(network, number, outputs, moments)
    last = len(network.norms)
    value, (slope,) = network.slope(lesions, np.concatenate(outputs[last]))
    slopes = {last: [scale * slope[part] for part in parts]}
    by_weight = _backward(network, outputs, moments, slopes)
    return Gradient(
        float(value),
        [by_weight[id(v)].astype(np.float32) for v in network.model.trainable_variables],
        [moments[number] for number in range(last)],
    )


def _forward(
    network: Network, number: int, outputs: dict[int, list[Array]], moments: dict[int, Any]
) -> tuple[list[Array], Moments]:
    """Output of a stage for each micro-batch, and its moments over the batch."""
    stage = network.stages[number]
    given = [moments[source] for source in stage.sources], list(stage.variables)
    found = [
        network.forward[number](list(inputs), *given)
        for inputs in zip(*(outputs[source] for source in stage.sources), strict=True)
    ]
    sizes = [len(y) for y, _, _ in found]
    means, variances = (np.stack([part[k] for part in found]).astype(float) for k in (1, 2))
    mean = np.average(means, axis=0, weights=sizes)
    variance = np.average(variances + (means - mean) ** 2, axis=0, weights=sizes)
    return [y for y, _, _ in found], (mean.astype(np.float32), variance.astype(np.float32))


def _backward(
    network: Network,
    outputs: dict[int, list[Array]],
    moments: dict[int, Any],
    slopes: dict[int, list[Array]],
) -> dict[int, Array]:
    """Gradient by each trained variable, under its id; outputs and slopes are used up.

    Parameters
    ----------
    network : Network
    outputs, moments : dict
        Of each stage, by its number: outputs for each micro-batch, moments over the batch.
    slopes : dict
        Gradient by the output of the last stage, for each micro-batch.
    """
    by_weight: defaultdict[int, Any] = defaultdict(float)
    by_moments: defaultdict[int, Any] = defaultdict(float)
    for number in reversed(range(len(network.stages))):
        stage = network.stages[number]
        given = [moments[source] for source in stage.sources], list(stage.variables)
        through: tuple[Array, ...] = ()
        if number < len(network.norms):
            voxels = sum(y[..., 0].size for y in outputs[number])  # N
            by_mean, by_variance = by_moments[number].astype(np.float32) / voxels
            through = (moments[number][0], by_mean, 2 * by_variance)
        del outputs[number]  # its consumers have had it
        own = slopes.pop(number)
        for part, slope in enumerate(own):
            inputs = [outputs[source][part] for source in stage.sources]
            found = network.backward[number](inputs, *given, slope, through)
            for source, by_output, by_source in zip(stage.sources, *found[:2], strict=True):
                if source != PATCHES:
                    into = slopes.setdefault(source, [np.zeros((), np.float32)] * len(own))
                    into[part] = into[part] + by_output
                    by_moments[source] += np.stack(by_source).astype(float)
            for variable, by in zip(stage.variables, found[2], strict=True):
                by_weight[id(variable)] += by.astype(float)
    return by_weight


def _loss(model: keras.Model, lesions: Any, probabilities: Any) -> Any:
    return model.compute_loss(y=lesions, y_pred=probabilities)


def _parts(patches: Array, micro: int) -> list[slice]:
    return [slice(first, first + micro) for first in range(0, len(patches), micro)]
