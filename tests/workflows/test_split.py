import os
from dataclasses import replace
from pathlib import Path

import pytest
from small_data import write_cohort

from sct_lesion_losses.cohorts import splits
from sct_lesion_losses.cohorts import table as cohorts
from sct_lesion_losses.cohorts.splits import LesionLoad, PartLoad, Rules
from sct_lesion_losses.errors import DataError, ImageError, OutputError, UsageError
from sct_lesion_losses.report.figures import split as split_figure
from sct_lesion_losses.workflows import split


@pytest.fixture
def damaged(tmp_path) -> Path:
    """A cohort whose masks cannot be read."""
    data = write_cohort(tmp_path / "data", subjects=4)
    for scan in cohorts.read(data):
        scan.lesion_mask.write_bytes(b"")
    return data


@pytest.fixture
def table(tmp_path) -> Path:
    return tmp_path / "out" / "split.tsv"


def drawn(cohort: Path, table: Path, **rest: object) -> Path:
    """Split, with a picture beside the table."""
    return split.split(cohort, table, figures=[table.with_suffix(".png")], **rest)


def test_the_table_is_the_split_that_training_would_make(cohort, table):
    written = cohorts.read(split.split(cohort, table, Rules(seed=3)))
    expected = splits.of(cohorts.read(cohort), Rules(seed=3))
    assert [(s.name, s.split) for s in written] == [(s.name, s.split) for s in expected]
    assert splits.of(written) == written


def test_the_table_holds_the_load_of_every_scan(cohort, table):
    split.split(cohort, table)
    rows = [line.split("\t")[6:] for line in table.read_text().splitlines()]
    # A block of 8 x 8 x 16 voxels of 0.125 mm3.
    assert rows == [["lesions", "lesion_volume_mm3"], *[["0", "0"]] * 2, *[["1", "128"]] * 6]


def test_another_cohort_is_tuned_on_and_leaves_the_split_as_it_is(cohort, table, tmp_path):
    fresh = write_cohort(tmp_path / "data", subjects=4, seed=1)
    alone = cohorts.read(split.split(cohort, table.with_name("alone.tsv")))
    joined = cohorts.read(split.split(cohort, table, tuning=fresh))
    # Its subjects are called alike, and some of the cohort are trained on.
    added = [scan for scan in joined if scan.subject.startswith("data/")]
    assert [scan for scan in joined if scan not in added] == alone
    assert [(scan.name, scan.split) for scan in added] == [
        (scan.name, "thr-optimization") for scan in cohorts.read(fresh)
    ]
    assert splits.of(joined) == joined
    with pytest.raises(DataError, match=r"sub-001_T2w\.nii\.gz is in both cohorts"):
        split.split(cohort, tmp_path / "no.tsv", tuning=cohort)
    assert not (tmp_path / "no.tsv").exists()


def test_what_each_part_holds_is_told(cohort, table, caplog):
    caplog.set_level("INFO")
    split.split(cohort, table)
    one = "1 scan of 1 subject from 1 site, 0 without lesions"
    load = "in the others a median of 1 lesion and 128 mm³"
    assert caplog.messages[1:] == [
        f"validation: {one}; {load}",
        f"thr-optimization: {one}; {load}",
        f"unseen: 3 scans of 3 subjects from 2 sites, 2 without lesions; {load}",
    ]


def test_a_part_without_lesions_has_no_median():
    part = PartLoad("unseen", subjects=1, sites=0, loads=(LesionLoad(0, 0.0),) * 2)
    assert split.described(part) == "unseen: 2 scans of 1 subject, 2 without lesions"
    assert split.described(replace(part, loads=())) == "unseen: no scan"


def test_one_subject_is_for_training_and_the_empty_parts_are_named(table, tmp_path, caplog):
    data = write_cohort(tmp_path / "data", subjects=1, lesion_free=0)
    assert [scan.split for scan in cohorts.read(drawn(data, table))] == ["training"]
    assert "no scan with lesions in validation, thr-optimization, unseen" in caplog.text


