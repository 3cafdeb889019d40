from __future__ import annotations

import csv
import hashlib
import json
import re
import shutil
from contextlib import nullcontext
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import sct_graph
from hypothesis import given
from hypothesis import strategies as st
from small_data import train_small, write_cohort

from sct_lesion_losses.bundle import store
from sct_lesion_losses.cohorts import table as cohorts
from sct_lesion_losses.cohorts.splits import Rules
from sct_lesion_losses.errors import (
    BundleError,
    DataError,
    OutputError,
    TrainingError,
    UsageError,
)
from sct_lesion_losses.preprocessing.augmentation import Augmentation
from sct_lesion_losses.training import recipe
from sct_lesion_losses.workflows import study, tune
from sct_lesion_losses.workflows.study import StudySettings

LOSSES = ("dice", "tversky")
HEADER = "scan\tlesion_mask\tsubject\tsite\tsplit\tcenterline\tlesions\tlesion_volume_mm3\n"
VOID = {"meta", "img", "br", "hr", "link", "input"}


def settings(*losses: str, **changes: object) -> StudySettings:
    """A study of seconds."""
    recipes = tuple(
        recipe.study(
            loss,
            filters=(4,),
            batch_size=2,
            epochs_planned=2,
            patches_per_epoch=8,
            validation_patches=2,
            rate=2e-2,
            augmentation=Augmentation(rotations=False),
        )
        for loss in losses
    )
    command = "sct_lesion_study -i data -ofolder out"
    return StudySettings(recipes=recipes, command=command, **changes)  # type: ignore[arg-type]


