import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_data import write_cohort

from sct_lesion_losses.cohorts import splits, table
from sct_lesion_losses.cohorts.splits import LesionLoad, Rules
from sct_lesion_losses.cohorts.table import CohortScan
from sct_lesion_losses.errors import DataError, ImageError
from sct_lesion_losses.phantom.cohort import scans_of
from sct_lesion_losses.phantom.scan import has_lesions
from sct_lesion_losses.phantom.sites import SITES


def made(
    loads: list[list[float]], sites: Sequence[str] = "A"
) -> tuple[list[CohortScan], dict[Path, float]]:
    """A cohort whose subject k has a scan per number in loads[k]; the sites take turns."""
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
def test_no_subject_is_in_two_parts_and_those_without_lesions_are_unseen(loads, seed, lesion_free):
    scans, load = made(loads)
    assigned = splits.assign(scans, load, Rules(seed, lesion_free))
    parts = {(scan.subject, scan.split) for scan in assigned}
    assert len(parts) == len({scan.subject for scan in scans})
    if lesion_free == 0:
        bearing = {scan.subject for scan in scans if load[scan.scan] > 0}
        assert {part for subject, part in parts if subject not in bearing} <= {"unseen"}


def test_shares_of_the_lesion_free_can_be_trained_and_tuned_on():
    scans, load = made([[0.0]] * 10)
    one = splits.assign(scans, load, Rules(lesion_free_in_training=0.3))
    both = splits.assign(scans, load, Rules(lesion_free_in_training=0.3, lesion_free_in_tuning=0.4))
    assert list(splits.counts(one).values()) == [3, 0, 0, 7]
    assert list(splits.counts(both).values()) == [3, 0, 4, 3]
    assert splits.part(both, "training") == splits.part(one, "training")


@given(st.integers(0, 30), st.integers(0, 10))
def test_two_shares_that_make_1_leave_nobody_unseen(subjects, tenths):
    scans, load = made([[0.0]] * subjects)
    rules = Rules(0, tenths / 10, 1 - tenths / 10)
    assert splits.counts(splits.assign(scans, load, rules))["unseen"] == 0


def test_the_lesion_free_come_from_every_site_in_proportion():
    # 10 subjects each of A, B, C and D: 8 to train on and 12 to tune on are 2 and 3 of each.
    scans, load = made([[0.0]] * 40, sites="ABCD")
    assigned = splits.assign(scans, load, Rules(3, 0.2, 0.3))
    for part, expected in (("training", 2), ("thr-optimization", 3), ("unseen", 5)):
        own = [scan.site for scan in splits.part(assigned, part)]
        assert [own.count(site) for site in "ABCD"] == [expected] * 4


def test_parts_have_the_shares_of_the_study_and_are_balanced_for_lesion_load():
    scans, load = made([[float(k + 1)] for k in range(115)])
    assigned = splits.assign(scans, load)
    assert splits.counts(assigned) == splits.SHARES
    for part in table.SPLITS:
        own = [load[scan.scan] for scan in splits.part(assigned, part)]
        # Loads run evenly from 1 to 115: the mean of every part is near 58.
        assert 48 < sum(own) / len(own) < 68


def test_held_out_sites_are_unseen():
    scans, load = made([[10.0]] * 40, sites="ABCD")
    assigned = splits.assign(scans, load, Rules(unseen_sites=("C",)))
    assert {s.split for s in assigned if s.site == "C"} == {"unseen"}
    assert any(s.split == "training" for s in assigned if s.site == "A")


@given(cohorts, st.integers(0, 3), st.randoms(use_true_random=False))
def test_the_order_of_the_scans_changes_nothing(loads, seed, shuffler):
    # Loads whose sum depends on its order: (0.1 + 0.2) + 0.3 > 0.1 + (0.2 + 0.3).
    mm3 = {0.0: 0.0, 10.0: 0.1, 50.0: 0.2, 300.0: 0.3}
    scans, load = made([[mm3[value] for value in own] for own in loads], sites="AABC")
    rules = Rules(seed, 0.2, 0.3)
    known = {s.scan: s.split for s in splits.assign(scans, load, rules)}
    shuffler.shuffle(scans)
    assert {s.scan: s.split for s in splits.assign(scans, load, rules)} == known


