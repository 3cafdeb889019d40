import os
import stat
from pathlib import Path

import pytest
from filelock import FileLock

from sct_lesion_losses.errors import BusyError, OutputError
from sct_lesion_losses.images import atomic


def test_a_failure_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    target = tmp_path / "mask.nii.gz"
    target.write_text("old")
    with pytest.raises(ValueError, match="half way"), atomic.replacing(target) as temporary:
        temporary.write_text("new")
        raise ValueError("half way")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_success_replaces_and_leaves_nothing_behind(tmp_path: Path) -> None:
    target = tmp_path / "new folder" / "ä b.json"
    atomic.write_json(target, {"threshold": 0.3})
    assert target.read_text(encoding="utf-8") == '{\n  "threshold": 0.3\n}\n'
    assert list(target.parent.iterdir()) == [target]


def test_the_umask_decides_who_may_read(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        atomic.write_text(tmp_path / "a.txt", "x")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o640


def test_a_long_name_still_has_room_for_a_temporary_one(tmp_path: Path) -> None:
    target = tmp_path / ("a" * 240 + ".nii.gz")
    atomic.write_text(target, "x")
    assert target.read_text() == "x"


def test_a_file_in_place_of_the_folder_and_a_folder_of_that_name_are_clear_errors(
    tmp_path: Path,
) -> None:
    (tmp_path / "out").write_text("a file")
    (tmp_path / "mask.nii").mkdir()
    with pytest.raises(OutputError, match="cannot write here"):
        atomic.write_text(tmp_path / "out" / "mask.nii", "x")
    with pytest.raises(OutputError, match="cannot write this file"):
        atomic.write_text(tmp_path / "mask.nii", "x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mask.nii", "out"]


def test_nan_never_enters_a_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        atomic.write_json(tmp_path / "a.json", {"x": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_what_killed_processes_left_is_removed_of_one_file_or_of_all(tmp_path: Path) -> None:
    # The temporary name of a file ends in the last 40 letters of "-" and its own name.
    long = "f" * 32 + ".safetensors"
    for name in (f".tmp-1234{long[-40:]}", ".tmp-1234-other.safetensors", long):
        (tmp_path / name).touch()
    atomic.remove_left_over(tmp_path, long)
    atomic.remove_left_over(tmp_path, "other.safetensors", before=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".tmp-1234-other.safetensors", long]
    atomic.remove_left_over(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [long]


@pytest.mark.parametrize("fails", ["while writing", "at a folder", "between two files"])
def test_of_files_written_together_all_are_new_or_none(fails: str, tmp_path: Path) -> None:
    names = ("mask.nii", "pmap.nii", "mask.json")
    for name in names:
        (tmp_path / name).write_text("old")
    if fails == "at a folder":
        (tmp_path / "pmap.nii").unlink()
        (tmp_path / "pmap.nii").mkdir()
    with pytest.raises((OutputError, KeyboardInterrupt)), atomic.together():
        for name in names:
            atomic.write_text(tmp_path / name, "new")
            if fails == "between two files":
                raise KeyboardInterrupt
        if fails == "while writing":
            with atomic.replacing(tmp_path / "figure.png"):
                raise OSError("no room")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    assert {path.read_text() for path in tmp_path.iterdir() if path.is_file()} == {"old"}


def test_files_written_together_appear_at_the_end(tmp_path: Path) -> None:
    with atomic.together():
        atomic.write_text(tmp_path / "a.txt", "a")
        atomic.write_json(tmp_path / "new" / "b.json", {})
        assert not (tmp_path / "a.txt").exists()
    atomic.write_text(tmp_path / "c.txt", "c")
    names = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert names == ["a.txt", "b.json", "c.txt"]


def test_a_file_that_cannot_be_renamed_says_what_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = Path.replace

    def refuse(self: Path, target: Path) -> Path:
        if target.name == "b":
            raise PermissionError(1, "not permitted")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OutputError, match=r"b: .*not permitted.*; new are a$"), atomic.together():
        for name in "abc":
            atomic.write_text(tmp_path / name, "new")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_the_folder_of_a_lock_is_made_or_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lock(file: Path) -> FileLock:
        assert file.parent.is_dir()  # filelock 3.12.0 makes none
        return FileLock(file)

    monkeypatch.setattr(atomic, "FileLock", lock)
    with atomic.locked(tmp_path / "new" / "folder" / atomic.LOCK, "busy"):
        pass
    (tmp_path / "file").touch()
    with (
        pytest.raises(OutputError, match="file: cannot write here"),
        atomic.locked(tmp_path / "file" / atomic.LOCK, "busy"),
    ):
        pass


@pytest.mark.parametrize("remove", [False, True])
def test_a_lock_is_held_by_one_and_stays_unless_it_is_to_be_removed(
    remove: bool, tmp_path: Path
) -> None:
    lock = tmp_path / "a.lock"
    with atomic.locked(lock, "first", remove=remove):
        with pytest.raises(BusyError, match="second"), atomic.locked(lock, "second", 0.1):
            pass
        assert lock.exists()
    assert lock.exists() != remove
