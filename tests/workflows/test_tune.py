from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from small_data import train_small, write_cohort

from sct_lesion_losses.bundle import store
from sct_lesion_losses.cohorts import table
from sct_lesion_losses.errors import BundleError, DataError, NoCordError, UsageError
from sct_lesion_losses.inference import cohort, predict
from sct_lesion_losses.inference import engine as engines
from sct_lesion_losses.metrics import lesionwise
from sct_lesion_losses.thresholds import THRESHOLDS, Objective, binarize, count, lesion_filter
from sct_lesion_losses.workflows import evaluate, tune


@pytest.fixture(scope="module")
def split_table(tmp_path_factory) -> Path:
    """A bundle `small` trained enough to find bright blocks, and the split of its cohort."""
    return train_small(tmp_path_factory.mktemp("tuning"))


@pytest.fixture(scope="module")
def tuned(split_table):
    bundle = split_table.parent.with_name("small")
    settings = tune.TuneSettings(limits=("it knows bright blocks only",))
    command = "sct_tune_lesion -bundle small -i split.tsv"
    choice = tune.run(bundle, split_table, settings, command=command).choice
    return choice, store.load(bundle)


def test_tuning_writes_the_chosen_threshold_and_its_curve(tuned):
    choice, bundle = tuned
    point = bundle.info.operating_point
    assert point.kind == "tuned"
    assert bundle.threshold == choice.threshold
    assert point.curve == pytest.approx(choice.curve)
    assert len(point.thresholds) == 21
    assert len(point.per_scan) == choice.n_scans
    assert {scan.scan[:5] for scan in point.per_scan} == {"scan-"}


def test_a_bundle_knows_the_scans_that_chose_its_threshold_each_read_once(
    tuned, tmp_path, monkeypatch
):
    _, bundle = tuned
    folder = shutil.copytree(bundle.folder, tmp_path / "small")
    fresh = write_cohort(tmp_path / "fresh", subjects=4, lesion_free=1, seed=21)
    hashed = []
    real = table.content_hash

    def content_hash(array):
        hashed.append(real(array))
        return hashed[-1]

    monkeypatch.setattr(table, "content_hash", content_hash)
    tune.run(folder, fresh)
    assert store.load(folder).info.operating_point.tuned_on == tuple(sorted(hashed))
    assert len(hashed) == 4


def test_the_chosen_threshold_finds_the_blocks(tuned):
    choice, _ = tuned
    assert choice.curve.max() > 0.5


def test_tuned_bundle_says_what_it_reaches_on_unseen_scans(tuned):
    _, bundle = tuned
    metrics = bundle.info.metrics
    assert metrics["v_f1_median"].n >= 1
    assert 0 <= metrics["v_f1_median"].value <= 1
    assert metrics["p_specificity"].n == 2
    assert metrics["l_f1_median"].n == metrics["p_sensitivity"].n == metrics["v_f1_median"].n
    assert metrics["scans_refused"].value == 0
    assert "v_f1_median" in (bundle.folder / "card.md").read_text(encoding="utf-8")


def test_scans_that_were_trained_on_are_refused_under_any_name(tuned, split_table, tmp_path):
    _, bundle = tuned
    renamed = tmp_path / "renamed"
    data = split_table.parent.parent / "data"
    data.rename(renamed)
    try:
        with pytest.raises(DataError, match="was trained on"):
            tune.run(bundle.folder, renamed)
    finally:
        renamed.rename(data)


def test_scans_that_were_trained_on_are_taken_on_demand_and_told_of(tuned, split_table, tmp_path):
    _, bundle = tuned
    copy = tmp_path / "copy"
    shutil.copytree(bundle.folder, copy)
    data = split_table.parent.parent / "data"
    with pytest.raises(UsageError, match="leave out -results or -seen"):
        tune.run(copy, data, tune.TuneSettings(seen=True), results=tmp_path / "kept")
    tune.run(copy, data, tune.TuneSettings(seen=True))
    warnings = store.load(copy).info.operating_point.warnings
    assert any("scans were trained on" in said for said in warnings)


def test_a_cohort_without_a_split_gives_all_its_scans_to_the_choice(tuned, tmp_path):
    _, bundle = tuned
    fresh = write_cohort(tmp_path / "fresh", subjects=3, lesion_free=0, seed=9)
    choice = tune.run(bundle.folder, fresh).choice
    assert (choice.n_scans, choice.n_subjects) == (3, 3)


