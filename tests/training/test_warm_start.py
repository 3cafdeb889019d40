"""Trainings that start from SCT's lesion model, here a small network of the same graph."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import safetensors.numpy
import sct_graph
from small_cohort import write_cohort

from sct_lesion_losses.bundle import store
from sct_lesion_losses.bundle.store import Bundle
from sct_lesion_losses.cohorts import table as cohorts
from sct_lesion_losses.errors import BundleError, SctError, UsageError
from sct_lesion_losses.images import outputs
from sct_lesion_losses.inference.predict import InferenceSettings
from sct_lesion_losses.sct import lesion
from sct_lesion_losses.training import warm_start
from sct_lesion_losses.training.recipe import DOUBLING, Architecture, Recipe, study
from sct_lesion_losses.training.warm_start import TERMS
from sct_lesion_losses.workflows import segment, train

STILL = 1e-12  # a rate at which kernels stay


def recipe(init: Bundle | None, **changes: object) -> Recipe:
    """Two epochs of two steps, in the network of the start."""
    small = {"batch_size": 2, "patches_per_epoch": 4, "validation_patches": 2, "epochs": 2}
    return study(**{**small, **warm_start.entries(init), **changes})


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cohort(tmp_path_factory.mktemp("cohort"), subjects=8)


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
    return train.run(cohort, folder, recipe(scts), about=train.About(name="warm"), init=scts)


def test_the_bundle_says_where_its_weights_come_from(trained: Path, scts: Bundle) -> None:
    bundle = store.load(trained)
    from_sct = f"SCT's lesion model t2 (t2_lesion.onnx), sha256 {scts.sha256}"
    assert bundle.info.provenance.ancestor == from_sct
    assert warm_start.network(bundle) == Architecture((2, 4), DOUBLING)
    assert bundle.info.recipe is not None
    assert bundle.info.recipe.epochs_run == 2
    card = (trained / "card.md").read_text()
    assert f"The training started from the weights of {from_sct}." in card
    assert f"- {TERMS}" in card
    assert "`unet3d_doubling`, filters 2-4" in card


def test_the_bundle_prepares_scans_as_this_package_does(trained: Path, scts: Bundle) -> None:
    preparation = store.load(trained).preparation
    assert preparation.kind == "study"
    # Landmarks of the cohort run from 0 to 100, SCT's to 2611.
    assert (preparation.landmarks[0], preparation.landmarks[-1]) == (0, 100)


def test_the_bundle_segments_a_scan(trained: Path, cohort: Path, tmp_path: Path) -> None:
    scan = cohorts.read(cohort)[0]
    settings = segment.SegmentSettings(
        bundle=str(trained),
        inference=InferenceSettings(centerline="file"),
        centerline_file=scan.centerline,
        pmap=True,
    )
    written = segment.segment(scan.scan, settings, outputs.for_scan(scan.scan, folder=tmp_path))
    mask, pmap = (np.asanyarray(nib.load(path).dataobj) for path in written.written[:2])
    assert mask.shape == nib.load(scan.scan).shape
    assert 0 < pmap.max() <= 1
    np.testing.assert_array_equal(mask, pmap >= 0.5)


def test_training_begins_at_scts_kernels(scts: Bundle, cohort: Path, tmp_path: Path) -> None:
    still = recipe(scts, rate=STILL, epochs=1)
    train.run(cohort, tmp_path / "b", still, about=train.About(name="b"), init=scts)
    before, after = (
        safetensors.numpy.load(bundle.weights) for bundle in (scts, store.load(tmp_path / "b"))
    )
    kernels = [name for name in before if name.endswith("kernel")]
    assert len(kernels) == 8  # two levels down, one up: 6 convolutions, 1 transposed, the last
    for name in kernels:
        np.testing.assert_allclose(after[name], before[name], atol=1e-6)


def test_fine_tuning_goes_on_from_such_a_bundle(
    trained: Path, cohort: Path, tmp_path: Path
) -> None:
    first = warm_start.load(str(trained))
    assert first is not None
    once = recipe(first, epochs=1)
    train.run(cohort, tmp_path / "c", once, about=train.About(name="c"), init=first)
    second = store.load(tmp_path / "c")
    assert warm_start.network(second) == Architecture((2, 4), DOUBLING)
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
        train.run(tmp_path / "no cohort", tmp_path / "b", recipe(scts, **changes), init=scts)
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_weights_to_train_on_is_no_start(scts: Bundle, tmp_path: Path) -> None:
    bare = replace(scts, weights=b"")
    with pytest.raises(UsageError, match="bundle sct: it has no weights to train on"):
        train.run(tmp_path / "no cohort", tmp_path / "b", recipe(None), init=bare)


def test_a_bundle_of_an_unknown_network_is_no_start(scts: Bundle) -> None:
    network = scts.info.network.model_copy(update={"architecture": "resnet"})
    other = replace(scts, info=scts.info.model_copy(update={"network": network}))
    with pytest.raises(UsageError, match="bundle sct: architecture is 'resnet'"):
        warm_start.network(other)


def test_sct_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SCT_DIR", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SctError, match="Spinal Cord Toolbox was not found"):
        warm_start.load("sct")


def test_a_contrast_chooses_among_scts_models(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    network = sct_graph.make((2, 4, 6))
    monkeypatch.setenv("SCT_DIR", str(sct_graph.install(tmp_path, network, "t2_ax")))
    bundle = warm_start.load("sct", "t2_ax")
    assert bundle is not None
    assert warm_start.network(bundle) == Architecture((2, 4, 6), DOUBLING)
    assert bundle.info.preparation == lesion.PREPARATIONS["t2_ax"]
    with pytest.raises(SctError, match=r"t2_lesion.onnx.*sct_download_data"):
        warm_start.load("sct")


@pytest.mark.parametrize("name", ["tversky", None])
def test_a_contrast_belongs_to_scts_models_alone(name: str | None) -> None:
    with pytest.raises(UsageError, match="-c t2s chooses among SCT's lesion models"):
        warm_start.load(name, "t2s")


def test_without_a_name_a_training_starts_from_random_weights() -> None:
    assert warm_start.load(None) is None
    assert warm_start.entries(None) == {}


def test_the_packaged_bundle_is_a_start_in_the_study_s_network() -> None:
    bundle = warm_start.load("tversky")
    assert warm_start.entries(bundle) == {"filters": (16, 32, 64), "architecture": "unet3d"}


def test_a_bundle_that_is_not_there_is_said() -> None:
    with pytest.raises(BundleError, match="did you mean tversky"):
        warm_start.load("tverski")
