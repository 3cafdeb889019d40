"""The bundles that the package carries."""

import pytest

from sct_lesion_losses.bundle import store
from sct_lesion_losses.bundle.store import Bundle

STUDY = (
    *("bce", "combo", "dice", "focal_tversky", "generalized_dice", "log_cosh_dice", "tversky"),
)
NAMES = ("default", *STUDY)


@pytest.fixture(params=NAMES)
def bundle(request: pytest.FixtureRequest) -> Bundle:
    return store.load(store.PACKAGED / request.param)


def test_the_package_carries_eight_bundles_of_less_than_30_mb() -> None:
    folders = [path for path in store.PACKAGED.iterdir() if path.is_dir()]
    assert {path.name for path in folders} == set(NAMES)
    files = [file for folder in folders for file in folder.iterdir()]
    assert sum(file.stat().st_size for file in files) < 30_000_000


def test_it_is_tuned_measured_and_says_what_it_is(bundle: Bundle) -> None:
    info = bundle.info
    assert bundle.folder is not None
    assert info.name == bundle.folder.name
    assert info.operating_point.kind == "tuned"
    assert info.metrics["v_f1_median"].n > 0
    assert info.recipe is not None
    assert info.history[-1].epoch == info.recipe.epochs_run >= 20
    commands = {line.split()[0] for line in info.provenance.commands}
    assert commands - {"sct_lesion_bundle"} == {"sct_train_lesion", "sct_tune_lesion"}
    assert any("not a medical device" in limit for limit in info.limits)
    assert len(bundle.network) < 8_000_000


@pytest.mark.parametrize("name", STUDY)
def test_those_of_the_study_differ_in_the_loss_alone_and_combo_in_its_optimiser(name: str) -> None:
    info, tversky = (store.load(store.PACKAGED / k).info for k in (name, "tversky"))
    assert info.loss.name == name
    assert (info.split_hash, info.seeds) == (tversky.split_hash, tversky.seeds)
    assert info.recipe is not None
    assert tversky.recipe is not None
    left_out = {"best_epoch", "minutes"}
    if name == "combo":
        left_out |= {"rate", "optimiser"}
    assert info.recipe.model_dump(exclude=left_out) == tversky.recipe.model_dump(exclude=left_out)
