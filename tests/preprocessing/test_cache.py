from __future__ import annotations

import json
import logging
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import crop_cache_process
import nibabel as nib
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from small_data import write_cohort

from sct_lesion_losses.centerline import find
from sct_lesion_losses.cohorts import table as cohorts
from sct_lesion_losses.cohorts.table import CohortScan
from sct_lesion_losses.errors import DamagedError, DataError, ImageError, OutputError, UsageError
from sct_lesion_losses.images import nifti
from sct_lesion_losses.images.atomic import replacing
from sct_lesion_losses.preprocessing import cache, intensity
from sct_lesion_losses.preprocessing import cache as caches
from sct_lesion_losses.preprocessing import scan as prepare
from sct_lesion_losses.preprocessing.cache import Cache, CacheSettings, Made, TrainingCrop
from sct_lesion_losses.preprocessing.intensity import Landmarks

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


LANDMARKS = Landmarks((1.0, 50.0, 99.0), (0.0, 30.0, 100.0))


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> list[CohortScan]:
    return cohorts.read(write_cohort(tmp_path_factory.mktemp("cohort"), subjects=4))


@pytest.fixture
def own(scans: list[CohortScan], tmp_path: Path) -> CohortScan:
    """A copy of a scan with its files, which a test may change."""
    files = {name: getattr(scans[1], name) for name in ("scan", "lesion_mask", "centerline")}
    return replace(
        scans[1],
        **{name: Path(shutil.copy(file, tmp_path / file.name)) for name, file in files.items()},
    )


def key(scan: CohortScan, folder: Path, margin: int = 0) -> str:
    return cache.crop_scans([scan], CacheSettings(folder, margin))[0].key


def entries(folder: Path) -> dict[str, tuple[int, int]]:
    """Files of a cache by name, with what changes whenever one is written."""
    found = {path.name: path.stat() for path in folder.glob("[!.]*.safetensors")}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in found.items()}


@pytest.mark.parametrize("margin", [0, 3])
def test_what_comes_from_the_cache_is_what_is_cut(
    margin: int, scans: list[CohortScan], tmp_path: Path
) -> None:
    workshop = CacheSettings(tmp_path, margin)
    cut = cache.crop_scans(scans, workshop)
    found = cache.standardise_scans(cut, LANDMARKS, workshop)
    for scan, one, crop in zip(scans, cut, found, strict=True):
        raw, content = cache.crop_scan(scan, margin)
        expected = prepare.standardise(raw.values, LANDMARKS, margin)
        assert np.array_equal(crop.values, expected)
        assert np.array_equal(crop.lesion, raw.lesion)
        assert (crop.name, crop.margin) == (scan.name, margin)
        assert (one.content, one.seen) == (content, cache.seen_hash(raw))
        assert one.lesion_vox == raw.lesion.sum()
        patches = prepare.stacked_patches(prepare.inner(raw.values, margin))
        assert intensity.average([one.percentiles]) == intensity.fit([patches])


def test_crops_are_mapped_and_a_patch_lies_in_one_piece(
    scans: list[CohortScan], tmp_path: Path
) -> None:
    workshop = CacheSettings(tmp_path)
    crop = cache.standardise_scans(cache.crop_scans(scans[:1], workshop), LANDMARKS, workshop)[0]
    for array in (crop.values, crop.lesion):
        assert type(array) is np.ndarray
        assert not array.flags.writeable
        assert array[:, :, 5:53].transpose(2, 0, 1).flags.c_contiguous


