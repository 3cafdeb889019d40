"""Starts of a training other than random weights: a bundle's, or SCT's lesion model."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import onnx
import onnxruntime
import safetensors.numpy
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from sct_lesion_losses.bundle import store
from sct_lesion_losses.bundle.schema import Architecture, StudyPreparation
from sct_lesion_losses.bundle.store import SCT_NAME, Bundle
from sct_lesion_losses.errors import BundleError, SctError, UsageError
from sct_lesion_losses.geometry.patches import PATCH_VOX
from sct_lesion_losses.sct import lesion
from sct_lesion_losses.training import recipe
from sct_lesion_losses.training.recipe import DOUBLING

CONTRAST = "t2"  # SCT's model for T2-weighted scans of any orientation
TERMS = (
    "its weights descend from those of the Spinal Cord Toolbox's lesion model, which are not this "
    "package's to license or to ship: look up the toolbox's terms before you pass the bundle on"
)
_KERNEL_FROM_ONNX = (2, 3, 4, 1, 0)  # (out, in, k, k, k) to (k, k, k, in, out)
_SAME = 1e-3  # log-odds by which two computations of one network may differ; 1.2e-5 do

Array = NDArray[np.float32]


def load(name: str | None, contrast: str | None = None) -> Bundle | None:
    """Load what `-init` names.

    Parameters
    ----------
    name : str or None
        Name or folder of a bundle, or ``sct`` for SCT's lesion model; None for random weights.
    contrast : {"t2", "t2_ax", "t2s"}, optional
        Which of SCT's models; `CONTRAST` by default.

    Returns
    -------
    Bundle or None
        None where the training starts from random weights. SCT's model is as `lesion.load` has it,
        with weights, their architecture, and SCT's terms as its limits.

    Raises
    ------
    UsageError
        A contrast is given without SCT's model, or there is no such contrast.
    BundleError
        The bundle is missing, damaged or refused.
    SctError
        SCT or its model is missing, or the model is damaged or another network.
    """
    if name != SCT_NAME:
        if contrast is not None:
            raise UsageError(
                f"-c {contrast} chooses among SCT's lesion models: it goes with -init {SCT_NAME}"
            )
        return None if name is None else store.load(name)
    contrast = contrast or CONTRAST
    model = lesion.load(contrast)
    try:
        architecture, weights = read(model.network)
    except BundleError as error:
        raise SctError(
            f"SCT's {contrast}_lesion.onnx is no start for a training: {error}; get it anew with "
            "sct_download_data -d deepseg_lesion_models, take another contrast by -c, or leave "
            "-init sct out"
        ) from error
    info = model.info.model_copy(update={"network": architecture, "limits": (TERMS,)})
    return replace(model, info=info, weights=weights)


def read(network: bytes) -> tuple[Architecture, bytes]:
    """Read the weights of an SCT lesion model, a U-Net whose channels double within a level.

    They are found by the order of the convolutions and normalisations. That the network of this
    package computes the same with them is tried on a patch of noise.

    Parameters
    ----------
    network : bytes
        ONNX file.

    Returns
    -------
    architecture : Architecture
    weights : bytes
        safetensors file that `export.import_weights` puts into the network of that architecture.

    Raises
    ------
    BundleError
        The bytes are no ONNX model, or one of another network.
    """
    try:
        model = onnx.load_model_from_string(network)
        onnx.checker.check_model(model)
        arrays = {
            tensor.name: np.array(numpy_helper.to_array(tensor), np.float32)
            for tensor in model.graph.initializer
        }
    except Exception as error:  # protobuf's and the checker's share no other class
        raise BundleError("expected an ONNX model, found a damaged or another file") from error

    def stored(operator: str) -> list[list[Array]]:
        nodes = [node for node in model.graph.node if node.op_type == operator]
        return [[arrays[name] for name in node.input[1:] if name in arrays] for node in nodes]

    convolutions, normalisations = stored("Conv"), stored("BatchNormalization")
    levels, rest = divmod(len(convolutions) + 1, 4)
    if rest or len(normalisations) != len(convolutions) - 1 or not all(normalisations):
        raise BundleError(
            "expected a U-Net of two convolutions a level, each with its normalisation, and one at "
            f"its end; found {len(convolutions)} convolutions, {len(normalisations)} normalisations"
        )
    filters = tuple(len(normalisations[k][0]) for k in range(1, 2 * levels, 2))
    try:
        architecture = recipe.network(filters, DOUBLING)
        weights = _weights(filters, convolutions, normalisations)
    except (ValueError, UsageError) as error:
        raise BundleError(f"expected SCT's U-Net, found another network ({error})") from error
    _require_same_result(model, architecture, weights)
    return architecture, weights


def _weights(
    filters: tuple[int, ...],
    convolutions: list[list[Array]],
    normalisations: list[list[Array]],
) -> bytes:
    """Weights of the network by ``layer/variable``, as a safetensors file."""
    weights = {}
    ups = list(reversed(range(len(filters) - 1)))
    names = [*(f"down{level}" for level in reversed(ups)), "bottom", *(f"up{k}" for k in ups)]
    for (name, step), (kernel, *bias), norm in zip(
        product(names, "ab"), convolutions[:-1], normalisations, strict=True
    ):
        gamma, beta, mean, variance = norm
        weights[f"{name}_conv_{step}/kernel"] = kernel.transpose(_KERNEL_FROM_ONNX)
        weights[f"{name}_norm_{step}/gamma"] = gamma
        weights[f"{name}_norm_{step}/beta"] = beta
        weights[f"{name}_norm_{step}/moving_mean"] = mean - bias[0] if bias else mean
        weights[f"{name}_norm_{step}/moving_variance"] = variance
    for level in ups:
        # SCT repeats voxels where this package has a transposed convolution, and concatenates what
        # it gives before the level's own channels.
        raised = filters[level + 1]
        copies = np.broadcast_to(np.eye(raised, dtype=np.float32), (2, 2, 2, raised, raised))
        weights[f"up{level}_transpose/kernel"] = copies
        weights[f"up{level}_transpose/bias"] = np.zeros(raised, np.float32)
        first = f"up{level}_conv_a/kernel"
        weights[first] = np.roll(weights[first], -raised, axis=3)
    kernel, *bias = convolutions[-1]
    weights["lesion/kernel"] = kernel.transpose(_KERNEL_FROM_ONNX)
    weights["lesion/bias"] = bias[0] if bias else np.zeros(1, np.float32)
    kept = {name: np.ascontiguousarray(array) for name, array in weights.items()}
    return bytes(safetensors.numpy.save(kept, metadata={"format": "keras"}))


def _require_same_result(
    theirs: onnx.ModelProto, architecture: Architecture, weights: bytes
) -> None:
    """Raise a BundleError where an ONNX model computes otherwise than the network of its weights.

    ONNX Runtime computes both on the CPU: a GPU rounds the kernels of convolutions to 10 bits.
    """
    from sct_lesion_losses.training import export, unet  # a site's tuning does without Keras

    model = unet.build(architecture)
    export.import_weights(model, weights)
    ours = onnx.load_model_from_string(export.to_onnx(model))
    patch = np.random.default_rng(0).normal(size=(1, 1, *[PATCH_VOX] * 3)).astype(np.float32)
    try:
        pairs = zip(_computed(theirs, patch), _computed(ours, patch), strict=True)
        apart = max(np.abs(found - expected).max() for found, expected in pairs)
    except Exception as error:  # ONNX Runtime's errors share no other class
        raise BundleError(
            f"expected a network with a sigmoid at its end, for patches of {PATCH_VOX} voxels, "
            f"found another ({error})"
        ) from error
    if not apart < _SAME:
        raise BundleError(
            "expected what a U-Net of its weights computes, found log-odds of lesion that differ "
            f"by up to {apart:.2g}"
        )


def _computed(model: onnx.ModelProto, patch: Array) -> list[Array]:
    """Probabilities and log-odds of lesion in a patch, (1, 1, 48, 48, 48).

    Without lesion all probabilities are next to 0, and only log-odds tell networks apart.
    """
    (end,) = (node for node in model.graph.node if node.op_type == "Sigmoid")
    both = onnx.ModelProto()
    both.CopyFrom(model)
    both.graph.output.append(helper.make_empty_tensor_value_info(end.input[0]))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(
        both.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    computed: list[Array] = session.run(None, {session.get_inputs()[0].name: patch})
    return computed


def network(init: Bundle) -> Architecture:
    """Architecture of a training that starts from a bundle.

    Raises
    ------
    UsageError
        The bundle has no weights to train on, or they are of no network of this package.
    """
    if not init.weights:
        raise UsageError(f"bundle {init.name}: it has no weights to train on; start from another")
    described = init.info.network
    try:
        return recipe.network(described.filters, described.architecture)
    except UsageError as error:
        raise UsageError(
            f"bundle {init.name}: {error}; start from a bundle that sct_train_lesion wrote"
        ) from error


def require_same(init: Bundle, wanted: Architecture) -> None:
    """Raise a UsageError where a bundle's weights do not fit the network that is to be trained."""
    if (found := network(init)) != wanted:
        raise UsageError(
            f"bundle {init.name}: its network is {found}, expected {wanted} for this recipe; "
            "leave -filters out, or start from a bundle of the other network"
        )


def entries(init: Bundle | None) -> dict[str, Any]:
    """Entries of a recipe that follow from its start."""
    if init is None:
        return {}
    known = network(init)
    return {"filters": known.filters, "architecture": known.architecture}


def ancestor(init: Bundle) -> str:
    """Name the bundle, or SCT's model, and the hash that tells its weights from all others."""
    if isinstance(init.preparation, StudyPreparation):
        return f"{init.name} {init.info.version}, weights {init.weights_sha256}"
    contrast = init.preparation.contrast
    return f"SCT's lesion model {contrast} ({contrast}_lesion.onnx), sha256 {init.sha256}"


def inherited_limits(init: Bundle | None) -> tuple[str, ...]:
    """Limits that hold for all that descends from a bundle: whose its weights are."""
    limits = () if init is None else init.info.limits
    return tuple(limit for limit in limits if limit == TERMS)
