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
from filelock import FileLock
from small_data import write_cohort

from sct_lesion_losses.bundle.schema import StudyPreparation
from sct_lesion_losses.centerline import find
from sct_lesion_losses.cohorts import table as cohorts
from sct_lesion_losses.cohorts.table import CohortScan
from sct_lesion_losses.errors import DataError, ImageError, OutputError
from sct_lesion_losses.images import nifti
from sct_lesion_losses.images.atomic import LOCK
from sct_lesion_losses.preprocessing import cache, intensity
from sct_lesion_losses.preprocessing import scan as prepare
from sct_lesion_losses.preprocessing.cache import CacheSettings, TrainingCrop

RNG = np.random.default_rng(0)
CROP = TrainingCrop(RNG.random((3, 4, 5)).astype(np.float32), RNG.random((3, 4, 5)) < 0.5)
FACTS = {"content": "abc", "warnings": ["ä"], "count": 3}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "entry.safetensors"
    cache.write(path, CROP, FACTS)
    return path


@contextmanager
def limit(kind: int, value: int) -> Iterator[None]:
    before = resource.getrlimit(kind)
    resource.setrlimit(kind, (value, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(kind, before)


def test_an_entry_is_loaded_as_it_was_written(file: Path) -> None:
    crop, facts = cache.load(file)
    assert np.array_equal(crop.values, CROP.values)
    assert np.array_equal(crop.lesion, CROP.lesion)
    assert facts == FACTS
    again = file.read_bytes()
    cache.write(file, CROP, FACTS)
    assert file.read_bytes() == again


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
        assert cache.load(file) is None, position


def test_a_file_that_is_too_short_or_too_long_or_of_another_name_is_noticed(file: Path) -> None:
    whole = file.read_bytes()
    for content in (*(whole[:length] for length in range(len(whole))), whole + b"\0"):
        file.write_bytes(content)
        assert cache.load(file) is None
    file.write_bytes(whole)
    assert cache.load(file.rename(file.with_name("another.safetensors"))) is None


def test_loading_does_not_read_crops_into_memory(tmp_path: Path) -> None:
    crop = TrainingCrop(np.ones((512, 512, 16), np.float32), np.ones((512, 512, 16), bool))
    paths = [tmp_path / f"{number}.safetensors" for number in range(4)]
    for path in paths:
        cache.write(path, crop, {})
    before = resident_bytes()
    found = [cache.load(path)[0] for path in paths]
    assert resident_bytes() - before < 4 << 20  # of 80 MiB
    assert sum(float(one.values[..., 0].sum()) for one in found) == 4 * 512**2


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_no_room_on_the_disk_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    crop = TrainingCrop(np.zeros((64, 64, 64), np.float32), np.zeros((64, 64, 64), bool))
    with limit(resource.RLIMIT_FSIZE, 1 << 18), pytest.raises(OutputError, match="too large"):
        cache.write(tmp_path / "a.safetensors", crop, {})
    assert list(tmp_path.iterdir()) == []


def test_too_many_open_files_is_another_thing_than_damage(file: Path) -> None:
    with limit(resource.RLIMIT_NOFILE, 3), pytest.raises(DataError, match="ulimit -n"):
        cache.load(file)


PREPARATION = StudyPreparation(percentiles=(1.0, 50.0, 99.0), landmarks=(0.0, 30.0, 100.0))


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> list[CohortScan]:
    return cohorts.read(write_cohort(tmp_path_factory.mktemp("cohort"), subjects=4))


@pytest.fixture(scope="module")
def full(scans: list[CohortScan], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of the cohort, not to be changed."""
    settings = CacheSettings(tmp_path_factory.mktemp("full"))
    cache.standardise_scans(cache.crop_scans(scans, settings), PREPARATION, settings)
    return settings.folder


@pytest.fixture
def own(scans: list[CohortScan], tmp_path: Path) -> CohortScan:
    """A copy of a scan with its files, which a test may change."""
    files = {name: getattr(scans[1], name) for name in ("scan", "lesion_mask", "centerline")}
    return replace(
        scans[1],
        **{name: Path(shutil.copy(file, tmp_path / file.name)) for name, file in files.items()},
    )


def cut(scan: CohortScan, folder: Path, margin: int = 0) -> Path:
    """Put the crop of a scan into a cache, or take it from there; its file."""
    return cache.crop_scans([scan], CacheSettings(folder, margin))[0].file


def entries(folder: Path) -> dict[str, tuple[int, int]]:
    """Files of a cache by name, with what changes whenever one is written."""
    found = {path.name: path.stat() for path in folder.glob("[!.]*.safetensors")}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in found.items()}


@pytest.mark.parametrize("margin", [0, 3])
def test_what_comes_from_the_cache_is_what_is_cut(
    margin: int, scans: list[CohortScan], tmp_path: Path
) -> None:
    settings = CacheSettings(tmp_path, margin)
    cut = cache.crop_scans(scans, settings)
    found = cache.standardise_scans(cut, PREPARATION, settings)
    for scan, one, crop in zip(scans, cut, found, strict=True):
        raw, content = cache.crop_scan(scan, margin)
        assert np.array_equal(crop.values, prepare.standardise(raw.values, PREPARATION))
        assert np.array_equal(crop.lesion, raw.lesion)
        assert (crop.name, crop.margin) == (scan.name, margin)
        assert (one.content, one.seen) == (content, cache.seen_hash(raw))
        assert one.lesion_vox == raw.lesion.sum()
        measured = intensity.measure(prepare.stacked_patches(raw.values))
        assert one.percentiles == measured.tolist()
        for array in (crop.values, crop.lesion):  # mapped, and a patch lies in one piece
            assert type(array) is np.ndarray
            assert not array.flags.writeable
            assert array[:, :, 5:53].transpose(2, 0, 1).flags.c_contiguous


def test_a_second_training_makes_nothing_in_a_cache_that_may_be_read_only(
    full: Path, scans: list[CohortScan], caplog: pytest.LogCaptureFixture
) -> None:
    before, lock = entries(full), (full / LOCK).stat().st_mtime_ns
    told: list[tuple[int, int]] = []
    settings = CacheSettings(full, progress=lambda *now: told.append(now))
    full.chmod(0o500)
    caplog.set_level("INFO")
    cache.standardise_scans(cache.crop_scans(scans, settings), PREPARATION, settings)
    full.chmod(0o700)
    assert f"crops: 0 made, 4 taken from the cache {full}" in caplog.messages
    assert len(before) == 8
    assert entries(full) == before
    assert (full / LOCK).stat().st_mtime_ns == lock  # not even a lock was written
    assert told == []


def test_workers_make_the_same_and_tell_of_their_progress(
    full: Path, scans: list[CohortScan], tmp_path: Path
) -> None:
    told: list[tuple[int, int]] = []
    settings = CacheSettings(tmp_path, jobs=2, progress=lambda *now: told.append(now))
    cache.standardise_scans(cache.crop_scans(scans, settings), PREPARATION, settings)
    for path in full.glob("*.safetensors"):
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()
    assert told == 2 * [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize("damage", ["truncated", "of another scan"])
def test_a_damaged_entry_is_made_again_with_a_warning(
    damage: str,
    full: Path,
    scans: list[CohortScan],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = shutil.copytree(full, tmp_path / "cache")
    file, other = (cut(scan, folder) for scan in scans[:2])
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] if damage == "truncated" else other.read_bytes())
    assert cut(scans[0], folder) == file
    assert file.read_bytes() == whole
    assert caplog.messages == [f"{file}: damaged, it is made again"]


def test_a_crop_that_vanished_is_said(own: CohortScan, tmp_path: Path) -> None:
    settings = CacheSettings(tmp_path / "cache")
    found = cache.crop_scans([own], settings)
    found[0].file.unlink()
    with pytest.raises(DataError, match="let nobody clear the cache"):
        cache.standardise_scans(found, PREPARATION, settings)


def test_temporary_files_are_removed_when_nobody_can_be_writing_them(
    own: CohortScan, tmp_path: Path
) -> None:
    new, old = tmp_path / ".tmp-new", tmp_path / ".tmp-old"
    for file in (new, old):
        file.touch()
    os.utime(old, (time.time() - 1000,) * 2)
    cut(own, tmp_path)
    assert new.exists()
    assert not old.exists()


def test_another_process_at_the_cache_is_waited_for_but_not_for_ever(
    own: CohortScan,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(cache, "WAIT_SAID_AFTER_S", 0.05)
    monkeypatch.setattr(cache, "PATIENCE_S", 0.2)
    start = time.monotonic()
    its = tmp_path / ".tmp-its"
    its.touch()
    os.utime(its, (0, 0))
    with FileLock(tmp_path / LOCK), caplog.at_level(logging.INFO):
        assert cut(own, tmp_path).exists()
    assert time.monotonic() - start > 0.2
    assert f"another process is preparing scans in {tmp_path}, waiting" in caplog.messages
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warned) == 1
    assert "not waited for any longer: scans may be prepared twice" in warned[0]
    assert its.exists()


def test_without_a_lock_crops_are_made_all_the_same(own: CohortScan, tmp_path: Path) -> None:
    (tmp_path / LOCK).mkdir()
    assert cut(own, tmp_path).exists()


def test_more_scans_than_files_may_be_open_raise_the_limit(
    full: Path, scans: list[CohortScan]
) -> None:
    settings = CacheSettings(full)
    many = cache.crop_scans(scans, settings) * 100
    with limit(resource.RLIMIT_NOFILE, 300):
        kept = cache.standardise_scans(many, PREPARATION, settings)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 400
    assert len(kept) == 400


def test_the_same_content_under_another_name_is_there_already(
    own: CohortScan, full: Path, caplog: pytest.LogCaptureFixture
) -> None:
    renamed = replace(own, scan=own.scan.rename(own.scan.with_name("sub-XX_T2w.nii.gz")))
    caplog.set_level("INFO")
    cut(renamed, full)
    assert "crops: 0 made, 1 taken" in caplog.text


@pytest.mark.parametrize("changed", ["scan", "lesion_mask", "centerline"])
def test_a_changed_file_makes_another_entry(changed: str, own: CohortScan, tmp_path: Path) -> None:
    before = cut(own, tmp_path / "cache")
    image = nib.load(getattr(own, changed))
    moved = np.roll(np.asarray(image.dataobj), 1, axis=0)
    nib.save(nib.Nifti1Image(moved, image.affine), getattr(own, changed))
    assert cut(own, tmp_path / "cache") != before


def test_another_margin_and_other_landmarks_make_other_entries(
    own: CohortScan, tmp_path: Path
) -> None:
    settings = CacheSettings(tmp_path)
    other = PREPARATION.model_copy(update={"landmarks": (0.0, 31.0, 100.0)})
    crops = cache.crop_scans([own], settings)
    first, second, again = (
        cache.standardise_scans(crops, preparation, settings)[0].values
        for preparation in (PREPARATION, other, PREPARATION)
    )
    assert not np.array_equal(first, second)
    assert np.array_equal(first, again)
    cut(own, tmp_path, margin=1)
    assert len(entries(tmp_path)) == 4


def test_without_a_centerline_the_method_that_finds_one_makes_another_entry(
    own: CohortScan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = cut(own, tmp_path)
    image = nifti.read(own.scan)
    line = find.centerline(image.array, image.grid, file=own.centerline)
    monkeypatch.setattr(find, "detect", lambda *_: line)
    monkeypatch.delenv("SCT_DIR", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    found = cut(replace(own, centerline=None), tmp_path)
    monkeypatch.setattr(find, "identity", lambda: "another detector")
    assert len({given, found, cut(replace(own, centerline=None), tmp_path)}) == 3


def test_what_was_warned_of_is_said_with_every_training(
    own: CohortScan, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image = nib.load(own.centerline)
    line = np.asarray(image.dataobj).copy()
    line[:, :, 20] = 0
    nib.save(nib.Nifti1Image(line, image.affine), own.centerline)
    cut(own, tmp_path / "cache")
    said = f"{own.centerline.name}: 1 slices between others have no point; they are interpolated"
    assert caplog.messages == [said]
    cut(own, tmp_path / "cache")
    assert caplog.messages == [said, f"{own.scan.name}: {said}"]


def test_what_was_warned_of_in_several_scans_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scans = cohorts.read(write_cohort(tmp_path, subjects=3))
    for scan in scans[:2]:
        image = nib.load(scan.scan)
        values = np.asarray(image.dataobj).copy()
        values[:, :, 0] = 0
        nib.save(nib.Nifti1Image(values, image.affine), scan.scan)
    settings = CacheSettings(tmp_path / "cache")
    cache.crop_scans(scans, settings)
    assert len(caplog.messages) == 2
    said = f"{scans[0].scan.name}: {caplog.messages[0]} (and so in 1 more)"
    caplog.clear()
    cache.crop_scans(scans, settings)
    assert caplog.messages == [said]


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
    crop_scan = cache.crop_scan

    def touched(scan: CohortScan, margin: int) -> tuple[TrainingCrop, str]:
        own.lesion_mask.write_bytes(own.lesion_mask.read_bytes() + b"\0")
        return crop_scan(scan, margin)

    monkeypatch.setattr(cache, "crop_scan", touched)
    with pytest.raises(DataError, match="changed while it was read"):
        cut(own, tmp_path / "cache")
    assert entries(tmp_path / "cache") == {}


def test_a_file_in_place_of_the_cache_is_refused(scans: list[CohortScan], tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(OutputError, match="4 of 4 crops are not in this cache"):
        cache.crop_scans(scans, CacheSettings(tmp_path / "cache"))


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
    caplog.set_level("INFO")
    found = cache.crop_scans(scans, CacheSettings(folder))
    assert "crops: 2 made, 2 taken from the cache" in caplog.text
    assert finished.items() <= entries(folder).items()
    assert [one.seen for one in found] == [
        cache.seen_hash(cache.crop_scan(scan)[0]) for scan in scans
    ]
