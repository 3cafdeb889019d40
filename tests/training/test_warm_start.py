from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import onnx
import pytest
import sct_graph
from onnx import helper, numpy_helper
from small_data import run_onnx

from sct_lesion_losses.bundle import store
from sct_lesion_losses.bundle.schema import Architecture, Recipe
from sct_lesion_losses.bundle.store import Bundle
from sct_lesion_losses.cohorts import table as cohorts
from sct_lesion_losses.errors import BundleError, SctError, UsageError
from sct_lesion_losses.geometry.patches import extract
from sct_lesion_losses.images import nifti
from sct_lesion_losses.images.outputs import for_scan
from sct_lesion_losses.inference import predict
from sct_lesion_losses.inference.engine import Network
from sct_lesion_losses.inference.predict import InferenceSettings
from sct_lesion_losses.sct import lesion
from sct_lesion_losses.training import export, unet, warm_start
from sct_lesion_losses.training import recipe as recipes
from sct_lesion_losses.training.recipe import DOUBLING, study
from sct_lesion_losses.training.warm_start import TERMS
from sct_lesion_losses.workflows import segment, train
from sct_lesion_losses.workflows.segment import SegmentSettings
from sct_lesion_losses.workflows.train import TrainSettings

STILL = 1e-12  # a rate at which kernels stay


def recipe(init: Bundle | None, **changes: object) -> Recipe:
    """Two epochs of two steps, in the network of the start."""
    small = {"batch_size": 2, "patches_per_epoch": 4, "validation_patches": 2, "epochs_planned": 2}
    return study(**{**small, **warm_start.entries(init), **changes})


