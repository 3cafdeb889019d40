from __future__ import annotations

import csv
import hashlib
import json
import math
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import sct_graph
from small_bundle import train_small
from small_cohort import write_cohort

from sct_lesion_losses import study
from sct_lesion_losses.bundle import store
from sct_lesion_losses.cohorts import table as cohorts
from sct_lesion_losses.cohorts.splits import Rules
from sct_lesion_losses.errors import BundleError, DataError, OutputError, TrainingError, UsageError
from sct_lesion_losses.preprocessing.augmentation import Augmentation
from sct_lesion_losses.study import Settings, pace, stages
from sct_lesion_losses.training import recipe
from sct_lesion_losses.workflows import train, tune

LOSSES = ("dice", "tversky")
AFTER = ["evaluate", "draw", "report"]
STAGES = ["split", "train dice", "train tversky", "tune dice", "tune tversky", *AFTER]
VOID = {"meta", "img", "br", "hr", "link", "input"}


def settings(*losses: str, **changes: object) -> Settings:
    """A study of seconds."""
    recipes = tuple(
        recipe.study(
            loss,
            filters=(4,),
            batch_size=2,
            epochs=2,
            patches_per_epoch=8,
            validation_patches=2,
            rate=2e-2,
            augmentation=Augmentation(rotations=False),
        )
        for loss in losses
    )
    return Settings(recipes=recipes, command="sct_lesion_study -i data -ofolder out", **changes)  # type: ignore[arg-type]


SETTINGS = settings(*LOSSES)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a cohort, `data`, and a study of it, `out`, without SCT."""
    folder = tmp_path_factory.mktemp("study")
    write_cohort(folder / "data", subjects=24, lesion_free=5)
    with pytest.MonkeyPatch.context() as patch:
        without_sct(patch, folder)
        results = study.run(folder / "data", folder / "out", SETTINGS)
    assert [name for name, found in results.items() if found.outcome == "done"] == STAGES
    return folder


@pytest.fixture
def made(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder, to be changed."""
    without_sct(monkeypatch, tmp_path)
    shutil.copytree(original, tmp_path / "copy")
    return tmp_path / "copy"


def without_sct(patch: pytest.MonkeyPatch, folder: Path) -> None:
    patch.setenv("SCT_DIR", str(folder / "none"))
    patch.setenv("PATH", "")


def again(made: Path, asked: Settings = SETTINGS) -> list[str]:
    """Names of the stages that another run does."""
    results = study.run(made / "data", made / "out", asked)
    return [name for name, found in results.items() if found.outcome == "done"]


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def split_of(table: Path) -> dict[Path, str]:
    return {scan.scan.resolve(): scan.split for scan in cohorts.read(table)}


def relabel(made: Path, part: str) -> str:
    """Halve the lesion of a scan of a part; return the scan's name."""
    scans = cohorts.read(made / "out" / "split.tsv")
    scan = next(s for s in scans if s.split == part and nib.load(s.lesion_mask).get_fdata().any())
    image = nib.load(scan.lesion_mask)
    lesion = np.asarray(image.dataobj).copy()
    lesion[: round(float(np.argwhere(lesion)[:, 0].mean()))] = 0
    nib.save(nib.Nifti1Image(lesion, image.affine), scan.lesion_mask)
    return scan.name


def test_a_study_writes_everything_that_it_is_asked_for(original: Path) -> None:
    out = original / "out"
    for name in (
        *("split.tsv", "figure1.png", "figure1.svg", "report.html"),
        *("evaluation/scores.tsv", "evaluation/tables/table1.md", "evaluation/tables/table2.tex"),
        *("evaluation/figures/figure2.svg", "figures/figure3.png", "figures/learning_curves.svg"),
        *(f"bundles/{loss}/bundle.json" for loss in LOSSES),
        *(f"bundles/{loss}.training/training.csv" for loss in LOSSES),
    ):
        assert (out / name).stat().st_size > 0, name
    for loss in LOSSES:
        info = store.load(out / "bundles" / loss).info
        assert (info.name, info.loss.name, info.operating_point.kind) == (loss, loss, "tuned")
        assert info.provenance.commands == (SETTINGS.command,)
    with (out / "evaluation" / "scores.tsv").open() as stream:
        assert {row["bundle"] for row in csv.DictReader(stream, delimiter="\t")} == set(LOSSES)


