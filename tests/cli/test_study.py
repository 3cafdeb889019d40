from pathlib import Path

import pytest

from sct_lesion_losses import losses
from sct_lesion_losses.cli.study import main
from sct_lesion_losses.training import recipe
from sct_lesion_losses.workflows import study
from sct_lesion_losses.workflows.study import StudySettings


@pytest.fixture
def asked(monkeypatch) -> list[StudySettings]:
    """Settings of the studies that are asked for; none is made."""
    found: list[StudySettings] = []

    def run(_data: Path, _folder: Path, settings: StudySettings, _: object) -> dict[str, str]:
        found.append(settings)
        return {"train dice": "why"} if settings.about == "fails" else {}

    monkeypatch.setattr(study, "run", run)
    return found


def test_the_losses_are_the_seven_of_the_study_by_its_recipes(asked):
    assert main(["-i", "cohort", "-ofolder", "out"]) == 0
    assert asked[0].recipes == tuple(map(recipe.study, losses.STUDY))
    assert len(asked[0].recipes) == 7
    assert asked[0].evaluation.command == "sct_lesion_study -i cohort -ofolder out"


def test_options_of_the_recipe_hold_for_every_loss(asked):
    args = ["-losses", "dice", "combo", "-epochs", "2", "-patches_per_epoch", "80"]
    assert main(["-i", "cohort", "-ofolder", "out", *args]) == 0
    changes = {"epochs_planned": 2, "patches_per_epoch": 80}
    assert asked[0].recipes == (recipe.study("dice", **changes), recipe.study("combo", **changes))


def test_a_failed_training_gives_1(asked, capsys):
    assert main(["-i", "cohort", "-ofolder", "out", "-about", "fails"]) == 1
    assert capsys.readouterr().out == "out/report.html\n"


def test_what_is_there_and_missing_is_listed_and_nothing_is_done(tmp_path, capsys):
    args = ["-i", "cohort", "-ofolder", str(tmp_path / "out"), "-losses", "dice"]
    assert main([*args, "-dry_run", "1"]) == 0
    steps = ("split", "train dice", "tune dice", "evaluate", "report")
    assert capsys.readouterr().out == "".join(f"{step}: missing\n" for step in steps)
    assert list(tmp_path.iterdir()) == []
