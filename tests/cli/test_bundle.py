from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sct_lesion_losses.bundle import check, store
from sct_lesion_losses.cli.bundle import main

Make = Callable[..., Path]


@pytest.fixture(scope="module")
def shipped() -> store.Bundle:
    return store.load("tversky")


@pytest.fixture
def shelf(shipped: store.Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder with bundles."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    monkeypatch.setattr(store, "PACKAGED", tmp_path / "none")
    monkeypatch.setenv(store.VARIABLE, str(folder))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def make(shelf: Path, shipped: store.Bundle) -> Make:
    """Put a bundle on the shelf."""

    def build(name: str) -> Path:
        info = shipped.info.model_copy(update={"name": name, "version": "1.0.0"})
        store.save(shelf / name, info, shipped.network, shipped.weights, f"# {name} 1.0.0\n")
        return shelf / name

    return build


def test_list_prints_a_table(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make("dice")
    threshold = store.load("dice").threshold
    assert main(["list"]) == 0
    assert capsys.readouterr().out == (
        "name\tversion\tthreshold\tkind\tloss\tfolder\n"
        f"dice\t1.0.0\t{threshold:g}\ttuned\ttversky\t{folder}\n"
    )


def test_where_there_is_nothing_it_is_said(shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    out, err = capsys.readouterr()
    assert out == "name\tversion\tthreshold\tkind\tloss\tfolder\n"
    assert "no bundle found" in err
    assert main(["verify"]) == 1


def test_list_goes_on_after_a_bundle_that_cannot_be_read(
    make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    (make("a") / check.INFO).write_text("{}")
    make("b")
    assert main(["list"]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines()[1].startswith("b\t")
    assert "left out: a/bundle.json: no schema version" in err


def test_info_prints_the_model_card_and_suggests_a_name(
    make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    make("dice")
    assert main(["info", "dice"]) == 0
    assert capsys.readouterr().out == "# dice 1.0.0\n"
    assert main(["info", "dcie"]) == 1
    assert "did you mean dice?" in capsys.readouterr().err


def test_verify_looks_at_one_bundle_or_at_all(
    make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    (make("a") / check.CARD).write_text("changed")
    make("b")
    assert main(["verify", "b"]) == 0
    assert capsys.readouterr().out == "b: OK\n"
    assert main(["verify"]) == 1
    out, err = capsys.readouterr()
    assert out == "a: FAILED\nb: OK\n"
    assert "card.md does not have the hash" in err


def test_what_is_exported_is_imported(
    make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make("dice")
    assert main(["export", "dice"]) == 0
    assert capsys.readouterr().out == "dice.zip\n"
    assert main(["import", "dice.zip"]) == 0
    target = tmp_path / "home/.local/share/sct_lesion_losses/bundles/dice"
    assert capsys.readouterr().out == f"{target}\n"
    assert check.read_files(target) == check.read_files(folder)


def test_import_into_a_folder_says_how_it_is_found(
    make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make("dice")
    main(["export", "dice", "-o", "x.zip"])
    assert main(["import", "x.zip", "-ofolder", "here"]) == 0
    out, err = capsys.readouterr()
    assert out.endswith("here/dice\n")
    assert "SCT_LESION_BUNDLES" in err


def test_nothing_is_replaced_unless_forced(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    make("dice")
    assert main(["export", "dice"]) == 0
    assert main(["export", "dice"]) == 1
    assert main(["export", "dice", "-force", "1"]) == 0
    assert main(["import", "dice.zip"]) == 0
    assert main(["import", "dice.zip"]) == 1
    assert main(["import", "dice.zip", "-force", "1"]) == 0
    assert "-force 1" in capsys.readouterr().err
