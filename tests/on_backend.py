"""Computations of the tests on one of Keras' backends, in a process of its own.

    KERAS_BACKEND=jax python tests/on_backend.py three_steps written.npz

Writes the arrays that the named function of `COMPUTED` returns. Keras, and what is to be absent, is
imported by that function.
"""

import itertools
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
BACKENDS = ("tensorflow", "jax", "torch")
# Keras makes arrays of torch's tensors in a way that numpy 2 warns of.
WARNINGS = ("-W", "error", "-W", "ignore:__array__ implementation:DeprecationWarning")

DTYPES = ("float32", "float16", "bfloat16")
OVERLAP = ("dice", "log_cosh_dice", "generalized_dice", "tversky", "focal_tversky")
POOLINGS = ("batch", "sample")

Arrays = dict[str, np.ndarray]
Loss = Callable[[Any, Any], Any]


def run(backend: str, function: str, *args: str | Path) -> Arrays:
    """Call a function of `COMPUTED` on a backend; the test is skipped where that is absent."""
    import pytest

    if find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    search = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    environment = {"KERAS_BACKEND": backend, "PYTHONPATH": search, "TF_CPP_MIN_LOG_LEVEL": "3"}
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "written.npz"
        done = subprocess.run(
            [sys.executable, *WARNINGS, __file__, function, *args, written],
            capture_output=True,
            text=True,
            env={**os.environ, **environment},
        )
        assert done.returncode == 0, done.stderr
        with np.load(written) as stored:
            return dict(stored)


def loss_table(oracle: str) -> Arrays:
    """Values and gradients of every loss, keyed by its name, dtype, pooling and the oracle's case.

    ``value/tversky/float32/batch/mixed_soft``     loss of each sample
    ``gradient/tversky/float32/batch/mixed_soft``  gradient of their mean, in float32
    ``patch/tversky``                              loss of a perfect prediction of 48³ lesion voxels
    ``fit/tversky``                                loss of each epoch of a small network
    """
    with np.load(oracle) as stored:
        inputs = dict(stored)
    return {**values_and_gradients(inputs), **whole_patches(), **trainings()}


def functions() -> dict[str, tuple[str, dict[str, bool]]]:
    """Functions of the losses and their arguments, by the name of the oracle's values."""
    from sct_lesion_losses import losses

    of_name = {name: (name, {}) for name in losses.LOSSES}
    return {**of_name, "dice_squared": ("dice", {"squared": True})}


def differentiated(loss: Loss) -> Loss:
    """Compiled function of ground truth and prediction: the loss, the gradient of its mean."""
    import keras
    from keras import ops

    if keras.backend.backend() == "jax":
        import jax

        def mean(y_pred, y_true):
            value = loss(y_true, y_pred)
            return ops.mean(value), value

        with_gradient = jax.jit(jax.value_and_grad(mean, has_aux=True))

        def on_jax(y_true, y_pred):
            (_, value), gradient = with_gradient(y_pred, y_true)
            return value, gradient

        return on_jax
    if keras.backend.backend() == "torch":

        def on_torch(y_true, y_pred):
            y_pred = y_pred.clone().requires_grad_()
            value = loss(y_true, y_pred)
            ops.mean(value).backward()
            return value, y_pred.grad

        return on_torch
    import tensorflow as tf

    @tf.function
    def on_tensorflow(y_true, y_pred):
        with tf.GradientTape() as tape:
            tape.watch(y_pred)
            value = loss(y_true, y_pred)
            mean = ops.mean(value)
        return value, tape.gradient(mean, y_pred)

    return on_tensorflow


def values_and_gradients(inputs: Arrays) -> Arrays:
    from keras import ops

    from sct_lesion_losses import losses

    cases = [key.removesuffix("/y_true") for key in inputs if key.endswith("/y_true")]
    table = {}
    known = functions()
    for name, dtype, pooling in itertools.product(known, DTYPES, POOLINGS):
        called, arguments = known[name]
        function = getattr(losses, called)
        both = differentiated(
            lambda g, p, f=function, n={**arguments, "pooling": pooling}: f(g, p, **n)
        )
        for case in cases:
            g = ops.convert_to_tensor(inputs[f"{case}/y_true"])
            p = ops.cast(ops.convert_to_tensor(inputs[f"{case}/y_pred"]), dtype)
            value, gradient = both(g, p)
            key = f"{name}/{dtype}/{pooling}/{case}"
            table[f"value/{key}"] = ops.convert_to_numpy(value)
            table[f"gradient/{key}"] = ops.convert_to_numpy(ops.cast(gradient, "float32"))
    return table


def whole_patches() -> Arrays:
    from keras import ops

    from sct_lesion_losses import losses

    # 48^3 = 110592 voxels: beyond the largest float16, 65504.
    ones = ops.ones((1, 48, 48, 48, 1), "float16")
    return {
        f"patch/{name}": ops.convert_to_numpy(getattr(losses, name)(ones, ones))
        for name in losses.LOSSES
    }


