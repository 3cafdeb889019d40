from __future__ import annotations

import json
import logging
import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from sct_lesion_losses.errors import DamagedError, DataError, OutputError
from sct_lesion_losses.images.atomic import replacing
from sct_lesion_losses.preprocessing import cache as caches
from sct_lesion_losses.preprocessing.cache import Cache, Made

KEY = caches.key_of("a scan")


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
        cache.make(caches.key_of("another"), ones)
        cache.path(caches.key_of("another")).replace(file)
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
    of_another = leave_half(cache.path(caches.key_of("another")))
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
        caches.key_of(*parts) for parts in (("a", "b"), ("a", "c"), ("ab",), ("a\nb",), ("b", "a"))
    }
    assert len(keys) == 5


SHAPES = arrays_of.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=5)
ARRAYS = {
    "values": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "lesion": np.arange(24).reshape(2, 3, 4) % 5 == 0,
}
FACTS = {"content": "abc", "warnings": ["ä"], "count": 3}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "entry.safetensors"
    caches.write(path, ARRAYS, FACTS)
    return path


@contextmanager
def limit(kind: int, value: int) -> Iterator[None]:
    before = resource.getrlimit(kind)
    resource.setrlimit(kind, (value, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(kind, before)


@given(
    arrays_of.arrays(np.float32, SHAPES, elements=st.floats(width=32, allow_nan=False)),
    arrays_of.arrays(bool, SHAPES),
    st.dictionaries(st.text(min_size=1).filter(lambda name: name != "sha256"), st.text()),
)
def test_what_is_written_is_loaded(
    tmp_path_factory: pytest.TempPathFactory,
    values: np.ndarray,
    lesion: np.ndarray,
    facts: dict[str, str],
) -> None:
    path = tmp_path_factory.mktemp("mapped") / "a.safetensors"
    caches.write(path, {"b": lesion, "a": values}, facts)
    found = caches.load(path)
    assert np.array_equal(found.arrays["a"], values)
    assert np.array_equal(found.arrays["b"], lesion)
    assert found.facts == facts


def test_views_are_written_in_the_order_of_their_axes(tmp_path: Path) -> None:
    turned = ARRAYS["values"].transpose(2, 0, 1)[::-1]
    caches.write(tmp_path / "a.safetensors", {"values": turned}, {})
    assert np.array_equal(caches.load(tmp_path / "a.safetensors").arrays["values"], turned)


def test_arrays_are_plain_read_only_and_aligned(file: Path) -> None:
    found = caches.load(file).arrays
    for array in found.values():
        assert type(array) is np.ndarray
        assert not array.flags.writeable
    assert found["values"].flags.aligned


def test_any_reader_of_the_format_can_open_it(file: Path) -> None:
    found = safetensors.numpy.load_file(file)
    assert {name: array.tolist() for name, array in found.items()} == {
        name: array.tolist() for name, array in ARRAYS.items()
    }
    with safetensors.safe_open(file, "numpy") as opened:
        assert FACTS.items() <= json.loads(opened.metadata()["facts"]).items()


def test_the_same_arrays_give_the_same_bytes(file: Path, tmp_path: Path) -> None:
    caches.write(tmp_path / "again", dict(reversed(ARRAYS.items())), FACTS)
    assert (tmp_path / "again").read_bytes() == file.read_bytes()


def test_a_flipped_bit_anywhere_is_noticed(file: Path) -> None:
    whole = file.read_bytes()
    begin = 8 + int.from_bytes(whole[:8], "little")
    padding = len(whole[:begin].rstrip())
    for position in range(len(whole)):
        if padding <= position < begin:
            continue  # spaces behind the header carry nothing
        flipped = bytearray(whole)
        flipped[position] ^= 1 << position % 8
        file.write_bytes(flipped)
        with pytest.raises(DamagedError, match=r"entry\.safetensors"):
            caches.load(file)


def test_a_file_that_is_too_short_or_too_long_is_noticed(file: Path) -> None:
    whole = file.read_bytes()
    for content in (*(whole[:length] for length in range(len(whole))), whole + b"\0"):
        file.write_bytes(content)
        with pytest.raises(DamagedError):
            caches.load(file)


def test_a_file_that_is_not_there_is_a_damaged_one(tmp_path: Path) -> None:
    with pytest.raises(DamagedError, match="No such file"):
        caches.load(tmp_path / "a.safetensors")


def test_loading_does_not_read_arrays_into_memory(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.safetensors" for number in range(4)]
    values = np.ones((16, 512, 512), np.float32)
    for path in paths:
        caches.write(path, {"values": values}, {})
    before = resident_bytes()
    found = [caches.load(path) for path in paths]
    assert resident_bytes() - before < 4 << 20  # of 64 MiB
    assert sum(float(one.arrays["values"][0].sum()) for one in found) == 4 * 512**2


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_no_room_on_the_disk_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    values = np.zeros((64, 64, 64), np.float32)
    with limit(resource.RLIMIT_FSIZE, 1 << 18), pytest.raises(OutputError, match="too large"):
        caches.write(tmp_path / "a.safetensors", {"values": values}, {})
    assert list(tmp_path.iterdir()) == []


def test_as_many_files_may_be_open_as_are_asked_for(file: Path) -> None:
    with limit(resource.RLIMIT_NOFILE, 300):
        caches.allow(400)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 400
        kept = [caches.load(file) for _ in range(400)]
        assert len(kept) == 400


def test_too_many_open_files_is_another_thing_than_damage(file: Path) -> None:
    with (
        limit(resource.RLIMIT_NOFILE, 3),
        pytest.raises(DataError, match="ulimit -n") as raised,
    ):
        caches.load(file)
    assert not isinstance(raised.value, DamagedError)
