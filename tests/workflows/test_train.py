import json
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import safetensors.numpy
from filelock import FileLock
from on_backend import run as run_on
from small_data import run_onnx, save_changed, write_cohort

from sct_lesion_losses.bundle import store
from sct_lesion_losses.bundle.schema import Recipe
from sct_lesion_losses.cohorts import splits
from sct_lesion_losses.cohorts import table as cohorts
from sct_lesion_losses.errors import BundleError, DataError, OutputError, TrainingError, UsageError
from sct_lesion_losses.images import nifti
from sct_lesion_losses.images.atomic import LOCK
from sct_lesion_losses.training.recipe import RESULTS, study
from sct_lesion_losses.workflows import train
from sct_lesion_losses.workflows.train import TrainSettings

SMALL = {
    "filters": (2, 4),
    "batch_size": 2,
    "epochs_planned": 2,
    "patches_per_epoch": 4,
    "validation_patches": 2,
    "rate": 1e-2,
    "shift_mm": 1.0,
}
FAST = study(**SMALL)
RESUME, FORCE = TrainSettings(resume=True), TrainSettings(force=True)


def small(**changes: object) -> Recipe:
    return study(**{**SMALL, **changes})


HOSTS = [f"{k:032x}" for k in range(7)]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    folder = write_cohort(tmp_path_factory.mktemp("cohort"), subjects=8)
    # Its first lesions, say, are implants in scans that are none of these.
    for scan, host in zip(cohorts.read(folder), HOSTS, strict=False):
        sidecar = {"ImplantHostHash": host}
        scan.scan.with_name(f"{scan.name}.json").write_text(json.dumps(sidecar))
    return folder


@pytest.fixture(scope="module")
def trained(cohort, tmp_path_factory) -> Path:
    return train.run(cohort, tmp_path_factory.mktemp("bundles") / "small", FAST)


@pytest.fixture
def mine(trained, tmp_path) -> Path:
    """A copy of the bundle with its training, to be changed."""
    return shutil.copytree(trained.parent, tmp_path / "bundles") / "small"


def test_training_writes_a_bundle_that_loads_with_an_untuned_threshold(trained):
    bundle = store.load(trained)
    assert (bundle.name, bundle.threshold) == ("small", 0.5)
    assert bundle.info.operating_point.kind == "untuned"
    assert bundle.info.loss.numbers["fn_weight"] == 0.7
    assert bundle.info.preparation.landmarks[0] == 0
    assert not bundle.info.preparation.tta
    recipe = bundle.info.recipe
    assert (recipe.epochs_run, recipe.device) == (2, "cpu")
    log = (trained.with_name("small.training") / "training.csv").read_text().splitlines()
    seconds = [float(line.split(",")[-1]) for line in log[1:]]
    assert recipe.minutes == pytest.approx(sum(seconds) / 60)


@pytest.mark.parametrize("by_start", [False, True])
def test_predicting_mirrored_patches_needs_a_training_with_mirrors(trained, tmp_path, by_start):
    start, tta = store.load(trained), True
    if by_start:
        mirrored = start.preparation.model_copy(update={"tta": True})
        info = start.info.model_copy(update={"preparation": mirrored})
        start, tta = replace(start, info=info), None
    settings = TrainSettings(init=start, tta=tta)
    with pytest.raises(UsageError, match="leave out -mirrors 0, or add -tta 0"):
        train.run(tmp_path / "no cohort", tmp_path / "b", small(mirrors=False), settings)
    with pytest.raises(DataError):  # the first thing that is amiss with mirrors
        train.run(tmp_path / "no cohort", tmp_path / "b", FAST, settings)


def test_bundle_knows_the_contents_of_what_it_was_trained_on(trained):
    scans = cohorts.read(trained.with_name("small.training") / train.SPLIT_TABLE)
    known = store.load(trained).info.provenance.trained_on
    used = splits.part(scans, "training", "validation")
    hashes = (cohorts.content_hash(nifti.read(scan.scan).array) for scan in used)
    hosts = filter(None, map(cohorts.host_hash, used))
    assert set(hosts) < set(HOSTS)
    assert sorted(known) == sorted([*hashes, *filter(None, map(cohorts.host_hash, used))])


