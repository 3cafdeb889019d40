"""Choices as bundles store them, those for one site by the whole flow."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from small_data import contents, save_changed, write_cohort

from sct_lesion_losses.bundle import store
from sct_lesion_losses.bundle.schema import OperatingPoint
from sct_lesion_losses.cohorts import table as cohorts
from sct_lesion_losses.errors import DataError, UsageError
from sct_lesion_losses.thresholds import THRESHOLDS, Objective, count, lesion_filter
from sct_lesion_losses.workflows import operating_points, tune
from sct_lesion_losses.workflows.tune import TuneSettings


@pytest.mark.parametrize("objective", ["median_l_f1", "mean_l_f1", "l_f1_at_specificity"])
def test_a_bundle_that_finds_no_lesion_at_any_threshold_is_refused(objective):
    truth = np.zeros((12, 12, 12), bool)
    truth[2:4, 2:4, 2:4] = True
    elsewhere = np.zeros(truth.shape, np.float32)
    elsewhere[8:, 8:, 8:] = 1
    scans = [(truth, elsewhere), (np.zeros_like(truth), np.zeros_like(elsewhere))]
    counts = [count(mask, pmap, (1, 1, 1), THRESHOLDS[1:]) for mask, pmap in scans]
    wanted = Objective(objective, specificity=0.5 if "specificity" in objective else None)
    with pytest.raises(DataError, match="learned nothing of use"):
        operating_points.of_cohort(counts, ["a", "b"], wanted)


def test_scans_that_decide_nothing_keep_every_lesion():
    truth, pmap = np.zeros((2, 20, 8, 8), bool), np.zeros((2, 20, 8, 8), np.float32)
    truth[:, 2:4, 2:4, 2:4] = True
    pmap[:, 10:12, 2:4, 2:4] = 0.6
    pmap[:, 15:18, 2:4, 2:4] = 0.9
    # With the lesion of the higher peak on the true one, the other is filtered.
    for mask, f1, doubtful in ((truth, 0, True), (np.roll(truth, 13, axis=1), 1, False)):
        seen = [lesion_filter.candidates(t, p, 0.4, 1.0) for t, p in zip(mask, pmap, strict=True)]
        point, doubts = operating_points.of_lesions(seen, ["a", "b"], 0.4)
        assert point.f1 == f1
        assert bool(doubts) is doubtful


def test_what_keeps_everything_at_the_tuned_threshold_shows_new_lesions_at_a_lower_one():
    truth, pmap = np.zeros((20, 8, 8), bool), np.zeros((20, 8, 8), np.float32)
    truth[2:4, 2:4, 2:4] = True
    pmap[2:4, 2:4, 2:4], pmap[10:12, 2:4, 2:4] = 0.9, 0.3
    seen = [lesion_filter.candidates(truth, pmap, 0.4, 1.0)]
    point, _ = operating_points.of_lesions(seen, ["a"], 0.4)
    rule = lesion_filter.Filter(point.peak, point.volume_mm3)
    assert lesion_filter.mask_at(pmap, 0.2, 1.0, rule)[0].sum() == 16


def implants_in(peaks: dict[int, float], lesions: tuple[int, ...]) -> list:
    """One scan at every threshold: lesions, and places that are marked with some peak, of 4 mm³."""
    truth, pmap = np.zeros((60, 1, 1), bool), np.zeros((60, 1, 1), np.float32)
    for place in lesions:
        truth[place : place + 4] = True
    for place, peak in peaks.items():
        pmap[place : place + 4] = peak
    cuts = operating_points.WITH_FILTER
    return [lesion_filter.candidates(truth, pmap, cut, 1.0) for cut in cuts]


def test_the_detection_limit_reads_each_person_by_what_the_others_choose():
    # a's healthy cord is marked with 0.6, b's with 0.9. By b's choice, a peak of 0.95, a's lesion
    # of 0.97 is found, that of 0.8 not; by a's, 0.65, b's lesion of 0.97 is, and one place marked.
    noted = [
        implants_in({0: 0.97, 10: 0.8}, (0, 10)),
        implants_in({0: 0.6}, ()),
        implants_in({0: 0.97}, (0, 10)),
        implants_in({0: 0.9}, ()),
    ]
    contrasts = [np.array([1.15, 1.4]), np.array([]), np.array([1.2, 1.05]), np.array([])]
    owners = ["a", "a", "b", "b"]
    objective = Objective("l_f1_at_specificity", specificity=1.0)
    found, point = operating_points.with_filter(noted, owners, objective)
    assert (point.lesions.peak, point.lesions.specificity) == (0.95, 1.0)
    assert [rule.peak for _, rule in found.left_out] == [0.95, 0.95, 0.65, 0.65]
    limit = operating_points.detection_limit(noted, contrasts, owners, found)
    assert (limit.people, limit.held_out, limit.untouched) == (2, True, 2)
    assert [(str(share), share.found, share.n) for share in limit.by_contrast] == [
        ("under 1.1", 0, 1),
        ("1.1 to 1.2", 1, 1),
        ("1.2 to 1.35", 1, 1),
        ("1.35 to 1.5", 0, 1),
        ("from 1.5", 0, 0),
    ]
    assert [(share.found, share.n) for share in limit.by_volume] == [(2, 4), (0, 0), (0, 0), (0, 0)]
    assert limit.by_volume[0].interval == (0.5, 0.5)
    assert (limit.false_lesions, limit.false_interval) == (0.5, (0.0, 1.0))


def test_one_person_alone_is_read_by_their_own_choice_and_has_no_interval():
    noted = [implants_in({0: 0.97, 10: 0.8}, (0, 10)), implants_in({0: 0.6}, ())]
    objective = Objective("l_f1_at_specificity", specificity=1.0)
    found, _ = operating_points.with_filter(noted, ["a", "a"], objective)
    limit = operating_points.detection_limit(noted, [np.ones(2), np.ones(0)], ["a", "a"], found)
    assert not limit.held_out
    assert limit.false_lesions == 0
    assert (limit.by_contrast[0].found, limit.by_contrast[0].interval) == (2, None)


def site(folder: Path, name: str = "Zurich", **changes: object) -> TuneSettings:
    command = "sct_tune_lesion -bundle ./small -i data -site Zurich -ofolder small-zurich"
    return TuneSettings(site=name, folder=folder, command=command, **changes)


@pytest.fixture(scope="module")
def zurich(small, fresh, tmp_path_factory) -> tune.Tuned:
    """The tuned bundle `small` and the site's new one."""
    before, heard = contents(small), []
    folder = tmp_path_factory.mktemp("site") / "small-zurich"
    made = tune.run(small, fresh, site(folder), lambda *now: heard.append(now))
    assert heard == [(k, 3) for k in range(1, 4)]
    assert contents(small) == before
    return made