@pytest.mark.parametrize("objective", ["median_l_f1", "mean_l_f1", "l_f1_at_specificity"])
def test_a_bundle_that_finds_no_lesion_at_any_threshold_is_refused(objective):
    truth = np.zeros((12, 12, 12), bool)
    truth[2:4, 2:4, 2:4] = True
    elsewhere = np.zeros(truth.shape, np.float32)
    elsewhere[8:, 8:, 8:] = 1
    scans = [table.CohortScan(Path(f"{k}.nii"), Path(f"{k}_l.nii"), f"s{k}") for k in range(2)]
    found = {
        scans[0]: count(truth, elsewhere, (1, 1, 1), THRESHOLDS[1:]),
        scans[1]: count(np.zeros_like(truth), np.zeros_like(elsewhere), (1, 1, 1), THRESHOLDS[1:]),
    }
    wanted = Objective(objective, specificity=0.5 if "specificity" in objective else None)
    with pytest.raises(DataError, match="learned nothing of use"):
        tune.chosen(scans, found, tune.TuneSettings(wanted))


def test_the_model_of_sct_cannot_be_tuned(tmp_path):
    fresh = write_cohort(tmp_path / "fresh", subjects=1, lesion_free=0)
    with pytest.raises(BundleError, match="not a bundle on disk"):
        tune.run("sct", fresh)


def test_one_subject_leaves_the_interval_of_the_threshold_open(tuned, tmp_path):
    _, bundle = tuned
    folder = shutil.copytree(bundle.folder, tmp_path / "small")
    fresh = write_cohort(tmp_path / "fresh", subjects=1, lesion_free=0, seed=9)
    assert np.isnan(tune.run(folder, fresh).choice.interval).all()
    assert store.load(folder).info.operating_point.interval is None
    assert "- no interval: one subject\n" in (folder / "card.md").read_text("utf-8")


def test_report_hears_of_every_scan(tuned, tmp_path):
    _, bundle = tuned
    fresh = write_cohort(tmp_path / "fresh", subjects=2, lesion_free=0, seed=5)
    heard = []
    tune.run(bundle.folder, fresh, report=lambda *now: heard.append(now))
    assert heard == [(1, 2), (2, 2)]


def test_the_card_repeats_the_command_that_tuned(tuned):
    _, bundle = tuned
    assert bundle.info.provenance.commands[-1] == "sct_tune_lesion -bundle small -i split.tsv"
    assert "sct_tune_lesion -bundle small" in (bundle.folder / "card.md").read_text("utf-8")


def test_limits_are_added_to_the_card(tuned):
    _, bundle = tuned
    assert bundle.info.limits[-1] == "it knows bright blocks only"
    assert len(bundle.info.limits) > 1
    assert "- it knows bright blocks only" in (bundle.folder / "card.md").read_text("utf-8")


def test_a_second_operating_point_per_lesion_is_chosen_on_the_same_scans(tuned, tmp_path):
    _, bundle = tuned
    folder = tmp_path / "small"
    shutil.copytree(bundle.folder, folder)
    fresh = write_cohort(tmp_path / "fresh", subjects=4, lesion_free=1, seed=13)
    choice = tune.run(folder, fresh, tune.TuneSettings(lesion_point=True)).choice
    loaded = store.load(folder)
    point = loaded.info.operating_point.lesions
    network = engines.load(loaded.network)
    f1, clean, false = [], [], []
    for scan in table.read(fresh):
        seen = cohort.locate(scan)
        pmap = seen.pmap(loaded, network)
        rule = lesion_filter.Filter(point.peak, point.volume_mm3)
        masks = [binarize(pmap, choice.threshold)]
        masks.append(lesion_filter.apply(masks[0], pmap, 0.125, rule))
        scores = [lesionwise.score(seen.truth, mask, seen.image.grid.spacing_mm) for mask in masks]
        f1.append([score.f1 for score in scores])
        false.append(scores[0].n_predicted - scores[0].correct)
        if not seen.truth.any():
            clean.append(float(scores[1].n_predicted == 0))
    assert (point.f1_unfiltered, point.f1) == pytest.approx(tuple(np.nanmedian(f1, axis=0)))
    assert (point.specificity, point.n_scans, point.n_lesion_free) == (clean[0], 3, 1)
    assert point.peak >= choice.threshold == point.froc.peaks[0]
    assert point.froc.false_lesions[0] == pytest.approx(np.mean(false))
    assert "With `-lesion_point 1`" in (folder / "card.md").read_text("utf-8")
    tune.run(folder, fresh)
    assert store.load(folder).info.operating_point.lesions is None