def test_files_that_are_there_are_not_lost_and_an_earlier_picture_is_named(
    cohort, tmp_path, caplog
):
    table, picture = tmp_path / "split.tsv", tmp_path / "split.png"
    table.write_text("mine")
    with pytest.raises(OutputError, match=r"split\.tsv is there already.*-force 1"):
        split.split(cohort, table)
    table.rename(picture)
    with pytest.raises(OutputError, match=r"split\.png is there already.*-force 1"):
        drawn(cohort, table)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]
    split.split(cohort, table)
    assert "split.png is a picture of an earlier split" in caplog.text


def test_a_split_that_the_cohort_has_is_replaced_only_on_demand(cohort, tmp_path):
    first = split.split(cohort, tmp_path / "first.tsv", Rules(seed=1))
    with pytest.raises(DataError, match=r"8 of its 8 scans have a split already.*-resplit 1"):
        split.split(first, tmp_path / "second.tsv", force=True)
    second = split.split(first, tmp_path / "second.tsv", resplit=True)
    assert second.read_text() == split.split(cohort, tmp_path / "third.tsv").read_text()


def test_the_table_of_the_cohort_is_not_overwritten(cohort, tmp_path):
    table = split.split(cohort, tmp_path / "cohort.tsv")
    (tmp_path / "link.tsv").symlink_to(table)
    for name in ("cohort.tsv", "link.tsv"):
        with pytest.raises(UsageError, match="the cohort's own table"):
            split.split(table, tmp_path / name, resplit=True, force=True)


@pytest.mark.parametrize(
    ("name", "rules", "error", "said"),
    [
        *((name, Rules(), UsageError, r"ends in \.tsv") for name in ("a.txt", "a.png", "a")),
        ("split.tsv", Rules(unseen_sites=("X",)), DataError, "unseen site X"),
        ("split.tsv", Rules(0, 0.6, 0.6), DataError, "more than 1 together"),
        ("taken/split.tsv", Rules(), OutputError, "taken is not a folder"),
        ("folder.tsv", Rules(), OutputError, "is a folder"),
        pytest.param(
            *("locked/split.tsv", Rules(), OutputError, "cannot write here"),
            marks=pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere"),
        ),
    ],
)
def test_what_cannot_end_well_is_refused_before_a_mask_is_read(
    name, rules, error, said, damaged, tmp_path
):
    (tmp_path / "taken").touch()
    (tmp_path / "folder.tsv").mkdir()
    (tmp_path / "locked").mkdir(mode=0o555)
    with pytest.raises(error, match=said):
        split.split(damaged, tmp_path / name, rules)


def test_masks_that_cannot_be_read_or_hold_no_lesion_are_named_and_nothing_written(
    damaged, table, tmp_path
):
    with pytest.raises(ImageError, match=r"^lesion mask of sub-001_T2w\.nii\.gz: "):
        drawn(damaged, table)
    data = write_cohort(tmp_path / "free", subjects=3, lesion_free=3)
    with pytest.raises(DataError, match="no mask of its 3 scans holds a lesion"):
        drawn(data, table)
    assert not table.parent.exists()


@pytest.mark.parametrize(
    ("module", "function", "error"),
    [
        (split_figure, "_row", OSError(28, "no space left on device")),
        (cohorts, "write", OutputError("no space left on device")),
    ],
    ids=["picture", "table"],
)
def test_a_picture_or_a_table_that_fails_leaves_nothing(
    module, function, error, cohort, tmp_path, monkeypatch
):
    def full(*_: object) -> None:
        raise error

    monkeypatch.setattr(module, function, full)
    with pytest.raises(OutputError, match="no space left on device"):
        drawn(cohort, tmp_path / "split.tsv")
    assert list(tmp_path.iterdir()) == []
