"""What a training starts from, where it does not start from random weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import safetensors.numpy
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from sct_lesion_losses.bundle import store
from sct_lesion_losses.bundle.schema import Architecture, StudyPreparation
from sct_lesion_losses.bundle.store import SCT_NAME, Bundle
from sct_lesion_losses.errors import BundleError, SctError, UsageError
from sct_lesion_losses.sct import lesion
from sct_lesion_losses.training import recipe
from sct_lesion_losses.training.recipe import DOUBLING, EPSILON

AXES = 3
_KERNEL_FROM_ONNX = (2, 3, 4, 1, 0)  # (out, in, k, k, k) to (k, k, k, in, out)
_ONCE, _TWICE = [1] * AXES, [2] * AXES
_NO_PADS, _PADS = [0] * 2 * AXES, [1] * 2 * AXES
# What an operator computes with where its node does not say; ONNX, Operators.md, opset 13.
_DEFAULTS: dict[str, Any] = {
    "pads": _NO_PADS,
    "strides": _ONCE,
    "dilations": _ONCE,
    "group": 1,
    "auto_pad": "NOTSET",
    "ceil_mode": 0,
    "epsilon": 1e-5,
    "mode": "nearest",
    "coordinate_transformation_mode": "half_pixel",
    "nearest_mode": "round_prefer_floor",
}

_END = "the end"

Array = NDArray[np.float32]


def read(network: bytes) -> tuple[Architecture, bytes]:
    """Read a U-Net of SCT's graph.

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
        The bytes are no ONNX model, or one of another graph; with what was expected and found.
    """
    walk = _Walk(network)
    filters: list[int] = []
    skips: list[tuple[str, int]] = []
    poolings = walk.count("MaxPool")
    for level in range(poolings + 1):
        name = f"down{level}" if level < poolings else "bottom"
        first, second = walk.convolutions(name)
        _require(f"filters of {name}", [second // 2, second], [first, second])
        filters.append(second)
        if level < poolings:
            skips.append((walk.x, second))
            walk.pool()
    for level in reversed(range(poolings)):
        raised = walk.raised(f"up{level}_transpose")
        walk.concatenated(*skips[level])
        name = f"up{level}"
        _require(f"filters of {name}", [filters[level]] * 2, list(walk.convolutions(name)))
        kernel = walk.weights[f"{name}_conv_a/kernel"]
        walk.weights[f"{name}_conv_a/kernel"] = np.roll(kernel, -raised, axis=AXES)
    walk.head("lesion")
    try:
        architecture = recipe.network(tuple(filters), DOUBLING)
    except UsageError as error:
        raise BundleError(str(error)) from error
    kept = {name: np.ascontiguousarray(array) for name, array in walk.weights.items()}
    return architecture, bytes(safetensors.numpy.save(kept, metadata={"format": "keras"}))


class _Walk:
    """Nodes of the graph, taken one by one in their order.

    Attributes
    ----------
    x : str
        What the last node gave.
    channels : int
        Its channels.
    weights : dict of str to array
        What was found so far, by ``layer/variable``.
    """

    def __init__(self, network: bytes) -> None:
        try:
            model = onnx.load_model_from_string(network)
            onnx.checker.check_model(model)
        except Exception as error:  # protobuf's and the checker's share no other class
            raise BundleError("expected an ONNX model, found a damaged or another file") from error
        graph = model.graph
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}
        self._nodes = [node for node in graph.node if node.op_type != "Identity"]
        self._done = 0
        inputs = [i.name for i in graph.input if i.name not in self._tensors]
        _require("number of inputs", 1, len(inputs))
        self.x = inputs[0]
        self.channels = 1
        self.weights: dict[str, Array] = {}

    def count(self, operator: str) -> int:
        """Nodes of an operator in the whole graph."""
        return sum(node.op_type == operator for node in self._nodes)

    def convolutions(self, name: str) -> tuple[int, int]:
        """Take the two convolutions of a level, each with its normalisation; return their width."""
        first, second = (self._convolution(name, step) for step in ("a", "b"))
        return first, second

    def _convolution(self, name: str, step: str) -> int:
        conv, norm = f"{name}_conv_{step}", f"{name}_norm_{step}"
        kernel, bias = self._kernel(3, _PADS)
        node = self._take("BatchNormalization", epsilon=EPSILON)
        names = ("gamma", "beta", "moving_mean", "moving_variance")
        for part, stored in zip(names, node.input[1:], strict=True):
            self.weights[f"{norm}/{part}"] = self._tensor(stored, (self.channels,))
        self.weights[f"{conv}/kernel"] = kernel
        self.weights[f"{norm}/moving_mean"] -= bias
        self._take("Relu")
        return self.channels

    def pool(self) -> None:
        """Take the pooling that halves a patch."""
        self._take("MaxPool", kernel_shape=_TWICE, strides=_TWICE, pads=_NO_PADS, ceil_mode=0)

    def raised(self, name: str) -> int:
        """Take the up-sampling that doubles a patch; return its channels."""
        modes = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        node = self._take("Resize", mode="nearest", **modes)
        scales = self._tensor(node.input[-1], (AXES + 2,))
        _require(f"scales of {node.output[0]!r}", [1, 1, *_TWICE], scales.tolist())
        copies = np.broadcast_to(
            np.eye(self.channels, dtype=np.float32), (*_TWICE, self.channels, self.channels)
        )
        self.weights[f"{name}/kernel"] = copies
        self.weights[f"{name}/bias"] = np.zeros(self.channels, np.float32)
        return self.channels

    def concatenated(self, skip: str, channels: int) -> None:
        """Take the concatenation with what the level gave on its way down."""
        node = self._take("Concat", axis=1)
        _require(f"second part of {node.output[0]!r}", [skip], list(node.input[1:]))
        self.channels += channels

    def head(self, name: str) -> None:
        """Take the last convolution, its sigmoid, and make sure that nothing follows."""
        self.weights[f"{name}/kernel"], self.weights[f"{name}/bias"] = self._kernel(1, _NO_PADS)
        _require("channels of the output", 1, self.channels)
        self._take("Sigmoid")
        _require("node after the Sigmoid", _END, self._coming())

    def _kernel(self, side: int, pads: list[int]) -> tuple[Array, Array]:
        """Take a convolution; kernel (k, k, k, in, out) and bias (out,), zero where it has none."""
        node = self._take(
            "Conv", pads=pads, strides=_ONCE, dilations=_ONCE, group=1, auto_pad="NOTSET"
        )
        stored = self._tensor(node.input[1], (None, self.channels, side, side, side))
        self.channels = stored.shape[0]
        bias = np.zeros(self.channels, np.float32)
        if len(node.input) > 2:
            bias = self._tensor(node.input[2], (self.channels,))
        return stored.transpose(_KERNEL_FROM_ONNX), bias

    def _coming(self) -> str:
        left = self._nodes[self._done :]
        return str(left[0].op_type) if left else _END

    def _take(self, operator: str, **settings: Any) -> Any:
        """Take the next node, which must compute this on what the one before it gave."""
        _require(f"node after {self.x!r}", operator, self._coming())
        node = self._nodes[self._done]
        self._done += 1
        _require(f"input of {node.output[0]!r}", self.x, node.input[0])
        found = _DEFAULTS | {a.name: helper.get_attribute_value(a) for a in node.attribute}
        for name, expected in settings.items():
            value = found.get(name)
            if isinstance(value, bytes):
                value = value.decode()
            elif isinstance(value, float):
                value = float(f"{value:.6g}")  # stored as float32
            _require(f"{name} of {node.output[0]!r}", expected, value)
        self.x = node.output[0]
        return node

    def _tensor(self, name: str, shape: tuple[int | None, ...]) -> Array:
        """Read a stored float32 tensor of a shape; None in front stands for any size."""
        if name not in self._tensors:
            raise BundleError(f"expected stored numbers for {name!r}, found none")
        try:
            array = np.array(numpy_helper.to_array(self._tensors[name]), np.float32)
        except (ValueError, TypeError, OSError) as error:
            raise BundleError(f"the numbers of {name!r} cannot be read ({error})") from error
        first = array.shape[0] if array.ndim else 0
        _require(f"shape of {name!r}", tuple(first if n is None else n for n in shape), array.shape)
        if not np.isfinite(array).all():
            raise BundleError(f"numbers of {name!r} are NaN or infinite")
        return array


def _require(what: str, expected: Any, found: Any) -> None:
    """Raise a BundleError where what was found is not what was expected."""
    if found != expected:
        raise BundleError(f"{what}: expected {expected}, found {found}")


TERMS = (
    "its weights descend from those of the Spinal Cord Toolbox's lesion model, which are not this "
    "package's to license or to ship: look up the toolbox's terms before you pass the bundle on"
)


def sct_start(contrast: str) -> Bundle:
    """Load SCT's lesion model for a contrast as a bundle with weights to train on.

    Parameters
    ----------
    contrast : {"t2", "t2_ax", "t2s"}

    Returns
    -------
    Bundle
        As `lesion.load` has it, with weights, their architecture, and SCT's terms as its limits.

    Raises
    ------
    UsageError
        There is no such contrast.
    SctError
        SCT or its model is missing, or the model is damaged or of another graph.
    """
    model = lesion.load(contrast)
    try:
        network, weights = read(model.network)
    except BundleError as error:
        raise SctError(
            f"SCT's {contrast}_lesion.onnx is no start for a training: {error}; get it anew with "
            "sct_download_data -d deepseg_lesion_models, take another contrast by -c, or leave "
            "-init sct out"
        ) from error
    info = model.info.model_copy(update={"network": network, "limits": (TERMS,)})
    return replace(model, info=info, weights=weights)


CONTRAST = "t2"  # SCT's model for T2-weighted scans of any orientation


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
        None where the training starts from random weights.

    Raises
    ------
    UsageError
        A contrast is given without SCT's model.
    BundleError
        The bundle is missing, damaged or refused.
    SctError
        SCT or its model is missing, or its model has another graph than is known.
    """
    if name == SCT_NAME:
        return sct_start(contrast or CONTRAST)
    if contrast is not None:
        raise UsageError(
            f"-c {contrast} chooses among SCT's lesion models: it goes with -init {SCT_NAME}"
        )
    return None if name is None else store.load(name)


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