def test_a_filter_that_keeps_everything_is_warned_of(tuned, tmp_path, monkeypatch, caplog):
    _, bundle = tuned
    fresh = write_cohort(tmp_path / "fresh", subjects=2, lesion_free=0, seed=13)
    said = "the filter of lesions keeps everything: it decides nothing on these scans"
    real = tune.filter_of
    for volume_mm3, is_said in ((0.0, True), (1.0, False)):

        def filter_of(seen, subjects, threshold, *_, volume_mm3=volume_mm3):
            update = {"peak": threshold, "volume_mm3": volume_mm3}
            return real(seen, subjects, threshold).model_copy(update=update)

        monkeypatch.setattr(tune, "filter_of", filter_of)
        caplog.clear()
        folder = shutil.copytree(bundle.folder, tmp_path / f"small-{volume_mm3:g}")
        tune.run(folder, fresh, tune.TuneSettings(lesion_point=True))
        assert (said in store.load(folder).info.operating_point.warnings) is is_said
        assert (said in caplog.text) is is_said
        assert (f"- warning: {said}\n" in (folder / "card.md").read_text("utf-8")) is is_said


def test_scans_that_decide_nothing_keep_every_lesion():
    truth, pmap = np.zeros((2, 20, 8, 8), bool), np.zeros((2, 20, 8, 8), np.float32)
    truth[:, 2:4, 2:4, 2:4] = True
    pmap[:, 10:12, 2:4, 2:4] = 0.6
    pmap[:, 15:18, 2:4, 2:4] = 0.9
    seen = [
        lesion_filter.candidates(t, p, 0.4, (1, 1, 1)) for t, p in zip(truth, pmap, strict=True)
    ]
    found = tune.filter_of(seen, ["a", "b"], 0.4)
    assert (found.f1, found.f1_unfiltered) == (0, 0)
    assert tune.doubts(found, 0.4)
    # With the lesion of the higher peak on the true one, the other is filtered.
    truth = np.roll(truth, 13, axis=1)
    seen = [
        lesion_filter.candidates(t, p, 0.4, (1, 1, 1)) for t, p in zip(truth, pmap, strict=True)
    ]
    assert tune.doubts(tune.filter_of(seen, ["a", "b"], 0.4), 0.4) == ()


def test_a_specificity_without_the_second_point_is_wrong_use():
    with pytest.raises(UsageError, match="goes with -lesion_point 1"):
        tune.TuneSettings(lesion_specificity=0.5)
    with pytest.raises(UsageError, match="expected a number in"):
        tune.TuneSettings(lesion_point=True, lesion_specificity=1.5)


def test_scans_without_a_cord_are_left_out_and_counted(tuned, tmp_path, monkeypatch, caplog):
    _, bundle = tuned
    fresh = write_cohort(tmp_path / "fresh", subjects=3, lesion_free=0, seed=7)
    real = cohort.find.centerline

    def centerline(*args, file=None, **rest):
        if "sub-002" in file.name:
            raise NoCordError("no spinal cord was recognised")
        return real(*args, file=file, **rest)

    monkeypatch.setattr(cohort.find, "centerline", centerline)
    choice = tune.run(bundle.folder, fresh).choice
    point = store.load(bundle.folder).info.operating_point
    assert choice.n_scans == 2
    assert point.warnings[-1] == "left out, because no cord was found: 1 of the scans"
    assert point.centerline == "cohort"
    assert "left out: sub-002_T2w.nii.gz: no spinal cord was recognised" in caplog.text


def test_no_cord_in_any_tuning_scan_is_an_error(tuned, tmp_path, monkeypatch):
    def centerline(*_args, **_rest):
        raise NoCordError("no spinal cord was recognised")

    _, bundle = tuned
    monkeypatch.setattr(cohort.find, "centerline", centerline)
    with pytest.raises(DataError, match="in any of the 1 scans"):
        tune.run(bundle.folder, write_cohort(tmp_path / "fresh", subjects=1, lesion_free=0))


