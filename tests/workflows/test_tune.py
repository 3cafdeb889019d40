import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_data import contents, write_cohort

from sct_lesion_losses.bundle import store
from sct_lesion_losses.cohorts import table
from sct_lesion_losses.errors import BundleError, DataError, UsageError
from sct_lesion_losses.images import nifti
from sct_lesion_losses.inference import engine as engines
from sct_lesion_losses.inference import models
from sct_lesion_losses.metrics import lesionwise
from sct_lesion_losses.phantom.dataset import write_nifti
from sct_lesion_losses.thresholds import Objective, binarize, lesion_filter
from sct_lesion_losses.workflows import evaluate, operating_points, tune
from sct_lesion_losses.workflows.implant import ImplantSettings
from sct_lesion_losses.workflows.tune import TuneSettings


def card_of(folder: Path) -> str:
    return (folder / "card.md").read_text("utf-8")


def test_tuning_writes_the_threshold_that_finds_the_blocks_and_its_curve(tuned):
    point = store.load(tuned.bundle.folder).info.operating_point
    assert (point.kind, point.threshold) == ("tuned", tuned.choice.threshold)
    assert point.curve == pytest.approx(tuned.choice.curve)
    assert tuned.choice.curve.max() > 0.5
    assert len(point.thresholds) == 21
    assert len(point.per_scan) == tuned.choice.n_scans
    assert {scan.scan[:5] for scan in point.per_scan} == {"scan-"}


def test_a_tuned_bundle_says_what_it_reaches_on_unseen_scans(tuned):
    metrics = tuned.bundle.info.metrics
    assert metrics["v_f1_median"].n >= 1
    assert 0 <= metrics["v_f1_median"].value <= 1
    assert metrics["p_specificity"].n == 2
    assert metrics["l_f1_median"].n == metrics["p_sensitivity"].n == metrics["v_f1_median"].n
    assert metrics["scans_refused"].value == 0
    assert "v_f1_median" in card_of(tuned.bundle.folder)


def test_the_card_repeats_the_command_and_the_limits(tuned):
    info, card = tuned.bundle.info, card_of(tuned.bundle.folder)
    assert info.provenance.commands[-1] == "sct_tune_lesion -bundle small -i split.tsv"
    assert "sct_tune_lesion -bundle small" in card
    assert info.limits[-1] == "it knows bright blocks only"
    assert len(info.limits) > 1
    assert "- it knows bright blocks only" in card


def test_a_cohort_without_a_split_gives_all_its_scans_to_the_choice(
    mine, fresh, tmp_path, monkeypatch
):
    hashed, heard = [], []
    real = table.content_hash

    def content_hash(array):
        hashed.append(real(array))
        return hashed[-1]

    monkeypatch.setattr(table, "content_hash", content_hash)
    data = shutil.copytree(fresh, tmp_path / "data")
    choice = tune.run(mine, data, report=lambda *now: heard.append(now)).choice
    assert (choice.n_scans, choice.n_subjects) == (2, 2)
    assert heard == [(1, 3), (2, 3), (3, 3)]
    point = store.load(mine).info.operating_point
    assert point.tuned_on == tuple(sorted(hashed))  # each is read once
    assert len(hashed) == 3
    assert point.warnings == choice.warnings
    assert "subjects that decided: 2, fewer than 10" in point.warnings


def test_one_subject_leaves_the_interval_of_the_threshold_open(mine, tmp_path):
    data = write_cohort(tmp_path / "data", subjects=1, lesion_free=0, seed=9)
    assert np.isnan(tune.run(mine, data).choice.interval).all()
    point = store.load(mine).info.operating_point
    assert point.interval is None
    assert "no lesion-free scan: P-specificity at this threshold is not known" in point.warnings
    assert "- no interval: one subject\n" in card_of(mine)


def test_scans_that_were_trained_on_are_refused_under_any_name_or_told_of(
    mine, split_table, tmp_path
):
    data = shutil.copytree(split_table.parent.parent / "data", tmp_path / "renamed")
    with pytest.raises(DataError, match="was trained on"):
        tune.run(mine, data)
    with pytest.raises(UsageError, match="leave out -results or -seen"):
        TuneSettings(seen=True, results=tmp_path / "kept")
    tune.run(mine, data, TuneSettings(seen=True))
    warnings = store.load(mine).info.operating_point.warnings
    assert any("scans were trained on" in said for said in warnings)


def test_a_specificity_can_be_asked_for(mine, fresh):
    settings = TuneSettings(Objective("l_f1_at_specificity", specificity=1.0))
    choice = tune.run(mine, fresh, settings).choice
    point = store.load(mine).info.operating_point
    assert (point.specificity, point.preset) == (1.0, "paper")
    assert (choice.n_scans, len(point.per_scan)) == (2, 2)
    assert point.curve[0] is None  # at 0 every scan is marked