def test_a_resumed_training_adds_epochs_and_leaves_its_bundle_where_there_are_none(
    mine, cohort, caplog
):
    train.run(cohort, mine, small(epochs_planned=3), RESUME)
    bundle = store.load(mine)
    assert [line.epoch for line in bundle.info.history] == [1, 2, 3]
    info = save_changed(mine, bundle, version="2.0").info
    caplog.set_level("INFO")
    train.run(cohort, mine, small(epochs_planned=3), RESUME)
    assert "small: this training is finished, and its bundle stays as it is; a -bun" in caplog.text
    assert store.load(mine).info == info
    (mine / "model.onnx").unlink()
    train.run(cohort, mine, small(epochs_planned=3), RESUME)
    assert store.load(mine).info.version == "1.0.0"
    train.run(cohort, mine, small(epochs_planned=1), FORCE)
    assert store.load(mine).info.recipe.epochs_run == 1


def test_resuming_by_another_recipe_or_for_fewer_epochs_is_refused_before_a_scan_is_read(
    trained, tmp_path
):
    with pytest.raises(TrainingError, match=r"rate: 0.01 -> 0.1"):
        train.run(tmp_path / "gone", trained, small(rate=0.1), RESUME)
    with pytest.raises(TrainingError, match="has 2 epochs, 1 were asked for"):
        train.run(tmp_path / "gone", trained, small(epochs_planned=1), RESUME)


def test_resuming_with_other_labels_is_refused_and_changes_nothing(tmp_path):
    data, folder = write_cohort(tmp_path / "data", subjects=8), tmp_path / "small"
    train.run(data, folder, FAST)
    table = tmp_path / "small.training" / train.SPLIT_TABLE
    before = table.read_text()
    trained_on = splits.part(cohorts.read(table), "training")[0]
    image = nib.load(trained_on.lesion_mask)
    moved = np.roll(np.asarray(image.dataobj), 6, axis=2)
    nib.save(nib.Nifti1Image(moved, image.affine), trained_on.lesion_mask)
    said = rf"another training .{trained_on.name} in training has changed.; give"
    with pytest.raises(TrainingError, match=said):
        train.run(data, folder, small(epochs_planned=3), RESUME)
    assert table.read_text() == before


def test_a_training_starts_from_the_weights_of_a_bundle(cohort, trained, tmp_path):
    first = store.load(trained)
    still = small(rate=1e-12, epochs_planned=1)
    settings = TrainSettings(init=first, command="sct_train_lesion -init small")
    second = store.load(train.run(cohort, tmp_path / "tuned", still, settings))
    before, after = (safetensors.numpy.load(b.weights) for b in (first, second))
    kernels = [name for name in before if name.endswith("kernel")]
    assert kernels
    for name in kernels:
        np.testing.assert_allclose(after[name], before[name], atol=1e-6)
    assert second.preparation == first.preparation
    assert second.info.provenance.ancestor == f"small 1.0.0, weights {first.weights_sha256}"
    assert set(first.info.provenance.trained_on) <= set(second.info.provenance.trained_on)


@pytest.fixture(scope="module")
def several(tmp_path_factory) -> list[Path]:
    """Two cohorts whose subjects are called alike, the second with a split."""
    folder = tmp_path_factory.mktemp("several")
    first = write_cohort(folder / "first", subjects=8)
    scans = cohorts.read(write_cohort(folder / "second", subjects=4, lesion_free=2, seed=1))
    parts = ("training", "validation", "training", "unseen")
    split = [replace(scan, split=part) for scan, part in zip(scans, parts, strict=True)]
    cohorts.write(split, folder / "second.tsv")
    return [first, folder / "second.tsv"]


def test_several_cohorts_are_trained_on_together_and_resumed(several, tmp_path, caplog):
    folder = tmp_path / "small"
    recipe = small(
        cohort_shares={"first": 0.5, "second": 0.5}, lesion_share=0.5, free_share=0.5, ema=0.9
    )
    train.run(several, folder, recipe)
    assert "is in the training set" not in caplog.text
    bundle = store.load(folder)
    assert bundle.info.provenance.scans == {
        **{"training": 4 + 2, "validation": 1 + 1, "thr-optimization": 1, "unseen": 2 + 1}
    }
    kept, asked = (one.model_dump(exclude=RESULTS) for one in (bundle.info.recipe, recipe))
    assert kept == asked
    table = folder.with_name("small.training") / train.SPLIT_TABLE
    scans = cohorts.read(table)
    assert {(s.cohort, s.subject.split("/")[0]) for s in scans} == {
        ("first", "first"),
        ("second", "second"),
    }
    longer = recipe.model_copy(update={"epochs_planned": 3})
    train.run(several, folder, longer, RESUME)
    assert [line.epoch for line in store.load(folder).info.history] == [1, 2, 3]
    # The table that was written is the same data, cohorts and split included.
    whole = store.load(train.run(table, tmp_path / "again", longer))
    assert whole.weights_sha256 == store.load(folder).weights_sha256
    with pytest.raises(TrainingError, match="another order"):
        train.run(several[::-1], folder, longer, RESUME)


