from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import sct_graph
from onnx import helper, numpy_helper

from sct_lesion_losses.errors import BundleError
from sct_lesion_losses.training import export, unet, warm_start
from sct_lesion_losses.training.recipe import DOUBLING, Architecture


def run(network: bytes, patches: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: patches[:, None]})[0][:, 0]


def without(model: onnx.ModelProto, operator: str) -> None:
    """Take the first node of an operator out; what it gave is what it took."""
    node = next(node for node in model.graph.node if node.op_type == operator)
    for other in model.graph.node:
        inputs = [node.input[0] if name == node.output[0] else name for name in other.input]
        other.input[:] = inputs
    model.graph.node.remove(node)


def with_attribute(model: onnx.ModelProto, operator: str, name: str, value: object) -> None:
    """Give the first node of an operator another value."""
    node = next(node for node in model.graph.node if node.op_type == operator)
    kept = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])


def with_numbers(model: onnx.ModelProto, name: str, array: np.ndarray) -> None:
    """Store other numbers under the first name that begins so."""
    tensor = next(t for t in model.graph.initializer if t.name.startswith(name))
    tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float32), tensor.name))


def upside_down(model: onnx.ModelProto) -> None:
    """Concatenate the level's own channels before the raised ones."""
    node = next(node for node in model.graph.node if node.op_type == "Concat")
    node.input[:] = list(node.input)[::-1]


@pytest.mark.parametrize("filters", [(4, 8), (2, 6, 8)])
def test_keras_and_its_export_give_what_the_file_gives(filters):
    network = sct_graph.make(filters, side=8)
    patches = np.random.default_rng(1).normal(size=(3, 8, 8, 8)).astype(np.float32)
    expected = run(network, patches)
    architecture, weights = warm_start.read(network)
    model = unet.build(architecture, 8)
    export.import_weights(model, weights)
    received = np.asarray(model(patches[..., None], training=False))[..., 0]
    assert architecture == Architecture(filters, DOUBLING)
    assert np.abs(received - expected).max() < 1e-5
    assert np.abs(received - run(export.to_onnx(model, {}), patches)).max() < 1e-5
    assert expected.std() > 0.01


def test_the_same_file_gives_the_same_weights():
    network = sct_graph.make(side=8)
    assert warm_start.read(network) == warm_start.read(network)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: without(m, "MaxPool"), r"pads of 'conv_7': expected \[0, 0, 0, 0, 0, 0\]"),
        (lambda m: without(m, "Relu"), "expected Relu, found Conv"),
        (lambda m: without(m, "BatchNormalization"), "expected BatchNormalization, found Relu"),
        (lambda m: without(m, "Sigmoid"), "expected Sigmoid, found the end"),
        (upside_down, "input of 'concat_14': expected resize_13, found relu_5"),
        (
            lambda m: with_attribute(m, "Resize", "coordinate_transformation_mode", "half_pixel"),
            "coordinate_transformation_mode of 'resize_13': expected asymmetric, found half_pixel",
        ),
        (
            lambda m: with_attribute(m, "BatchNormalization", "epsilon", 1e-5),
            "epsilon of 'batchnormalization_1': expected 0.001",
        ),
        (
            lambda m: with_attribute(m, "Conv", "dilations", [2, 1, 1]),
            r"dilations of 'conv_0': expected \[1, 1, 1\], found \[2, 1, 1\]",
        ),
        (
            lambda m: with_numbers(m, "conv_0_W", np.ones((3, 1, 3, 3, 3))),
            r"shape of 'conv_0_b': expected \(3,\), found \(2,\)",
        ),
        (
            lambda m: with_numbers(m, "conv_0_W", np.ones((2, 1, 5, 5, 5))),
            r"shape of 'conv_0_W': expected \(2, 1, 3, 3, 3\), found \(2, 1, 5, 5, 5\)",
        ),
        (
            lambda m: with_numbers(m, "conv_0_W", np.full((2, 1, 3, 3, 3), np.nan)),
            "numbers of 'conv_0_W' are NaN or infinite",
        ),
        (
            lambda m: with_numbers(m, "relu_5_scales", np.array([1, 1, 2, 2, 1])),
            r"scales of 'resize_13': expected \[1, 1, 2, 2, 2\], found \[1.0, 1.0, 2.0, 2.0, 1.0\]",
        ),
    ],
)
def test_another_graph_is_refused_with_what_was_expected_and_found(change, said):
    with pytest.raises(BundleError, match=said):
        warm_start.read(sct_graph.make(side=8, change=change))


def test_a_level_that_does_not_double_is_refused():
    def even(model: onnx.ModelProto) -> None:
        graph = sct_graph.Graph(0)
        end = graph.block(graph.block("input_1", 1, 4), 4, 4)
        replaced = helper.make_graph(
            graph.nodes, "even", model.graph.input, model.graph.output, initializer=graph.stored
        )
        replaced.output[0].name = end
        model.graph.CopyFrom(replaced)

    with pytest.raises(BundleError, match=r"filters of bottom: expected \[2, 4\], found \[4, 4\]"):
        warm_start.read(sct_graph.make(side=8, change=even))


def test_this_package_s_own_export_is_refused():
    # Its normalisations are folded into the convolutions.
    with pytest.raises(BundleError, match="expected BatchNormalization, found Relu"):
        warm_start.read(export.to_onnx(unet.build((2, 4), 8), {}))


@pytest.mark.parametrize(
    "content",
    [b"", b"version https://git-lfs.github.com/spec/v1\n", b"<!DOCTYPE html><html></html>"],
    ids=["empty", "pointer", "html"],
)
def test_what_is_no_onnx_file_is_refused(content):
    with pytest.raises(BundleError, match="expected an ONNX model, found a damaged or another"):
        warm_start.read(content)


def test_a_truncated_file_is_refused():
    network = sct_graph.make(side=8)
    for length in (10, len(network) // 2, len(network) - 1):
        with pytest.raises(BundleError):
            warm_start.read(network[:length])