def test_scans_without_a_cord_are_left_out_and_counted(mine, fresh, tmp_path, without_cord, caplog):
    without_cord("sub-002")
    for how in (TuneSettings(site="Bern", folder=tmp_path / "bern"), TuneSettings()):
        made = tune.run(mine, fresh, how)
        point = made.bundle.info.operating_point
        assert made.choice.n_scans == 1
        assert point.warnings[-1] == "left out, because no cord was found: 1 of the scans"
        assert point.centerline == "cohort"
    assert "left out: sub-002_T2w.nii.gz: no spinal cord was recognised" in caplog.text
    without_cord("sub-")
    with pytest.raises(DataError, match="in any of the 3 scans"):
        tune.run(mine, fresh)


def scores_of(bundle, scan, threshold):
    """Score of a scan by the mask at a threshold, and by the lesions that the bundle keeps."""
    point = bundle.info.operating_point.lesions
    seen = models.locate(scan)
    pmap = seen.pmap(bundle, engines.load(bundle.network))
    rule = lesion_filter.Filter(point.peak, point.volume_mm3)
    masks = [binarize(pmap, threshold)]
    masks.append(lesion_filter.mask_at(pmap, threshold, 0.125, rule)[0])
    return [lesionwise.score(seen.truth, mask, seen.image.grid.spacing_mm) for mask in masks]


def test_a_second_operating_point_per_lesion_is_chosen_on_the_same_scans(
    mine, fresh, tmp_path, pmaps, caplog
):
    settings, heard = TuneSettings(lesion_point=True), []
    choice = tune.run(mine, fresh, settings, lambda *now: heard.append(now)).choice
    assert heard == [(1, 3), (2, 3), (3, 3)]
    assert len(pmaps) == 3
    loaded = store.load(mine)
    point = loaded.info.operating_point.lesions
    scores = [scores_of(loaded, scan, choice.threshold) for scan in table.read(fresh)]
    f1 = np.nanmedian([[score.f1 for score in both] for both in scores], axis=0)
    assert (point.f1_unfiltered, point.f1) == pytest.approx(tuple(f1))
    [clean] = [float(after.n_predicted == 0) for _, after in scores if not after.n_truth]
    assert (point.specificity, point.n_scans, point.n_lesion_free) == (clean, 2, 1)
    assert point.froc.peaks[0] == 0
    assert point.peak == 0 or point.peak > choice.threshold
    false = np.mean([before.n_predicted - before.correct for before, _ in scores])
    assert point.froc.false_lesions[0] == pytest.approx(false)
    assert "Unless `-lesion_point 0` says otherwise, predicted lesions are kept" in card_of(mine)
    pmaps.clear()
    again = tune.run(mine, fresh, replace(settings, folder=tmp_path / "two", jobs=2)).bundle
    assert pmaps == []  # all were predicted by the workers
    assert again.info.operating_point.lesions == point
    other = write_cohort(tmp_path / "other", 2, lesion_free=0, seed=12)
    for how in (TuneSettings(site="Bern", folder=tmp_path / "bern"), TuneSettings()):
        caplog.clear()
        point = tune.run(mine, other, how).bundle.info.operating_point
        said = "the filter of predicted lesions belonged to the former threshold: dropped"
        assert point.lesions is None
        assert said in point.warnings
        assert said in caplog.messages


def test_the_second_point_is_measured_on_the_unseen_scans(mine, split_table):
    settings = TuneSettings(lesion_point=True, jobs=2)
    choice = tune.run(mine, split_table, settings).choice
    loaded = store.load(mine)
    metrics = loaded.info.metrics
    unseen = [scan for scan in table.read(split_table) if scan.split == "unseen"]
    scores = [scores_of(loaded, scan, choice.threshold)[1] for scan in unseen]
    f1 = np.nanmedian([score.f1 for score in scores])
    assert metrics["l_f1_median_filtered"].value == pytest.approx(f1)
    clean = np.mean([score.n_predicted == 0 for score in scores if not score.n_truth])
    assert metrics["p_specificity_filtered"].value == pytest.approx(clean)
    assert metrics["p_specificity_filtered"].n == metrics["p_specificity"].n == 2
    assert "p_specificity_filtered" in card_of(mine)
    tune.run(mine, split_table, replace(settings, measure=False))
    assert store.load(mine).info.metrics == {}


@pytest.mark.parametrize(("volume_mm3", "is_said"), [(0.0, True), (1.0, False)])
def test_a_filter_that_keeps_everything_is_warned_of(
    volume_mm3, is_said, mine, fresh, monkeypatch, caplog
):
    said = "the filter of lesions keeps everything: it decides nothing on these scans"
    real = operating_points.choose_filter

    def choose_filter(noted, subjects, threshold, **rest):
        found = real(noted, subjects, threshold, **rest)
        return replace(found, peak=0.0, volume_mm3=volume_mm3)

    monkeypatch.setattr(operating_points, "choose_filter", choose_filter)
    tune.run(mine, fresh, TuneSettings(lesion_point=True))
    assert (said in store.load(mine).info.operating_point.warnings) is is_said
    assert (said in caplog.text) is is_said
    assert (f"- warning: {said}\n" in card_of(mine)) is is_said


