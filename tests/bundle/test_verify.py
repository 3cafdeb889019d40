from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sct_lesion_losses.bundle import check, store
from sct_lesion_losses.bundle.check import with_metadata
from sct_lesion_losses.errors import BundleError

MakeFiles = Callable[..., dict[str, bytes]]


@pytest.fixture
def folder(tmp_path: Path, make_files: MakeFiles) -> Path:
    """A good bundle, to be damaged."""
    made = tmp_path / "tiny"
    made.mkdir()
    fill(made, make_files())
    return made


def fill(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).write_bytes(content)


def refused(folder: Path, words: str) -> None:
    """Both ways in refuse the bundle, and say which."""
    for read in (check.verify, store.load):
        with pytest.raises(BundleError, match=words) as caught:
            read(folder)
        assert "tiny" in str(caught.value)


def test_a_good_bundle_is_described(folder: Path) -> None:
    assert check.verify(folder).name == "tiny"


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="no sha256sum here")
def test_sha256sum_accepts_the_manifest(folder: Path) -> None:
    subprocess.run(
        ["sha256sum", "--check", "--strict", check.MANIFEST],
        cwd=folder,
        check=True,
        capture_output=True,
    )


@pytest.mark.parametrize("name", [check.INFO, check.NETWORK, check.WEIGHTS, check.CARD])
def test_one_changed_bit_is_found(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    refused(folder, f"{name} does not have the hash")


@pytest.mark.parametrize("name", [check.NETWORK, check.WEIGHTS, check.CARD])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    refused(folder, f"{name} is missing")


def test_a_missing_manifest_is_named(folder: Path) -> None:
    (folder / check.MANIFEST).unlink()
    refused(folder, r"MANIFEST\.sha256 is missing")


def test_a_missing_description_is_said(folder: Path) -> None:
    (folder / check.INFO).unlink()
    with pytest.raises(BundleError, match=r"bundle\.json is missing"):
        check.verify(folder)


def test_a_file_that_the_manifest_does_not_list_is_refused(folder: Path) -> None:
    lines = (folder / check.MANIFEST).read_text().splitlines(keepends=True)
    (folder / check.MANIFEST).write_text("".join(line for line in lines if "card" not in line))
    refused(folder, r"card\.md is not listed")


@pytest.mark.parametrize(
    "text",
    ["", "nonsense", "0" * 64 + "  ../card.md\n", "\xff", "{good}{good}"],
    ids=["empty", "text", "path", "binary", "twice"],
)
def test_a_manifest_that_is_no_manifest_is_refused(folder: Path, text: str) -> None:
    good = (folder / check.MANIFEST).read_text()
    (folder / check.MANIFEST).write_bytes(text.replace("{good}", good).encode("latin-1"))
    refused(folder, r"MANIFEST\.sha256")


@pytest.mark.parametrize(
    "name", ["weights.pkl", "model.keras", "model.h5", "saved_model.pb", "x.npy", ".DS_Store"]
)
def test_a_file_of_another_kind_is_refused_unread(folder: Path, name: str) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path(folder / "sprung").touch, ())

    (folder / name).write_bytes(pickle.dumps(Trap()))
    refused(folder, f"'{name}' is not a file of a bundle")
    assert not (folder / "sprung").exists()


def test_a_pickle_under_a_known_name_is_refused(folder: Path, make_files: MakeFiles) -> None:
    fill(folder, make_files({check.WEIGHTS: pickle.dumps({"kernel": [1.0]})}))
    refused(folder, "not a safetensors file; pickles")


def test_a_sub_folder_is_refused(folder: Path) -> None:
    (folder / "assets").mkdir()
    refused(folder, "'assets' is not a file of a bundle")


def test_a_symbolic_link_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / check.CARD).rename(tmp_path / "card.md")
    (folder / check.CARD).symlink_to(tmp_path / "card.md")
    refused(folder, "symbolic link")


def test_a_folder_in_place_of_a_file_is_refused(folder: Path) -> None:
    (folder / check.CARD).unlink()
    (folder / check.CARD).mkdir()
    refused(folder, "not a regular file")


def test_a_named_pipe_in_place_of_a_file_does_not_block(folder: Path) -> None:
    (folder / check.CARD).unlink()
    os.mkfifo(folder / check.CARD)
    refused(folder, "not a regular file")


def test_a_file_too_large_is_refused(folder: Path) -> None:
    with (folder / check.CARD).open("r+b") as stream:
        stream.truncate(check.MAX_BYTES[check.CARD] + 1)
    refused(folder, "more than 1048576 bytes")


def test_another_schema_version_is_refused(folder: Path, make_files: MakeFiles) -> None:
    document = json.loads(make_files()[check.INFO])
    text = json.dumps(document | {"schema_version": 2}).encode()
    fill(folder, make_files({check.INFO: text}))
    refused(folder, "schema version is 2, expected 1")


@pytest.mark.parametrize("threshold", [0, -0.5, 1.5])
def test_a_threshold_outside_0_to_1_is_refused(
    folder: Path, make_files: MakeFiles, threshold: float
) -> None:
    document = json.loads(make_files()[check.INFO])
    document["operating_point"]["threshold"] = threshold
    fill(folder, make_files({check.INFO: json.dumps(document).encode()}))
    refused(folder, r"operating_point\.threshold is")


def test_a_threshold_that_the_network_does_not_name_is_refused(
    folder: Path, make_files: MakeFiles
) -> None:
    other = make_files(operating_point={"threshold": 0.3})
    fill(folder, make_files({check.NETWORK: other[check.NETWORK]}))
    refused(folder, r"model\.onnx: threshold is '0\.3', bundle\.json says '0\.5'")


def test_a_network_of_another_bundle_is_refused(folder: Path, make_files: MakeFiles) -> None:
    other = make_files(name="other")
    fill(folder, make_files({check.NETWORK: other[check.NETWORK]}))
    refused(folder, r"model\.onnx: name is 'other'")


def test_a_network_without_metadata_is_refused(
    folder: Path, make_files: MakeFiles, network: bytes
) -> None:
    fill(folder, make_files({check.NETWORK: network}))
    refused(folder, r"model\.onnx: name is None")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ({"opset": 18}, "opset 18"),
        ({"ir_version": 11}, "IR version 11"),
        ({"weight": np.nan}, "27 numbers are NaN or infinite"),
    ],
)
def test_a_network_that_is_refused_is_said(
    folder: Path,
    make_files: MakeFiles,
    make_model: Callable[..., Any],
    damage: dict[str, Any],
    words: str,
) -> None:
    model = bytes(make_model(**damage).SerializeToString())
    stamped = with_metadata(model, {"name": "tiny", "version": "1.0.0", "threshold": "0.5"})
    fill(folder, make_files({check.NETWORK: stamped}))
    refused(folder, words)


def test_weights_that_are_not_finite_are_refused(
    folder: Path, make_files: MakeFiles, make_weights: Callable[..., bytes]
) -> None:
    bad = make_weights({"kernel": np.array([np.nan], "f4")})
    fill(folder, make_files({check.WEIGHTS: bad}))
    refused(folder, "NaN or infinite weights")


def test_a_card_that_is_not_text_is_refused(folder: Path, make_files: MakeFiles) -> None:
    fill(folder, make_files({check.CARD: b"\xff\xfe\x00"}))
    refused(folder, "not UTF-8")


def test_hashes_are_checked_before_anything_is_parsed(folder: Path) -> None:
    (folder / check.INFO).write_text('{"schema_version": 99}')
    refused(folder, "does not have the hash")


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cannot read this bundle"):
        check.verify(tmp_path / "nowhere")
