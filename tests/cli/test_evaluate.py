from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_data import write_cohort

from sct_lesion_losses.cli.evaluate import main


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
