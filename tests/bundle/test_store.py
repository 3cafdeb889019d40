from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from sct_lesion_losses.bundle import check, store
from sct_lesion_losses.bundle.schema import BundleInfo
from sct_lesion_losses.errors import BundleError, OutputError

Info = Callable[..., BundleInfo]


@pytest.fixture
def shelves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Three empty search folders in the places of the real ones."""
    folders = {name: tmp_path / name for name in ("package", "given", "home")}
    for folder in folders.values():
        folder.mkdir()
    monkeypatch.setattr(store, "PACKAGED", folders["package"])
    monkeypatch.setenv(store.VARIABLE, str(folders["given"]))
    monkeypatch.setenv("HOME", str(folders["home"]))
    folders["home"] = folders["home"] / ".local/share/sct_lesion_losses/bundles"
    return folders


@pytest.fixture
def put(
    network: bytes, weights: bytes, make_info: Info, tmp_path: Path
) -> Callable[..., store.Bundle]:
    """Save a bundle in a folder, threshold at will; one of the package is copied there."""

    def save(folder: Path, threshold: float = 0.5, overwrite: bool = False) -> store.Bundle:
        info = make_info(name=folder.name, operating_point={"threshold": threshold})
        target = tmp_path / "made" / folder.name if store.is_shipped(folder) else folder
        bundle = store.save(target, info, network, weights, "# card\n", overwrite=overwrite)
        if target != folder:
            shutil.copytree(target, folder)
        return bundle

    return save


def test_a_saved_bundle_is_loaded_as_it_was(bundle: store.Bundle) -> None:
    loaded = store.load(bundle.folder)
    assert (loaded.info, loaded.network, loaded.weights) == (
        bundle.info,
        bundle.network,
        bundle.weights,
    )


def test_saving_writes_the_five_files_and_nothing_else(bundle: store.Bundle) -> None:
    assert {path.name for path in bundle.folder.iterdir()} == set(check.MAX_BYTES)
    assert {path.name for path in bundle.folder.parent.iterdir()} == {"tiny", store.LOCK}


def test_saving_twice_gives_the_same_bytes(
    put: Callable[..., store.Bundle], tmp_path: Path
) -> None:
    put(tmp_path / "one" / "tiny")
    put(tmp_path / "two" / "tiny")
    one = check.read_files(tmp_path / "one" / "tiny")
    assert one == check.read_files(tmp_path / "two" / "tiny")


def test_the_hash_of_p_maps_ignores_the_threshold_and_the_name_alone(
    put: Callable[..., store.Bundle], make_info: Info, tmp_path: Path
) -> None:
    one = put(tmp_path / "one")
    other = put(tmp_path / "other", threshold=0.3)
    assert one.sha256 == other.sha256
    assert one.pmap_sha256 == other.pmap_sha256
    preparation = one.info.preparation.model_copy(update={"landmarks": (0.0, 30.0, 100.0)})
    info = one.info.model_copy(update={"preparation": preparation})
    assert store.Bundle(info, one.network).pmap_sha256 != one.pmap_sha256


def test_a_retuned_bundle_replaces_the_former(
    put: Callable[..., store.Bundle], tmp_path: Path
) -> None:
    put(tmp_path / "tiny")
    put(tmp_path / "tiny", threshold=0.3, overwrite=True)
    loaded = store.load(tmp_path / "tiny")
    assert loaded.threshold == 0.3


def test_a_bundle_is_not_replaced_unasked(put: Callable[..., store.Bundle], tmp_path: Path) -> None:
    put(tmp_path / "tiny")
    with pytest.raises(BundleError, match="exists"):
        put(tmp_path / "tiny", threshold=0.3)
    assert store.load(tmp_path / "tiny").threshold == 0.5


def test_a_folder_with_other_files_is_never_replaced(
    put: Callable[..., store.Bundle], tmp_path: Path
) -> None:
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "thesis.tex").touch()
    with pytest.raises(BundleError, match=r"thesis\.tex"):
        put(tmp_path / "tiny", overwrite=True)
    assert (tmp_path / "tiny" / "thesis.tex").exists()


def test_a_folder_behind_a_link_is_not_replaced(
    put: Callable[..., store.Bundle], tmp_path: Path
) -> None:
    put(tmp_path / "real")
    (tmp_path / "tiny").symlink_to(tmp_path / "real")
    with pytest.raises(BundleError, match="not a folder"):
        put(tmp_path / "tiny", overwrite=True)


def test_an_empty_folder_is_filled(put: Callable[..., store.Bundle], tmp_path: Path) -> None:
    (tmp_path / "tiny").mkdir()
    put(tmp_path / "tiny")
    assert store.load(tmp_path / "tiny").name == "tiny"


@pytest.mark.parametrize("by_link", [False, True])
def test_a_bundle_in_the_package_is_never_written(
    by_link: bool, put: Callable[..., store.Bundle], shelves: dict[str, Path]
) -> None:
    put(shelves["package"] / "a", 0.4)
    folder = shelves["package"] / "a"
    before = check.read_files(folder)
    if by_link:
        (shelves["given"] / "shelf").symlink_to(shelves["package"], target_is_directory=True)
        folder = shelves["given"] / "shelf" / "a"
    loaded = store.load(folder)
    for name in ("a", "new"):
        with pytest.raises(BundleError, match=f"^{name}: comes with the package and is never"):
            store.save(
                folder.with_name(name),
                loaded.info.model_copy(update={"name": name}),
                loaded.network,
                loaded.weights,
                "# card\n",
                overwrite=True,
            )
    assert check.read_files(folder) == before
    assert [path.name for path in shelves["package"].iterdir()] == ["a"]


def test_a_network_that_is_refused_is_not_saved(
    tmp_path: Path, make_info: Info, weights: bytes
) -> None:
    with pytest.raises(BundleError, match=r"model\.onnx"):
        store.save(tmp_path / "tiny", make_info(), b"", weights, "")
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_leaves_the_former_bundle(
    put: Callable[..., store.Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "tiny")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        put(tmp_path / "tiny", threshold=0.3, overwrite=True)
    assert store.load(tmp_path / "tiny").threshold == 0.5
    assert {path.name for path in tmp_path.iterdir()} == {"tiny", store.LOCK}


def test_a_rename_that_fails_brings_the_former_bundle_back(
    put: Callable[..., store.Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "tiny")
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if self.name.endswith(".new"):
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OutputError, match="Input/output"):
        put(tmp_path / "tiny", threshold=0.3, overwrite=True)
    assert store.load(tmp_path / "tiny").threshold == 0.5


def test_a_writer_puts_back_what_a_killed_one_set_aside(
    put: Callable[..., store.Bundle], tmp_path: Path
) -> None:
    put(tmp_path / "tiny")
    (tmp_path / "tiny").rename(tmp_path / ".tiny.previous")
    (tmp_path / ".tiny.new").mkdir()
    with pytest.raises(BundleError, match="exists"):
        put(tmp_path / "tiny", threshold=0.3)
    assert store.load(tmp_path / "tiny").threshold == 0.5
    assert not (tmp_path / ".tiny.previous").exists()


def test_a_reader_says_what_a_killed_writer_set_aside(
    put: Callable[..., store.Bundle], tmp_path: Path
) -> None:
    put(tmp_path / "tiny")
    (tmp_path / "tiny").rename(tmp_path / ".tiny.previous")
    with pytest.raises(BundleError, match=r"rename \.tiny\.previous"):
        store.load(tmp_path / "tiny")


def test_a_folder_that_cannot_be_written_is_said(
    put: Callable[..., store.Bundle], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"):
        put(tmp_path / "file" / "tiny")


def test_a_writer_waits_for_another_and_gives_up(
    put: Callable[..., store.Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "LOCK_SECONDS", 0.05)
    with (
        FileLock(tmp_path / store.LOCK),
        pytest.raises(OutputError, match="another process"),
    ):
        put(tmp_path / "tiny")


WRITER = """
import pathlib, sys
from sct_lesion_losses.bundle import check, store
files = check.read_files(pathlib.Path(sys.argv[1]))
for _ in range(20):
    store.publish(pathlib.Path(sys.argv[2]), files, overwrite=True)