@pytest.mark.parametrize(
    ("shares", "error", "said"),
    [
        ({"first": 1.0}, UsageError, "-cohort_shares names first; the cohorts are first, second"),
        ({"first": 0.5, "other": 0.5}, UsageError, "names first, other; the cohorts are first, s"),
    ],
)
def test_shares_of_other_cohorts_are_refused(shares, error, said, several, tmp_path):
    with pytest.raises(error, match=said):
        train.run(several, tmp_path / "b", small(cohort_shares=shares))
    with pytest.raises(UsageError, match="cohorts are one without a name; give several to -i"):
        train.run(several[0], tmp_path / "b", small(cohort_shares=shares))


def test_a_share_for_a_cohort_that_nobody_is_trained_on_of_is_refused(several, tmp_path):
    scans = [replace(s, split="unseen") for s in cohorts.read(several[1])]
    cohorts.write(scans, tmp_path / "second.tsv")
    shares = {"first": 0.9, "second": 0.1}
    given = [several[0], tmp_path / "second.tsv"]
    with pytest.raises(DataError, match="cohort second is to give 10% of the patches, and no"):
        train.run(given, tmp_path / "b", small(cohort_shares=shares))


def test_one_person_of_two_cohorts_may_be_in_one_part_alone(several, tmp_path):
    scans = splits.of(cohorts.read(several[0]))
    trained = splits.part(scans, "training")[0]
    copy = tmp_path / "copy_T2w.nii.gz"
    copy.write_bytes(trained.scan.read_bytes())
    given = [several[0], tmp_path / "second.tsv"]
    cohorts.write([replace(trained, scan=copy)], given[1])
    train.run(given, tmp_path / "b", small(epochs_planned=1))
    cohorts.write([replace(trained, scan=copy, split="validation")], given[1])
    with pytest.raises(DataError, match=r"copy_T2w\S+ of second/sub-... is the same image as"):
        train.run(given, tmp_path / "c", FAST)


def test_a_cohort_that_nobody_is_trained_on_of_is_warned_of(tmp_path, caplog):
    write_cohort(tmp_path / "ill", subjects=8)
    write_cohort(tmp_path / "healthy", subjects=2, lesion_free=2, seed=1)
    given = [tmp_path / "ill", tmp_path / "healthy"]
    train.run(given, tmp_path / "b", small(epochs_planned=1))
    assert "no scan of the cohort healthy is in the training set" in caplog.text
    caplog.clear()
    rules = splits.Rules(lesion_free_in_training=0.5)
    train.run(given, tmp_path / "c", small(epochs_planned=1), TrainSettings(rules=rules))
    assert "cohort healthy" not in caplog.text


def test_a_finished_training_is_given_the_augmentation_that_is_asked_for(mine, cohort):
    train.run(cohort, mine, FAST, TrainSettings(resume=True, tta=True))
    assert store.load(mine).info.preparation.tta
    before = (mine / "bundle.json").stat().st_mtime_ns
    train.run(cohort, mine, FAST, RESUME)
    train.run(cohort, mine, FAST, TrainSettings(resume=True, tta=True))
    assert (mine / "bundle.json").stat().st_mtime_ns == before


def test_a_training_that_is_there_is_not_lost(cohort, trained, tmp_path):
    before = (trained / "bundle.json").read_bytes()
    with pytest.raises(TrainingError, match=r"holds a training already.*-resume 1.*-force 1"):
        train.run(cohort, trained, FAST)
    assert (trained / "bundle.json").read_bytes() == before
    alone = shutil.copytree(trained, tmp_path / "small")
    with pytest.raises(TrainingError, match=r"holds a bundle already.*-force 1"):
        train.run(cohort, alone, FAST, RESUME)
    with pytest.raises(UsageError, match="choose one of them"):
        TrainSettings(resume=True, force=True)


