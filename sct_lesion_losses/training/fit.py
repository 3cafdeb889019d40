"""Training a network by a recipe, from its random or given weights or where it ended."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Collection, Sequence
from pathlib import Path

import keras
import numpy as np

from sct_lesion_losses import losses
from sct_lesion_losses.bundle.schema import Epoch, Recipe
from sct_lesion_losses.errors import TrainingError, UsageError
from sct_lesion_losses.images.atomic import remove_left_over
from sct_lesion_losses.preprocessing.cache import TrainingCrop
from sct_lesion_losses.training import callbacks, export, unet
from sct_lesion_losses.training import recipe as recipes
from sct_lesion_losses.training.batches import PatchBatches
from sct_lesion_losses.training.callbacks import CHECKPOINT, LOG, TrainingState

# What is trained on, in its order: a name people know, and a hash of what a network sees of it.
Data = Sequence[tuple[str, str]]
_MOST_SHOWN = 5
_ONEDNN = "TF_ENABLE_ONEDNN_OPTS"
# Of an error for want of memory: TensorFlow's and torch's types, and words of all.
_TYPES = {"ResourceExhaustedError", "OutOfMemoryError"}
_WORDS = ("resource_exhausted", "oom when allocating", "out of memory", "can't allocate memory")
# Of CPUs for which oneDNN has kernels of bfloat16, native or by AVX-512; the last is ARM's.
_BFLOAT16 = {"avx512f", "avx_ne_convert", "bf16"}
_SAME_WEIGHTS = {"float32", "mixed_bfloat16"}  # precisions that keep the same variables

logger = logging.getLogger(__name__)


def device() -> str:
    """Name the kind of device that Keras computes on: ``gpu`` where there is one, else ``cpu``."""
    if keras.backend.backend() == "torch":  # Keras lists no devices there
        return "gpu" if keras.ops.ones(()).device.type == "cuda" else "cpu"
    kinds = {str(name).split(":")[0].lower() for name in keras.distribution.list_devices()}
    return next((kind for kind in ("gpu", "tpu") if kind in kinds), "cpu")


def require_device(kind: str) -> None:
    """Raise a TrainingError where the GPU that was asked for is not there."""
    if kind == "gpu" and device() != "gpu":
        raise TrainingError(
            f"{keras.backend.backend()} sees no GPU; install its GPU build (docs/install.md), or "
            "train on the CPU"
        )


def loss_arguments(recipe: Recipe) -> dict[str, bool | float | str]:
    """Return the arguments of the recipe's loss, defaults included."""
    config = losses.get(recipe.loss.name, **recipe.loss.numbers).get_config()
    return {
        name: value
        for name, value in config.items()
        if name not in ("name", "reduction") and isinstance(value, bool | int | float | str)
    }


def cpu_flags() -> frozenset[str]:
    """Return the features of this CPU as Linux names them; none where nothing tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    named = (line.partition(":") for line in lines)
    flags = (words for name, _, words in named if name.strip() in ("flags", "Features"))
    return frozenset(next(flags, "").split())


def computable(recipe: Recipe, flags: Collection[str]) -> Recipe:
    """Return the recipe in float32 where bfloat16 has no kernel, which is warned of.

    TensorFlow computes it all the same: a first step took 236 s on a CPU with AVX2 alone.

    Parameters
    ----------
    recipe : Recipe
    flags : collection of str
        Features of the CPU, see `cpu_flags`; without any the recipe stays as it is.
    """
    known = not flags or not _BFLOAT16.isdisjoint(flags)
    if recipe.precision != "mixed_bfloat16" or known or not _tensorflow_on_cpu():
        return recipe
    logger.warning(
        "this CPU has no kernel of bfloat16, without which TensorFlow computes in it very slowly: "
        "the precision is float32"
    )
    return recipe.model_copy(update={"precision": "float32"})


def _tensorflow_on_cpu() -> bool:
    return keras.backend.backend() == "tensorflow" and device() == "cpu"


def compiled(recipe: Recipe) -> keras.Model:
    """Build the recipe's network, compiled with its loss and optimiser."""
    backend = keras.backend.backend()
    prior = 0.5 if recipe.prior is None else recipe.prior
    model = unet.build(recipe.network, seed=recipe.seed, precision=recipe.precision, prior=prior)
    optimisers = {"adam": keras.optimizers.Adam, "adadelta": keras.optimizers.Adadelta}
    optimiser = optimisers[recipe.optimiser](recipe.rate)
    if recipe.precision == "mixed_float16":  # its gradients would vanish without
        optimiser = keras.optimizers.LossScaleOptimizer(optimiser)
    model.compile(
        optimizer=optimiser,
        loss=losses.get(recipe.loss.name, **recipe.loss.numbers),
        # On a CPU, XLA makes a TensorFlow step of the U-Net several times slower; JAX has nothing
        # else.
        jit_compile=backend == "jax" or (backend == "tensorflow" and device() == "gpu"),
    )
    return model