def test_a_specificity_without_the_second_point_is_wrong_use():
    with pytest.raises(UsageError, match="goes with -lesion_point 1"):
        TuneSettings(lesion_specificity=0.5)
    with pytest.raises(UsageError, match="expected a number in"):
        TuneSettings(lesion_point=True, lesion_specificity=1.5)


def test_other_objectives_and_evaluation_take_over_what_tuning_keeps(
    mine, split_table, tmp_path, pmaps
):
    kept = tmp_path / "kept"
    first = tune.run(mine, split_table, TuneSettings(results=kept, jobs=2)).choice
    assert pmaps == []  # they were predicted by the workers
    before = contents(kept / "scans")
    lesion_wise = TuneSettings(Objective("mean_l_f1", preset="anima"), results=kept)
    second = tune.run(mine, split_table, lesion_wise).choice
    evaluated = evaluate.run([mine], split_table, kept)
    assert pmaps == []
    assert contents(kept / "scans") == before

    info = store.load(mine).info
    point = info.operating_point
    assert (point.objective, point.preset, point.beta) == ("mean_l_f1", "anima", None)
    assert point.curve == pytest.approx(second.curve)
    assert second.n_scans == first.n_scans
    f1 = [
        row.voxels.f1
        for row in evaluated.rows
        if row.tuned and row.lesions.preset.name == "paper" and row.voxels.n_truth
    ]
    assert info.metrics["v_f1_median"].value == pytest.approx(float(np.median(f1)))


def test_predicted_lesions_are_kept_beside_the_counts_and_taken_over(mine, fresh, tmp_path, pmaps):
    plain = TuneSettings(results=tmp_path / "kept")
    tune.run(mine, fresh, plain)
    filtered = replace(plain, lesion_point=True)
    first = tune.run(mine, fresh, filtered).bundle.info.operating_point
    assert len(pmaps) == 6  # counts alone do not tell of the lesions
    again = tune.run(mine, fresh, filtered).bundle.info.operating_point
    tune.run(mine, fresh, plain)
    assert len(pmaps) == 6
    assert again.lesions == first.lesions


@pytest.mark.parametrize("kind", ["of the package", "somebody else's", "read-only"])
def test_a_bundle_that_is_not_the_users_own_is_never_written_and_a_copy_is_tuned(
    kind, mine, fresh, tmp_path, monkeypatch, caplog
):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    copy = tmp_path / "home" / ".local/share/sct_lesion_losses/bundles/small-tuned"
    if kind == "of the package":
        monkeypatch.setattr(store, "PACKAGED", mine.parent)
    elif kind == "somebody else's":
        monkeypatch.setattr(os, "geteuid", lambda: mine.stat().st_uid + 1)
    else:
        real = os.access
        monkeypatch.setattr(
            os, "access", lambda path, mode: Path(path) != mine and real(path, mode)
        )
    before = contents(mine)
    made = tune.run(mine, fresh, TuneSettings(measure=False))
    assert contents(mine) == before
    assert made.elsewhere
    assert made.bundle.folder == copy
    loaded = store.load(copy)
    assert (loaded.name, loaded.threshold) == ("small-tuned", made.choice.threshold)
    assert f"stays as it is; the tuned copy will be {copy}" in caplog.text
    with pytest.raises(BundleError, match="replace it with -force 1"):
        tune.run(mine, Path("no such data"))
    with pytest.raises(UsageError, match="is not yours to change"):
        tune.run(mine, Path("no such data"), TuneSettings(folder=mine))


def test_a_tuned_copy_goes_where_it_is_asked_for(small, fresh, tmp_path):
    before, copy = contents(small), TuneSettings(folder=tmp_path / "new")
    made = tune.run(small, fresh, copy)
    assert made.elsewhere
    assert store.load(tmp_path / "new").threshold == made.choice.threshold
    assert contents(small) == before
    kept = contents(tmp_path / "new")
    with pytest.raises(BundleError, match="replace it with -force 1"):
        tune.run(small, Path("no such data"), copy)
    with pytest.raises(UsageError, match="choose another folder name"):
        tune.run(small, Path("no such data"), TuneSettings(folder=tmp_path / "my own"))
    assert contents(tmp_path / "new") == kept
    tune.run(small, fresh, replace(copy, force=True))


