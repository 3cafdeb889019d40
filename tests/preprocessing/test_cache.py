from __future__ import annotations

import logging
import os
import time
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from sct_lesion_losses.errors import DataError, ImageError
from sct_lesion_losses.images.atomic import replacing
from sct_lesion_losses.preprocessing import cache as caches
from sct_lesion_losses.preprocessing.cache import Cache, Made

KEY = caches.key("a scan")


def ones() -> Made:
    return {"values": np.ones((2, 3), np.float32)}, {"content": "one"}


def never() -> Made:
    raise AssertionError("there was a good entry")


def test_an_entry_is_made_once_and_found_again(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    assert cache.find(KEY) is None
    assert cache.make(KEY, ones)
    assert not cache.make(KEY, never)
    found = cache.require(KEY)
    assert found.arrays["values"].tolist() == [[1, 1, 1], [1, 1, 1]]
    assert found.facts == {"content": "one"}


def test_looking_for_an_entry_makes_no_folder(tmp_path: Path) -> None:
    assert Cache(tmp_path / "cache").find(KEY) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "of another scan"])
def test_a_damaged_entry_is_made_again_with_a_warning(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = Cache(tmp_path)
    cache.make(KEY, ones)
    file = cache.path(KEY)
    whole = file.read_bytes()
    if damage == "of another scan":
        cache.make(caches.key("another"), ones)
        cache.path(caches.key("another")).replace(file)
    else:
        flipped = whole[:-1] + bytes([whole[-1] ^ 4])
        file.write_bytes({"truncated": whole[:-1], "flipped": flipped, "empty": b""}[damage])
    assert cache.find(KEY) is None
    assert cache.make(KEY, ones)
    assert file.read_bytes() == whole
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert file.name in caplog.text
    assert "made again" in caplog.text


def test_an_entry_that_vanished_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="let nobody clear the cache"):
        Cache(tmp_path).require(KEY)


def test_a_failure_leaves_no_entry_and_frees_the_lock(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    with pytest.raises(AssertionError):
        cache.make(KEY, never)
    assert cache.find(KEY) is None
    assert cache.make(KEY, ones)


def leave_half(path: Path) -> Path:
    """Leave the temporary file of a process that is killed while it writes."""
    with pytest.raises(KeyError), replacing(path) as temporary:
        raise KeyError
    temporary.write_bytes(b"half")
    return temporary


def test_what_a_killed_process_left_of_an_entry_is_removed_with_it(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    left = leave_half(cache.path(KEY))
    of_another = leave_half(cache.path(caches.key("another")))
    cache.make(KEY, ones)
    assert not left.exists()
    assert of_another.exists()  # another process may be writing it


def test_tidying_removes_what_nobody_can_be_writing_any_more(tmp_path: Path) -> None:
    new, old = tmp_path / ".tmp-new", tmp_path / ".tmp-old"
    for file in (new, old):
        file.touch()
    os.utime(old, (time.time() - 100_000,) * 2)
    Cache(tmp_path).tidy()
    assert [file.name for file in tmp_path.iterdir()] == [".tmp-new"]


def test_without_locks_an_entry_is_made_all_the_same(tmp_path: Path) -> None:
    (tmp_path / caches.LOCKS).write_text("a file where the locks would be")
    cache = Cache(tmp_path)
    assert cache.make(KEY, ones)
    assert not cache.make(KEY, never)


def test_another_process_at_an_entry_is_waited_for_but_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(caches, "WAIT_SAID_AFTER_S", 0.05)
    monkeypatch.setattr(caches, "PATIENCE_S", 0.2)
    cache = Cache(tmp_path)
    (tmp_path / caches.LOCKS).mkdir()
    start = time.monotonic()
    with FileLock(tmp_path / caches.LOCKS / KEY), caplog.at_level(logging.INFO):
        assert cache.make(KEY, ones)
    assert time.monotonic() - start > 0.2
    assert f"another process is at {cache.path(KEY).name}" in caplog.text


def test_a_key_depends_on_every_part_and_on_where_it_ends() -> None:
    keys = {
        caches.key(*parts) for parts in (("a", "b"), ("a", "c"), ("ab",), ("a\nb",), ("b", "a"))
    }
    assert len(keys) == 5


def test_the_hash_of_a_file_is_that_of_its_bytes_whatever_its_name(tmp_path: Path) -> None:
    for name, content in {"a": b"x" * 3_000_000, "b": b"x" * 3_000_000, "c": b"x"}.items():
        (tmp_path / name).write_bytes(content)
    assert caches.file_hash(tmp_path / "a") == caches.file_hash(tmp_path / "b")
    assert caches.file_hash(tmp_path / "a") != caches.file_hash(tmp_path / "c")


def test_a_file_that_cannot_be_hashed_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"gone\.nii: cannot be read"):
        caches.file_hash(tmp_path / "gone.nii")