@pytest.fixture(scope="module")
def scts(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """SCT's model, as `-init sct` finds it."""
    folder = sct_graph.install(tmp_path_factory.mktemp("sct"), sct_graph.make((2, 4)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCT_DIR", str(folder))
        return warm_start.load("sct")


@pytest.fixture(scope="module")
def trained(scts: Bundle, cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "warm"
    return train.run(cohort, folder, recipe(scts), TrainSettings(init=scts))


def test_the_bundle_says_where_its_weights_come_from(trained: Path, scts: Bundle) -> None:
    bundle = store.load(trained)
    from_sct = f"SCT's lesion model t2 (t2_lesion.onnx), sha256 {scts.sha256}"
    assert bundle.info.provenance.ancestor == from_sct
    assert warm_start.network(bundle) == recipes.network((2, 4), DOUBLING)
    # It prepares scans as this package does: landmarks run from 0 to 100, SCT's to 2611.
    assert bundle.preparation.kind == "study"
    assert (bundle.preparation.landmarks[0], bundle.preparation.landmarks[-1]) == (0, 100)
    card = (trained / "card.md").read_text()
    assert f"The training started from the weights of {from_sct}." in card
    assert f"- {TERMS}" in card
    assert "`unet3d_doubling`, filters 2-4" in card


def test_the_bundle_segments_a_scan_as_keras_computes_it(
    trained: Path, cohort: Path, tmp_path: Path
) -> None:
    scan, bundle = cohorts.read(cohort)[0], store.load(trained)
    settings = SegmentSettings(
        bundle=str(trained),
        inference=InferenceSettings(centerline="file"),
        centerline_file=scan.centerline,
    )
    outputs = for_scan(scan.scan, folder=tmp_path)
    result = segment.segment(scan.scan, settings, outputs)
    model = keras_of(bundle.info.network, bundle.weights)
    keras = Network(
        "keras", "", "float32", (1, 48, 48, 48, 1), lambda x: np.asarray(model(x, training=False))
    )
    image = nifti.read(scan.scan)
    expected = predict.pmap(bundle, image.array, image.grid, result.centerline, network=keras)
    assert expected.max() > 0.01
    np.testing.assert_allclose(result.pmap, expected, atol=1e-5)
    mask = np.asanyarray(nib.load(outputs.mask).dataobj)
    assert np.array_equal(mask, result.pmap >= 0.5)


def test_fine_tuning_goes_on_from_such_a_bundle(
    trained: Path, cohort: Path, tmp_path: Path
) -> None:
    first = warm_start.load(str(trained))
    assert first is not None
    once = recipe(first, epochs_planned=1)
    train.run(cohort, tmp_path / "c", once, TrainSettings(init=first))
    second = store.load(tmp_path / "c")
    assert warm_start.network(second) == recipes.network((2, 4), DOUBLING)
    assert second.preparation == first.preparation
    assert second.info.provenance.ancestor == f"warm 1.0.0, weights {first.weights_sha256}"
    assert TERMS in second.info.limits


@pytest.mark.parametrize("changes", [{"filters": (4, 8)}, {"architecture": "unet3d"}])
def test_another_network_is_refused_before_a_scan_is_read(
    scts: Bundle, changes: dict[str, object], tmp_path: Path
) -> None:
    with pytest.raises(
        UsageError, match=r"bundle sct: its network is unet3d_doubling 2-4, expected unet3d.*leave"
    ):
        train.run(
            tmp_path / "no cohort",
            tmp_path / "b",
            recipe(scts, **changes),
            TrainSettings(init=scts),
        )
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_weights_to_train_on_is_no_start(scts: Bundle, tmp_path: Path) -> None:
    bare = replace(scts, weights=b"")
    with pytest.raises(UsageError, match="bundle sct: it has no weights to train on"):
        train.run(tmp_path / "no cohort", tmp_path / "b", recipe(None), TrainSettings(init=bare))


def test_a_bundle_of_an_unknown_network_is_no_start(scts: Bundle) -> None:
    network = scts.info.network.model_copy(update={"architecture": "resnet"})
    other = replace(scts, info=scts.info.model_copy(update={"network": network}))
    with pytest.raises(UsageError, match="bundle sct: architecture is 'resnet'"):
        warm_start.network(other)


def test_a_contrast_chooses_among_scts_models(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    network = sct_graph.make((2, 4, 6))
    monkeypatch.setenv("SCT_DIR", str(sct_graph.install(tmp_path, network, "t2_ax")))
    bundle = warm_start.load("sct", "t2_ax")
    assert (bundle.name, bundle.network) == ("sct", network)
    assert bundle.info.network == recipes.network((2, 4, 6), DOUBLING)
    assert bundle.info.limits == (TERMS,)
    assert bundle.info.preparation == lesion.PREPARATIONS["t2_ax"]
    with pytest.raises(SctError, match=r"t2_lesion.onnx.*sct_download_data"):
        warm_start.load("sct")


@pytest.mark.parametrize("name", ["tversky", None])
def test_a_contrast_belongs_to_scts_models_alone(name: str | None) -> None:
    with pytest.raises(UsageError, match="-c t2s chooses among SCT's lesion models"):
        warm_start.load(name, "t2s")


def test_the_recipe_follows_from_the_start() -> None:
    bundle = warm_start.load("tversky")
    assert warm_start.entries(bundle) == {"filters": (16, 32, 64), "architecture": "unet3d"}
    assert warm_start.load(None) is None
    assert warm_start.entries(None) == {}


def keras_of(architecture: Architecture, weights: bytes) -> unet.keras.Model:
    model = unet.build(architecture)
    export.import_weights(model, weights)
    return model


@pytest.mark.parametrize("filters", [(4, 8), (2, 6, 8)])
def test_keras_and_its_export_give_what_the_file_gives(filters):
    network = sct_graph.make(filters)
    patches = np.random.default_rng(1).normal(size=(2, 48, 48, 48)).astype(np.float32)
    expected = run_onnx(network, patches)
    architecture, weights = warm_start.read(network)
    model = keras_of(architecture, weights)
    received = np.asarray(model(patches[..., None], training=False))[..., 0]
    assert architecture == recipes.network(filters, DOUBLING)
    assert np.abs(received - expected).max() < 1e-5
    assert np.abs(received - run_onnx(export.to_onnx(model), patches)).max() < 1e-5
    assert expected.std() > 0.01
    assert warm_start.read(network) == (architecture, weights)


def test_a_file_is_compared_without_the_device_that_keras_computes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def compute(*_: object, **__: object) -> None:
        raise AssertionError("Keras computes, on a GPU with kernels rounded to 10 bits")

    monkeypatch.setattr(unet.keras.Model, "__call__", compute)
    monkeypatch.setattr(unet.keras.Model, "predict", compute)
    assert warm_start.read(NETWORK)[0] == recipes.network((2, 4), DOUBLING)


def first(model: onnx.ModelProto, operator: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.op_type == operator)


def without(model: onnx.ModelProto, operator: str) -> None:
    """Take the first node of an operator out; what it gave is what it took."""
    node = first(model, operator)
    for other in model.graph.node:
        inputs = [node.input[0] if name == node.output[0] else name for name in other.input]
        other.input[:] = inputs
    model.graph.node.remove(node)


def with_attribute(model: onnx.ModelProto, operator: str, name: str, value: object) -> None:
    """Give the first node of an operator another value."""
    node = first(model, operator)
    kept = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])


def with_kernel(model: onnx.ModelProto, array: np.ndarray) -> None:
    """Give the first convolution another kernel."""
    tensor = next(t for t in model.graph.initializer if t.name == "conv_0_W")
    tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float32), tensor.name))


