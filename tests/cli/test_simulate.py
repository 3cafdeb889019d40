from __future__ import annotations

from pathlib import Path

import pytest

from sct_lesion_losses.cli.simulate import main


def test_the_command_prints_the_folder_it_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "cohort"
    assert main(["-ofolder", str(out), "-preset", "tiny", "-n", "1", "-seed", "2"]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    assert (out / "sub-001" / "anat" / "sub-001_T2w.nii.gz").is_file()


def test_no_subjects_is_a_wrong_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-ofolder", "x", "-n", "0"]) == 2
    assert "-n" in capsys.readouterr().err


def test_the_help_names_the_presets(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-h"]) == 0
    assert "{tiny,demo,study,wide}" in capsys.readouterr().out