def check(recipe: Recipe) -> None:
    """Refuse what cannot be trained here, before any scan is read.

    Raises
    ------
    UsageError
        The device cannot compute in the recipe's precision, or the loss has no such arguments or no
        value for two voxels, lesion and none.
    """
    name, arguments = recipe.loss.name, recipe.loss.numbers
    if loss_arguments(recipe).get("from_logits"):
        raise UsageError(
            f"loss {name}: from_logits is for networks without a sigmoid at their end; this one "
            "gives probabilities, leave it out"
        )
    lesion = np.array([1.0, 0.0], np.float32).reshape(1, 2, 1, 1, 1)
    try:
        value = float(losses.get(name, **arguments)(lesion, lesion * 0.8))
    except (TypeError, ValueError) as error:
        raise UsageError(f"loss {name}: {error}; change -loss_numbers") from error
    if not math.isfinite(value):
        raise UsageError(f"loss {name}: it is {value} with {arguments}; change -loss_numbers")
    if _tensorflow_on_cpu() and recipe.precision == "mixed_float16" and recipe.network.levels > 1:
        raise UsageError(
            "TensorFlow does not compute this network in mixed_float16 on a CPU; train in "
            "mixed_bfloat16 or float32 there, or on a GPU"
        )


def begin(recipe: Recipe, folder: Path, data: Data = (), resume: bool = False) -> TrainingState:
    """Return the state that a training begins from.

    Parameters
    ----------
    recipe : Recipe
    folder : Path
        Of the training.
    data : sequence of (str, str)
        What is trained on, by name, and a hash of each.
    resume : bool
        Go on after the last epoch that is kept in `folder`, see `resumable`; at the beginning where
        there is none.
    """
    if resume:
        if (state := resumable(recipe, folder, data)) is not None:
            return state
        logger.info("no state in %s yet: starting at the beginning", folder.name)
    settings = {
        "recipe": recipes.settings(recipe),
        "data": [list(entry) for entry in data],
        "backend": keras.backend.backend(),
    }
    return TrainingState(settings)