def trainings() -> Arrays:
    import keras

    from sct_lesion_losses import losses

    x = np.random.default_rng(0).normal(size=(4, 4, 4, 4, 1)).astype("float32")
    start = keras.initializers.Constant(0.3)
    return {f"fit/{name}": fitted(name, x, 15, start) for name in losses.LOSSES}


def fitted(loss: str, x: np.ndarray, epochs: int, start: Any) -> np.ndarray:
    """Loss of each epoch of a network of one convolution, which is to tell x > 0."""
    import keras

    from sct_lesion_losses import losses

    layer = keras.layers.Conv3D(1, 1, kernel_initializer=start)
    model = keras.Sequential([keras.Input((4, 4, 4, 1)), layer])
    model.compile(optimizer=keras.optimizers.Adam(0.1), loss=losses.get(loss, from_logits=True))
    return model.fit(x, (x > 0).astype("float32"), epochs=epochs, verbose=0).history["loss"]


def three_steps(side: int = 8, batch: int = 2) -> Arrays:
    """Weights of a small U-Net before and after three steps: ``start/`` or ``end/`` and a name."""
    import keras

    from sct_lesion_losses import losses
    from sct_lesion_losses.training import export, unet
    from sct_lesion_losses.training.recipe import network

    model = unet.build(network((2, 4)), side, seed=1)
    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss=losses.get("tversky"))
    rng = np.random.default_rng(0)
    patches = rng.normal(size=(3 * batch, side, side, side, 1)).astype(np.float32)
    lesions = (patches > 1).astype(np.float32)
    start = {f"start/{name}": array for name, array in export.weights_of(model).items()}
    model.fit(patches, lesions, batch_size=batch, shuffle=False, verbose=0)
    return {**start, **{f"end/{name}": array for name, array in export.weights_of(model).items()}}


def trained_bundle(cohort: str, folder: str) -> Arrays:
    """Train a bundle with the other backends absent.

    ``history`` is the validation loss of each epoch, ``keras`` what the network of the bundle gives
    for the patches ``patches``.
    """
    import scipy.stats  # noqa: F401 - takes a hidden backend for a loaded one while it is imported

    hide({*BACKENDS} - {os.environ["KERAS_BACKEND"]})
    from sct_lesion_losses.bundle import store
    from sct_lesion_losses.training import export, unet
    from sct_lesion_losses.training.recipe import study
    from sct_lesion_losses.workflows import train

    recipe = study(
        filters=(2,),
        batch_size=2,
        epochs_planned=2,
        patches_per_epoch=4,
        validation_patches=2,
        lesion_share=0.5,
        rate=1e-2,
    )
    train.run(Path(cohort), Path(folder), recipe)
    bundle = store.load(Path(folder))
    model = unet.build(recipe.network)
    export.import_weights(model, bundle.weights)
    patches = np.random.default_rng(0).normal(size=(2, 48, 48, 48, 1)).astype(np.float32)
    history = np.array([line.val_loss for line in bundle.info.history])
    return {"history": history, "patches": patches, "keras": model.predict(patches, verbose=0)}


def bare_import() -> Arrays:
    """Train with a loss where nothing but Keras, its backend and numpy can be imported.

    ``loss`` is that of each epoch, ``modules`` what of other packages is loaded at the end.
    """
    backend = os.environ["KERAS_BACKEND"]
    allowed = needed("keras", "numpy", backend, f"{backend}-cpu")
    # What the interpreter loads of itself at its start needs no import any more.
    others = of_others(allowed | {"sct-lesion-losses"}) - sys.modules.keys()
    hide(others)
    x = np.linspace(-1, 1, 4 * 64, dtype="float32").reshape(4, 4, 4, 4, 1)
    loss = fitted("tversky", x, 5, "glorot_uniform")
    loaded = others & {name.partition(".")[0] for name, there in sys.modules.items() if there}
    return {"loss": loss, "modules": np.array(sorted(loaded), dtype=str)}


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def needed(*names: str) -> set[str]:
    """Distributions that these need, themselves included."""
    found: set[str] = set()
    waiting = [*names]
    while waiting:
        name = normalised(waiting.pop())
        try:
            required = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        if name not in found:
            found.add(name)
            waiting += [re.match(r"[\w.-]+", r)[0] for r in required if "extra ==" not in r]
    return found


def of_others(allowed: set[str]) -> set[str]:
    """Modules that only other distributions bring."""
    owners = metadata.packages_distributions().items()
    return {module for module, of in owners if not allowed & {normalised(name) for name in of}}


def hide(modules: set[str]) -> None:
    """Make modules look as if they were not installed."""
    sys.modules.update(dict.fromkeys(modules))


COMPUTED = {
    function.__name__: function
    for function in (loss_table, three_steps, trained_bundle, bare_import)
}


if __name__ == "__main__":
    np.savez(sys.argv[-1], **COMPUTED[sys.argv[1]](*sys.argv[2:-1]))