"""


def test_two_writers_and_a_reader_never_meet_half_a_bundle(
    tmp_path: Path, put: Callable[..., store.Bundle]
) -> None:
    folder = tmp_path / "shelf" / "tiny"
    sources = [tmp_path / source / "tiny" for source in ("a", "b")]
    for source, threshold in zip(sources, (0.2, 0.4), strict=True):
        put(source, threshold)
    put(folder, 0.2)
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(source), str(folder)])
        for source in sources
    ]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        seen.add(store.load(folder).threshold)
        time.sleep(0.01)
    assert [writer.wait() for writer in writers] == [0, 0]
    assert seen
    assert seen <= {0.2, 0.4}
    assert {path.name for path in folder.parent.iterdir()} == {"tiny", store.LOCK}


def test_names_are_found_in_the_package_then_the_variable_then_home(
    shelves: dict[str, Path], put: Callable[..., store.Bundle]
) -> None:
    put(shelves["home"] / "a", 0.3)
    assert store.load("a").threshold == 0.3
    put(shelves["given"] / "a", 0.2)
    assert store.load("a").threshold == 0.2
    put(shelves["package"] / "a", 0.1)
    assert store.load("a").threshold == 0.1


def test_a_name_means_the_same_bundle_in_every_folder(
    shelves: dict[str, Path],
    put: Callable[..., store.Bundle],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    put(shelves["package"] / "a", 0.1)
    put(tmp_path / "work" / "a", 0.9)
    monkeypatch.chdir(tmp_path / "work")
    assert store.load("a").threshold == 0.1
    assert "which is ./a" in caplog.text
    assert store.load("./a").threshold == 0.9


def test_a_folder_here_needs_no_path_where_no_bundle_has_its_name(
    put: Callable[..., store.Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "work" / "a", 0.9)
    monkeypatch.chdir(tmp_path / "work")
    assert store.load("a").threshold == 0.9


def test_the_variable_holds_several_folders(
    shelves: dict[str, Path],
    put: Callable[..., store.Bundle],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put(tmp_path / "x" / "a")
    put(tmp_path / "y" / "b")
    monkeypatch.setenv(store.VARIABLE, f"{tmp_path / 'x'}{os.pathsep}{tmp_path / 'y'}")
    assert store.available() == {"a": tmp_path / "x" / "a", "b": tmp_path / "y" / "b"}


def test_a_folder_of_that_name_without_a_bundle_does_not_hide_the_name(
    shelves: dict[str, Path],
    put: Callable[..., store.Bundle],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put(shelves["package"] / "a")
    (tmp_path / "work" / "a").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    assert store.find("a") == shelves["package"] / "a"


def test_available_leaves_out_what_is_not_a_bundle(
    shelves: dict[str, Path], put: Callable[..., store.Bundle]
) -> None:
    put(shelves["given"] / "a")
    (shelves["given"] / "notes").mkdir()
    (shelves["given"] / "readme.txt").touch()
    assert list(store.available()) == ["a"]


def test_an_unknown_name_lists_those_found_and_the_closest(
    shelves: dict[str, Path], put: Callable[..., store.Bundle]
) -> None:
    put(shelves["package"] / "tversky")
    put(shelves["given"] / "dice")
    with pytest.raises(BundleError, match=r"did you mean tversky\? found: dice, tversky"):
        store.load("tverksy")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "no bundle is named"),
        ("no/such/folder", "no such folder"),
        ("x" * 5000, "cannot be read"),
        ("a\0b", "no bundle is named"),
    ],
)
def test_a_name_that_cannot_be_is_refused(shelves: dict[str, Path], name: str, words: str) -> None:
    with pytest.raises(BundleError, match=words):
        store.load(name)


def test_a_folder_without_bundle_json_is_said(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"holds no bundle\.json"):
        store.load(tmp_path)


def test_the_model_of_sct_is_said_not_to_be_a_bundle_on_disk(shelves: dict[str, Path]) -> None:
    with pytest.raises(BundleError, match="not a bundle on disk"):
        store.load("sct")


def test_an_archive_is_to_be_imported_first(tmp_path: Path) -> None:
    (tmp_path / "tiny.zip").touch()
    with pytest.raises(BundleError, match=r"sct_lesion_bundle import tiny\.zip"):
        store.load(tmp_path / "tiny.zip")


def test_a_renamed_folder_is_warned_of(
    bundle: store.Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    other = bundle.folder.rename(bundle.folder.parent / "other")
    assert store.load(other).name == "tiny"
    assert "the bundle in the folder 'other' is named 'tiny'" in caplog.text


def test_the_hash_of_a_bundle_is_that_of_its_network(bundle: store.Bundle) -> None:
    manifest = (bundle.folder / check.MANIFEST).read_text()
    assert f"{bundle.sha256}  model.onnx\n" in manifest


def test_showing_a_bundle_does_not_show_its_weights(bundle: store.Bundle) -> None:
    assert "b'" not in repr(bundle)


def test_a_loaded_network_runs(bundle: store.Bundle) -> None:
    runtime: Any = pytest.importorskip("onnxruntime")
    import numpy as np

    session = runtime.InferenceSession(bundle.network, providers=["CPUExecutionProvider"])
    (out,) = session.run(None, {"patches": np.zeros((1, 1, 8, 8, 8), np.float32)})
    # sigmoid(0) everywhere
    assert out.shape == (1, 1, 8, 8, 8)
    assert (out == 0.5).all()