def test_the_trainings_share_split_and_prepared_scans(original: Path) -> None:
    out = original / "out"
    parts = split_of(out / "split.tsv")
    for loss in LOSSES:
        assert split_of(out / "bundles" / f"{loss}.training" / "split.tsv") == parts
    infos = [store.load(out / "bundles" / loss).info for loss in LOSSES]
    assert infos[0].split_hash == infos[1].split_hash
    trained = sum(split in ("training", "validation") for split in parts.values())
    # A tube, and its standardised form, by landmarks that both share.
    assert len(list((out / "bundles" / "training_cache").glob("*.safetensors"))) == 2 * trained


def test_another_run_does_nothing_and_leaves_every_byte(made: Path) -> None:
    before = hashes(made / "out")
    assert again(made) == []  # though it lies in another folder than where it was made
    assert hashes(made / "out") == before


@pytest.mark.parametrize("old_stays", [False, True])
def test_a_moved_cohort_is_split_again_and_read_where_it_is(made: Path, old_stays: bool) -> None:
    before = {path.name: part for path, part in split_of(made / "out" / "split.tsv").items()}
    weights = hashes(made / "out" / "bundles" / "dice")
    (shutil.copytree if old_stays else shutil.move)(made / "data", made / "elsewhere")
    plan = study.planned(made / "elsewhere", made / "out", SETTINGS)
    assert plan[0].action == "run"
    results = study.run(made / "elsewhere", made / "out", SETTINGS)
    assert results["split"].outcome == "done"
    assert {results[f"{do} dice"].outcome for do in ("train", "tune")} == {"kept"}
    found = split_of(made / "out" / "split.tsv")
    assert all(made / "elsewhere" in path.parents for path in found)
    assert {path.name: part for path, part in found.items()} == before
    assert hashes(made / "out" / "bundles" / "dice") == weights
    again = study.run(made / "elsewhere", made / "out", SETTINGS)
    assert {one.outcome for one in again.values()} == {"kept"}


def test_a_moved_study_is_split_again_and_trains_nothing(made: Path) -> None:
    (made / "deeper").mkdir()
    shutil.move(made / "out", made / "deeper" / "out")
    results = study.run(made / "data", made / "deeper" / "out", SETTINGS)
    assert results["split"].outcome == "done"
    assert results["train dice"].outcome == results["tune tversky"].outcome == "kept"


def test_a_changed_unseen_scan_does_not_train_again(made: Path) -> None:
    table = fix_split(made)
    relabel(made, "unseen")
    found = [n for n, r in study.run(table, made / "out", SETTINGS).items() if r.outcome == "done"]
    assert found == ["split", "tune dice", "tune tversky", *AFTER]


def test_a_changed_training_scan_trains_anew_and_all_that_follows(made: Path) -> None:
    table = fix_split(made)
    relabel(made, "training")
    found = [n for n, r in study.run(table, made / "out", SETTINGS).items() if r.outcome == "done"]
    assert found == STAGES
    history = store.load(made / "out" / "bundles" / "dice").info.history
    assert [line.epoch for line in history] == [1, 2]


def fix_split(made: Path) -> Path:
    """Make the study on a table that holds the split, which no label changes then."""
    table = made / "cohort.tsv"
    cohorts.write(cohorts.read(made / "out" / "split.tsv"), table)
    results = study.run(table, made / "out", SETTINGS)
    assert results["train dice"].outcome == "kept"
    return table


def test_one_loss_more_trains_that_one_alone(made: Path) -> None:
    assert again(made, settings(*LOSSES, "bce")) == [
        "train bce",
        "tune bce",
        "evaluate",
        "draw",
        "report",
    ]


def test_one_loss_less_leaves_its_bundle_and_evaluates_the_others(made: Path) -> None:
    assert again(made, settings("dice")) == AFTER
    assert (made / "out" / "bundles" / "tversky" / "bundle.json").is_file()


