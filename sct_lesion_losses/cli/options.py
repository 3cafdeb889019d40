"""Options that several commands share, and what those of a training become."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from sct_lesion_losses import losses
from sct_lesion_losses.centerline import METHODS, UNATTENDED
from sct_lesion_losses.cli.parser import choice, float_range, int_range, one_of, option
from sct_lesion_losses.errors import UsageError
from sct_lesion_losses.inference import ENGINES, PRECISIONS
from sct_lesion_losses.metrics import PRESETS
from sct_lesion_losses.sct import CONTRASTS

if TYPE_CHECKING:
    from sct_lesion_losses.bundle.schema import Recipe
    from sct_lesion_losses.cohorts.splits import Rules


def together(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return what adds several options to a command, in their order."""

    def add(function: Any) -> Any:
        for one in reversed(options):
            function = one(function)
        return function

    return add


SHARE = float_range(0, 1)
BACKENDS = ("tensorflow", "jax", "torch")  # in the order of preference
DEVICES = ("auto", "cpu", "gpu")
# TensorFlow's, then JAX's, and those of what either computes with
_THREADS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "NPROC", "OMP_NUM_THREADS")
_INSTALL = "pip install 'sct_lesion_losses[train]', or [train-jax] for JAX in place of TensorFlow"


def chosen_device(values: dict[str, Any]) -> str:
    """Take the options of `MACHINE` out of values, and set the environment of Keras by them.

    Returns
    -------
    str
        One of `DEVICES`. Which of several GPUs is chosen by $CUDA_VISIBLE_DEVICES, as always.

    Raises
    ------
    UsageError
        The backend is not installed, or none is; or Keras is not made for this Python.
    """
    if sys.version_info < (3, 11):
        raise UsageError(
            "training needs Python 3.11 to 3.13, and this is SCT's 3.10: install "
            "'sct_lesion_losses[train]' with another Python, in an environment of its own"
        )
    backend, device, threads = (values.pop(name) for name in ("backend", "device", "threads"))
    os.environ["KERAS_BACKEND"] = _installed(backend or os.environ.get("KERAS_BACKEND"))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # TensorFlow alone leaves it off on CPUs without AVX-512 VNNI or newer.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # a GPU may be shared
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
        os.environ["JAX_PLATFORMS"] = "cpu"
    if threads is not None:
        os.environ.update(dict.fromkeys(_THREADS, str(threads)))
    return str(device)


def _installed(backend: str | None) -> str:
    if backend is None:
        found = [name for name in BACKENDS if importlib.util.find_spec(name)]
        if not found:
            raise UsageError(
                f"training needs TensorFlow, JAX or torch, none of which is installed: {_INSTALL}"
            )
        return found[0]
    if backend not in BACKENDS:
        raise UsageError(f"KERAS_BACKEND is {backend!r}; choose from {', '.join(BACKENDS)}")
    if importlib.util.find_spec(backend) is None:
        raise UsageError(f"the backend {backend} is not installed: {_INSTALL}")
    return backend


def training(device: str) -> ModuleType:
    """Load Keras with what trains on a device, without what compiled libraries announce.

    Raises
    ------
    UsageError
        Something that training needs is not installed.
    TrainingError
        There is no such device.
    """
    sys.stderr.flush()
    stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:  # they write whatever log level they are given
        os.dup2(nowhere, 2)
        workflow = importlib.import_module("sct_lesion_losses.workflows.train")
    except ModuleNotFoundError as error:
        raise UsageError(
            f"training needs {error.name}, which is not installed: {_INSTALL}"
        ) from error
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)
    from sct_lesion_losses.training.fit import require_device

    require_device(device)
    return workflow


