from __future__ import annotations

import json
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sct_lesion_losses.bundle import check, store
from sct_lesion_losses.bundle.schema import BundleInfo
from sct_lesion_losses.cli.bundle import main

Make = Callable[..., Path]


def tiny_network(onnx: Any) -> bytes:
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("Sigmoid", ["patches"], ["lesion"])],
        "tiny",
        [helper.make_tensor_value_info("patches", floats, [1])],
        [helper.make_tensor_value_info("lesion", floats, [1])],
    )
    opsets = [helper.make_opsetid("", 17)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString())


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder with bundles."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    monkeypatch.setattr(store, "PACKAGED", tmp_path / "none")
    monkeypatch.setenv(store.VARIABLE, str(folder))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def make(shelf: Path) -> Make:
    """Put a bundle on the shelf."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        onnx = pytest.importorskip("onnx")
    header = json.dumps({}).encode()
    weights = struct.pack("<Q", len(header)) + header

    def build(name: str, threshold: float = 0.5) -> Path:
        info = BundleInfo.model_validate(
            {
                "name": name,
                "loss": {"name": "tversky"},
                "preparation": {"percentiles": (1, 99), "landmarks": (0, 100), "kind": "study"},
                "network": {},
                "operating_point": {"threshold": threshold},
                "provenance": {"data": "None."},
                "intended_use": "Tests.",
                "limits": ("All.",),
            }
        )
        store.save(shelf / name, info, tiny_network(onnx), weights, f"# {name} 1.0.0\n")
        return shelf / name

    return build


def test_list_prints_a_table(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make("dice", 0.3)
    assert main(["list"]) == 0
    assert capsys.readouterr().out == (
        "name\tversion\tthreshold\tkind\tloss\tfolder\n"
        f"dice\t1.0.0\t0.3\tuntuned\ttversky\t{folder}\n"
    )


def test_list_warns_where_there_is_nothing(shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    out, err = capsys.readouterr()
    assert out == "name\tversion\tthreshold\tkind\tloss\tfolder\n"
    assert "no bundle found" in err


def test_list_goes_on_after_a_bundle_that_cannot_be_read(
    make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    (make("a") / check.INFO).write_text("{}")
    make("b")
    assert main(["list"]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines()[1].startswith("b\t")
    assert "left out: a/bundle.json: name is {}: Field required" in err


def test_info_prints_the_model_card(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    make("dice")
    assert main(["info", "dice"]) == 0
    assert capsys.readouterr().out == "# dice 1.0.0\n"


def test_info_of_an_unknown_bundle_fails_with_a_suggestion(
    make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    make("dice")
    assert main(["info", "dcie"]) == 1
    assert "did you mean dice?" in capsys.readouterr().err


def test_verify_says_ok(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    make("dice")
    assert main(["verify", "dice"]) == 0
    assert capsys.readouterr().out == "dice: OK\n"


def test_verify_without_a_name_looks_at_all(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    (make("a") / check.CARD).write_text("changed")
    make("b")
    assert main(["verify"]) == 1
    out, err = capsys.readouterr()
    assert out == "a: FAILED\nb: OK\n"
    assert "card.md does not have the hash" in err


def test_verify_fails_where_there_is_no_bundle(shelf: Path) -> None:
    assert main(["verify"]) == 1


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


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Missing argument"),
        (["delete"], "'delete' is not one of"),
        (["info"], "info needs a bundle"),
        (["export"], "export needs a bundle"),
        (["import"], "import needs a zip file"),
        (["list", "dice"], "list takes no bundle"),
        (["info", "dice", "-o", "x"], "-o belongs to export"),
        (["export", "dice", "-ofolder", "x"], "-ofolder belongs to import"),
        (["info", "dice", "-forse", "1"], "did you mean -force?"),
    ],
)
def test_wrong_use_ends_with_status_2(
    shelf: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
