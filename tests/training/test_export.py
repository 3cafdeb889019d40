import numpy as np
import onnx
import pytest
from small_data import run_onnx

from sct_lesion_losses.errors import BundleError
from sct_lesion_losses.training import export, unet
from sct_lesion_losses.training.recipe import network


def trained_looking(filters: tuple[int, ...] = (2, 4), patch_vox: int = 8, seed: int = 1):
    """A small network whose every weight, normalisation included, is away from its start."""
    model = unet.build(network(filters), patch_vox, seed=seed)
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        for variable in layer.weights:
            value = np.asarray(variable.value)
            spread = rng.uniform(0.5, 1.5, value.shape)
            # Kernels of many inputs that are moved as far as the rest blow the activations up.
            shift = rng.normal(0, 0.2, value.shape) if value.ndim == 1 else 0.0
            shift = 0.1 if "variance" in variable.name else shift
            variable.assign((value * spread + shift).astype(np.float32))
    return model


@pytest.mark.parametrize("count", [1, 3])
def test_onnx_gives_what_keras_gives_for_any_batch(count):
    model = trained_looking()
    patches = np.random.default_rng(2).normal(size=(count, 8, 8, 8)).astype(np.float32)
    expected = np.asarray(model(patches[..., None], training=False))[..., 0]
    received = run_onnx(export.to_onnx(model), patches)
    assert np.abs(expected - received).max() < 1e-5
    assert expected.std() > 0.01


def test_onnx_has_old_enough_versions():
    made = onnx.load_model_from_string(export.to_onnx(trained_looking()))
    assert made.ir_version <= 9
    assert [entry.version for entry in made.opset_import] == [17]


def test_weights_come_back_into_another_network():
    model, other = trained_looking(seed=1), trained_looking(seed=2)
    export.import_weights(other, export.to_safetensors(model))
    patches = np.random.default_rng(3).normal(size=(1, 8, 8, 8, 1)).astype(np.float32)
    assert np.array_equal(np.asarray(model(patches)), np.asarray(other(patches)))


def test_weights_of_other_filters_are_refused():
    stored = export.to_safetensors(trained_looking((2, 4)))
    with pytest.raises(BundleError, match="do not fit this network"):
        export.import_weights(trained_looking((3, 4)), stored)


def test_bytes_that_are_no_weights_are_refused():
    with pytest.raises(BundleError, match="not a safetensors file"):
        export.import_weights(trained_looking(), b"not weights at all")