ENGINE = option(
    f"-engine {one_of(ENGINES)}",
    "Inference engine. auto: openvino where it is installed.",
    default="auto",
)
PRECISION = option(
    f"-precision {one_of(PRECISIONS)}",
    "Precision of the network; bfloat16 needs openvino.",
    default="float32",
)
CENTERLINE = option(
    f"-centerline {one_of(METHODS)}",
    f"How the spinal cord is found. {'; '.join(f'{name}: {by}' for name, by in METHODS.items())}.",
    default="auto",
    shown="auto; file with -file_centerline",
)
COHORT_CENTERLINE = option(
    f"-centerline {one_of(('cohort', *UNATTENDED))}",
    "How the spinal cord is found. cohort: the cohort's own centerline where it has one.",
    default="cohort",
)
CONTRAST = option(
    f"-c {one_of(CONTRASTS)}",
    "Contrast, where a model of the toolbox is used (lesions of sct, centerline).",
    dest="contrast",
    default="t2",
)
PRESET = option(
    f"-preset {one_of(PRESETS)}",
    "By which rule predicted lesions count as detected.",
    default="paper",
)
_LESIONS = (
    "-lesions {0,1}",
    "Also write a table of the lesions (TSV) and a mask in which they are numbered.",
)
LESIONS = option(*_LESIONS)
LESIONS_OF_MANY = option(
    *_LESIONS, shown="1 for several scans or with -levels, unless with -thr 0; else 0"
)
LESION_POINT = option(
    "-lesion_point {0,1}",
    "Drop the predicted lesions whose highest probability or volume is below what the bundle was "
    "tuned to by sct_tune_lesion -lesion_point 1. 1: demand that it was; 0: keep every lesion.",
    shown="where the bundle was tuned so",
)
JOBS = option("-jobs <int>", "Scans worked on at the same time.", default=1)
SCHEDULER_FILE = option(
    "-scheduler_file <file>", "The same, by the file that dask scheduler --scheduler-file writes."
)


def cluster(values: dict[str, Any]) -> str | Path | None:
    """Take what names a cluster out of values: its address, or the file that it wrote."""
    scheduler, file = values.pop("scheduler"), values.pop("scheduler_file")
    if scheduler and file:
        raise UsageError("-scheduler and -scheduler_file name one cluster each: give one of them")
    return scheduler or file  # type: ignore[no-any-return]


_COHORT = (
    "a BIDS folder with masks in derivatives/labels, another folder of masks in its derivatives, "
    "or a TSV with the columns scan, lesion_mask, subject and, optionally, site, split, centerline."
)
COHORT = option(
    "-i <file>",
    f"Cohort: {_COHORT}",
    dest="cohort",
    mandatory=True,
)
COHORTS = option(
    "-i <file> [<file> ...]",
    f"Cohorts: each {_COHORT} Each keeps its split or is split by itself; subjects of two are "
    "different people, even where they are called alike. One table with a column cohort is several "
    "cohorts with the same people.",
    dest="data",
    mandatory=True,
)
SPLIT = together(
    option(
        "-lesion_free <float>",
        "Share of the lesion-free subjects to train on; the others are unseen.",
        kind=SHARE,
        default=0.0,
    ),
    option(
        "-lesion_free_tuning <float>",
        "Share of the lesion-free subjects in thr-optimization, for sct_tune_lesion.",
        kind=SHARE,
        default=0.0,
    ),
    option("-unseen_sites <str> [<str> ...]", "Sites that are never trained on."),
)
SPLIT_SEED = option(
    "-split_seed <int>",
    "Seed of the split, where the cohort has none.",
    kind=int_range(0),
    default=0,
)
MACHINE = together(
    option(
        f"-backend {one_of(BACKENDS)}",
        "What Keras runs on.",
        shown="$KERAS_BACKEND, else the first that is installed",
    ),
    option(
        f"-device {one_of(DEVICES)}",
        "auto: a GPU where there is one. $CUDA_VISIBLE_DEVICES says which.",
        default="auto",
    ),
    option("-threads <int>", "CPU threads to compute with.", shown="all cores"),
)
LOSS = option("-loss <str>", "Loss function.", kind=choice(tuple(losses.LOSSES)), default="tversky")
RECIPE = together(
    option(
        "-loss_numbers <str> [<str> ...]",
        "Numbers of the loss, fn_weight=0.8 for example.",
        dest="arguments",
        shown="those of its paper",
    ),
    option("-epochs <int>", "Epochs of training.", dest="epochs_planned", shown="300"),
    option("-batch <int>", "Patches per step.", dest="batch_size", shown="8"),
    option("-rate <float>", "Learning rate at the start.", shown="0.0001; 1 for combo"),
    option("-optimiser {adam,adadelta}", "Optimiser.", shown="adam; adadelta for combo"),
    option(
        "-patience <int>",
        "Epochs without a better validation loss after which the rate is lowered.",
        shown="15",
    ),
    option("-rate_factor <float>", "What the rate is then multiplied by.", shown="0.5"),
    option(
        "-early_stop <int>",
        "Epochs without a better validation loss after which the training ends.",
        dest="stop_patience",
        shown="never",
    ),
    option(
        "-keep {best,last}",
        "Epoch whose weights are kept: the best by its validation loss, or the last, where patches "
        "are augmented by what validation scans do not show, as by -stripe.",
        shown="best",
    ),
    option("-patches_per_epoch <int>", "Patches drawn per epoch.", shown="all"),
    option(
        "-lesion_share <float>",
        "Share of the drawn patches that hold lesion, in every cohort.",
        kind=SHARE,
        shown="as they come",
    ),
    option(
        "-free_share <float>",
        "Share of those without lesion that are drawn from scans without any lesion.",
        kind=SHARE,
        shown="as they come",
    ),
    option("-validation_patches <int>", "Patches scored after each epoch.", shown="all"),
    option("-mirrors {0,1}", "Mirror patches along each axis, at random.", default=True),
    option(
        "-rotations {0,1}",
        "Turn patches by multiples of 90 degrees in the axial plane, at random.",
        default=True,
    ),
    option(
        "-shift <float>",
        "Move the centerline by up to this, in mm (whole voxels of 0.5 mm), as augmentation.",
        kind=float_range(0, 10),
        dest="shift_mm",
        default=0.0,
        shown="0",
    ),
    option(
        "-intensity <float>",
        "Probability of each change of intensity (gamma, bias, blur, noise) as augmentation.",
        kind=SHARE,
        default=0.0,
        shown="0",
    ),
    option(
        "-stripe <float>",
        "Probability of a bright stripe along the middle of the cord as augmentation: healthy "
        "cords may show one, and it is no lesion.",
        kind=SHARE,
        default=0.0,
        shown="0",
    ),
    option(
        "-precision {float32,mixed_bfloat16,mixed_float16}",
        "Precision of the network while it trains.",
        shown="float32",
    ),
    option(
        "-filters <int> [<int> ...]",
        "Filters of the U-Net's levels, from the finest.",
        shown="16 32 64; with -init those of the start",
    ),
    option(
        "-prior <float>",
        "Lesion probability that the untrained network starts from; 0.02 saves many steps.",
        shown="0.5",
    ),
    option(
        "-ema <float>",
        "Average the weights over the steps, this share of the average staying at each, 0.999 for "
        "example; the average is what is validated and kept.",
        shown="the last step's weights",
    ),
    option(
        "-seed <int>", "Seed of weights, patches and augmentation.", kind=int_range(0), default=0
    ),
)
COHORT_SHARES = option(
    "-cohort_shares <str> [<str> ...]",
    "Share of the drawn patches from each of several cohorts, by the name of its folder or table, "
    "1 together: simulated=0.6 implants=0.4 for example.",
    shown="as they come",
)