def test_more_epochs_go_on_with_the_training(made: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = (made / "out" / "bundles" / "dice.training" / "training.csv").read_text()
    longer = tuple(replace(r, epochs=3) if r.loss == "dice" else r for r in SETTINGS.recipes)
    found = again(made, replace(SETTINGS, recipes=longer))
    assert "train tversky" not in found
    assert "train dice" in found
    log = made / "out" / "bundles" / "dice.training" / "training.csv"
    assert log.read_text().startswith(before)
    assert len(log.read_text().splitlines()) == 4


def test_another_recipe_begins_anew(made: Path) -> None:
    other = tuple(replace(r, rate=1e-3) if r.loss == "dice" else r for r in SETTINGS.recipes)
    found = again(made, replace(SETTINGS, recipes=other))
    assert found == ["train dice", "tune dice", *AFTER]
    assert store.load(made / "out" / "bundles" / "dice").info.recipe.rate == pytest.approx(1e-3)


def test_an_interrupted_training_goes_on_where_it_ended(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = settings("dice", "bce")
    real = train.run

    def interrupted(*args: object, **rest: object) -> Path:
        def stop(report: object) -> None:
            if report.epoch == 1:  # type: ignore[attr-defined]
                raise KeyboardInterrupt

        return real(*args, **{**rest, "report": stop})  # type: ignore[arg-type]

    monkeypatch.setattr(train, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        again(made, asked)
    monkeypatch.setattr(train, "run", real)
    log = made / "out" / "bundles" / "bce.training" / "training.csv"
    first = log.read_text()
    assert len(first.splitlines()) == 2
    plan = {one.stage: one for one in study.planned(made / "data", made / "out", asked)}
    assert plan["train bce"].action == "resume"
    assert "its epochs so far" in plan["train bce"].estimate.by
    assert "train bce" in again(made, asked)
    assert log.read_text().startswith(first)


def test_a_failed_training_leaves_the_others_and_is_named(made: Path) -> None:
    asked = settings(*LOSSES, "bce")
    place = made / "out" / "bundles" / "bce.training"
    place.write_text("a file in its place")
    results = study.run(made / "data", made / "out", asked)
    assert results["train bce"].outcome == "failed"
    assert (results["tune bce"].outcome, results["tune bce"].why) == ("left out", "train bce")
    assert list(study.failures(results)) == ["train bce"]
    page = (made / "out" / "report.html").read_text("utf-8")
    assert "train bce: " in page
    assert str(made) not in page
    place.unlink()
    assert again(made, asked) == ["train bce", "tune bce", *AFTER]
    assert "train bce: " not in (made / "out" / "report.html").read_text("utf-8")


@pytest.mark.parametrize("name", ["bundle.json", "model.onnx", "card.md"])
def test_a_damaged_bundle_is_made_again_from_its_training(made: Path, name: str) -> None:
    place = made / "out" / "bundles" / "dice"
    weights = (place / "weights.safetensors").read_bytes()
    log = (made / "out" / "bundles" / "dice.training" / "training.csv").read_text()
    if name == "card.md":
        (place / name).write_bytes((place / name).read_bytes() + b"x")
    else:
        (place / name).unlink()
    plan = {one.stage: one.action for one in study.planned(made / "data", made / "out", SETTINGS)}
    assert (plan["train dice"], plan["train tversky"]) == ("resume", "skip")
    assert again(made)[:2] == ["train dice", "tune dice"]
    assert store.load(place).tuned_threshold is not None
    assert (place / "weights.safetensors").read_bytes() == weights
    assert (made / "out" / "bundles" / "dice.training" / "training.csv").read_text() == log
    assert again(made) == []


def test_a_damaged_bundle_whose_training_is_gone_is_trained_anew(made: Path) -> None:
    shutil.rmtree(made / "out" / "bundles" / "dice.training")
    (made / "out" / "bundles" / "dice" / "model.onnx").unlink()
    assert again(made)[:2] == ["train dice", "tune dice"]
    assert again(made) == []


def test_a_bundle_that_is_lost_after_its_training_leaves_the_others(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(folder: Path, *_: object, **__: object) -> None:
        (folder / "model.onnx").unlink(missing_ok=True)
        raise TrainingError("spoilt")

    monkeypatch.setattr(tune, "run", spoil)
    results = study.run(made / "data", made / "out", settings("bce", "tversky"))
    assert list(study.failures(results)) == ["tune bce"]
    page = (made / "out" / "report.html").read_text("utf-8")
    assert "bce: " in page
    assert "model.onnx is missing" in page
    with (made / "out" / "evaluation" / "scores.tsv").open() as stream:
        assert {row["bundle"] for row in csv.DictReader(stream, delimiter="\t")} == {"tversky"}


def test_nothing_is_evaluated_where_every_training_fails(made: Path) -> None:
    (made / "out" / "bundles" / "bce.training").write_text("a file in its place")
    with pytest.raises(TrainingError, match=r"every training has failed: .*bce.training"):
        again(made, settings("bce"))


def test_a_plan_of_a_new_study_writes_nothing_and_does_not_guess(
    original: Path, tmp_path: Path
) -> None:
    plan = study.planned(original / "data", tmp_path / "new", SETTINGS)
    assert [one.stage for one in plan] == STAGES
    assert {one.action for one in plan} == {"run"}
    assert not (tmp_path / "new").exists()


def test_a_plan_estimates_a_training_by_the_epochs_of_others(made: Path) -> None:
    plan = study.planned(made / "data", made / "out", settings(*LOSSES, "bce"))
    found = {one.stage: one for one in plan}
    assert found["train dice"].action == "skip"
    assert found["train bce"].estimate.by == "the epochs of other losses"
    assert found["train bce"].estimate.seconds > 0


def test_a_plan_measures_some_steps_where_no_epoch_is_known(original: Path, tmp_path: Path) -> None:
    asked = settings("dice")
    plan = study.planned(original / "data", tmp_path / "new", asked, measured=study.measured)
    found = next(one for one in plan if one.stage == "train dice")
    # 8 patches an epoch, 2 a step, 2 epochs.
    assert found.estimate.by == "8 steps, a few of which were measured"
    assert 0 < found.estimate.seconds < 600
    whole = tuple(replace(recipe, patches_per_epoch=None) for recipe in asked.recipes)
    scans = cohorts.read(original / "data")
    # 24 scans of 64 slices, of which 62 of 115 are trained on: 3 patches from each.
    assert pace.steps(whole[0], scans) == math.ceil(24 * 3 * 62 / 115 / 2)


def test_given_bundles_keep_their_thresholds_and_nothing_is_trained(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_sct(monkeypatch, tmp_path)
    given = original / "out" / "bundles" / "dice"
    before = hashes(given)
    asked = Settings(bundles=(str(given),))
    table = original / "out" / "split.tsv"
    results = study.run(table, tmp_path / "out", asked)
    assert list(results) == ["split", *AFTER]
    assert hashes(given) == before
    assert not (tmp_path / "out" / "bundles").exists()
    scores = tmp_path / "out" / "evaluation" / "scores.json"
    levels = json.loads(scores.read_text())["bundle"]["Levels"]
    assert levels["dice"]["TunedThreshold"] == store.load(given).threshold


def test_given_bundles_are_tuned_again_as_copies_where_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_sct(monkeypatch, tmp_path)
    table = train_small(tmp_path)
    given = tmp_path / "small"
    before = hashes(given)
    results = study.run(table, tmp_path / "out", Settings(bundles=(str(given),), retune=True))
    assert list(results) == ["split", "tune small", *AFTER]
    assert hashes(given) == before
    assert store.load(tmp_path / "out" / "bundles" / "small").tuned_threshold is not None
    again = study.run(table, tmp_path / "out", Settings(bundles=(str(given),), retune=True))
    assert {found.outcome for found in again.values()} == {"kept"}


def test_scts_model_enters_where_it_is_found(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = made / "out" / "report.html"
    assert "was not found" in page.read_text("utf-8")
    sct_graph.install(tmp_path / "sct", sct_graph.make((2, 4)))
    monkeypatch.setenv("SCT_DIR", str(tmp_path / "sct"))
    assert again(made) == AFTER
    text = page.read_text("utf-8")
    assert "was not found" not in text
    assert "sct as shipped" in text
    assert again(made) == []


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (Settings(), "give losses to train"),
        (settings("dice", "dice"), "given twice"),
        (replace(settings("dice"), bundles=("tversky",)), "give one of them"),
    ],
)
def test_a_study_of_nothing_or_of_two_things_is_refused(
    asked: Settings, said: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=said):
        study.run(tmp_path / "data", tmp_path / "out", asked)
    assert list(tmp_path.iterdir()) == []


def test_a_cohort_that_cannot_be_split_ends_the_study(original: Path, tmp_path: Path) -> None:
    asked = replace(SETTINGS, rules=Rules(unseen_sites=("Z",)))
    with pytest.raises(DataError, match="unseen site Z"):
        study.run(original / "data", tmp_path / "out", asked)


def test_two_studies_in_one_folder_do_not_meet(made: Path) -> None:
    from filelock import FileLock

    with (
        FileLock(made / "out" / stages.FOLDER / study.LOCK),
        pytest.raises(OutputError, match="another study is writing"),
    ):
        again(made)


class Page(HTMLParser):
    """What a report holds: open elements, identifiers, links, sources."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[str] = []
        self.identifiers: list[str] = []
        self.links: list[str] = []
        self.sources: list[str] = []
        self.scopes: list[str | None] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.elements.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        if "id" in given:
            self.identifiers.append(given["id"] or "")
        if "href" in given:
            self.links.append(given["href"] or "")
        if "src" in given:
            self.sources.append(given["src"] or "")
        if tag == "th":
            self.scopes.append(given.get("scope"))
        if tag == "img":
            assert given.get("alt")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_report_is_complete_in_itself_and_well_formed(original: Path) -> None:
    text = (original / "out" / "report.html").read_text("utf-8")
    page = Page(text)
    assert page.open == []
    assert page.elements.count("h1") == 1
    assert not {"script", "link", "iframe", "object"} & set(page.elements)
    assert page.sources
    assert all(source.startswith("data:image/") for source in page.sources)
    assert page.links
    assert {link.removeprefix("#") for link in page.links} <= set(page.identifiers)
    assert len(set(page.identifiers)) == len(page.identifiers)
    assert None not in page.scopes
    assert page.elements.count("figure") == page.elements.count("figcaption") == 6
    style = text[text.index("<style>") : text.index("</style>")]
    assert not re.search(r"url\(|@import|http", style)


def test_the_report_names_no_folder_of_this_machine(original: Path) -> None:
    text = (original / "out" / "report.html").read_text("utf-8")
    assert str(original) not in text
    assert str(Path.home()) not in text or str(Path.home()) == "/"
    assert "sct_lesion_study -i data -ofolder out" in text


def test_the_report_sets_published_values_beside_the_measured(original: Path) -> None:
    text = (original / "out" / "report.html").read_text("utf-8")
    assert "Beside the published values" in text
    for section in ("summary", "cohort", "scores", "thresholds", "published", "breakdown", "how"):
        assert f'<section id="{section}"' in text
    assert "not a medical device" in text


def test_bundles_that_are_not_there_or_named_alike_are_told_before_any_work(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with pytest.raises(BundleError, match="nothere"):
        study.planned(tmp_path, folder, study.Settings(bundles=("bce", "nothere")))
    copy = tmp_path / "bce"
    shutil.copytree(store.load("bce").folder or "", copy)
    with pytest.raises(UsageError, match="bce"):
        study.run(tmp_path, folder, study.Settings(bundles=("bce", str(copy)), retune=True))
    assert not folder.exists()


def test_a_tuned_copy_replaces_no_bundle_that_was_trained_in_the_folder(tmp_path: Path) -> None:
    kept = tmp_path / "bundles" / "bce.training"
    kept.mkdir(parents=True)
    with pytest.raises(OutputError, match="the tuned copy of bce would replace it"):
        study.planned(tmp_path, tmp_path, study.Settings(bundles=("bce",), retune=True))


def test_a_cohort_that_is_not_there_leaves_no_folder(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with pytest.raises(DataError):
        study.run(tmp_path / "nowhere", folder, study.Settings(bundles=("bce",)))
    assert not folder.exists()
