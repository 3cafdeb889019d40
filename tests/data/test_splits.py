from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_cohort import write_cohort

from sct_lesion_losses.data import cohort, splits
from sct_lesion_losses.data.cohort import CohortScan
from sct_lesion_losses.data.splits import Rules
from sct_lesion_losses.errors import DataError


def made(loads: list[list[float]], sites: str = "A") -> tuple[list[CohortScan], dict[Path, float]]:
    """A cohort whose subject k has a scan per number in loads[k]."""
    scans, load = [], {}
    for k, own in enumerate(loads):
        for n, mm3 in enumerate(own):
            path = Path(f"sub-{k:03d}_ses-{n}_T2w.nii.gz")
            scans.append(CohortScan(path, path, f"sub-{k:03d}", site=sites[k % len(sites)]))
            load[path] = mm3
    return scans, load


cohorts = st.lists(
    st.lists(st.sampled_from([0.0, 10.0, 50.0, 300.0]), min_size=1, max_size=3),
    min_size=1,
    max_size=40,
)


@given(cohorts, st.integers(0, 3), st.sampled_from([0.0, 0.3, 1.0]))
def test_no_subject_is_in_two_parts(loads, seed, lesion_free):
    scans, load = made(loads)
    parts: dict[str, set[str]] = {}
    for scan in splits.assign(scans, load, Rules(seed, lesion_free)):
        parts.setdefault(scan.subject, set()).add(scan.split)
    assert all(len(own) == 1 for own in parts.values())


@given(cohorts)
def test_subjects_without_lesions_are_unseen(loads):
    scans, load = made(loads)
    assigned = splits.assign(scans, load)
    bearing = {scan.subject for scan in scans if load[scan.scan] > 0}
    assert all(scan.split == "unseen" for scan in assigned if scan.subject not in bearing)


def test_a_share_of_the_lesion_free_can_be_trained_on():
    scans, load = made([[0.0]] * 10)
    assigned = splits.assign(scans, load, Rules(lesion_free_in_training=0.3))
    assert splits.counts(assigned) == {
        "training": 3,
        "validation": 0,
        "thr-optimization": 0,
        "unseen": 7,
    }


def test_parts_have_the_shares_of_the_study():
    scans, load = made([[float(k + 1)] for k in range(115)])
    assert splits.counts(splits.assign(scans, load)) == {
        "training": 62,
        "validation": 13,
        "thr-optimization": 14,
        "unseen": 26,
    }


def test_parts_are_balanced_for_lesion_load():
    scans, load = made([[float(k + 1)] for k in range(115)])
    for part in cohort.SPLITS:
        own = [load[s.scan] for s in splits.part(splits.assign(scans, load), part)]
        # Loads run evenly from 1 to 115: the mean of every part is near 58.
        assert 48 < sum(own) / len(own) < 68


def test_held_out_sites_are_unseen():
    scans, load = made([[10.0]] * 40, sites="ABCD")
    assigned = splits.assign(scans, load, Rules(unseen_sites=("C",)))
    assert {s.split for s in assigned if s.site == "C"} == {"unseen"}
    assert any(s.split == "training" for s in assigned if s.site == "A")


def test_the_order_of_the_scans_changes_nothing():
    scans, load = made([[float(k % 7)] for k in range(40)])
    forward = {s.scan: s.split for s in splits.assign(scans, load)}
    backward = {s.scan: s.split for s in splits.assign(scans[::-1], load)}
    assert forward == backward


def test_the_seed_changes_the_split():
    scans, load = made([[float(k + 1)] for k in range(40)])
    one, two = (splits.assign(scans, load, Rules(seed)) for seed in (1, 2))
    assert one != two


def test_loads_come_from_the_masks(tmp_path):
    scans = splits.of(cohort.read(write_cohort(tmp_path, subjects=3)))
    assert [scan.split for scan in scans] == ["unseen", "training", "validation"]


def test_a_split_in_the_table_is_kept():
    scans, _ = made([[1.0], [1.0]])
    given_ = [replace(scans[0], split="unseen"), replace(scans[1], split="training")]
    assert splits.of(given_) == given_


def test_a_split_of_some_scans_only_is_refused():
    scans, _ = made([[1.0], [1.0]])
    with pytest.raises(DataError, match="1 of 2 scans have no split"):
        splits.of([replace(scans[0], split="unseen"), scans[1]])


def test_a_subject_in_two_parts_is_refused():
    scans, _ = made([[1.0, 1.0]])
    with pytest.raises(DataError, match="subject sub-000 is in unseen and in training"):
        splits.of([replace(scans[0], split="unseen"), replace(scans[1], split="training")])


def test_hash_depends_on_contents_and_parts_and_on_nothing_else():
    scans, _ = made([[1.0], [2.0], [3.0]])
    assigned = [replace(s, split="training") for s in scans]
    hashes = {s.scan: str(k) for k, s in enumerate(assigned)}
    known = splits.split_hash(assigned, hashes)
    assert splits.split_hash(assigned[::-1], hashes) == known
    moved = [replace(assigned[0], split="unseen"), *assigned[1:]]
    assert splits.split_hash(moved, hashes) != known


def test_a_share_out_of_range_is_refused():
    with pytest.raises(DataError, match="expected 0 to 1"):
        splits.assign(*made([[1.0]]), Rules(lesion_free_in_training=2))


@given(st.integers(4, 30), st.integers(0, 20))
def test_four_subjects_with_lesions_leave_no_part_empty(subjects, seed):
    scans, load = made([[10.0]] * subjects)
    assert all(splits.counts(splits.assign(scans, load, Rules(seed))).values())


@pytest.mark.parametrize(
    ("subjects", "parts"),
    [(1, {"training"}), (2, {"training", "validation"}),
     (3, {"training", "validation", "thr-optimization"})],
)  # fmt: skip
def test_fewer_subjects_are_for_training_first(subjects, parts):
    scans, load = made([[10.0]] * subjects)
    assert {scan.split for scan in splits.assign(scans, load)} == parts


def test_an_unseen_site_that_nobody_is_from_is_refused():
    scans, load = made([[10.0]] * 8, sites="AB")
    with pytest.raises(DataError, match="unseen site C; the cohort's sites: A, B"):
        splits.assign(scans, load, Rules(unseen_sites=("A", "C")))


def test_rules_for_a_split_that_the_table_holds_are_refused():
    scans = [replace(scan, split="training") for scan in made([[1.0], [1.0]])[0]]
    with pytest.raises(DataError, match="table holds a split"):
        splits.of(scans, Rules(seed=4))
