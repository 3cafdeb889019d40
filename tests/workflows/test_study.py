import json
import re
import shutil
from contextlib import nullcontext
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
import sct_graph
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st
from score_rows import bearing, lesion_free
from small_data import contents, write_cohort

from sct_lesion_losses.bundle import store
from sct_lesion_losses.cohorts import table as cohorts
from sct_lesion_losses.cohorts.splits import Rules
from sct_lesion_losses.errors import BundleError, DataError, OutputError, TrainingError, UsageError
from sct_lesion_losses.images.atomic import LOCK
from sct_lesion_losses.training import export, recipe
from sct_lesion_losses.workflows import study, tune
from sct_lesion_losses.workflows.evaluate import EvaluateSettings
from sct_lesion_losses.workflows.study import StudySettings

LOSSES = ("dice", "tversky")
COMMAND = "sct_lesion_study -i data -ofolder out"
VOID = {"meta", "img", "br", "hr", "link", "input"}


def settings(*losses: str, epochs: int = 2, rate: float = 2e-2, **changes: object) -> StudySettings:
    """A study of seconds."""
    recipes = tuple(
        recipe.study(
            loss,
            filters=(4,),
            batch_size=2,
            epochs_planned=epochs,
            patches_per_epoch=8,
            validation_patches=2,
            rate=rate,
            rotations=False,
        )
        for loss in losses
    )
    return StudySettings(recipes, evaluation=EvaluateSettings(command=COMMAND), **changes)