def test_a_second_training_makes_nothing(
    scans: list[CohortScan], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = cache.crop_scans(scans, CacheSettings(tmp_path / "cache"))
    before = entries(tmp_path / "cache")
    told: list[tuple[int, int]] = []
    workshop = CacheSettings(tmp_path / "cache", progress=lambda *now: told.append(now))
    with caplog.at_level(logging.INFO):
        assert cache.crop_scans(scans, workshop) == first
    assert f"crops: 0 made, 4 taken from the cache {tmp_path / 'cache'}" in caplog.messages
    assert entries(tmp_path / "cache") == before
    assert told == []


def test_workers_make_the_same_and_tell_of_their_progress(
    scans: list[CohortScan], tmp_path: Path
) -> None:
    told: list[tuple[int, int]] = []
    found = []
    for jobs in (1, 2):
        folder = tmp_path / str(jobs)
        workshop = CacheSettings(folder, 2, jobs, lambda *now: told.append(now))
        cut = cache.crop_scans(scans, workshop)
        cache.standardise_scans(cut, LANDMARKS, workshop)
        found.append({path.name: path.read_bytes() for path in folder.glob("*.safetensors")})
    assert len(found[0]) == 8
    assert found[0] == found[1]
    assert told == 4 * [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_the_same_content_under_another_name_is_there_already(
    own: CohortScan, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = key(own, tmp_path / "cache")
    renamed = replace(own, scan=own.scan.rename(own.scan.with_name("sub-XX_T2w.nii.gz")))
    with caplog.at_level(logging.INFO):
        assert key(renamed, tmp_path / "cache") == before
    assert "crops: 0 made, 1 taken" in caplog.text


@pytest.mark.parametrize("changed", ["scan", "lesion_mask", "centerline"])
def test_a_changed_file_changes_the_key(changed: str, own: CohortScan, tmp_path: Path) -> None:
    before = key(own, tmp_path / "cache")
    image = nib.load(getattr(own, changed))
    moved = np.roll(np.asarray(image.dataobj), 1, axis=0)
    nib.save(nib.Nifti1Image(moved, image.affine), getattr(own, changed))
    assert key(own, tmp_path / "cache") != before


def test_another_margin_changes_the_key(own: CohortScan, tmp_path: Path) -> None:
    assert key(own, tmp_path, margin=1) != key(own, tmp_path, margin=2)


def test_other_landmarks_standardise_anew(own: CohortScan, tmp_path: Path) -> None:
    cut = cache.crop_scans([own], CacheSettings(tmp_path))
    other = replace(LANDMARKS, values=(0.0, 31.0, 100.0))
    first, second, again = (
        cache.standardise_scans(cut, landmarks, CacheSettings(tmp_path))[0].values
        for landmarks in (LANDMARKS, other, LANDMARKS)
    )
    assert not np.array_equal(first, second)
    assert np.array_equal(first, again)
    assert len(entries(tmp_path)) == 3


def test_without_a_centerline_the_method_that_finds_one_is_part_of_the_key(
    own: CohortScan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = key(own, tmp_path)
    image = nifti.read(own.scan)
    line = find.centerline(image.array, image.grid, file=own.centerline)
    monkeypatch.setattr(find, "detect", lambda *_: line)
    monkeypatch.delenv("SCT_DIR", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    found = key(replace(own, centerline=None), tmp_path)
    monkeypatch.setattr(find, "identity", lambda: "another detector")
    assert len({given, found, key(replace(own, centerline=None), tmp_path)}) == 3


def test_what_was_warned_of_is_said_with_every_training(
    own: CohortScan, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image = nib.load(own.centerline)
    line = np.asarray(image.dataobj).copy()
    line[:, :, 20] = 0
    nib.save(nib.Nifti1Image(line, image.affine), own.centerline)
    key(own, tmp_path / "cache")
    said = f"{own.centerline.name}: 1 slices between others have no point; they are interpolated"
    assert caplog.messages == [said]
    key(own, tmp_path / "cache")
    assert caplog.messages == [said, f"{own.scan.name}: {said}"]


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_scan_that_cannot_be_read_is_named_and_the_others_kept(
    jobs: int, own: CohortScan, scans: list[CohortScan], tmp_path: Path
) -> None:
    own.scan.write_bytes(own.scan.read_bytes()[:-100])
    with pytest.raises(ImageError, match=rf"{own.scan.name}: truncated"):
        cache.crop_scans([scans[0], own], CacheSettings(tmp_path / "cache", jobs=jobs))
    assert len(entries(tmp_path / "cache")) == 1


def test_a_file_that_changes_while_it_is_read_is_refused(
    own: CohortScan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = cache.crop_scan

    def touched(scan: CohortScan, margin: int) -> tuple[TrainingCrop, str]:
        own.lesion_mask.write_bytes(own.lesion_mask.read_bytes() + b"\0")
        return cut(scan, margin)

    monkeypatch.setattr(cache, "crop_scan", touched)
    with pytest.raises(DataError, match="changed while it was read"):
        key(own, tmp_path / "cache")
    assert entries(tmp_path / "cache") == {}


def test_a_full_cache_that_cannot_be_written_serves_all_the_same(
    scans: list[CohortScan], tmp_path: Path
) -> None:
    folder = tmp_path / "cache"
    cache.standardise_scans(
        cache.crop_scans(scans, CacheSettings(folder)), LANDMARKS, CacheSettings(folder)
    )
    folder.chmod(0o500)
    before = folder.stat().st_mtime_ns, (folder / caches.LOCKS).stat().st_mtime_ns
    cut = cache.crop_scans(scans, CacheSettings(folder))
    cache.standardise_scans(cut, LANDMARKS, CacheSettings(folder))
    # Nothing was written in passing, not even a lock.
    assert before == (folder.stat().st_mtime_ns, (folder / caches.LOCKS).stat().st_mtime_ns)
    folder.chmod(0o700)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_cache_that_lacks_a_scan_and_cannot_be_written_is_refused(
    scans: list[CohortScan], tmp_path: Path
) -> None:
    cache.crop_scans(scans[:1], CacheSettings(tmp_path))
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="3 of 4 crops are not in this cache"):
        cache.crop_scans(scans, CacheSettings(tmp_path))
    tmp_path.chmod(0o700)


def test_a_file_in_place_of_the_cache_is_refused(scans: list[CohortScan], tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(OutputError, match="4 of 4 crops are not in this cache"):
        cache.crop_scans(scans, CacheSettings(tmp_path / "cache"))


def test_jobs_start_at_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="received 0 jobs"):
        CacheSettings(tmp_path, jobs=0)


def waiting(scans: list[CohortScan], folder: Path, *hang: str) -> subprocess.Popen[str]:
    """A process that will cut the crops of the cohort, once it is told to go."""
    cohort = scans[0].scan.parents[2]
    return subprocess.Popen(
        [sys.executable, crop_cache_process.__file__, str(cohort), str(folder), *hang],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def test_two_processes_at_one_cache_cut_each_scan_once(
    scans: list[CohortScan], tmp_path: Path
) -> None:
    both = [waiting(scans, tmp_path / "cache") for _ in range(2)]
    for one in both:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
    for one in both:
        go(one)
    ended = [one.communicate(timeout=60) for one in both]
    assert [one.returncode for one in both] == [0, 0], ended
    seen = [json.loads(out) for out, _ in ended]
    assert seen[0] == seen[1] == [cache.seen_hash(cache.crop_scan(scan)[0]) for scan in scans]
    assert sum(int(re.search(r"crops: (\d+) made", err)[1]) for _, err in ended) == 4
    assert len(entries(tmp_path / "cache")) == 4
    assert not list((tmp_path / "cache").glob(".tmp-*"))


def test_a_killed_process_is_gone_on_from_where_it_was(
    scans: list[CohortScan], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "cache"
    with waiting(scans, folder, "3") as killed:
        assert killed.stdout is not None
        go(killed)
        assert killed.stdout.readline() == "ready\n"
        assert killed.stdout.readline() == "writing\n"
        killed.send_signal(signal.SIGKILL)
    finished = entries(folder)
    assert len(finished) == 2
    assert len(list(folder.glob(".tmp-*"))) == 1
    with caplog.at_level(logging.INFO):
        found = cache.crop_scans(scans, CacheSettings(folder))
    assert "crops: 2 made, 2 taken from the cache" in caplog.text
    assert finished.items() <= entries(folder).items()
    assert [one.seen for one in found] == [
        cache.seen_hash(cache.crop_scan(scan)[0]) for scan in scans
    ]
    assert not list(folder.glob(".tmp-*"))