def resumable(recipe: Recipe, folder: Path, data: Data | None = None) -> TrainingState | None:
    """Return the state in a folder that a training by this recipe on these scans may go on from.

    The number of epochs, the early stop and which epoch is kept may differ: they say how a training
    ends. So may what follows from the machine, which is warned of: the backend, and whether the
    precision is float32 or mixed_bfloat16 (see `computable`), whose weights are of float32 all the
    same. Without `data` only the recipe is compared.

    Returns
    -------
    TrainingState or None
        None where the folder has none.

    Raises
    ------
    TrainingError
        It belongs to another recipe or other scans, or has more epochs than are asked for.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    state = callbacks.load(path)
    begun, now = state.settings["recipe"], recipes.settings(recipe)
    precisions = begun.get("precision"), now["precision"]
    if set(precisions) <= _SAME_WEIGHTS:
        now["precision"] = precisions[0]
    changed = recipes.differences(begun, now)
    if data is not None:
        changed += changed_data([(name, seen) for name, seen in state.settings["data"]], data)
    if changed:
        raise TrainingError(
            f"{path} belongs to another training ({'; '.join(changed)}); give the settings and "
            "the scans it was started with, or train into a new folder"
        )
    if state.epoch > recipe.epochs_planned:
        raise TrainingError(
            f"{path} has {state.epoch} epochs, {recipe.epochs_planned} were asked for; ask for at "
            "least as many, or train into a new folder"
        )
    backends = state.settings["backend"], keras.backend.backend()
    for kind, (before, after) in {"on": backends, "in": precisions}.items():
        if before != after:
            logger.warning(
                "the training was begun %s %s and goes on %s %s: its weights will differ in "
                "rounding from those of one that ran through",
                *(kind, before, kind, after),
            )
    return state


def changed_data(before: Data, after: Data) -> list[str]:
    """Say what of the data is new, missing or changed, the first few of it by name.

    >>> changed_data([("a", "1"), ("b", "2")], [("b", "3"), ("c", "4")])
    ['a is missing', 'b has changed', 'c is new']
    """
    then, now = dict(before), dict(after)
    found = [
        f"{name} {'is missing' if name not in now else 'has changed' if name in then else 'is new'}"
        for name in sorted(then.keys() | now.keys())
        if then.get(name) != now.get(name)
    ]
    if len(found) > _MOST_SHOWN:
        return [*found[:_MOST_SHOWN], f"and {len(found) - _MOST_SHOWN} more"]
    if not found and list(before) != list(after):
        return ["the scans come in another order"]
    return found


def fit(
    training: Sequence[TrainingCrop],
    validation: Sequence[TrainingCrop],
    recipe: Recipe,
    folder: Path,
    state: TrainingState,
    *,
    initial: bytes | None = None,
    watching: Sequence[keras.callbacks.Callback] = (),
) -> keras.Model:
    """Train by a recipe; the whole state is kept in `folder` after each epoch.

    Killed at any moment and resumed, a training on a CPU ends with the weights, to the bit, of one
    that was not.

    Parameters
    ----------
    training, validation : sequence of TrainingCrop
        Scans to learn from, and those whose loss decides the rate and the weights kept.
    recipe : Recipe
        More epochs than before may be asked for.
    folder : Path
        Receives `checkpoint.npz` and `training.csv`.
    state : TrainingState
        From `begin`; takes in each epoch.
    initial : bytes, optional
        Weights to start from, as safetensors; random ones by default. Their validation loss is
        measured and kept as epoch 0, which is never the best one.
    watching : sequence of keras.callbacks.Callback
        Called after every epoch was kept.

    Returns
    -------
    keras.Model
        With the weights of the best epoch or of the last (`Recipe.keep`), or their average after
        it (`Recipe.ema`).

    Raises
    ------
    TrainingError
        A loss is not finite, or the device has too little memory.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove_left_over(folder)
    model = compiled(recipe)
    if state.history:
        state.put(model)
        logger.info("going on after epoch %d", state.epoch)
    else:
        (folder / CHECKPOINT).unlink(missing_ok=True)  # given up, and not to be taken for ours
        (folder / LOG).unlink(missing_ok=True)
    shown = PatchBatches(training, recipe)
    held_out = PatchBatches(validation, recipe, validation=True)
    logger.info(
        "training on %s by %s%s; steps an epoch: %d, patches a step: %d",
        "the CPU" if device() == "cpu" else f"a {device().upper()}",
        keras.backend.backend(),
        " with oneDNN" if _tensorflow_on_cpu() and os.environ.get(_ONEDNN) == "1" else "",
        len(shown),
        recipe.batch_size,
    )
    shown.go_to(state.epoch)
    averaging = [] if recipe.ema is None else [callbacks.Averaging(state, recipe.ema)]
    try:
        if initial is not None and not state.history:
            export.import_weights(model, initial)
            state.history = (_start(model, held_out),)
        model.fit(
            shown,
            validation_data=held_out,
            initial_epoch=state.epoch,
            epochs=state.epoch if state.ended(recipe) else recipe.epochs_planned,
            callbacks=[*averaging, callbacks.Epochs(state, shown, recipe, folder), *watching],
            shuffle=False,  # the batches are drawn anew in every epoch
            verbose=0,
        )
    except Exception as error:
        if not exhausted(error):
            raise
        raise TrainingError(
            f"the device has too little memory for batches of {recipe.batch_size} patches; close "
            "what else uses it, train with -device cpu, or start anew by -force 1 with a smaller "
            "-batch, fewer -filters or a half -precision"
        ) from error
    except BaseException:  # a signal
        _say_what_is_kept(state, folder)
        raise
    if recipe.keep == "last":
        model.set_weights(state.average or state.weights)
        return model
    model.set_weights(state.best_weights)
    losses_of = {line.epoch: line.val_loss for line in state.history}
    start, best = losses_of.get(0), losses_of[state.best_epoch]
    if start is not None and best is not None and best >= start:
        logger.warning(
            "no epoch was better than the start: validation %.4f, and %.4f in the best epoch, %d, "
            "whose weights are kept all the same; a lower -rate may help",
            *(start, best, state.best_epoch),
        )
    return model


def _say_what_is_kept(state: TrainingState, folder: Path) -> None:
    if not state.epoch:
        logger.warning("stopped before the end of an epoch: nothing is kept of this training")
        return
    logger.warning(
        "stopped: the state after epoch %d is kept in %s; sct_train_lesion goes on from there by "
        "-resume 1, to the weights that it would have come to",
        state.epoch,
        folder.name,
    )


def _start(model: keras.Model, held_out: PatchBatches) -> Epoch:
    """Score the weights that a training starts from."""
    began = time.monotonic()
    loss = float(model.evaluate(held_out, verbose=0))
    if not math.isfinite(loss):
        raise TrainingError(
            f"the validation loss of the start is {loss}; start from another bundle, or check the "
            "scans"
        )
    logger.info("start: validation %.4f", loss)
    return Epoch(epoch=0, val_loss=loss, seconds=time.monotonic() - began)


def exhausted(error: BaseException) -> bool:
    """Say whether an error of TensorFlow, JAX or torch means that the device's memory ran out.

    Parameters
    ----------
    error : BaseException
        Raised by a training step. Errors that it wraps count: Keras raises some of TensorFlow's
        anew, as a RuntimeError with the same words. A `MemoryError`, of the host, does not count.
    """
    seen: BaseException | None = error
    while seen is not None:
        if any(kind.__name__ in _TYPES for kind in type(seen).__mro__):
            return True
        words = str(seen).lower() if isinstance(seen, RuntimeError) else ""  # JAX's is one
        if any(word in words for word in _WORDS):
            return True
        seen = seen.__cause__ or seen.__context__
    return False
