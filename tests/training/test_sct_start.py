"""SCT's lesion model as a start: the network of this package computes what SCT's file does."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import onnxruntime
import pytest
import sct_graph

from sct_lesion_losses.bundle.store import Bundle
from sct_lesion_losses.errors import SctError
from sct_lesion_losses.geometry.patches import extract
from sct_lesion_losses.sct import lesion
from sct_lesion_losses.training import export, unet, warm_start
from sct_lesion_losses.training.recipe import Architecture

SCANS = {"t2_ax": ("t2fake_t2ax", 0), "t2s": ("t2s_t2s", 87)}  # first slice of a patch with lesion
FILTERS = {"t2_ax": (32, 64), "t2s": (16, 32, 64)}


def run(network: bytes, patches: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: patches[:, None]})[0][:, 0]


def prepared_patch(shared: Path, contrast: str) -> np.ndarray:
    """Patch of a real scan as SCT's model takes it, (1, 48, 48, 48)."""
    name, first = SCANS[contrast]
    crop = nib.load(shared / "data" / "sct_outputs" / f"{name}_crop05_input.nii.gz")
    preparation = lesion.PREPARATIONS[contrast]
    values = (np.asanyarray(crop.dataobj) - preparation.mean) / preparation.std
    return extract(values.astype(np.float32), [first])


def keras_of(bundle: Bundle) -> unet.keras.Model:
    network = bundle.info.network
    model = unet.build(Architecture(network.filters, network.architecture))
    export.import_weights(model, bundle.weights)
    return model


@pytest.mark.sct
@pytest.mark.parametrize("contrast", ["t2_ax", "t2s"])
def test_pmaps_are_those_of_scts_file_and_stay_so_when_exported(
    contrast: str, shared: Path, sct_dir: Path
) -> None:
    bundle = warm_start.sct_start(contrast)
    noise = np.random.default_rng(0).normal(size=(2, 48, 48, 48)).astype(np.float32)
    patches = np.concatenate([prepared_patch(shared, contrast), noise])
    model = keras_of(bundle)
    scts = run(bundle.network, patches)
    ours = np.asarray(model(patches[..., None], training=False))[..., 0]
    exported = run(export.to_onnx(model, {}), patches)
    assert bundle.info.network.filters == FILTERS[contrast]
    assert scts[0].max() > 0.9  # the scan's lesion; SCT finds nothing in noise
    assert np.abs(ours - scts).max() < 1e-4
    # Where t2s rises steeply, float32 sums in another order are 1.5e-5 apart; so is SCT's file.
    assert np.abs(exported - ours).max() < (1e-5 if contrast == "t2_ax" else 2e-5)


def test_scts_model_becomes_a_bundle_with_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = sct_graph.make((2, 4))
    monkeypatch.setenv("SCT_DIR", str(sct_graph.install(tmp_path, network, "t2s")))
    bundle = warm_start.sct_start("t2s")
    assert (bundle.name, bundle.network) == ("sct", network)
    assert bundle.info.network.architecture == "unet3d_doubling"
    assert (bundle.info.network.filters, bundle.info.network.levels) == ((2, 4), 2)
    assert bundle.info.limits == (warm_start.TERMS,)
    patch = np.random.default_rng(0).normal(size=(1, 48, 48, 48)).astype(np.float32)
    ours = np.asarray(keras_of(bundle)(patch[..., None], training=False))[..., 0]
    np.testing.assert_allclose(ours, run(network, patch), atol=1e-5)


@pytest.mark.parametrize(
    "network",
    [b"", sct_graph.make((2, 4))[:-100], b"version https://git-lfs.github.com/spec/v1"],
    ids=["empty", "truncated", "pointer"],
)
def test_a_damaged_model_is_said_with_what_to_do(
    network: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCT_DIR", str(sct_graph.install(tmp_path, network)))
    with pytest.raises(SctError, match=r"t2_lesion.onnx is no start.*: expected.*found.*-init sct"):
        warm_start.sct_start("t2")
