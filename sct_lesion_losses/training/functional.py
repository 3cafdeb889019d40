"""What backends of Keras do each in their own way: compile a function, pull back, descend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

Tensor = Any  # a tensor of whichever backend Keras runs on


def compiled(function: Callable[..., Any], *, jit: bool) -> Callable[..., Any]:
    """Compile a pure function of tensors into one from and to arrays on the host.

    Parameters
    ----------
    function : callable
        Of nested lists of tensors; it may return such lists.
    jit : bool
        Whether TensorFlow compiles by XLA. JAX always does, torch computes at once.

    Returns
    -------
    callable
        Takes arrays, and variables, which stay where they are. When it returns, nothing of its
        arguments or results is left on the device.
    """
    if keras.backend.backend() == "jax":
        import jax

        run = jax.jit(function)
    elif keras.backend.backend() == "torch":
        import torch

        run = torch.no_grad()(function)
    else:
        import tensorflow as tf

        run = tf.function(function, jit_compile=jit)

    def on_host(*arguments: Any) -> Any:
        tensors = keras.tree.map_structure(ops.convert_to_tensor, arguments)
        return keras.tree.map_structure(ops.convert_to_numpy, run(*tensors))

    return on_host


def pulled_back(
    function: Callable[..., Tensor], arguments: Sequence[Any], slope: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Sequence[Any]]:
    """Value of a function, and the gradient by each argument of L with ∂L/∂value = slope(value).

    Parameters
    ----------
    function : callable
        Returns one tensor.
    arguments : sequence
        Tensors or nested lists of them, each of which the value depends on.
    slope : callable
        Returns a tensor of the shape and dtype of the value.
    """
    if keras.backend.backend() == "jax":
        import jax

        value, back = jax.vjp(function, *arguments)
        return value, back(slope(value))
    if keras.backend.backend() == "torch":
        import torch

        with torch.enable_grad():
            leaves = keras.tree.map_structure(lambda x: x.detach().requires_grad_(), arguments)
            value = function(*leaves)
        tensors = keras.tree.flatten(leaves)
        found = torch.autograd.grad(value, tensors, slope(value.detach()))
        return value.detach(), keras.tree.pack_sequence_as(arguments, list(found))
    import tensorflow as tf

    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(arguments)
        value = function(*arguments)
    return value, tape.gradient(value, arguments, output_gradients=slope(value))


def descend(model: keras.Model, gradients: Sequence[Tensor]) -> None:
    """Apply gradients, one for each trainable variable, with the model's optimiser, once built."""
    optimizer, weights = model.optimizer, model.trainable_variables
    if keras.backend.backend() != "jax":
        optimizer.apply(gradients, weights)
        return
    # Loss scaling branches inside; on JAX a branch may not assign to variables.
    after = optimizer.stateless_apply(
        [v.value for v in optimizer.variables], list(gradients), [v.value for v in weights]
    )
    for variables, values in zip((weights, optimizer.variables), after, strict=True):
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