def test_the_split_of_a_seed_stays_what_it_is():
    scans, load = made([[float(max(k - 3, 0))] for k in range(20)])
    assigned = splits.assign(scans, load, Rules(seed=7, lesion_free_in_training=0.5))
    assert [scan.split[0] for scan in assigned] == list("tuuttttutvutttttvtut")


@given(
    st.lists(st.lists(st.sampled_from([0.0, 10.0, 50.0]), max_size=2), min_size=8, max_size=60),
    st.integers(0, 5),
)
def test_parts_are_within_the_scans_of_one_subject_of_their_shares(loads, seed):
    scans, load = made([[300.0, *own] for own in loads], sites="ABC")
    bearing = [scan for scan in splits.assign(scans, load, Rules(seed)) if load[scan.scan] > 0]
    largest = max(sum(s.subject == scan.subject for s in bearing) for scan in bearing)
    counts = splits.counts(bearing)
    for part, share in splits.SHARES.items():
        assert abs(counts[part] - len(bearing) * share / 115) <= largest


def imbalance(assigned: list[CohortScan], sites: dict[str, str], load: dict[Path, float]) -> float:
    """Sum over parts and sites of squared scans with lesions beyond or below the share."""
    bearing = [scan for scan in assigned if load[scan.scan] > 0]
    total = 0.0
    for site in set(sites.values()):
        own = [scan.split for scan in bearing if sites[scan.subject] == site]
        for part, share in splits.SHARES.items():
            total += (own.count(part) - len(own) * share / 115) ** 2
    return total


@given(cohorts, st.integers(1, 6), st.integers(0, 3))
def test_knowing_the_sites_leaves_the_sizes_of_the_parts_and_their_shares_no_worse(
    loads, n_sites, seed
):
    scans, load = made(loads, sites="ABCDEF"[:n_sites])
    sites = {scan.subject: scan.site for scan in scans}
    blind = splits.assign([replace(scan, site="") for scan in scans], load, Rules(seed))
    aware = splits.assign(scans, load, Rules(seed))
    assert imbalance(aware, sites, load) <= imbalance(blind, sites, load) + 1e-6
    counts = [splits.counts([s for s in some if load[s.scan] > 0]) for some in (aware, blind)]
    assert counts[0] == counts[1]


def study(seed: int) -> tuple[list[CohortScan], dict[Path, float]]:
    """Subjects, scans and sites of the simulated study, with loads as wide as patients'."""
    rng = np.random.default_rng(seed)
    loads = [
        list(rng.lognormal(5, 1) * has_lesions(seed, k) * rng.lognormal(0, 0.3, len(scans_of(k))))
        for k in range(108)
    ]
    return made(loads, sites=[SITES[(k + seed) % len(SITES)].name for k in range(len(SITES))])


@pytest.mark.parametrize("seed", range(5))
def test_the_cohort_of_the_study_is_balanced_for_load_and_site(seed):
    scans, load = study(seed)
    assigned = splits.assign(scans, load, Rules(seed))
    bearing = [scan for scan in assigned if load[scan.scan] > 0]
    counts = splits.counts(bearing)
    for part, share in splits.SHARES.items():
        assert abs(counts[part] - len(bearing) * share / 115) < 2
    medians = [median(load[s.scan] for s in splits.part(bearing, part)) for part in table.SPLITS]
    assert max(medians) < 2 * min(medians)
    subjects = {scan.subject: scan for scan in bearing}.values()
    sites = [scan.site for scan in subjects]
    trained = {scan.site for scan in splits.part(bearing, "training")}
    assert trained >= {site for site in sites if sites.count(site) >= 4}
    # Subjects have one or two scans, so that a site may lack or exceed its share by two of them.
    for site in set(sites):
        own = [scan for scan in bearing if scan.site == site]
        for part, share in splits.SHARES.items():
            assert abs(splits.counts(own)[part] - len(own) * share / 115) < 2


def test_the_seed_changes_the_split():
    scans, load = made([[float(k + 1)] for k in range(40)])
    assert splits.assign(scans, load, Rules(1)) != splits.assign(scans, load, Rules(2))


