import contextlib
import io
import logging
import sys
from pathlib import Path

import click
import pytest

from sct_lesion_losses import logs
from sct_lesion_losses.bundle.schema import Provenance
from sct_lesion_losses.cli import talk
from sct_lesion_losses.cli.parser import command, option
from sct_lesion_losses.cli.talk import progress, view_hint, without_typed_folders

LOGGER = logging.getLogger("sct_lesion_losses.example")


def test_the_closing_lines_are_for_a_shell_and_a_viewer():
    shown = [(Path("my t2.nii.gz"), Path("m.nii.gz")), (Path("-t2.nii.gz"), Path("-m.nii.gz"))]
    assert view_hint(shown).splitlines() == [
        "",
        "Done! To view results, type:",
        "fsleyes 'my t2.nii.gz' -cm greyscale m.nii.gz -cm red -a 70.0 &",
        "fsleyes ./-t2.nii.gz -cm greyscale ./-m.nii.gz -cm red -a 70.0 &",
    ]


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
def test_folders_are_cut_off_absolute_paths_and_off_nothing_else(text, said):
    assert without_typed_folders(text, ["-i", "/my data/t2.nii.gz", "-ofolder=/my data"]) == said


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        (["-i", "/home/a b/my data", "-thr=1"], "sct_x -i 'my data' -thr 1"),
        (["-bundle", "./dice", "-i", "jane/split.tsv"], "sct_x -bundle ./dice -i split.tsv"),
        (["-bundle", "/home/jane/dice"], "sct_x -bundle ./dice"),
        (["-bundle", "dice"], "sct_x -bundle dice"),  # the packaged one
        (["-masks", "lst=/home/jane/out/lst", "x=y"], "sct_x -masks lst=lst -masks x=y"),
        (["-about", "T2w and/or T2star"], "sct_x -about 'T2w and/or T2star'"),
    ],
)
def test_a_command_line_keeps_base_names_only(typed, line):
    @command("sct_x")
    @option("-i <file>", "Scan.")
    @option("-bundle <str>", "Bundle.")
    @option("-thr <float>", "Threshold.")
    @option("-about <str>", "About.")
    @option("-masks <str> [<str> ...]", "Masks.")
    def run(**_: object) -> None:
        click.echo(talk.command_line())

    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert run(typed) == 0
    assert out.getvalue() == f"{line}\n"
    Provenance(data="x", commands=(line,))


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """Seconds that `progress` reads, to be set by the test."""
    now = [0.0]
    monkeypatch.setattr(talk.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize(
    ("verbosity", "said"),
    [(0, ""), (1, "training: 3 of 8, epoch 1, 50 s left\ntraining: 6 of 8, epoch 1, 20 s left\n")],
)
def test_without_a_terminal_progress_is_a_line_now_and_then(verbosity, said, clock, capsys):
    with talk.logged(verbosity), progress("training", "step") as update:
        for done in range(1, 9):
            clock[0] += 10
            update(done, 8, "epoch 1")
    assert capsys.readouterr() == ("", said)


def test_the_time_left_is_reckoned_from_where_the_work_began_and_began_again(clock, capsys):
    with talk.logged(1), progress("training", "step") as update:
        for seconds, done in ((100, 500), (400, 502), (500, 1), (520, 2)):
            clock[0] = seconds
            update(done, 1000)
    # 150 s a step for 498 steps; then, from the start again, 20 s a step for 998.
    assert capsys.readouterr().err.splitlines() == [
        "training: 502 of 1000, 20 h 45 min left",
        "training: 2 of 1000, 5 h 33 min left",
    ]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0 s"), (59, "59 s"), (90, "2 min"), (3599, "1 h 0 min"), (31_300, "8 h 42 min")],
)
def test_durations_are_said_as_people_say_them(seconds, said):
    assert logs.duration(seconds) == said


def test_the_progress_bar_of_a_terminal_writes_to_stderr_with_log_lines_beside_it(
    monkeypatch, capsys
):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with talk.logged(1), progress("t2") as update:
        update(3, 4, "loss 0.5")
        LOGGER.warning("careful")
        update(4, 4)
        update(1, 5)
    for shown in ("3/4", "loss 0.5", "4/4", "1/5", "WARNING: careful\n"):
        assert shown in terminal.getvalue()
    assert capsys.readouterr().out == ""
