from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_data import write_cohort

from sct_lesion_losses.cli.evaluate import main
from sct_lesion_losses.errors import DataError
from sct_lesion_losses.workflows import evaluate


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "-bundle"),
        (["-bundle", "tversky", "-preset", "study"], "is not one of"),
        (["-bundle", "tversky", "-centerline", "file"], "is not one of"),
        (["-bundle", "tversky", "-jobs", "0"], "not in the range"),
        (["-bundle", "tversky", "tversky"], "2 of the models are named tversky"),
    ],
)
def test_wrong_use_gives_2_and_leaves_nothing(
    args: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["-i", "cohort", "-ofolder", str(tmp_path / "out"), *args]) == 2
    assert said in capsys.readouterr().err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_a_failure_gives_1_and_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*_: object, **__: object) -> None:
        raise DataError("bundle b was trained on 3 of these scans")

    monkeypatch.setattr(evaluate, "run", run)
    assert main(["-bundle", "b", "-i", "cohort", "-ofolder", "out"]) == 1
    assert capsys.readouterr().err == (
        "sct_evaluate_lesion: error: bundle b was trained on 3 of these scans\n"
    )


def test_sct_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SCT_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("PATH", "")
    assert main(["-bundle", "sct", "-i", "cohort", "-ofolder", str(tmp_path / "out")]) == 1
    assert "SCT" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_shipped_bundle_is_evaluated_and_the_table_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cohort = write_cohort(tmp_path / "cohort", subjects=2)
    args = ["-bundle", "tversky", "-i", str(cohort), "-ofolder", str(tmp_path / "out")]
    assert main([*args, "-preset", "candidate", "-v", "0"]) == 0
    table = tmp_path / "out" / "tables" / "table2.md"
    assert capsys.readouterr().out == f"{table}\n"
    assert "by the preset candidate" in table.read_text("utf-8")
    told = json.loads((tmp_path / "out" / "scores.json").read_text("utf-8"))
    assert told["GeneratedBy"]["Command"] == (
        "sct_evaluate_lesion -bundle tversky -i cohort -ofolder out -preset candidate -v 0"
    )
