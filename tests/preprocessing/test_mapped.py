from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from sct_lesion_losses.errors import DamagedError, DataError, OutputError
from sct_lesion_losses.preprocessing import cache

SHAPES = arrays_of.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=5)
ARRAYS = {
    "values": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "lesion": np.arange(24).reshape(2, 3, 4) % 5 == 0,
}
FACTS = {"content": "abc", "warnings": '["ä"]'}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "entry.safetensors"
    cache.write(path, ARRAYS, FACTS)
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
    cache.write(path, {"b": lesion, "a": values}, facts)
    found = cache.load(path)
    assert np.array_equal(found.arrays["a"], values)
    assert np.array_equal(found.arrays["b"], lesion)
    assert found.facts == facts


def test_views_are_written_in_the_order_of_their_axes(tmp_path: Path) -> None:
    turned = ARRAYS["values"].transpose(2, 0, 1)[::-1]
    cache.write(tmp_path / "a.safetensors", {"values": turned}, {})
    assert np.array_equal(cache.load(tmp_path / "a.safetensors").arrays["values"], turned)


def test_arrays_are_plain_read_only_and_aligned(file: Path) -> None:
    found = cache.load(file).arrays
    for array in found.values():
        assert type(array) is np.ndarray
        assert not array.flags.writeable
    assert found["values"].ctypes.data % 64 == 0


def test_any_reader_of_the_format_can_open_it(file: Path) -> None:
    found = safetensors.numpy.load_file(file)
    assert {name: array.tolist() for name, array in found.items()} == {
        name: array.tolist() for name, array in ARRAYS.items()
    }
    with safetensors.safe_open(file, "numpy") as opened:
        assert FACTS.items() <= opened.metadata().items()


def test_the_same_arrays_give_the_same_bytes(file: Path, tmp_path: Path) -> None:
    cache.write(tmp_path / "again", dict(reversed(ARRAYS.items())), FACTS)
    assert (tmp_path / "again").read_bytes() == file.read_bytes()


def test_a_flipped_bit_anywhere_is_noticed(file: Path) -> None:
    whole = file.read_bytes()
    padding = whole.index(b"}}", whole.index(b"data_offsets")) + 2
    begin = 8 + int.from_bytes(whole[:8], "little")
    for position in range(len(whole)):
        if padding <= position < begin:
            continue  # spaces behind the header carry nothing
        flipped = bytearray(whole)
        flipped[position] ^= 1 << position % 8
        file.write_bytes(flipped)
        with pytest.raises(DamagedError, match=r"entry\.safetensors"):
            cache.load(file)


def test_a_file_that_is_too_short_or_too_long_is_noticed(file: Path) -> None:
    whole = file.read_bytes()
    for content in (*(whole[:length] for length in range(len(whole))), whole + b"\0"):
        file.write_bytes(content)
        with pytest.raises(DamagedError):
            cache.load(file)


def test_a_file_that_is_not_there_is_a_damaged_one(tmp_path: Path) -> None:
    with pytest.raises(DamagedError, match="No such file"):
        cache.load(tmp_path / "a.safetensors")


def test_loading_does_not_read_arrays_into_memory(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.safetensors" for number in range(4)]
    values = np.ones((16, 512, 512), np.float32)
    for path in paths:
        cache.write(path, {"values": values}, {})
    before = resident_bytes()
    found = [cache.load(path) for path in paths]
    assert resident_bytes() - before < 4 << 20  # of 64 MiB
    assert sum(float(one.arrays["values"][0].sum()) for one in found) == 4 * 512**2


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_no_room_on_the_disk_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    values = np.zeros((64, 64, 64), np.float32)
    with limit(resource.RLIMIT_FSIZE, 1 << 18), pytest.raises(OutputError, match="too large"):
        cache.write(tmp_path / "a.safetensors", {"values": values}, {})
    assert list(tmp_path.iterdir()) == []


def test_as_many_files_may_be_open_as_are_asked_for(file: Path) -> None:
    with limit(resource.RLIMIT_NOFILE, 300):
        cache.allow(400)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 400
        kept = [cache.load(file) for _ in range(400)]
        assert len(kept) == 400


def test_too_many_open_files_is_another_thing_than_damage(file: Path) -> None:
    with (
        limit(resource.RLIMIT_NOFILE, 3),
        pytest.raises(DataError, match="ulimit -n") as raised,
    ):
        cache.load(file)
    assert not isinstance(raised.value, DamagedError)
