from __future__ import annotations

import contextlib
import io
import logging
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from sct_lesion_losses.bundle.schema import Provenance
from sct_lesion_losses.cli import talk
from sct_lesion_losses.cli.parser import command, option
from sct_lesion_losses.cli.talk import progress, view_hint, without_folders

LOGGER = logging.getLogger("sct_lesion_losses.example")


def test_the_closing_lines_quote_what_a_shell_would_split() -> None:
    assert view_hint([(Path("my t2.nii.gz"), Path("m.nii.gz"))]).splitlines() == [
        "",
        "Done! To view results, type:",
        "fsleyes 'my t2.nii.gz' -cm greyscale m.nii.gz -cm red -a 70.0 &",
    ]


def test_the_closing_lines_open_a_scan_whose_name_begins_with_a_dash() -> None:
    line = view_hint([(Path("-t2.nii.gz"), Path("-t2_lesionseg.nii.gz"))]).splitlines()[-1]
    assert shlex.split(line)[1] == "./-t2.nii.gz"
    assert shlex.split(line)[4] == "./-t2_lesionseg.nii.gz"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("/opt/data/t2.nii.gz: truncated", "t2.nii.gz: truncated"),
        ("see '/opt/a/b.txt' (/opt/c.txt), \"/opt/d.txt\"", "see 'b.txt' (c.txt), \"d.txt\""),
        ("expected sub-*/anat/*_T2w.nii.gz", "expected sub-*/anat/*_T2w.nii.gz"),
        ("in ~/.local/share/bundles, x/y/z", "in ~/.local/share/bundles, x/y/z"),
        ("https://example.org/a/b", "https://example.org/a/b"),
        ("derivatives/my data/x, 3 / 4", "derivatives/my data/x, 3 / 4"),
        ("/my data/sub-01/x.nii", "sub-01/x.nii"),
    ],
)
def test_folders_are_cut_off_absolute_paths_and_off_nothing_else(text: str, said: str) -> None:
    assert without_folders(text, ["-i", "/my data/t2.nii.gz", "-ofolder=/my data"]) == said


def test_a_log_can_be_written_where_the_folder_of_the_work_was_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert without_folders("/data/t2.nii: empty") == "t2.nii: empty"


CLOSED = """
import os, sys
os.close({number})
sys.{name} = None
from sct_lesion_losses.cli.parser import command
@command("x")
def main():
    import logging, pathlib
    logging.getLogger("sct_lesion_losses").warning("careful")
    print("done")
    pathlib.Path(sys.argv[1]).write_text("a result")
sys.exit(main([]))
"""


@pytest.mark.parametrize(("number", "name"), [(0, "stdin"), (1, "stdout"), (2, "stderr")])
def test_a_closed_stream_changes_nothing_but_what_is_said(
    number: int, name: str, tmp_path: Path
) -> None:
    code = CLOSED.format(number=number, name=name)
    args = [sys.executable, "-c", code, str(tmp_path / "result")]
    done = subprocess.run(args, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout == ("" if number == 1 else "done\n")
    assert done.stderr == ("" if number == 2 else "WARNING: careful\n")
    assert (tmp_path / "result").read_text() == "a result"


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        (["-i", "/home/a b/my data", "-thr=1"], "sct_x -i 'my data' -thr 1"),
        (["-bundle", "./dice", "-i", "jane/split.tsv"], "sct_x -bundle ./dice -i split.tsv"),
        (["-bundle", "/home/jane/dice"], "sct_x -bundle ./dice"),
        (["-bundle", "dice"], "sct_x -bundle dice"),  # the packaged one
        (["-about", "T2w and/or T2star"], "sct_x -about 'T2w and/or T2star'"),
    ],
)
def test_a_command_line_keeps_base_names_only(typed: list[str], line: str) -> None:
    @command("sct_x")
    @option("-i <file>", "Scan.")
    @option("-bundle <str>", "Bundle.")
    @option("-thr <float>", "Threshold.")
    @option("-about <str>", "About.")
    def run(**_: object) -> None:
        click.echo(talk.command_line())

    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert run(typed) == 0
    assert out.getvalue() == f"{line}\n"
    Provenance(data="x", commands=(line,))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that `progress` reads, to be set by the test."""
    now = [0.0]
    monkeypatch.setattr(talk.time, "monotonic", lambda: now[0])
    return now


def test_without_a_terminal_progress_is_a_line_now_and_then(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with talk.logged(1), progress("tuning") as update:
        for done in range(1, 9):
            clock[0] += 10
            update(done, 8)
    assert capsys.readouterr() == ("", "tuning: 3 of 8\ntuning: 6 of 8\n")


def test_at_verbosity_0_there_is_no_progress(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with talk.logged(0), progress("tuning") as update:
        clock[0] += 100
        update(1, 2)
    assert capsys.readouterr() == ("", "")


def test_the_progress_bar_of_a_terminal_writes_to_stderr_with_log_lines_beside_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with talk.logged(1), progress("t2") as update:
        update(3, 4)
        LOGGER.warning("careful")
        update(4, 4)
        update(1, 5)
    assert "4/4" in terminal.getvalue()
    assert "1/5" in terminal.getvalue()
    assert "WARNING: careful\n" in terminal.getvalue()
    assert capsys.readouterr().out == ""