def test_two_trainings_of_one_bundle_do_not_meet(cohort, tmp_path):
    work = tmp_path / ("small" + train.WORK_SUFFIX)
    with FileLock(work / LOCK), pytest.raises(OutputError, match="another training is writing"):
        train.run(cohort, tmp_path / "small", FAST)


@pytest.mark.parametrize(
    ("folder", "settings", "error", "said"),
    [
        ("_my bundle", TrainSettings(), UsageError, "name is '_my bundle'"),
        ("b", TrainSettings(command="x -i /data/ms"), UsageError, "absolute path"),
        ("sct", TrainSettings(), BundleError, "choose another name"),
        ("full", TrainSettings(), BundleError, "not a bundle's"),
        ("b", TrainSettings(cache=Path("b")), UsageError, "would lie in the bundle b"),
        ("b", TrainSettings(cache=Path("b/cache")), UsageError, "would lie in the bundle b"),
    ],
)
def test_what_cannot_become_a_bundle_is_refused_before_a_scan_is_read(
    folder, settings, error, said, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    with pytest.raises(error, match=said):
        train.run(tmp_path / "no cohort", tmp_path / folder, FAST, settings)
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_a_cohort_without_lesions_in_training_is_refused(tmp_path):
    scans = cohorts.read(write_cohort(tmp_path / "data", subjects=4, lesion_free=4))
    parts = ("training", "training", "validation", "unseen")
    split = [replace(scan, split=part) for scan, part in zip(scans, parts, strict=True)]
    cohorts.write(split, tmp_path / "table.tsv")
    with pytest.raises(DataError, match="no scan of the training set holds lesions"):
        train.run(tmp_path / "table.tsv", tmp_path / "bundle", FAST)


def test_trainings_side_by_side_share_what_is_prepared_of_the_scans(cohort, tmp_path, caplog):
    told = []
    caplog.set_level("INFO")
    for name in ("first", "second"):
        train.run(
            cohort,
            tmp_path / name,
            FAST,
            TrainSettings(jobs=2, cache=tmp_path / "elsewhere"),
            on_scan=lambda *now, name=name: told.append((name, *now)),
        )
    said = [text for text in caplog.messages if text.startswith(("split:", "crops:"))]
    split = "split: 4 training, 1 validation, 1 thr-optimization, 2 unseen"
    assert said == [
        *(split, f"crops: 5 made, 0 taken from the cache {tmp_path / 'elsewhere'}"),
        *(split, f"crops: 0 made, 5 taken from the cache {tmp_path / 'elsewhere'}"),
    ]
    # Cut are 4 scans to learn from and 1 to judge by, and then standardised part by part.
    totals = (5, 4, 1)
    assert told == [("first", n, total) for total in totals for n in range(1, total + 1)]
    first, second = (store.load(tmp_path / name) for name in ("first", "second"))
    assert first.weights_sha256 == second.weights_sha256
    assert len(list((tmp_path / "elsewhere").glob("[!.]*.safetensors"))) == 10
    assert not (tmp_path / train.CACHE).exists()


def test_every_entry_of_the_recipe_is_in_the_bundle(cohort, tmp_path):
    recipe = small(
        epochs_planned=3,
        stop_patience=2,
        lesion_share=0.5,
        prior=0.02,
        shift_mm=1.0,
        intensity=0.25,
        stripe=0.5,
    )
    folder = train.run(cohort, tmp_path / "small", recipe)
    kept = store.load(folder).info.recipe
    assert kept.model_dump(exclude=RESULTS) == recipe.model_dump(exclude=RESULTS)
    assert (kept.keep, kept.devices) == ("best", 1)
    assert kept.best_epoch is not None
    # A training that has ended gives the weights of its last epoch where they are asked for.
    last = recipe.model_copy(update={"keep": "last"})
    train.run(cohort, tmp_path / "small", last, RESUME)
    kept = store.load(folder).info.recipe
    assert (kept.keep, kept.best_epoch) == ("last", None)
    assert "- weights of the last epoch\n" in (folder / "card.md").read_text()


def test_a_bundle_is_trained_on_jax_without_tensorflow(cohort, tmp_path):
    trained = run_on("jax", "trained_bundle", cohort, tmp_path / "small")
    bundle = store.load(tmp_path / "small")
    assert bundle.info.recipe.backend == "jax"
    assert trained["history"][1] < trained["history"][0]
    found = run_onnx(bundle.network, trained["patches"][..., 0])
    assert np.abs(found - trained["keras"][..., 0]).max() < 1e-5
