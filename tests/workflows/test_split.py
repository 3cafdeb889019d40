from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from small_data import write_cohort

from sct_lesion_losses.cohorts import splits
from sct_lesion_losses.cohorts import table as cohorts
from sct_lesion_losses.cohorts.splits import LesionLoad, PartLoad, Rules
from sct_lesion_losses.errors import DataError, ImageError, OutputError, UsageError
from sct_lesion_losses.report.figures import split as split_figure
from sct_lesion_losses.workflows import split


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cohort(tmp_path_factory.mktemp("cohort"), subjects=8, lesion_free=2)


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """A cohort that a test may damage."""
    return write_cohort(tmp_path / "data", subjects=4)


def test_the_table_is_the_split_that_training_would_make(cohort: Path, tmp_path: Path) -> None:
    table = split.split(cohort, tmp_path / "split.tsv", Rules(seed=3))
    written = cohorts.read(table)
    expected = splits.of(cohorts.read(cohort), Rules(seed=3))
    assert [(s.name, s.split) for s in written] == [(s.name, s.split) for s in expected]
    assert splits.of(written) == written


def test_the_table_holds_the_load_of_every_scan(cohort: Path, tmp_path: Path) -> None:
    table = split.split(cohort, tmp_path / "split.tsv")
    rows = [line.split("\t")[6:] for line in table.read_text().splitlines()]
    # A block of 8 x 8 x 16 voxels of 0.125 mm3.
    assert rows == [["lesions", "lesion_volume_mm3"], *[["0", "0"]] * 2, *[["1", "128"]] * 6]


def test_the_same_cohort_gives_the_same_bytes(cohort: Path, tmp_path: Path) -> None:
    table = split.split(cohort, tmp_path / "split.tsv", picture=True)
    before = table.read_bytes(), table.with_suffix(".png").read_bytes()
    split.split(cohort, table, picture=True, force=True)
    assert (table.read_bytes(), table.with_suffix(".png").read_bytes()) == before


def test_shares_of_the_lesion_free_go_to_training_and_tuning(cohort: Path, tmp_path: Path) -> None:
    table = split.split(cohort, tmp_path / "split.tsv", Rules(0, 0.5, 0.5))
    free = [s.split for s in cohorts.read(table) if s.subject in ("sub-001", "sub-002")]
    assert sorted(free) == ["thr-optimization", "training"]


def test_another_cohort_is_tuned_on_and_leaves_the_split_as_it_is(
    cohort: Path, tmp_path: Path
) -> None:
    fresh = write_cohort(tmp_path / "data", subjects=4, seed=1)
    alone = cohorts.read(split.split(cohort, tmp_path / "alone.tsv"))
    joined = cohorts.read(split.split(cohort, tmp_path / "joined.tsv", tuning=fresh))
    # Its subjects are called alike, and some of the cohort are trained on.
    added = [s for s in joined if s.subject.startswith("data/")]
    assert [s for s in joined if s not in added] == alone
    assert [(s.name, s.split) for s in added] == [
        (s.name, "thr-optimization") for s in cohorts.read(fresh)
    ]
    assert splits.of(joined) == joined


def test_a_scan_is_not_tuned_on_that_the_cohort_holds(cohort: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"sub-001_T2w\.nii\.gz is in both cohorts"):
        split.split(cohort, tmp_path / "split.tsv", tuning=cohort)
    assert not list(tmp_path.iterdir())


