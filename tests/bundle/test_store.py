import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock
from small_bundle import NETWORK, WEIGHTS, make_info

from sct_lesion_losses.bundle import check, store
from sct_lesion_losses.errors import BundleError, OutputError

Put = Callable[..., store.Bundle]
Shelves = dict[str, Path]


@pytest.fixture
def shelves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelves:
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
def put(tmp_path: Path) -> Put:
    """Save a bundle in a folder, threshold at will; one of the package is copied there."""

    def save(folder: Path, threshold: float = 0.5, overwrite: bool = False) -> store.Bundle:
        info = make_info(name=folder.name, operating_point={"threshold": threshold})
        target = tmp_path / "made" / folder.name if store.is_shipped(folder) else folder
        bundle = store.save(target, info, NETWORK, WEIGHTS, "# card\n", overwrite=overwrite)
        if target != folder:
            shutil.copytree(target, folder)
        return bundle

    return save


def test_a_saved_bundle_is_five_files_that_are_loaded_as_they_were(bundle: store.Bundle) -> None:
    loaded = store.load(bundle.folder)
    for name in ("info", "network", "weights"):
        assert getattr(loaded, name) == getattr(bundle, name)
    assert {path.name for path in bundle.folder.iterdir()} == set(check.MAX_BYTES)
    assert {path.name for path in bundle.folder.parent.iterdir()} == {"tiny", store.LOCK}
    assert f"{bundle.sha256}  model.onnx\n" in (bundle.folder / check.MANIFEST).read_text()
    assert "b'" not in repr(bundle)  # the weights are not shown


def test_saving_twice_gives_the_same_bytes(put: Put, tmp_path: Path) -> None:
    for name in ("one", "two"):
        put(tmp_path / name / "tiny")
    one = check.read_files(tmp_path / "one" / "tiny")
    assert one == check.read_files(tmp_path / "two" / "tiny")


def test_the_hash_of_p_maps_ignores_the_threshold_and_the_name_alone(
    put: Put, tmp_path: Path
) -> None:
    one = put(tmp_path / "one")
    other = put(tmp_path / "other", threshold=0.3)
    assert one.sha256 == other.sha256
    assert one.pmap_sha256 == other.pmap_sha256
    for change in ({"landmarks": (0.0, 30.0, 100.0)}, {"tta": True}):
        preparation = one.info.preparation.model_copy(update=change)
        info = one.info.model_copy(update={"preparation": preparation})
        assert store.Bundle(info, one.network).pmap_sha256 != one.pmap_sha256


def test_a_bundle_is_replaced_where_it_is_asked_for_and_an_empty_folder_is_taken(
    put: Put, tmp_path: Path
) -> None:
    (tmp_path / "tiny").mkdir()
    put(tmp_path / "tiny")
    with pytest.raises(BundleError, match="exists"):
        put(tmp_path / "tiny", threshold=0.3)
    assert store.load(tmp_path / "tiny").threshold == 0.5
    put(tmp_path / "tiny", threshold=0.3, overwrite=True)
    assert store.load(tmp_path / "tiny").threshold == 0.3