def test_loads_come_from_the_masks(tmp_path):
    scans = splits.of(table.read(write_cohort(tmp_path, subjects=3)))
    assert [scan.split for scan in scans] == ["unseen", "training", "validation"]


def test_a_split_in_the_table_is_kept():
    scans, _ = made([[1.0], [1.0]])
    given_ = [replace(scans[0], split="unseen"), replace(scans[1], split="training")]
    assert splits.of(given_) == given_


@pytest.mark.parametrize(
    ("parts", "subjects", "rules", "said"),
    [
        (("unseen", ""), 2, Rules(), "1 of 2 scans have no split"),
        (("unseen", "training"), 1, Rules(), "subject sub-000 is in unseen and in training"),
        (("training", "training"), 2, Rules(seed=4), "table holds a split"),
        (("", ""), 2, Rules(unseen_sites=("X",)), "unseen site X"),  # before a mask is read
    ],
)
def test_a_split_or_rules_that_do_not_fit_are_refused(parts, subjects, rules, said):
    scans, _ = made([[1.0] * (2 // subjects)] * subjects)
    with pytest.raises(DataError, match=said):
        splits.of([replace(s, split=part) for s, part in zip(scans, parts, strict=True)], rules)


def in_cohort(name: str, part: str = "", site: str = "") -> list[CohortScan]:
    return [
        CohortScan(Path(f"{name}{k}.nii"), Path("m"), f"{name}/sub-{k}", site, part, None, name)
        for k in range(2)
    ]


def test_cohorts_keep_their_splits_and_an_unseen_site_is_unseen_in_all_of_them(tmp_path):
    own = [in_cohort("a", "training", "A"), in_cohort("b", "unseen", "B")]
    assert splits.of_several(own) == [*own[0], *own[1]]
    for rules in (Rules(seed=1), Rules(unseen_sites=("X",))):
        with pytest.raises(DataError, match="table of every cohort holds a split"):
            splits.of_several(own, rules)
    plain = table.read(write_cohort(tmp_path, 2))
    splits.of_several([*own, plain], Rules(unseen_sites=("B",)))
    with pytest.raises(DataError, match="a0 of the unseen site A is in training by the table of"):
        splits.of_several([*own, plain], Rules(unseen_sites=("A",)))


@pytest.mark.parametrize(("cohort", "named"), [("a", "more"), ("", "")])
def test_a_cohort_to_tune_on_is_one_of_its_own_beside_others(cohort, named):
    scans, others = ([replace(s, cohort=cohort) for s in in_cohort("a")], in_cohort("b"))
    added = splits.for_tuning([replace(s, cohort="") for s in others], scans, "more")
    assert [scan.cohort for scan in added] == [named] * 2


def hosts(folder: Path, parts: Sequence[str]) -> list[CohortScan]:
    """Scans of two cohorts, all with implants in the same scan."""
    scans = []
    for name, part in zip("abc", parts, strict=False):
        path = folder / f"{name}_T2w.nii.gz"
        (folder / f"{name}_T2w.json").write_text(json.dumps({table.HOST_HASH: "ab" * 16}))
        scans.append(CohortScan(path, path, f"{name}/sub-1", split=part, cohort=name))
    return scans


def test_the_host_of_implants_in_two_cohorts_is_in_one_part(tmp_path):
    same, apart = hosts(tmp_path, ["training"] * 2), hosts(tmp_path, ["training", "unseen"])
    assert splits.of_several([[scan] for scan in same]) == same
    splits.refuse_copies(same, {scan.scan: "cd" * 16 for scan in same})
    with pytest.raises(DataError, match=r"b_T2w\S+ of b/sub-1 is the same .* of a/sub-1, or made"):
        splits.of_several([[scan] for scan in apart])
    splits.refuse_copies([replace(scan, subject="sub-1") for scan in apart], {})
    with pytest.raises(DataError, match="nobody may be trained and tested on"):
        splits.refuse_copies(hosts(tmp_path, ["", ""]), {})  # they may come apart
    host = replace(apart[1], scan=tmp_path / "host.nii.gz")
    with pytest.raises(DataError, match="nobody may be trained and tested on"):
        splits.refuse_copies([apart[0], host], {host.scan: "ab" * 16})


def test_rules_are_for_the_cohorts_without_a_split_each_by_itself(tmp_path):
    plain = [
        [replace(scan, site=site) for scan in table.read(write_cohort(tmp_path / site, 2, 2, seed))]
        for seed, site in enumerate("BC")
    ]
    for site, scans in zip("BC", plain, strict=True):
        table.write(scans, tmp_path / f"{site}.tsv")
    both = table.read_several([tmp_path / "B.tsv", tmp_path / "C.tsv"])
    rules = Rules(lesion_free_in_training=0.5, unseen_sites=("C",))
    found = splits.of_several([in_cohort("a", "unseen"), *both], rules)
    assert sorted((scan.cohort, scan.split) for scan in found) == [
        *[("B", "training"), ("B", "unseen")],
        *[("C", "unseen")] * 2,
        *[("a", "unseen")] * 2,
    ]
    with pytest.raises(DataError, match="unseen site X"):
        splits.of_several(both, Rules(unseen_sites=("X",)))


def test_hash_depends_on_contents_and_parts_and_on_nothing_else():
    scans, _ = made([[1.0], [2.0], [3.0]])
    assigned = [replace(s, split="training") for s in scans]
    hashes = {s.scan: str(k) for k, s in enumerate(assigned)}
    known = splits.split_hash(assigned, hashes)
    assert splits.split_hash(assigned[::-1], hashes) == known
    moved = [replace(assigned[0], split="unseen"), *assigned[1:]]
    assert splits.split_hash(moved, hashes) != known


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        (Rules(lesion_free_in_training=2), "to train on is 2, expected 0 to 1"),
        (Rules(lesion_free_in_tuning=-0.1), "in thr-optimization is -0.1, expected 0 to 1"),
        (Rules(0, 0.7, 0.4), "train on, 0.7, and in thr-optimization, 0.4, are more than 1"),
        (Rules(unseen_sites=("A", "C")), "unseen site C; the cohort's sites: A, B"),
    ],
)
def test_shares_out_of_range_and_sites_that_nobody_is_from_are_refused(rules, said):
    with pytest.raises(DataError, match=said):
        splits.assign(*made([[1.0]] * 2, sites="AB"), rules)


@given(st.integers(1, 30), st.integers(0, 20))
def test_no_part_is_empty_as_far_as_there_are_subjects_with_lesions(subjects, seed):
    scans, load = made([[10.0]] * subjects)
    counts = splits.counts(splits.assign(scans, load, Rules(seed)))
    assert {name for name in counts if counts[name]} == set(list(splits.SHARES)[:subjects])


def test_a_part_is_all_of_a_cohort_without_a_split_and_never_none_of_one_with():
    scans = [
        CohortScan(Path(f"{k}.nii"), Path(f"{k}_l.nii"), f"s{k}", split=name)
        for k, name in enumerate(["training", "unseen", "unseen"])
    ]
    assert splits.part_or_all(scans, "unseen", "are used") == scans[1:]
    plain = [replace(scan, split="") for scan in scans]
    assert splits.part_or_all(plain, "unseen", "are used") == plain
    with pytest.raises(DataError, match=r"part thr-optimization; .* all of whose scans are used"):
        splits.part_or_all(scans, "thr-optimization", "are used")
    with pytest.raises(DataError, match="have no split"):
        splits.part_or_all([*scans[:2], plain[2]], "unseen", "are used")


AFFINE = np.diag([0.5, 0.5, 2.0, 1.0])


def scan_of(folder: Path, mask: np.ndarray, name: str = "t2.nii.gz") -> CohortScan:
    path = folder / f"mask-{name}"
    nib.save(nib.Nifti1Image(mask.astype(np.uint8), AFFINE), path)
    return CohortScan(folder / name, path, "sub-01")


def with_image(scan: CohortScan, seed: int = 0, affine: np.ndarray = AFFINE) -> CohortScan:
    array = np.random.default_rng(seed).random((1, 4, 4), np.float32)
    nib.save(nib.Nifti1Image(array if affine is AFFINE else array[:, ::-1], affine), scan.scan)
    return scan


def test_lesions_that_touch_at_an_edge_are_one_and_at_a_corner_two(tmp_path):
    mask = np.zeros((8, 8, 8))
    assert splits.measure(scan_of(tmp_path, mask)) == LesionLoad(0, 0.0)
    mask[1, 1, 1] = mask[2, 2, 1] = 1  # a common edge
    mask[5, 5, 5] = mask[6, 6, 6] = 1  # a common corner
    # 4 voxels of 0.5 x 0.5 x 2 mm.
    assert splits.measure(scan_of(tmp_path, mask)) == LesionLoad(3, pytest.approx(2.0))


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs", b"\x1f\x8b cut off"])
def test_a_mask_that_cannot_be_read_names_the_scan(content, tmp_path):
    scan = scan_of(tmp_path, np.ones((4, 4, 4)))
    scan.lesion_mask.write_bytes(content)
    with pytest.raises(ImageError, match=r"^lesion mask of t2\.nii\.gz: .*mask-t2\.nii\.gz"):
        splits.measure(scan)


def test_loads_are_gathered_by_part():
    known = (("s1", "A", "training"),) * 2 + (("s2", "", "training"), ("s3", "B", "unseen"))
    scans = [CohortScan(Path(f"{k}"), Path(), *about) for k, about in enumerate(known)]
    loads = {s.scan: LesionLoad(k, 10.0 * k) for k, s in enumerate(scans)}
    training, validation, _, unseen = splits.by_part(scans, loads)
    assert (training.name, training.subjects, training.sites) == ("training", 2, 1)
    assert (len(training.loads), training.lesion_free) == (3, 1)
    assert training.bearing == (LesionLoad(1, 10.0), LesionLoad(2, 20.0))
    assert (validation.loads, validation.subjects) == ((), 0)
    assert (unseen.subjects, unseen.lesion_free) == (1, 0)


def test_every_mask_is_reported_and_all_that_cannot_be_read_are_told_of_at_once(tmp_path):
    scans = [with_image(scan_of(tmp_path, np.eye(4)[None], f"{k}.nii.gz")) for k in range(3)]
    heard: list[tuple[int, int]] = []
    loads = splits.measure_all(scans, lambda *now: heard.append(now))
    assert heard == [(1, 3), (2, 3), (3, 3)]
    assert list(loads) == [scan.scan for scan in scans]
    for scan in scans[1:]:
        scan.lesion_mask.write_bytes(b"")
    with pytest.raises(ImageError, match=r"1\.nii\.gz: .*mask of 2\.nii\.gz: .*\(2 of 3 scans"):
        splits.measure_all(scans)


@pytest.mark.parametrize("as_stored", [True, False])
def test_a_scan_of_two_subjects_is_refused_in_whatever_axis_order(as_stored, tmp_path):
    mirrored = np.diag([0.5, -0.5, 2.0, 1.0])
    one = with_image(scan_of(tmp_path, np.eye(4)[None], "a.nii.gz"))
    two = with_image(
        replace(scan_of(tmp_path, np.eye(4)[None], "b.nii.gz"), subject="sub-02"),
        affine=AFFINE if as_stored else mirrored,
    )
    with pytest.raises(DataError, match=r"b\.nii\.gz of sub-02 is the same image as .*a\.nii\.gz"):
        splits.measure_all([one, two])
    splits.measure_all([one, replace(two, subject="sub-01")])
    splits.measure_all([one, with_image(two, seed=1)])


def test_an_inverted_mask_is_warned_of_with_its_share_of_the_cord(tmp_path, caplog):
    mask = np.ones((10, 10, 10))
    mask[5, 5, 5] = 0
    scan = scan_of(tmp_path, mask)
    assert splits.measure(scan).lesions == 1
    assert "t2.nii.gz: the lesion mask covers 100% of the image; is it inverted" in caplog.text
    cord = np.zeros((10, 10, 10), np.uint8)
    cord[4:6, 5, 5] = 1
    nib.save(nib.Nifti1Image(cord, AFFINE), tmp_path / "t2_label-SC_seg.nii.gz")
    splits.measure(scan)
    assert "covers 50% of the cord and 100% of the image" in caplog.text


def test_a_lesion_that_fills_the_cord_of_a_close_crop_is_not_warned_of(tmp_path, caplog):
    mask = np.zeros((10, 10, 10))
    mask[3:7, 3:7] = 1  # 16 % of the image
    splits.measure(scan_of(tmp_path, mask))
    assert caplog.records == []