def test_the_scans_of_the_second_point_go_to_the_workers_and_are_told_of(tuned, tmp_path, pmaps):
    _, bundle = tuned
    fresh = write_cohort(tmp_path / "fresh", subjects=3, lesion_free=1, seed=13)
    points, heard = [], []
    for jobs in (1, 2):
        folder = tmp_path / f"small-{jobs}"
        shutil.copytree(bundle.folder, folder)
        settings = tune.TuneSettings(lesion_point=True)
        heard.clear()
        tune.run(folder, fresh, settings, jobs=jobs, report=lambda *now: heard.append(now))
        points.append(store.load(folder).info.operating_point.lesions)
        if jobs == 1:
            assert len(pmaps) == 6
            pmaps.clear()
    assert pmaps == []  # all were predicted by the workers
    assert heard == [(1, 3), (2, 3), (3, 3)] * 2
    assert points[0] == points[1]


def test_the_second_point_is_measured_on_the_unseen_scans(tuned, split_table, tmp_path):
    _, bundle = tuned
    folder = tmp_path / "small"
    shutil.copytree(bundle.folder, folder)
    choice = tune.run(folder, split_table, tune.TuneSettings(lesion_point=True), jobs=2).choice
    loaded = store.load(folder)
    point, metrics = loaded.info.operating_point.lesions, loaded.info.metrics
    network, rule = engines.load(loaded.network), lesion_filter.Filter(point.peak, point.volume_mm3)
    f1, clean = [], []
    for scan in (s for s in table.read(split_table) if s.split == "unseen"):
        seen = cohort.locate(scan)
        pmap = seen.pmap(loaded, network)
        mask = lesion_filter.apply(binarize(pmap, choice.threshold), pmap, 0.125, rule)
        score = lesionwise.score(seen.truth, mask, seen.image.grid.spacing_mm)
        f1.append(score.f1)
        if not seen.truth.any():
            clean.append(score.n_predicted == 0)
    assert metrics["l_f1_median_filtered"].value == pytest.approx(np.nanmedian(f1))
    assert metrics["p_specificity_filtered"].value == pytest.approx(np.mean(clean))
    assert metrics["p_specificity_filtered"].n == metrics["p_specificity"].n == 2
    assert "p_specificity_filtered" in (folder / "card.md").read_text("utf-8")
    tune.run(folder, split_table, tune.TuneSettings(lesion_point=True, measure=False), jobs=2)
    assert store.load(folder).info.metrics == {}


@pytest.fixture
def pmaps(monkeypatch) -> list[str]:
    """Names of the bundles of the p-maps that are predicted in this process from here on."""
    made: list[str] = []
    real = predict.pmap

    def pmap(bundle, *args, **rest):
        made.append(bundle.name)
        return real(bundle, *args, **rest)

    monkeypatch.setattr(predict, "pmap", pmap)
    return made


def test_other_objectives_and_evaluation_take_over_what_tuning_keeps(
    tuned, split_table, tmp_path, pmaps
):
    _, bundle = tuned
    kept = tmp_path / "kept"
    first = tune.run(bundle.folder, split_table, results=kept, jobs=2).choice
    assert pmaps == []  # they were predicted by the workers
    before = {path: path.read_bytes() for path in (kept / "scans").iterdir()}

    lesion_wise = tune.TuneSettings(Objective("mean_l_f1", preset="anima"))
    second = tune.run(bundle.folder, split_table, lesion_wise, results=kept).choice
    evaluated = evaluate.run([bundle.folder], split_table, kept)
    assert pmaps == []
    assert {path: path.read_bytes() for path in (kept / "scans").iterdir()} == before

    info = store.load(bundle.folder).info
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


def test_what_is_doubtful_about_the_choice_is_written_into_the_bundle(tuned, tmp_path):
    _, bundle = tuned
    fresh = write_cohort(tmp_path / "fresh", subjects=2, lesion_free=0, seed=3)
    choice = tune.run(bundle.folder, fresh).choice
    warnings = store.load(bundle.folder).info.operating_point.warnings
    assert warnings == choice.warnings
    assert "subjects that decided: 2, fewer than 10" in warnings
    assert "no lesion-free scan: P-specificity at this threshold is not known" in warnings


