"""A network taken apart at its batch normalisations, into stages that have no state.

A stage goes from the activations y that earlier stages end in, normalised with a mean m and a
variance v that are given, to activations of its own: a pure function of y, m, v and the weights.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from sct_lesion_losses.training.functional import pulled_back

Tensor = Any  # a tensor of whichever backend Keras runs on
PATCHES = -1  # in place of the number of a stage: what the network takes


@dataclass(frozen=True, eq=False)
class Stage:
    """The layers that lie between normalisations.

    Attributes
    ----------
    sources : tuple of int
        Numbers of the stages whose activations it takes, or `PATCHES`.
    norms : tuple of keras.layers.BatchNormalization or None
        What normalises each of them; None for patches.
    inputs : tuple of keras.KerasTensor
        Their symbols in the model, after normalisation.
    layers : tuple of keras.layers.Layer
        In order of computation.
    variables : tuple of keras.Variable
        Those trained in `layers` and `norms`.
    """

    sources: tuple[int, ...]
    norms: tuple[keras.layers.BatchNormalization | None, ...]
    inputs: tuple[keras.KerasTensor, ...]
    layers: tuple[keras.layers.Layer, ...]
    variables: tuple[keras.Variable, ...]


def normalisations(model: keras.Model) -> tuple[keras.layers.BatchNormalization, ...]:
    """Batch normalisations of a model, in order of computation.

    Raises
    ------
    ValueError
        A layer has a state other than the moving averages of a trained batch normalisation.
    """
    for layer in model.layers:
        averages = 2 if isinstance(layer, keras.layers.BatchNormalization) else 0
        if len(layer.non_trainable_variables) != averages:
            raise ValueError(
                "expected no state but the averages of trained batch normalisations, received "
                f"layer {layer.name!r}"
            )
    return tuple(x for x in model.layers if isinstance(x, keras.layers.BatchNormalization))


def take_apart(model: keras.Model) -> tuple[Stage, ...]:
    """Stages of a model: number k ends before normalisation k, the last in the output.

    Parameters
    ----------
    model : keras.Model
        One input, one output, each layer used once. Its variables stay its own.

    Raises
    ------
    ValueError
        See `normalisations`.
    """
    norms = normalisations(model)
    makers = {id(layer.output): layer for layer in model.layers}
    ends = (*(norm.input for norm in norms), model.output)
    return tuple(_stage(makers, norms, end) for end in ends)


def _stage(
    makers: dict[int, keras.layers.Layer],
    norms: tuple[keras.layers.BatchNormalization, ...],
    end: keras.KerasTensor,
) -> Stage:
    """Layers from the nearest normalisations, or the patches, to a tensor of the model."""
    starts: list[keras.layers.Layer] = []
    layers: list[keras.layers.Layer] = []

    def visit(tensor: keras.KerasTensor) -> None:
        layer = makers[id(tensor)]
        if layer in starts or layer in layers:
            return
        if layer in norms or isinstance(layer, keras.layers.InputLayer):
            starts.append(layer)
            return
        for source in keras.tree.flatten(layer.input):
            visit(source)
        layers.append(layer)

    visit(end)
    sources = [norms.index(start) if start in norms else PATCHES for start in starts]
    return Stage(
        sources=tuple(sources),
        norms=tuple(None if source == PATCHES else norms[source] for source in sources),
        inputs=tuple(start.output for start in starts),
        layers=tuple(layers),
        variables=tuple(v for layer in (*layers, *starts) for v in layer.trainable_variables),
    )


def output(
    stage: Stage, activations: list[Tensor], statistics: list[Any], values: list[Tensor]
) -> Tensor:
    """Activations in which a stage ends.

    Parameters
    ----------
    stage : Stage
    activations : list of (b, X, Y, Z, C) float32 tensor
        Of each source, before normalisation.
    statistics : list of (mean, variance)
        Of each source, (C,) float32 each; an empty tuple for patches.
    values : list of tensor
        What stands for each of the stage's variables.

    Returns
    -------
    (b, X, Y, Z, C) tensor
        In the dtype of the layer that gives them.
    """
    known = {}
    with keras.StatelessScope(list(zip(stage.variables, values, strict=True))):
        sources = zip(stage.inputs, stage.norms, activations, statistics, strict=True)
        for symbol, norm, x, moments in sources:
            known[id(symbol)] = x if norm is None else _normalised(norm, x, *moments)
        for layer in stage.layers:
            inputs = keras.tree.map_structure(lambda symbol: known[id(symbol)], layer.input)
            known[id(layer.output)] = layer(inputs)
    return known[id(stage.layers[-1].output)]


def _normalised(
    norm: keras.layers.BatchNormalization, x: Tensor, mean: Tensor, variance: Tensor
) -> Tensor:
    slope = norm.gamma * ops.rsqrt(variance + norm.epsilon)
    return ops.cast((x - mean) * slope + norm.beta, norm.compute_dtype)


def forward(
    stage: Stage, activations: list[Tensor], statistics: list[Any], values: list[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """`output` of activations of any precision, with its mean and biased variance, (C,) each."""
    y = output(stage, [ops.cast(x, "float32") for x in activations], statistics, values)
    return (y, *ops.moments(ops.cast(y, "float32"), axes=list(range(len(y.shape) - 1))))


def backward(
    stage: Stage,
    activations: list[Tensor],
    statistics: list[Any],
    values: list[Tensor],
    slope: Tensor,
    through: tuple[Tensor, ...],
) -> tuple[list[Tensor], list[Any], list[Tensor]]:
    """Pull the slope of a loss L by the output y of a stage back to all that y depends on.

    Parameters
    ----------
    stage, activations, statistics, values
        See `forward`.
    slope : (b, X, Y, Z, C) float32 tensor
        ∂L/∂y with the mean m and the variance v of y held.
    through : tuple of (C,) tensor
        m, ∂L/∂m / N and 2 ∂L/∂v / N for N voxels; empty where y is not normalised.

    Returns
    -------
    tuple of list
        Gradients by the activations, with an empty tuple for patches, by the statistics and by the
        values.
    """

    def whole(y: Tensor) -> Tensor:
        total = slope
        if through:
            mean, by_mean, by_variance = through
            total = slope + by_mean + by_variance * (ops.cast(y, "float32") - mean)
        return ops.cast(total, y.dtype)

    wide = [ops.cast(x, "float32") for x in activations]
    arguments = [wide, statistics, values]
    _, slopes = pulled_back(functools.partial(output, stage), arguments, whole)
    sources = zip(slopes[0], stage.norms, strict=True)
    return [() if norm is None else by for by, norm in sources], slopes[1], slopes[2]