def test_a_sites_bundle_is_the_old_one_but_for_threshold_and_name(tuned, zurich):
    old, new = tuned.bundle, store.load(zurich.bundle.folder)
    assert (new.weights, new.network) == (old.weights, old.network)
    assert (new.name, new.threshold) == ("small-zurich", zurich.choice.threshold)
    same = {"name", "operating_point", "metrics", "limits", "provenance"}
    assert new.info.model_dump(exclude=same) == old.info.model_dump(exclude=same)
    assert new.info.provenance.trained_on == old.info.provenance.trained_on


def test_it_keeps_its_ancestry_and_both_curves(tuned, zurich):
    old, new = tuned.bundle, zurich.bundle
    point, before = new.info.operating_point, old.info.operating_point
    assert new.info.provenance.ancestor == f"small 1.0.0, weights {old.weights_sha256}"
    commands = new.info.provenance.commands
    assert commands == (*old.info.provenance.commands, site(Path()).command)
    assert (point.site.name, point.previous) == ("Zurich", None)
    assert point.site.shipped_threshold == old.threshold
    assert point.site.shipped_curve == before.curve
    assert point.site.local_curve == pytest.approx(zurich.choice.local_curve)
    assert [scan.scan for scan in point.per_scan] == ["scan-01", "scan-02"]
    local = np.median([scan.values for scan in point.per_scan], axis=0)
    assert local == pytest.approx(point.site.local_curve)
    assert point.objective == before.objective
    assert before.tuned_on
    assert set(before.tuned_on) < set(point.tuned_on)
    assert len(point.tuned_on) == len(before.tuned_on) + 3