def test_a_bundle_keeps_the_operating_point_that_it_had(mine, fresh):
    before = store.load(mine).info.operating_point.model_copy(update={"previous": None})
    made = tune.run(mine, fresh)
    assert not made.elsewhere
    point = store.load(mine).info.operating_point
    assert point.previous == before
    assert point.tuned_on != before.tuned_on
    scans = "scan" if before.n_scans == 1 else "scans"
    assert f"Before that it was tuned to **{before.threshold:g}**" in card_of(mine)
    assert f"on {before.n_scans} {scans} of" in card_of(mine)
    tune.run(mine, fresh)  # the same once more: what was there before that stays
    assert store.load(mine).info.operating_point == point


@pytest.fixture(scope="module")
def healthy(tmp_path_factory) -> tuple[list[Path], list[Path]]:
    """Scans of two people that the bundle `small` has not seen, with their cord masks."""
    folder = tmp_path_factory.mktemp("healthy")
    data = write_cohort(folder / "data", 2, lesion_free=2, seed=21)
    scans, cords = [], []
    for scan in table.read(data):
        image = nifti.read(scan.scan)
        mask = np.zeros(image.array.shape, np.uint8)
        mask[22:38, 22:38] = 1
        scans.append(scan.scan)
        cords.append(folder / f"{scan.name}_seg.nii.gz")
        write_nifti(cords[-1], mask, image.grid)
    return scans, cords


HEALTHY = TuneSettings(
    Objective("l_f1_at_specificity", specificity=0.9),
    measure=False,
    lesion_point=True,
    healthy=True,
    folder=Path("here"),
    command="sct_tune_lesion -healthy a b",
)


def test_a_site_without_labels_tunes_on_implants_in_its_healthy_people(
    small, healthy, tmp_path, caplog
):
    scans, cords = healthy
    made, before = ImplantSettings(variants=3, free=1.0), contents(small)
    settings = replace(HEALTHY, folder=tmp_path / "here", results=tmp_path / "kept")
    found = tune.run_healthy(small, scans, cords, settings, made)
    assert contents(small) == before
    loaded = store.load(tmp_path / "here")
    point, old = loaded.info.operating_point, store.load(small)
    assert loaded.info.provenance.ancestor == f"small 1.0.0, weights {old.weights_sha256}"
    assert loaded.info.provenance.commands[-1] == "sct_tune_lesion -healthy a b"
    assert (point.objective, point.specificity) == ("l_f1_at_specificity", 0.9)
    assert point.threshold == found.choice.threshold
    assert point.lesions.specificity == 1.0
    assert (point.lesions.n_lesion_free, point.lesions.n_scans) == (2, 4)
    limit = point.detection_limit
    assert (limit.people, limit.untouched, limit.held_out) == (2, 2, True)
    lesions = [lesionwise.components(table.read_lesions(scan).array).max() for scan in
               table.read(tmp_path / "kept" / "implants")]  # fmt: skip
    assert sum(share.n for share in limit.by_volume) == sum(lesions) > 4
    assert sum(share.n for share in limit.by_contrast) == sum(lesions)
    assert {table.content_hash(nifti.read(scan).array) for scan in scans} < set(point.tuned_on)
    card = card_of(tmp_path / "here")
    assert "**these are implants, not patients' lesions**" in card
    assert "Nothing was trained anew: the weights are those of small 1.0.0" in card
    said = "people whose scans chose: 2, fewer than 5, which proves little"
    assert f"- warning: {said}" in card
    assert said in caplog.text
    first = contents(tmp_path / "here")
    tune.run_healthy(small, scans, cords, replace(settings, force=True), made)
    assert contents(tmp_path / "here") == first
    with pytest.raises(UsageError, match="is the bundle here itself"):
        tune.run_healthy(tmp_path / "here", scans, cords, settings, made)
    assert "not by patients' lesions; on other scans they were not measured" in card
    tune.run(tmp_path / "here", tmp_path / "kept" / "implants", TuneSettings(measure=False))
    card = card_of(tmp_path / "here")
    assert "implant" not in card.partition("## Trained on")[0]
    assert "Nothing was trained anew: the weights are those of small 1.0.0" in card
    elsewhere = replace(settings, folder=tmp_path / "2")
    tune.run_healthy(tmp_path / "here", scans, cords, elsewhere, made)
    assert "whose weights are those of small 1.0.0" in card_of(tmp_path / "2")


def test_healthy_people_that_the_bundle_was_trained_on_are_refused(
    small, split_table, healthy, tmp_path
):
    seen = next(scan for scan in table.read(split_table) if scan.split == "training")
    settings = replace(HEALTHY, folder=tmp_path / "here", results=tmp_path / "kept")
    made = ImplantSettings(variants=2, free=1.0)
    with pytest.raises(DataError, match="was trained on 1 of these scans"):
        tune.run_healthy(small, [seen.scan], healthy[1][:1], settings, made)
    assert not (tmp_path / "kept").exists()