def rules(values: dict[str, Any]) -> Rules:
    """Take the rules of a split, those of `SPLIT`, out of the values of a command's options."""
    from sct_lesion_losses.cohorts.splits import Rules

    names = ("split_seed", "lesion_free", "lesion_free_tuning", "unseen_sites")
    return Rules(*(values.pop(name) for name in names))


def recipe(values: Mapping[str, Any], start: Mapping[str, Any]) -> Recipe:
    """Return the study's recipe, changed by what was given.

    Parameters
    ----------
    values : mapping
        Of the options of `RECIPE`, by the name of their entry, and the loss; None was left out.
    start : mapping
        Entries that follow from the bundle that the training starts from.

    Raises
    ------
    UsageError
        A value is out of its range.
    """
    from sct_lesion_losses.training.recipe import study

    given = {name: value for name, value in values.items() if value not in (None, ())}
    if start and "prior" in given:
        raise UsageError("-prior is for random weights; with -init the start has learned its own")
    arguments = dict(_argument(word) for word in given.pop("arguments", ()))
    if "cohort_shares" in given:
        given["cohort_shares"] = dict(map(_share, given["cohort_shares"]))
    return study(**{**start, **given}, arguments=arguments)


def _share(word: str) -> tuple[str, float]:
    """Name of a cohort and its share, of ``implants=0.4``."""
    name, _, share = word.rpartition("=")
    try:
        return name, float(share if name else "")
    except ValueError:
        raise UsageError(
            f"-cohort_shares {word}: expected cohort=share, implants=0.4 for example"
        ) from None


def _argument(word: str) -> tuple[str, float | bool | str]:
    """Name and value of ``fn_weight=0.8``, ``squared=True`` or ``pooling=sample``."""
    name, equals, value = word.partition("=")
    if not (name.isidentifier() and equals and value):
        raise UsageError(f"-loss_numbers {word}: expected name=value, fn_weight=0.8 for example")
    if value in ("True", "False"):
        return name, value == "True"
    try:
        return name, float(value)
    except ValueError:
        return name, value
