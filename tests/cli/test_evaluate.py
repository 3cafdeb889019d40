from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_data import write_cohort

from sct_lesion_losses.cli.evaluate import main


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