SETTINGS = settings(*LOSSES)


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    """A folder with a cohort, `data`, and a study of it, `out`, without SCT."""
    folder = tmp_path_factory.mktemp("study")
    write_cohort(folder / "data", subjects=24, lesion_free=5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCT_DIR", str(folder / "none"))
        patch.setenv("PATH", "")
        assert study.run(folder / "data", folder / "out", SETTINGS) == {}
    return folder


@pytest.fixture(autouse=True)
def without_sct(monkeypatch):
    monkeypatch.setenv("SCT_DIR", "none")
    monkeypatch.setenv("PATH", "")


@pytest.fixture
def made(original, tmp_path) -> Path:
    """A copy of that folder, to be changed."""
    return shutil.copytree(original, tmp_path / "copy")


def again(made: Path, asked: StudySettings = SETTINGS) -> dict[str, str]:
    return study.run(made / "data", made / "out", asked)


def report_of(made: Path) -> str:
    return (made / "out" / "report.html").read_text("utf-8")


def evaluated(made: Path) -> set[str]:
    """Names of the models in the scores."""
    return set(pd.read_csv(made / "out" / "evaluation" / "scores.tsv", sep="\t")["bundle"])


def log_of(made: Path, loss: str) -> str:
    return (made / "out" / "bundles" / f"{loss}.training" / "training.csv").read_text()


def test_a_study_writes_everything_that_it_is_asked_for(original):
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
        assert info.provenance.commands == (COMMAND,)
    assert evaluated(original) == set(LOSSES)
    assert dict(study.listed(out, SETTINGS)) == dict.fromkeys(
        ["split", "train dice", "train tversky", "tune dice", "tune tversky", "evaluate", "report"],
        "done",
    )


def test_the_trainings_share_split_and_prepared_scans(original):
    out = original / "out"
    parts = {scan.scan.resolve(): scan.split for scan in cohorts.read(out / "split.tsv")}
    for loss in LOSSES:
        own = cohorts.read(out / "bundles" / f"{loss}.training" / "split.tsv")
        assert {scan.scan.resolve(): scan.split for scan in own} == parts
    infos = [store.load(out / "bundles" / loss).info for loss in LOSSES]
    assert infos[0].split_hash == infos[1].split_hash
    trained = sum(split in ("training", "validation") for split in parts.values())
    # A tube, and its standardised form, by landmarks that both share.
    assert len(list((out / "bundles" / "training_cache").glob("*.safetensors"))) == 2 * trained


def test_another_run_trains_exports_and_segments_nothing_and_leaves_every_byte(
    made, pmaps, monkeypatch
):
    before = contents(made / "out")
    opened: list[str] = []

    def progress(label: str, _: str = "") -> nullcontext[None]:
        opened.append(label)
        return nullcontext()

    monkeypatch.delattr(export, "to_onnx")
    assert study.run(made / "data", made / "out", SETTINGS, progress) == {}
    assert "splitting" not in opened
    assert pmaps == list(LOSSES)  # of the scan in Figure 3
    after = contents(made / "out")
    assert {name for name in after if before.get(name) != after[name]} == set()


@pytest.mark.parametrize("change", ["scan", "site", "rules"])
def test_another_cohort_or_other_rules_are_refused_before_any_training(made, change):
    asked = SETTINGS
    if change == "scan":
        (made / "data" / "sub-024" / "anat" / "sub-024_T2w.nii.gz").unlink()
    elif change == "site":
        table = made / "data" / "participants.tsv"
        table.write_text(table.read_text().replace("sub-024\tA", "sub-024\tB"))
    else:
        asked = replace(SETTINGS, rules=Rules(seed=5))
    with pytest.raises(DataError, match=r"choose another -ofolder|sub-024"):
        again(made, asked)


def test_a_cohort_that_moved_is_split_again_and_trains_nothing(made):
    log = log_of(made, "dice")
    shutil.move(made / "data", made / "elsewhere")
    with pytest.raises(DataError, match=r"split\.tsv"):
        study.run(made / "elsewhere", made / "out", SETTINGS)
    (made / "out" / "split.tsv").unlink()
    assert study.run(made / "elsewhere", made / "out", SETTINGS) == {}
    assert log_of(made, "dice") == log


def test_one_loss_more_and_more_epochs_train_those_and_one_loss_less_keeps_its_bundle(made):
    asked = replace(SETTINGS, recipes=settings("dice", "bce", epochs=3).recipes)
    listed = dict(study.listed(made / "out", asked))
    assert (listed["train dice"], listed["train bce"]) == ("2 of 3 epochs", "missing")
    kept, log = contents(made / "out" / "bundles" / "tversky"), log_of(made, "dice")
    assert again(made, asked) == {}
    assert evaluated(made) == {"dice", "bce"}
    assert contents(made / "out" / "bundles" / "tversky") == kept
    assert log_of(made, "dice").startswith(log)
    assert len(log_of(made, "dice").splitlines()) == 4
    assert store.load(made / "out" / "bundles" / "dice").tuned_threshold is not None


def test_a_failed_training_leaves_the_others_and_is_named_and_repeated_alone(made):
    asked = settings(*LOSSES, "bce")
    place = made / "out" / "bundles" / "bce.training"
    place.write_text("a file in its place")
    assert list(again(made, asked)) == ["train bce"]
    assert evaluated(made) == set(LOSSES)
    assert "train bce failed: " in report_of(made)
    assert str(made) not in report_of(made)
    with pytest.raises(TrainingError, match=r"every training has failed: .*bce.training"):
        again(made, settings("bce"))
    place.unlink()
    logs = [log_of(made, loss) for loss in LOSSES]  # with the seconds of each epoch
    assert again(made, asked) == {}
    assert evaluated(made) == {*LOSSES, "bce"}
    assert "train bce failed: " not in report_of(made)
    assert [log_of(made, loss) for loss in LOSSES] == logs


def test_damaged_bundles_are_made_again_from_their_trainings(made):
    damaged = {"dice": "model.onnx", "tversky": "card.md"}
    before = {
        loss: (contents(made / "out" / "bundles" / loss), log_of(made, loss)) for loss in damaged
    }
    for loss, name in damaged.items():
        (made / "out" / "bundles" / loss / name).write_bytes(b"damaged")
    assert dict(study.listed(made / "out", SETTINGS))["tune dice"] == "missing"
    assert again(made) == {}
    for loss, (weights, log) in before.items():
        bundle = made / "out" / "bundles" / loss
        assert store.load(bundle).tuned_threshold is not None
        assert contents(bundle)["weights.safetensors"] == weights["weights.safetensors"]
        assert log_of(made, loss) == log


def test_a_bundle_that_is_lost_after_its_training_leaves_the_others(made, monkeypatch):
    real = tune.run

    def spoil(folder: Path, *args: object) -> object:
        if folder.name == "dice":
            (folder / "model.onnx").unlink()
            raise TrainingError("spoilt")
        return real(folder, *args)

    monkeypatch.setattr(tune, "run", spoil)
    assert list(again(made)) == ["tune dice", "dice"]
    assert "model.onnx is missing" in report_of(made)
    assert evaluated(made) == {"tversky"}


def test_a_list_of_a_new_study_writes_nothing(tmp_path):
    assert set(dict(study.listed(tmp_path / "new", SETTINGS)).values()) == {"missing"}
    assert list(tmp_path.iterdir()) == []


def test_given_bundles_keep_their_thresholds(small, split_table, tmp_path):
    asked, before = StudySettings(bundles=(str(small),)), contents(small)
    assert study.run(split_table, tmp_path / "out", asked) == {}
    assert not (tmp_path / "out" / "bundles").exists()
    scores = tmp_path / "out" / "evaluation" / "scores.json"
    levels = json.loads(scores.read_text())["bundle"]["Levels"]
    assert levels["small"]["TunedThreshold"] == store.load(small).threshold
    assert contents(small) == before


def test_scts_model_enters_where_it_is_found(made, tmp_path, monkeypatch):
    assert "was not found" in report_of(made)
    sct_graph.install(tmp_path / "sct", sct_graph.make((2, 4)))
    monkeypatch.setenv("SCT_DIR", str(tmp_path / "sct"))
    assert again(made) == {}
    assert evaluated(made) == {*LOSSES, "sct", "sct as shipped"}
    assert "was not found" not in report_of(made)


def test_two_studies_in_one_folder_do_not_meet(made):
    with (
        FileLock(made / "out" / LOCK),
        pytest.raises(OutputError, match="another study is writing"),
    ):
        again(made)


def test_what_cannot_end_well_is_told_before_any_work(original, tmp_path):
    folder = tmp_path / "out"
    with pytest.raises(UsageError, match="give one of the two"):
        StudySettings()
    with pytest.raises(BundleError, match="nothere"):
        study.listed(folder, StudySettings(bundles=("bce", "nothere")))
    shutil.copytree(store.load("bce").folder or "", tmp_path / "bce")
    with pytest.raises(UsageError, match="bce"):
        study.run(tmp_path, folder, StudySettings(bundles=("bce", str(tmp_path / "bce"))))
    with pytest.raises(DataError):
        study.run(tmp_path / "nowhere", folder, StudySettings(bundles=("bce",)))
    assert not folder.exists()
    with pytest.raises(DataError, match="unseen site Z"):
        study.run(original / "data", folder, replace(SETTINGS, rules=Rules(unseen_sites=("Z",))))


@given(st.lists(st.integers(0, 50), min_size=1, max_size=8))
def test_as_many_scans_hold_more_lesion_than_the_one_shown_as_hold_less(volumes):
    rows = []
    for k, volume in enumerate(volumes):
        row = bearing(str(k)) if volume else lesion_free(str(k))
        rows.append(replace(row, lesions=replace(row.lesions, truth_mm3=float(volume))))
    chosen = study.typical(rows)
    holding = sorted(filter(None, volumes))
    assert (chosen is None) == (not holding)
    if chosen is not None:
        assert volumes[int(chosen)] == holding[(len(holding) - 1) // 2]


class Page(HTMLParser):
    """The elements of a report with their attributes, and those that are open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, attribute: str) -> list[str | None]:
        return [given[attribute] for _, given in self.found if attribute in given]


def test_the_report_is_complete_in_itself_and_well_formed(original):
    text = report_of(original)
    page = Page(text)
    elements, identifiers = [tag for tag, _ in page.found], page.all("id")
    assert page.open == []
    assert elements.count("h1") == 1
    assert not {"script", "link", "iframe", "object"} & set(elements)
    assert page.all("src")
    assert all(source.startswith("data:image/") for source in page.all("src"))
    assert all(given["alt"] for tag, given in page.found if tag == "img")
    assert page.all("href")
    assert {link.removeprefix("#") for link in page.all("href")} <= set(identifiers)
    assert len(set(identifiers)) == len(identifiers)
    assert all(given["scope"] for tag, given in page.found if tag == "th")
    assert elements.count("figure") == elements.count("figcaption") == 7
    style = text[text.index("<style>") : text.index("</style>")]
    assert not re.search(r"url\(|@import|http", style)


def test_the_report_holds_every_section_and_names_no_folder_of_this_machine(original):
    text = report_of(original)
    for section in ("cohort", "scores", "thresholds", "published", "breakdown", "how"):
        assert f'<section id="{section}"' in text
    for title in ("Beside the published values", "Software and"):
        assert f"<caption>{title}" in text
    assert "not a medical device" in text
    assert COMMAND in text
    assert str(original) not in text
    assert str(Path.home()) not in text or str(Path.home()) == "/"
