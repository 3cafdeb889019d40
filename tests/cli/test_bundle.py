from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from small_data import save_changed

from sct_lesion_losses.bundle import check, store
from sct_lesion_losses.cli.bundle import main
from sct_lesion_losses.inference import engine

Make = Callable[..., Path]


@pytest.fixture(scope="module")
def shipped() -> store.Bundle:
    return store.load("tversky")


@pytest.fixture
def shelf(shipped, tmp_path, monkeypatch) -> Path:
    """The only folder with bundles."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    monkeypatch.setattr(store, "PACKAGED", tmp_path / "none")
    monkeypatch.setenv(store.VARIABLE, str(folder))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def make(shelf, shipped) -> Make:
    """Put a bundle on the shelf."""

    return lambda name: save_changed(shelf / name, shipped, version="1.0.0").folder


def test_list_prints_a_table(make, capsys):
    folder = make("dice")
    threshold = store.load("dice").threshold
    assert main(["list"]) == 0
    assert capsys.readouterr().out == (
        "name\tversion\tthreshold\tkind\tloss\tfolder\n"
        f"dice\t1.0.0\t{threshold:g}\ttuned\ttversky\t{folder}\n"
    )


def test_where_there_is_nothing_it_is_said(shelf, capsys):
    assert main(["list"]) == 0
    out, err = capsys.readouterr()
    assert out == "name\tversion\tthreshold\tkind\tloss\tfolder\n"
    assert "no bundle found" in err
    assert main(["verify"]) == 1


def test_list_goes_on_after_a_bundle_that_cannot_be_read(make, capsys):
    (make("a") / check.INFO).write_text("{}")
    make("b")
    assert main(["list"]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines()[1].startswith("b\t")
    assert "left out: a/bundle.json: no schema version" in err


def test_info_prints_the_model_card_and_suggests_a_name(make, capsys):
    make("dice")
    assert main(["info", "dice"]) == 0
    assert capsys.readouterr().out == "# dice 1.0.0\n"
    assert main(["info", "dcie"]) == 1
    assert "did you mean dice?" in capsys.readouterr().err


def test_verify_looks_at_one_bundle_or_at_all(make, capsys):
    (make("a") / check.CARD).write_text("changed")
    make("b")
    assert main(["verify", "b"]) == 0
    assert capsys.readouterr().out == "b: OK\n"
    assert main(["verify"]) == 1
    out, err = capsys.readouterr()
    assert out == "a: FAILED\nb: OK\n"
    assert "card.md does not have the hash" in err


def test_what_is_exported_is_imported(make, tmp_path, capsys):
    folder = make("dice")
    assert main(["export", "dice"]) == 0
    assert capsys.readouterr().out == "dice.zip\n"
    assert main(["import", "dice.zip"]) == 0
    target = tmp_path / "home/.local/share/sct_lesion_losses/bundles/dice"
    assert capsys.readouterr().out == f"{target}\n"
    assert check.read_files(target) == check.read_files(folder)


def test_import_into_a_folder_says_how_it_is_found(make, tmp_path, capsys):
    make("dice")
    main(["export", "dice", "-o", "x.zip"])
    assert main(["import", "x.zip", "-ofolder", "here"]) == 0
    out, err = capsys.readouterr()
    assert out.endswith("here/dice\n")
    assert "SCT_LESION_BUNDLES" in err


def test_nothing_is_replaced_unless_forced(make, capsys):
    make("dice")
    assert main(["export", "dice"]) == 0
    assert main(["export", "dice"]) == 1
    assert main(["export", "dice", "-force", "1"]) == 0
    assert main(["import", "dice.zip"]) == 0
    assert main(["import", "dice.zip"]) == 1
    assert main(["import", "dice.zip", "-force", "1"]) == 0
    assert "-force 1" in capsys.readouterr().err


def test_average_writes_the_mean_of_the_weights_untuned(make, shipped, tmp_path, capsys):
    one, folder = make("one"), tmp_path / "mean"
    weights = safetensors.numpy.load(shipped.weights)
    bias = weights["lesion/bias"].copy()
    weights["lesion/bias"] += 2
    other = replace(shipped, weights=safetensors.numpy.save(weights))
    both = shipped.info.provenance.commands
    own = shipped.info.provenance.model_copy(
        update={"commands": (*both, "sct_train_lesion -i more")}
    )
    save_changed(one.with_name("two"), other, version="1.1.0", provenance=own)
    assert main(["average", str(one), str(one.with_name("two")), "-ofolder", str(folder)]) == 0
    assert capsys.readouterr().out == f"{folder}\n"
    made = store.load(folder)
    mean = safetensors.numpy.load(made.weights)
    np.testing.assert_allclose(mean.pop("lesion/bias"), bias + 1, rtol=1e-6)
    for name, array in mean.items():
        np.testing.assert_array_equal(array, weights[name])
    # The output of the network: the log-odds are higher by 1.
    patch = np.random.default_rng(0).normal(size=(1, 48, 48, 48)).astype(np.float32)
    before, after = (engine.load(b.network).run(patch) for b in (shipped, made))
    logit = np.log(before / (1 - before)) + 1
    np.testing.assert_allclose(after, 1 / (1 + np.exp(-logit)), atol=1e-4)
    assert made.info.operating_point.kind == "untuned"
    assert made.info.metrics == {}
    assert "the mean of one 1.0.0, weights" in (folder / check.CARD).read_text()
    line = "sct_lesion_bundle average one two -ofolder mean"
    assert made.info.provenance.commands == (*both, "sct_train_lesion -i more", line)


def test_only_bundles_that_are_alike_are_averaged(make, capsys, tmp_path):
    one = make("one")
    bce = Path(store.__file__).parent.parent / "bundles" / "bce"
    for typed, said in (
        (["average", str(one), str(bce), "-ofolder", str(tmp_path / "mean")], "differ in their"),
        (["average", str(one), "-ofolder", str(tmp_path / "mean")], "two bundles or more"),
        (["average", str(one), str(one)], "name its folder with -ofolder"),
        (["verify", str(one), str(one)], "verify takes one bundle, not 2"),
    ):
        assert main(typed) > 0
        assert said in capsys.readouterr().err
    assert not (tmp_path / "mean").exists()