def test_what_each_part_holds_is_told(
    cohort: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        split.split(cohort, tmp_path / "split.tsv")
    assert caplog.messages[1:] == [
        "validation: 1 scan of 1 subject from 1 site, 0 without lesions; in the others a median "
        "of 1 lesion and 128 mm³",
        "thr-optimization: 1 scan of 1 subject from 1 site, 0 without lesions; in the others a "
        "median of 1 lesion and 128 mm³",
        "unseen: 3 scans of 3 subjects from 2 sites, 2 without lesions; in the others a median "
        "of 1 lesion and 128 mm³",
    ]


def test_a_part_without_lesions_has_no_median() -> None:
    part = PartLoad("unseen", subjects=1, sites=0, loads=(LesionLoad(0, 0.0),) * 2)
    assert split.sentence(part) == "unseen: 2 scans of 1 subject, 2 without lesions"
    assert split.sentence(replace(part, loads=())) == "unseen: no scan"


def test_one_subject_is_for_training_and_the_empty_parts_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = write_cohort(tmp_path / "data", subjects=1, lesion_free=0)
    table = split.split(data, tmp_path / "split.tsv", picture=True)
    assert [scan.split for scan in cohorts.read(table)] == ["training"]
    assert "no scan with lesions in validation, thr-optimization, unseen" in caplog.text


def test_files_that_are_there_are_not_lost(cohort: Path, tmp_path: Path) -> None:
    table, picture = tmp_path / "split.tsv", tmp_path / "split.png"
    table.write_text("mine")
    with pytest.raises(OutputError, match=r"split\.tsv is there already.*-force 1"):
        split.split(cohort, table)
    table.rename(picture)
    with pytest.raises(OutputError, match=r"split\.png is there already.*-force 1"):
        split.split(cohort, table, picture=True)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


def test_a_picture_of_an_earlier_split_is_named(
    cohort: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "split.png").touch()
    split.split(cohort, tmp_path / "split.tsv")
    assert "split.png is a picture of an earlier split" in caplog.text


def test_a_split_that_the_cohort_has_is_replaced_only_on_demand(
    cohort: Path, tmp_path: Path
) -> None:
    first = split.split(cohort, tmp_path / "first.tsv", Rules(seed=1))
    with pytest.raises(DataError, match=r"8 of its 8 scans have a split already.*-resplit 1"):
        split.split(first, tmp_path / "second.tsv", force=True)
    second = split.split(first, tmp_path / "second.tsv", resplit=True)
    assert second.read_text() == split.split(cohort, tmp_path / "third.tsv").read_text()


@pytest.mark.parametrize("name", ["split.txt", "split.png", "split"])
def test_a_table_is_called_tsv(name: str, cohort: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ends in \.tsv"):
        split.split(cohort, tmp_path / name)


def test_the_table_of_the_cohort_is_not_overwritten(cohort: Path, tmp_path: Path) -> None:
    table = split.split(cohort, tmp_path / "cohort.tsv")
    (tmp_path / "link.tsv").symlink_to(table)
    for name in ("cohort.tsv", "link.tsv"):
        with pytest.raises(UsageError, match="the cohort's own table"):
            split.split(table, tmp_path / name, resplit=True, force=True)


def unreadable(scans: list[cohorts.CohortScan]) -> None:
    for scan in scans:
        scan.lesion_mask.write_bytes(b"")


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"rules": Rules(unseen_sites=("X",))}, DataError, "unseen site X"),
        ({"rules": Rules(0, 0.6, 0.6)}, DataError, "more than 1 together"),
        ({"table": "taken/split.tsv"}, OutputError, "taken is not a folder"),
        ({"table": "folder.tsv"}, OutputError, "is a folder"),
    ],
)
def test_what_cannot_end_well_is_refused_before_a_mask_is_read(
    settings: dict[str, Any], error: type[Exception], said: str, fresh: Path, tmp_path: Path
) -> None:
    unreadable(cohorts.read(fresh))
    (tmp_path / "taken").touch()
    (tmp_path / "folder.tsv").mkdir()
    table = tmp_path / settings.get("table", "split.tsv")
    with pytest.raises(error, match=said):
        split.split(fresh, table, settings.get("rules", Rules()))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_refused_before_a_mask_is_read(
    fresh: Path, tmp_path: Path
) -> None:
    unreadable(cohorts.read(fresh))
    (tmp_path / "locked").mkdir(mode=0o555)
    with pytest.raises(OutputError, match="cannot write here"):
        split.split(fresh, tmp_path / "locked" / "split.tsv")


def test_a_mask_that_cannot_be_read_is_named_and_nothing_written(
    fresh: Path, tmp_path: Path
) -> None:
    unreadable(cohorts.read(fresh)[2:3])
    with pytest.raises(ImageError, match=r"^lesion mask of sub-003_T2w\.nii\.gz: "):
        split.split(fresh, tmp_path / "out" / "split.tsv", picture=True)
    assert not (tmp_path / "out").exists()


def test_a_cohort_without_any_lesion_is_refused(tmp_path: Path) -> None:
    data = write_cohort(tmp_path / "data", subjects=3, lesion_free=3)
    with pytest.raises(DataError, match="no mask of its 3 scans holds a lesion"):
        split.split(data, tmp_path / "split.tsv")


def test_a_picture_that_fails_leaves_nothing(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(split_figure, "_row", full)
    with pytest.raises(OutputError, match="No space left on device"):
        split.split(cohort, tmp_path / "split.tsv", picture=True)
    assert list(tmp_path.iterdir()) == []


def test_a_table_that_fails_leaves_no_picture(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OutputError("no space left on device")

    monkeypatch.setattr(cohorts, "write", full)
    with pytest.raises(OutputError, match="no space left on device"):
        split.split(cohort, tmp_path / "split.tsv", picture=True)
    assert list(tmp_path.iterdir()) == []


def test_a_subject_keeps_its_lesion_free_scans_beside_it(tmp_path: Path) -> None:
    data = write_cohort(tmp_path / "data", subjects=5, lesion_free=1)
    scans = [replace(s, subject=s.subject.replace("001", "002")) for s in cohorts.read(data)]
    cohorts.write(scans, tmp_path / "cohort.tsv")
    written = cohorts.read(split.split(tmp_path / "cohort.tsv", tmp_path / "split.tsv"))
    assert written[0].split == written[1].split
    mask = np.asarray(nib.load(written[0].lesion_mask).dataobj)
    assert not mask.any()