def test_its_card_says_what_it_is(zurich):
    card = (zurich.bundle.folder / "card.md").read_text(encoding="utf-8")
    assert "Nothing was trained anew: the weights are those of small 1.0.0" in card
    assert f"`Zurich`. The curve is theirs, with the weight {zurich.choice.weight:.2f}" in card
    assert "- its threshold is that of the site Zurich" in card
    assert "subjects that decided: 2, fewer than 5" in card
    assert "Not measured." in card


def test_scans_that_were_trained_or_tuned_on_and_those_without_lesions_are_refused(
    small, split_table, fresh, tmp_path
):
    data = split_table.parent.parent / "data"
    chose = [
        dataclasses.replace(scan, split="")
        for scan in cohorts.read(split_table)
        if scan.split == "thr-optimization"
    ]
    cohorts.write([*cohorts.read(fresh), chose[0]], tmp_path / "site.tsv")
    free = write_cohort(tmp_path / "free", 2, lesion_free=2, seed=12)
    for scans, said in (
        (data, "was trained on"),
        (tmp_path / "site.tsv", r"chosen on 1 of these scans .* would count twice"),
        (free, "no local scan holds lesions"),
    ):
        with pytest.raises(DataError, match=said):
            tune.run(small, scans, site(tmp_path / "new"))
        assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("place", "folder", "match"),
    [
        ("a site", "new", "-site is 'a site'"),
        ("Zurich", "a folder", "choose another folder name"),
        ("Zurich", "small", "is the bundle small itself"),
    ],
)
def test_names_that_cannot_be_are_refused_before_a_scan_is_read(small, place, folder, match):
    with pytest.raises(UsageError, match=match):
        tune.run(small, Path("no such data"), site(small.with_name(folder), place))


def test_bundles_that_have_no_threshold_to_shrink_to_are_refused_for_that_reason(
    zurich, small, fresh, tmp_path
):
    noted = [implants_in({0: 0.97, 10: 0.8}, (0, 10)), implants_in({0: 0.6}, ())]
    objective = Objective("l_f1_at_specificity", specificity=1.0)
    _, with_filter = operating_points.with_filter(noted, ["a", "b"], objective)
    old = store.load(small)
    raw = save_changed(tmp_path / "raw", old, operating_point=OperatingPoint())
    both = save_changed(tmp_path / "both", old, operating_point=with_filter)
    for bundle, said in (
        (zurich.bundle, "is that of the site Zurich already"),
        (raw, "was never tuned"),
        (both, "chosen together with a filter of lesions"),
    ):
        with pytest.raises(UsageError, match=said):
            tune.run(bundle.folder, fresh, site(tmp_path / "new"))


def test_the_bundle_of_a_site_that_is_tuned_to_a_cohort_is_no_site_s_any_more(
    zurich, fresh, tmp_path
):
    mine = shutil.copytree(zurich.bundle.folder, tmp_path / "small-zurich")
    tune.run(mine, fresh)
    card = (mine / "card.md").read_text(encoding="utf-8")
    assert "the site Zurich" not in card
    assert "Nothing was trained anew: the weights are those of small 1.0.0" in card
    assert "The training started from" not in card


def test_what_is_doubtful_about_the_threshold_of_a_site_is_said(zurich):
    good = dataclasses.replace(
        zurich.choice,
        subjects=tuple("abcdef"),
        interval=(0.3, 0.5),
        curve=-np.abs(zurich.choice.thresholds - 0.4),
        leave_one_out=0.6,
        held_out_shipped=0.5,
    )
    assert operating_points.site_doubts(good) == ()
    for change, words in (
        ({"subjects": tuple("abcd")}, "decided: 4, fewer than 5"),
        ({"interval": (0.2, 0.6)}, "0.2 to 0.6, is wider than 0.3"),
        ({"curve": zurich.choice.thresholds}, "end of the grid"),
        ({"leave_one_out": 0.5}, "no better than the shipped one"),
        ({"leave_one_out": float("nan")}, "scans of one subject"),
    ):
        [said] = operating_points.site_doubts(dataclasses.replace(good, **change))
        assert words in said
