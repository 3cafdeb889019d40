from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from sct_lesion_losses.cli.talk import command_line, progress_bar, view_hint


def test_the_closing_lines_quote_what_a_shell_would_split() -> None:
    assert view_hint([(Path("my t2.nii.gz"), Path("m.nii.gz"))]).splitlines() == [
        "",
        "Done! To view results, type:",
        "fsleyes 'my t2.nii.gz' -cm greyscale m.nii.gz -cm red -a 70.0 &",
    ]


def test_the_command_line_of_a_scan_holds_base_names_and_no_other_scan() -> None:
    typed = [("-i", "/data/a.nii"), ("-i", "/data/b c.nii"), ("-ofolder", "/home/me/out/")]
    said = command_line("sct_x", typed, Path("/data/b c.nii"))
    assert said == "sct_x -i 'b c.nii' -ofolder out"


def test_no_progress_bar_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("t2") as update:
        assert update is None
    assert capsys.readouterr() == ("", "")


def test_the_progress_bar_of_a_terminal_writes_to_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress_bar("t2") as update:
        assert update is not None
        update(3, 4)
        update(4, 4)
        update(1, 5)
    assert "4/4" in terminal.getvalue()
    assert "1/5" in terminal.getvalue()
    assert capsys.readouterr().out == ""
