from __future__ import annotations

import re
from pathlib import Path

import pytest
from small_cohort import write_cohort

from sct_lesion_losses import study
from sct_lesion_losses.cli import options
from sct_lesion_losses.cli.study import main
from sct_lesion_losses.study import Result, Settings
from sct_lesion_losses.training import recipe

FAST = [
    "-filters",
    "4",
    "-batch",
    "2",
    "-epochs",
    "1",
    "-patches_per_epoch",
    "4",
    "-validation_patches",
    "2",
    "-v",
    "0",
]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "-ofolder"),
        (["-losses", "dise"], "is not one of"),
        (["-losses", "dice", "dice"], "given twice"),
        (["-losses", "dice", "-bundle", "tversky"], "give one of the two"),
        (["-retune", "1"], "goes with -bundle"),
        (["-rate", "0"], "rate is 0.0"),
        (["-scheduler", "tcp://a:1", "-scheduler_file", "b"], "give one of them"),
        (["-loss", "dice"], "-loss"),
    ],
)
def test_wrong_use_gives_2_and_leaves_nothing(
    args: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["-ofolder", str(tmp_path / "out")] if args else []
    assert main(["-i", "cohort", *where, *args]) == 2
    assert said in capsys.readouterr().err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """Settings of the studies that are asked for; none is made."""
    found: list[Settings] = []

    def run(_data: Path, _folder: Path, settings: Settings, **_: object) -> dict[str, Result]:
        found.append(settings)
        return {"train dice": Result("failed", "why")} if settings.data == "fails" else {}

    monkeypatch.setattr(study, "run", run)
    return found


def test_the_losses_are_the_seven_of_the_study_by_its_recipes(asked: list[Settings]) -> None:
    assert main(["-i", "cohort", "-ofolder", "out"]) == 0
    assert asked[0].recipes == tuple(map(recipe.study, options.STUDY_LOSSES))
    assert len(asked[0].recipes) == 7
    assert asked[0].command == "sct_lesion_study -i cohort -ofolder out"


def test_options_of_the_recipe_hold_for_every_loss(asked: list[Settings]) -> None:
    args = ["-losses", "dice", "combo", "-epochs", "2", "-patches_per_epoch", "80"]
    assert main(["-i", "cohort", "-ofolder", "out", *args]) == 0
    changes = {"epochs": 2, "patches_per_epoch": 80}
    assert asked[0].recipes == (recipe.study("dice", **changes), recipe.study("combo", **changes))


def test_a_failed_training_gives_1(
    asked: list[Settings], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["-i", "cohort", "-ofolder", "out", "-about", "fails"]) == 1
    assert capsys.readouterr().out == "out/report.html\n"


def test_a_plan_is_printed_and_nothing_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SCT_DIR", str(tmp_path / "none"))
    cohort = write_cohort(tmp_path / "cohort", subjects=4)
    args = ["-i", str(cohort), "-ofolder", str(tmp_path / "out"), "-losses", "dice", *FAST]
    assert main([*args, "-dry_run", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["stage", "would", "time", "because"]
    names = [re.split(r"\s{2,}", line)[0] for line in lines[1:-1]]
    assert names == ["split", "train dice", "tune dice", "evaluate", "draw", "report"]
    assert lines[-1].startswith("in all ")
    assert not (tmp_path / "out").exists()