def upside_down(model: onnx.ModelProto) -> None:
    """Concatenate the level's own channels before the raised ones."""
    node = first(model, "Concat")
    node.input[:] = list(node.input)[::-1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: without(m, "MaxPool"), "for patches of 48 voxels, found another"),
        (lambda m: without(m, "Relu"), "found log-odds of lesion that differ by up to 5"),
        (lambda m: without(m, "BatchNormalization"), "found 7 convolutions, 5 normalisations"),
        (lambda m: without(m, "Sigmoid"), "expected a network with a sigmoid at its end"),
        (upside_down, "log-odds"),
        (
            lambda m: with_attribute(m, "Resize", "coordinate_transformation_mode", "half_pixel"),
            "log-odds",
        ),
        (lambda m: with_attribute(m, "BatchNormalization", "epsilon", 1e-5), "log-odds"),
        (lambda m: with_attribute(m, "Conv", "dilations", [2, 1, 1]), "found another"),
        (lambda m: with_kernel(m, np.ones((3, 1, 3, 3, 3))), r"received \(3, 3, 3, 1, 3\)"),
        (lambda m: with_kernel(m, np.full((1, 1, 3, 3, 3), np.nan)), "differ by up to nan"),
    ],
)
def test_another_graph_is_refused_with_what_was_expected_and_found(change, said):
    with pytest.raises(BundleError, match=said):
        warm_start.read(sct_graph.make((2, 4), change=change))


def test_this_package_s_own_export_is_refused():
    # Its normalisations are folded into the convolutions.
    with pytest.raises(BundleError, match="found 7 convolutions, 0 normalisations"):
        warm_start.read(export.to_onnx(unet.build(recipes.network((2, 4)))))


NETWORK = sct_graph.make((2, 4))


@pytest.mark.parametrize(
    "content",
    [b"", b"version https://git-lfs.github.com/spec/v1\n", NETWORK[:10], NETWORK[:-1]],
    ids=["empty", "pointer", "begun", "truncated"],
)
def test_a_damaged_model_is_said_with_what_to_do(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCT_DIR", str(sct_graph.install(tmp_path, content)))
    said = r"t2_lesion.onnx is no start.*: expected.*ONNX model, found a damaged or another.*-init"
    with pytest.raises(SctError, match=said):
        warm_start.load("sct")


SCANS = {"t2_ax": ("t2fake_t2ax", 0), "t2s": ("t2s_t2s", 87)}  # first slice of a patch with lesion
FILTERS = {"t2_ax": (32, 64), "t2s": (16, 32, 64)}


def prepared_patch(shared: Path, contrast: str) -> np.ndarray:
    """Patch of a real scan as SCT's model takes it, (1, 48, 48, 48)."""
    name, first = SCANS[contrast]
    crop = nib.load(shared / "data" / "sct_outputs" / f"{name}_crop05_input.nii.gz")
    preparation = lesion.PREPARATIONS[contrast]
    values = (np.asanyarray(crop.dataobj) - preparation.mean) / preparation.std
    return extract(values.astype(np.float32), [first])


@pytest.mark.sct
@pytest.mark.parametrize("contrast", ["t2_ax", "t2s"])
def test_pmaps_are_those_of_scts_file_and_stay_so_when_exported(
    contrast: str, shared: Path, sct_dir: Path
) -> None:
    bundle = warm_start.load("sct", contrast)
    noise = np.random.default_rng(0).normal(size=(2, 48, 48, 48)).astype(np.float32)
    patches = np.concatenate([prepared_patch(shared, contrast), noise])
    model = keras_of(bundle.info.network, bundle.weights)
    scts = run_onnx(bundle.network, patches)
    ours = np.asarray(model(patches[..., None], training=False))[..., 0]
    exported = run_onnx(export.to_onnx(model), patches)
    assert bundle.info.network.filters == FILTERS[contrast]
    assert scts[0].max() > 0.9  # the scan's lesion; SCT finds nothing in noise
    assert np.abs(ours - scts).max() < 1e-4
    # Where t2s rises steeply, float32 sums in another order are 1.5e-5 apart; so is SCT's file.
    assert np.abs(exported - ours).max() < (1e-5 if contrast == "t2_ax" else 2e-5)