SETTINGS = settings(*LOSSES)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a cohort, `data`, and a study of it, `out`, without SCT."""
    folder = tmp_path_factory.mktemp("study")
    write_cohort(folder / "data", subjects=24, lesion_free=5)
    with pytest.MonkeyPatch.context() as patch:
        without_sct(patch, folder)
        assert study.run(folder / "data", folder / "out", SETTINGS) == {}
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


def again(made: Path, asked: StudySettings = SETTINGS) -> dict[str, str]:
    return study.run(made / "data", made / "out", asked)


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def report_of(made: Path) -> str:
    return (made / "out" / "report.html").read_text("utf-8")


def evaluated(made: Path) -> set[str]:
    """Names of the models in the scores."""
    with (made / "out" / "evaluation" / "scores.tsv").open() as stream:
        return {row["bundle"] for row in csv.DictReader(stream, delimiter="\t")}


def log_of(made: Path, loss: str) -> Path:
    return made / "out" / "bundles" / f"{loss}.training" / "training.csv"


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
    assert evaluated(original) == set(LOSSES)
    assert dict(study.listed(out, SETTINGS)) == dict.fromkeys(
        ["split", "train dice", "train tversky", "tune dice", "tune tversky", "evaluate", "report"],
        "done",
    )


def test_the_trainings_share_split_and_prepared_scans(original: Path) -> None:
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


def test_another_run_trains_and_segments_nothing_and_leaves_every_byte(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = hashes(made / "out")
    opened: list[str] = []

    def progress(label: str, _: str = "") -> nullcontext[None]:
        opened.append(label)
        return nullcontext()

    assert study.run(made / "data", made / "out", SETTINGS, progress=progress) == {}
    assert "splitting" not in opened
    after = hashes(made / "out")
    assert {name for name in after if before.get(name) != after[name]} == set()


@pytest.mark.parametrize("change", ["scan", "site", "rules"])
def test_another_cohort_or_other_rules_are_refused_before_any_training(
    made: Path, change: str
) -> None:
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


def test_a_changed_training_label_is_refused_by_the_training(made: Path) -> None:
    scans = cohorts.read(made / "out" / "split.tsv")
    scan = next(s for s in scans if s.split == "training" and lesion(s.lesion_mask).any())
    image = nib.load(scan.lesion_mask)
    half = lesion(scan.lesion_mask).copy()
    half[: round(float(np.argwhere(half)[:, 0].mean()))] = 0
    nib.save(nib.Nifti1Image(half, image.affine), scan.lesion_mask)
    with pytest.raises(TrainingError, match=f"{scan.name} in training has changed"):
        again(made, settings("dice"))


def lesion(mask: Path) -> np.ndarray:
    return np.asarray(nib.load(mask).dataobj)


def test_a_cohort_that_moved_is_split_again_and_trains_nothing(made: Path) -> None:
    weights = hashes(made / "out" / "bundles" / "dice")["weights.safetensors"]
    shutil.move(made / "data", made / "elsewhere")
    with pytest.raises(DataError, match=r"split\.tsv"):
        study.run(made / "elsewhere", made / "out", SETTINGS)
    (made / "out" / "split.tsv").unlink()
    assert study.run(made / "elsewhere", made / "out", SETTINGS) == {}
    assert hashes(made / "out" / "bundles" / "dice")["weights.safetensors"] == weights


def test_one_loss_more_trains_that_one_and_one_loss_less_keeps_its_bundle(made: Path) -> None:
    asked = settings("dice", "bce")
    listed = dict(study.listed(made / "out", asked))
    assert (listed["train dice"], listed["train bce"]) == ("done", "missing")
    before = hashes(made / "out" / "bundles" / "tversky")
    assert again(made, asked) == {}
    assert evaluated(made) == {"dice", "bce"}
    assert hashes(made / "out" / "bundles" / "tversky") == before


def test_more_epochs_go_on_with_the_training(made: Path) -> None:
    before = log_of(made, "dice").read_text()
    longer = tuple(r.model_copy(update={"epochs_planned": 3}) for r in settings("dice").recipes)
    asked = replace(SETTINGS, recipes=longer)
    assert dict(study.listed(made / "out", asked))["train dice"] == "2 of 3 epochs"
    assert again(made, asked) == {}
    assert log_of(made, "dice").read_text().startswith(before)
    assert len(log_of(made, "dice").read_text().splitlines()) == 4
    assert store.load(made / "out" / "bundles" / "dice").tuned_threshold is not None


def test_another_recipe_is_refused_with_the_difference(made: Path) -> None:
    other = tuple(r.model_copy(update={"rate": 1e-3}) for r in settings("dice").recipes)
    failures = again(made, replace(SETTINGS, recipes=(*other, *settings("tversky").recipes)))
    assert list(failures) == ["train dice"]
    assert "rate: 0.02 -> 0.001" in failures["train dice"]
    assert evaluated(made) == {"tversky"}


def test_a_failed_training_leaves_the_others_and_is_named_and_repeated_alone(made: Path) -> None:
    asked = settings(*LOSSES, "bce")
    place = made / "out" / "bundles" / "bce.training"
    place.write_text("a file in its place")
    assert list(again(made, asked)) == ["train bce"]
    assert evaluated(made) == set(LOSSES)
    assert "train bce failed: " in report_of(made)
    assert str(made) not in report_of(made)
    place.unlink()
    logs = [log_of(made, loss).read_text() for loss in LOSSES]  # with the seconds of each epoch
    assert again(made, asked) == {}
    assert evaluated(made) == {*LOSSES, "bce"}
    assert "train bce failed: " not in report_of(made)
    assert [log_of(made, loss).read_text() for loss in LOSSES] == logs


@pytest.mark.parametrize("name", ["bundle.json", "model.onnx", "card.md"])
def test_a_damaged_bundle_is_made_again_from_its_training(made: Path, name: str) -> None:
    place = made / "out" / "bundles" / "dice"
    weights, log = (place / "weights.safetensors").read_bytes(), log_of(made, "dice").read_text()
    (place / name).write_bytes(b"damaged")
    assert dict(study.listed(made / "out", SETTINGS))["tune dice"] == "missing"
    assert again(made) == {}
    assert store.load(place).tuned_threshold is not None
    assert (place / "weights.safetensors").read_bytes() == weights
    assert log_of(made, "dice").read_text() == log


def test_a_bundle_that_is_lost_after_its_training_leaves_the_others(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tune.run

    def spoil(folder: Path, *args: object, **rest: object) -> object:
        if folder.name == "dice":
            (folder / "model.onnx").unlink()
            raise TrainingError("spoilt")
        return real(folder, *args, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(tune, "run", spoil)
    assert list(again(made)) == ["tune dice", "dice"]
    assert "model.onnx is missing" in report_of(made)
    assert evaluated(made) == {"tversky"}


def test_nothing_is_evaluated_where_every_training_fails(made: Path) -> None:
    (made / "out" / "bundles" / "bce.training").write_text("a file in its place")
    with pytest.raises(TrainingError, match=r"every training has failed: .*bce.training"):
        again(made, settings("bce"))


def test_a_list_of_a_new_study_writes_nothing(tmp_path: Path) -> None:
    assert set(dict(study.listed(tmp_path / "new", SETTINGS)).values()) == {"missing"}
    assert list(tmp_path.iterdir()) == []


def test_given_bundles_keep_their_thresholds_and_nothing_is_trained(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_sct(monkeypatch, tmp_path)
    given = original / "out" / "bundles" / "dice"
    before = hashes(given)
    asked = StudySettings(bundles=(str(given),))
    assert study.run(original / "out" / "split.tsv", tmp_path / "out", asked) == {}
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
    before = hashes(tmp_path / "small")
    asked = StudySettings(bundles=(str(tmp_path / "small"),), retune=True)
    assert study.run(table, tmp_path / "out", asked) == {}
    copy = tmp_path / "out" / "bundles" / "small"
    assert hashes(tmp_path / "small") == before
    assert store.load(copy).tuned_threshold is not None
    first = hashes(copy)
    assert study.run(table, tmp_path / "out", asked) == {}
    assert hashes(copy) == first


def test_scts_model_enters_where_it_is_found(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "was not found" in report_of(made)
    sct_graph.install(tmp_path / "sct", sct_graph.make((2, 4)))
    monkeypatch.setenv("SCT_DIR", str(tmp_path / "sct"))
    assert again(made) == {}
    assert evaluated(made) == {*LOSSES, "sct", "sct as shipped"}
    assert "was not found" not in report_of(made)


@pytest.mark.parametrize(
    ("losses", "changes", "said"),
    [
        ([], {}, "give one of the two"),
        (["dice", "dice"], {}, "given twice"),
        (["dice"], {"bundles": ("tversky",)}, "give one of the two"),
        (["dice"], {"retune": True}, "goes with -bundle"),
    ],
)
def test_a_study_of_nothing_or_of_two_things_is_refused(
    losses: list[str], changes: dict[str, object], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        settings(*losses, **changes)


def test_a_cohort_that_cannot_be_split_ends_the_study(original: Path, tmp_path: Path) -> None:
    asked = replace(SETTINGS, rules=Rules(unseen_sites=("Z",)))
    with pytest.raises(DataError, match="unseen site Z"):
        study.run(original / "data", tmp_path / "out", asked)


def test_two_studies_in_one_folder_do_not_meet(made: Path) -> None:
    from filelock import FileLock

    with (
        FileLock(made / "out" / study.LOCK),
        pytest.raises(OutputError, match="another study is writing"),
    ):
        again(made)


def test_bundles_that_are_not_there_or_named_alike_are_told_before_any_work(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with pytest.raises(BundleError, match="nothere"):
        study.listed(folder, StudySettings(bundles=("bce", "nothere")))
    shutil.copytree(store.load("bce").folder or "", tmp_path / "bce")
    asked = StudySettings(bundles=("bce", str(tmp_path / "bce")), retune=True)
    with pytest.raises(UsageError, match="bce"):
        study.run(tmp_path, folder, asked)
    assert not folder.exists()


def test_a_tuned_copy_replaces_no_bundle_that_was_trained_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "bundles" / "bce.training").mkdir(parents=True)
    with pytest.raises(OutputError, match="the tuned copy of bce would replace it"):
        study.listed(tmp_path, StudySettings(bundles=("bce",), retune=True))


def test_a_cohort_that_is_not_there_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        study.run(tmp_path / "nowhere", tmp_path / "out", StudySettings(bundles=("bce",)))
    assert not (tmp_path / "out").exists()


def table_of(folder: Path, volumes: list[float], split: str = "unseen") -> Path:
    lines = []
    for k, volume in enumerate(volumes):
        (folder / f"s{k}.nii.gz").touch()
        lines.append(f"s{k}.nii.gz\ts{k}.nii.gz\tp{k}\t\t{split}\t\t{int(volume > 0)}\t{volume}\n")
    (folder / "split.tsv").write_text(HEADER + "".join(lines))
    return folder / "split.tsv"


@given(st.lists(st.integers(0, 50), min_size=1, max_size=8))
def test_as_many_scans_hold_more_lesion_than_the_one_shown_as_hold_less(
    tmp_path_factory: pytest.TempPathFactory, volumes: list[int]
) -> None:
    chosen = study.typical(table_of(tmp_path_factory.mktemp("t"), [float(v) for v in volumes]))
    bearing = sorted(v for v in volumes if v)
    if not bearing:
        assert chosen is None
        return
    assert chosen is not None
    assert volumes[int(chosen.name[1:])] == bearing[(len(bearing) - 1) // 2]


def test_other_parts_and_scans_without_a_cord_are_not_shown(tmp_path: Path) -> None:
    assert study.typical(table_of(tmp_path, [5.0], split="training")) is None
    chosen = study.typical(table_of(tmp_path, [5.0, 9.0, 1.0]), ["s0"])
    assert chosen is not None
    assert chosen.name == "s2"


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
        for name, found in (
            ("id", self.identifiers),
            ("href", self.links),
            ("src", self.sources),
        ):
            if name in given:
                found.append(given[name] or "")
        if tag == "th":
            self.scopes.append(given.get("scope"))
        if tag == "img":
            assert given.get("alt")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_report_is_complete_in_itself_and_well_formed(original: Path) -> None:
    text = report_of(original)
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


def test_the_report_holds_every_section_and_names_no_folder_of_this_machine(original: Path) -> None:
    text = report_of(original)
    for section in ("cohort", "scores", "thresholds", "published", "breakdown", "how"):
        assert f'<section id="{section}"' in text
    for title in ("Beside the published values", "Models over thresholds", "Recipes of the"):
        assert f"<caption>{title}" in text
    assert "not a medical device" in text
    assert "sct_lesion_study -i data -ofolder out" in text
    assert str(original) not in text
    assert str(Path.home()) not in text or str(Path.home()) == "/"