def test_a_specificity_can_be_asked_for(tuned, tmp_path):
    _, bundle = tuned
    fresh = write_cohort(tmp_path / "fresh", subjects=3, lesion_free=1, seed=4)
    settings = tune.TuneSettings(Objective("l_f1_at_specificity", specificity=1.0))
    choice = tune.run(bundle.folder, fresh, settings).choice
    point = store.load(bundle.folder).info.operating_point
    assert (point.specificity, point.preset) == (1.0, "paper")
    assert (choice.n_scans, len(point.per_scan)) == (2, 2)
    assert point.curve[0] is None  # at 0 every scan is marked
    with pytest.raises(UsageError, match="no other takes one"):
        Objective(specificity=1.0)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """An empty home; the folder of bundles in it."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home" / ".local/share/sct_lesion_losses/bundles"


@pytest.fixture(scope="module")
def two_scans(tmp_path_factory) -> Path:
    return write_cohort(tmp_path_factory.mktemp("two") / "data", 2, lesion_free=0, seed=31)


@pytest.mark.parametrize("kind", ["of the package", "somebody else's", "read-only"])
def test_a_bundle_that_is_not_the_users_own_is_never_written_and_a_copy_is_tuned(
    kind, tuned, two_scans, home, tmp_path, monkeypatch, caplog
):
    bundle = shutil.copytree(tuned[1].folder, tmp_path / "shipped" / "small")
    if kind == "of the package":
        monkeypatch.setattr(store, "PACKAGED", bundle.parent)
    elif kind == "somebody else's":
        monkeypatch.setattr(os, "geteuid", lambda: bundle.stat().st_uid + 1)
    else:
        real = os.access
        monkeypatch.setattr(
            os, "access", lambda path, mode: Path(path) != bundle and real(path, mode)
        )
    before = contents(bundle)
    made = tune.run(bundle, two_scans, tune.TuneSettings(measure=False))
    assert contents(bundle) == before
    assert made.elsewhere
    assert made.bundle.folder == home / "small-tuned"
    loaded = store.load(home / "small-tuned")
    assert (loaded.name, loaded.threshold) == ("small-tuned", made.choice.threshold)
    assert f"stays as it is; the tuned copy will be {home / 'small-tuned'}" in caplog.text
    with pytest.raises(BundleError, match="replace it with -force 1"):
        tune.run(bundle, Path("no such data"))
    with pytest.raises(UsageError, match="is not yours to change"):
        tune.run(bundle, Path("no such data"), folder=bundle)


def test_a_tuned_copy_goes_where_it_is_asked_for(tuned, two_scans, tmp_path):
    _, bundle = tuned
    before = contents(bundle.folder)
    made = tune.run(bundle.folder, two_scans, folder=tmp_path / "mine")
    assert made.elsewhere
    assert store.load(tmp_path / "mine").threshold == made.choice.threshold
    assert contents(bundle.folder) == before
    kept = contents(tmp_path / "mine")
    with pytest.raises(BundleError, match="replace it with -force 1"):
        tune.run(bundle.folder, Path("no such data"), folder=tmp_path / "mine")
    with pytest.raises(UsageError, match="choose another folder name"):
        tune.run(bundle.folder, Path("no such data"), folder=tmp_path / "my own")
    assert contents(tmp_path / "mine") == kept
    tune.run(bundle.folder, two_scans, folder=tmp_path / "mine", force=True)


def test_a_bundle_keeps_the_operating_point_that_it_had(tuned, two_scans, tmp_path):
    _, bundle = tuned
    folder = shutil.copytree(bundle.folder, tmp_path / "small")
    before = store.load(folder).info.operating_point.model_copy(update={"previous": None})
    made = tune.run(folder, two_scans)
    assert not made.elsewhere
    point = store.load(folder).info.operating_point
    assert point.previous == before
    assert point.tuned_on != before.tuned_on
    card = (folder / "card.md").read_text("utf-8")
    scans = "scan" if before.n_scans == 1 else "scans"
    assert f"Before that it was tuned to **{before.threshold:g}**" in card
    assert f"on {before.n_scans} {scans} of" in card
    tune.run(folder, two_scans)  # the same once more: what was there before that stays
    assert store.load(folder).info.operating_point == point
