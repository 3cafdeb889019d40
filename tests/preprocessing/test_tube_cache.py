from __future__ import annotations

import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tube_cache_process
from small_cohort import write_cohort

from sct_lesion_losses.centerline import find
from sct_lesion_losses.cohorts import table as cohorts
from sct_lesion_losses.cohorts.table import CohortScan
from sct_lesion_losses.errors import DataError, ImageError, OutputError, UsageError
from sct_lesion_losses.images import nifti
from sct_lesion_losses.preprocessing import cache, intensity
from sct_lesion_losses.preprocessing import cache as caches
from sct_lesion_losses.preprocessing import scan as prepare
from sct_lesion_losses.preprocessing.cache import Workshop
from sct_lesion_losses.preprocessing.intensity import Landmarks
from sct_lesion_losses.preprocessing.sampler import TrainingTube

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
    return cache.cut([scan], Workshop(folder, margin))[0].key


def entries(folder: Path) -> dict[str, tuple[int, int]]:
    """Files of a cache by name, with what changes whenever one is written."""
    found = {path.name: path.stat() for path in folder.glob("[!.]*.safetensors")}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in found.items()}


@pytest.mark.parametrize("margin", [0, 3])
def test_what_comes_from_the_cache_is_what_is_cut(
    margin: int, scans: list[CohortScan], tmp_path: Path
) -> None:
    workshop = Workshop(tmp_path, margin)
    cut = cache.cut(scans, workshop)
    found = cache.standardised(cut, LANDMARKS, workshop)
    for scan, one, tube in zip(scans, cut, found, strict=True):
        raw, content = cache.crop_scan(scan, margin)
        expected = prepare.standardise(raw.values, LANDMARKS, margin)
        assert np.array_equal(tube.values, expected)
        assert np.array_equal(tube.lesion, raw.lesion)
        assert (tube.name, tube.margin) == (scan.name, margin)
        assert (one.content, one.seen) == (content, cache.seen_hash(raw))
        assert one.lesion_vox == raw.lesion.sum()
        patches = prepare.stacked_patches(prepare.inner(raw.values, margin))
        assert intensity.average([one.percentiles]) == intensity.fit([patches])


def test_tubes_are_mapped_and_a_patch_lies_in_one_piece(
    scans: list[CohortScan], tmp_path: Path
) -> None:
    workshop = Workshop(tmp_path)
    tube = cache.standardised(cache.cut(scans[:1], workshop), LANDMARKS, workshop)[0]
    for array in (tube.values, tube.lesion):
        assert type(array) is np.ndarray
        assert not array.flags.writeable
        assert array[:, :, 5:53].transpose(2, 0, 1).flags.c_contiguous


def test_a_second_training_makes_nothing(
    scans: list[CohortScan], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = cache.cut(scans, Workshop(tmp_path / "cache"))
    before = entries(tmp_path / "cache")
    told: list[tuple[int, int]] = []
    workshop = Workshop(tmp_path / "cache", progress=lambda *now: told.append(now))
    with caplog.at_level(logging.INFO):
        assert cache.cut(scans, workshop) == first
    assert f"tubes: 0 cut, 4 taken from the cache {tmp_path / 'cache'}" in caplog.messages
    assert entries(tmp_path / "cache") == before
    assert told == []


def test_workers_make_the_same_and_tell_of_their_progress(
    scans: list[CohortScan], tmp_path: Path
) -> None:
    told: list[tuple[int, int]] = []
    found = []
    for jobs in (1, 2):
        folder = tmp_path / str(jobs)
        workshop = Workshop(folder, 2, jobs, lambda *now: told.append(now))
        cut = cache.cut(scans, workshop)
        cache.standardised(cut, LANDMARKS, workshop)
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
    assert "tubes: 0 cut, 1 taken" in caplog.text


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
    cut = cache.cut([own], Workshop(tmp_path))
    other = replace(LANDMARKS, values=(0.0, 31.0, 100.0))
    first, second, again = (
        cache.standardised(cut, landmarks, Workshop(tmp_path))[0].values
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
        cache.cut([scans[0], own], Workshop(tmp_path / "cache", jobs=jobs))
    assert len(entries(tmp_path / "cache")) == 1


def test_a_file_that_changes_while_it_is_read_is_refused(
    own: CohortScan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = cache.crop_scan

    def touched(scan: CohortScan, margin: int) -> tuple[TrainingTube, str]:
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
    cache.standardised(cache.cut(scans, Workshop(folder)), LANDMARKS, Workshop(folder))
    folder.chmod(0o500)
    before = folder.stat().st_mtime_ns, (folder / caches.LOCKS).stat().st_mtime_ns
    cut = cache.cut(scans, Workshop(folder))
    cache.standardised(cut, LANDMARKS, Workshop(folder))
    # Nothing was written in passing, not even a lock.
    assert before == (folder.stat().st_mtime_ns, (folder / caches.LOCKS).stat().st_mtime_ns)
    folder.chmod(0o700)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_cache_that_lacks_a_scan_and_cannot_be_written_is_refused(
    scans: list[CohortScan], tmp_path: Path
) -> None:
    cache.cut(scans[:1], Workshop(tmp_path))
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="3 of 4 tubes are not in this cache"):
        cache.cut(scans, Workshop(tmp_path))
    tmp_path.chmod(0o700)


def test_a_file_in_place_of_the_cache_is_refused(scans: list[CohortScan], tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(OutputError, match="4 of 4 tubes are not in this cache"):
        cache.cut(scans, Workshop(tmp_path / "cache"))


def test_jobs_start_at_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="received 0 jobs"):
        Workshop(tmp_path, jobs=0)


def waiting(scans: list[CohortScan], folder: Path, *hang: str) -> subprocess.Popen[str]:
    """A process that will cut the tubes of the cohort, once it is told to go."""
    cohort = scans[0].scan.parents[2]
    return subprocess.Popen(
        [sys.executable, tube_cache_process.__file__, str(cohort), str(folder), *hang],
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
    assert sum(int(re.search(r"tubes: (\d+) cut", err)[1]) for _, err in ended) == 4
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
        found = cache.cut(scans, Workshop(folder))
    assert "tubes: 2 cut, 2 taken from the cache" in caplog.text
    assert finished.items() <= entries(folder).items()
    assert [one.seen for one in found] == [
        cache.seen_hash(cache.crop_scan(scan)[0]) for scan in scans
    ]
    assert not list(folder.glob(".tmp-*"))