def test_a_folder_with_other_files_or_behind_a_link_is_never_replaced(
    put: Put, tmp_path: Path
) -> None:
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "thesis.tex").touch()
    with pytest.raises(BundleError, match=r"thesis\.tex"):
        put(tmp_path / "tiny", overwrite=True)
    assert (tmp_path / "tiny" / "thesis.tex").exists()
    put(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(BundleError, match="not a folder"):
        put(tmp_path / "link", overwrite=True)


@pytest.mark.parametrize("by_link", [False, True])
def test_a_bundle_in_the_package_is_never_written(
    by_link: bool, put: Put, shelves: Shelves
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


def test_a_network_that_is_refused_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"model\.onnx"):
        store.save(tmp_path / "tiny", make_info(), b"", WEIGHTS, "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fails", ["fsync", "rename"])
def test_a_write_that_fails_leaves_the_former_bundle(
    fails: str, put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "tiny")
    rename = Path.rename

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    def refuse(self: Path, target: Path) -> Path:
        return full(0) if self.name.endswith(".new") else rename(self, target)

    monkeypatch.setattr(*((os, "fsync", full) if fails == "fsync" else (Path, "rename", refuse)))
    with pytest.raises(OutputError, match="No space left"):
        put(tmp_path / "tiny", threshold=0.3, overwrite=True)
    assert store.load(tmp_path / "tiny").threshold == 0.5
    assert {path.name for path in tmp_path.iterdir()} == {"tiny", store.LOCK}


def test_what_a_killed_writer_set_aside_is_said_and_put_back_by_the_next(
    put: Put, tmp_path: Path
) -> None:
    put(tmp_path / "tiny")
    (tmp_path / "tiny").rename(tmp_path / ".tiny.previous")
    (tmp_path / ".tiny.new").mkdir()
    with pytest.raises(BundleError, match=r"rename \.tiny\.previous"):
        store.load(tmp_path / "tiny")
    with pytest.raises(BundleError, match="exists"):
        put(tmp_path / "tiny", threshold=0.3)
    assert store.load(tmp_path / "tiny").threshold == 0.5
    assert {path.name for path in tmp_path.iterdir()} == {"tiny", store.LOCK}


def test_a_folder_that_cannot_be_written_is_said(put: Put, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"):
        put(tmp_path / "file" / "tiny")


def test_a_writer_waits_for_another_and_gives_up(
    put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "LOCK_SECONDS", 0.05)
    with FileLock(tmp_path / store.LOCK), pytest.raises(OutputError, match="another process"):
        put(tmp_path / "tiny")


WRITER = """
import pathlib, sys
from sct_lesion_losses.bundle import check, store
files = check.read_files(pathlib.Path(sys.argv[1]))
for _ in range(20):
    store.publish(pathlib.Path(sys.argv[2]), files, overwrite=True)
"""


def test_two_writers_and_a_reader_never_meet_half_a_bundle(tmp_path: Path, put: Put) -> None:
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
    shelves: Shelves, put: Put
) -> None:
    put(shelves["home"] / "a", 0.3)
    assert store.load("a").threshold == 0.3
    put(shelves["given"] / "a", 0.2)
    assert store.load("a").threshold == 0.2
    put(shelves["package"] / "a", 0.1)
    assert store.load("a").threshold == 0.1


def test_a_name_means_the_same_bundle_in_every_folder_and_one_here_where_it_is_unknown(
    shelves: Shelves,
    put: Put,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name in "ab":
        put(tmp_path / "work" / name, 0.9)
    put(shelves["package"] / "a", 0.1)
    put(shelves["package"] / "c", 0.2)
    (tmp_path / "work" / "c").mkdir()  # no bundle: it does not hide the name
    monkeypatch.chdir(tmp_path / "work")
    assert store.load("a").threshold == 0.1
    assert "which is ./a" in caplog.text
    here = store.load("./a")
    assert here.threshold == 0.9
    assert store.load(str(here.folder)).threshold == 0.9  # as a worker is told of it
    assert store.load("b").threshold == 0.9
    assert store.load("c").threshold == 0.2


def test_the_variable_holds_several_folders_and_what_is_no_bundle_is_left_out(
    shelves: Shelves, put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "x" / "a")
    put(tmp_path / "y" / "b")
    (tmp_path / "y" / "notes").mkdir()
    (tmp_path / "y" / "readme.txt").touch()
    monkeypatch.setenv(store.VARIABLE, f"{tmp_path / 'x'}{os.pathsep}{tmp_path / 'y'}")
    assert store.available() == {"a": tmp_path / "x" / "a", "b": tmp_path / "y" / "b"}


def test_a_bundle_is_read_again_only_where_it_was_replaced_meanwhile(
    put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, reads = check.read_files, []

    def replaced(folder: Path) -> check.Files:
        files = read(folder)
        reads.append(folder)
        if len(reads) > 1:
            return files
        put(folder, threshold=0.3, overwrite=True)
        return {**files, check.CARD: b"that of the new one"}

    put(tmp_path / "tiny")
    monkeypatch.setattr(check, "read_files", replaced)
    assert store.load(tmp_path / "tiny").threshold == 0.3
    (tmp_path / "tiny" / check.CARD).write_text("damaged")
    with pytest.raises(BundleError, match="hash"):
        store.load(tmp_path / "tiny")
    assert len(reads) == 3


def test_an_unknown_name_lists_those_found_and_the_closest(shelves: Shelves, put: Put) -> None:
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
        ("{folder}", r"holds no bundle\.json"),
        ("{folder}/tiny.zip", r"sct_lesion_bundle import tiny\.zip"),
        ("sct", "not a bundle on disk"),
    ],
)
def test_a_name_that_is_none_of_a_bundle_is_refused(
    shelves: Shelves, tmp_path: Path, name: str, words: str
) -> None:
    (tmp_path / "tiny.zip").touch()
    with pytest.raises(BundleError, match=words):
        store.load(name.format(folder=tmp_path))


def test_a_renamed_folder_is_warned_of(
    bundle: store.Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    other = bundle.folder.rename(bundle.folder.parent / "other")
    assert store.load(other).name == "tiny"
    assert "the bundle in the folder 'other' is named 'tiny'" in caplog.text
