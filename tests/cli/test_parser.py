import logging
import os
import string
import subprocess
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sct_lesion_losses.cli.parser import Command, command, int_range, option, pairs
from sct_lesion_losses.errors import ImageError, UsageError

LOGGER = logging.getLogger("sct_lesion_losses.example")


def example(work: Callable[[dict[str, Any]], int | None]) -> Command:
    @command("sct_example", help="Does something with scans.")
    @option("-i <file> [<file> ...]", "Scans.", dest="image", mandatory=True)
    @option("-thr <float>", "Threshold.", dest="threshold", default=0.5)
    @option("-ofolder <folder>", "Outputs.", dest="folder", shown="beside the input")
    @option("-c {t2,t2s}", "Contrast.")
    @option("-n <int>", "Number.", kind=int_range(1), default=3)
    @option("-r {0,1}", "Remove temporary files.", default=True)
    @option("-pmap {0,1}", "Also write the p-map.")
    @option("-figure {0,1}", "Draw.", shown="as there is matplotlib")
    def run(**values: Any) -> int | None:
        return work(values)

    return run


def fail(error: BaseException) -> Command:
    def work(_values: dict[str, Any]) -> None:
        raise error

    return example(work)


def test_the_callback_receives_converted_values():
    seen: dict[str, Any] = {}
    args = ["-i", "a", "b", "-thr=0.3", "-ofolder", "out", "-c", "t2s", "-r", "0", "-v", "0"]
    assert example(seen.update)(args) == 0
    assert seen == {
        "image": (Path("a"), Path("b")),
        "threshold": 0.3,
        "folder": Path("out"),
        "c": "t2s",
        "n": 3,
        "r": False,
        "pmap": False,
        "figure": None,
    }
    assert example(seen.update)(["-i", "a"]) == 0
    assert (seen["threshold"], seen["folder"], seen["c"], seen["r"]) == (0.5, None, None, True)


def test_a_command_runs_in_another_thread_as_well():
    with ThreadPoolExecutor() as pool:
        assert pool.submit(example(lambda _: 3), ["-i", "a"]).result() == 3


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "Missing option '-i'"),
        (["-i", "a", "-c", "t1"], "'t1' is not one of 't2', 't2s'"),
        (["-i", "a", "-r", "2"], "'2' is not one of '0', '1'"),
        (["-i", "a", "-n", "0"], "0 is not in the range x>=1"),
        (["-i", "a", "-thr", "high"], "'high' is not a valid number"),
        (["-i", "a", "-thr", "0,3"], "'0,3' is not a number; write 0.3"),
        (["-i", "a", "-thr", "nan"], "'nan' is not a finite number"),
        (["-i", "a", "-n", "1.5"], "'1.5' is not a valid whole number"),
        (["-i", "a", "-v", "3"], "'3' is not one of '0', '1', '2'"),
        (["-i", "a", "-ofoldr", "x"], "no such option: -ofoldr; did you mean -ofolder? -h lists"),
    ],
)
def test_a_wrong_command_line_gives_usage_and_one_line_and_2(args, said, capsys):
    assert example(lambda _: None)(args) == 2
    out, err = capsys.readouterr()
    usage, line = err.splitlines()
    assert out == ""
    assert usage == "usage: sct_example -i <file> [<file> ...] [options] [-h]"
    assert line.startswith("sct_example: error: ")
    assert said in line


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (ImageError("a.nii: truncated;\n copy it again"), 1, "a.nii: truncated; copy it again"),
        (UsageError("-o and -ofolder exclude each other"), 2, "-o and -ofolder exclude each other"),
        (OSError(28, "No space left on device"), 1, "[Errno 28] No space left on device"),
        (MemoryError(), 1, "out of memory; close other programs or take a smaller image"),
        (ValueError("x"), 1, "ValueError: x (this is a defect; -v 2 shows where)"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_an_error_is_one_line_on_stderr_and_a_status(error, status, line, capsys):
    assert fail(error)(["-i", "a"]) == status
    assert capsys.readouterr() == ("", f"sct_example: error: {line}\n")


def test_the_traceback_is_shown_at_verbosity_2(capsys):
    assert fail(ImageError("truncated"))(["-i", "a", "-v", "2"]) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_a_closed_pipe_ends_quietly():
    code = (
        "import sys\nfrom sct_lesion_losses.cli.parser import command\n"
        "@command('x')\ndef X():\n    print('a' * 10**6)\n"
        "sys.exit(X([]))\n"
    )
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize(
    ("verbosity", "said"),
    [
        ("0", ["WARNING: t2.nii.gz: see b.txt"]),
        ("1", ["doing", "WARNING: t2.nii.gz: see b.txt"]),
        (
            "2",
            [
                "DEBUG sct_lesion_losses.example: fine",
                "INFO sct_lesion_losses.example: doing",
                "WARNING sct_lesion_losses.example: /data/Jean Dupont/t2.nii.gz: see /opt/a/b.txt",
            ],
        ),
    ],
)
def test_verbosity_chooses_the_log_lines_and_whether_they_hold_folders(verbosity, said, capsys):
    def work(values: dict[str, Any]) -> int:
        LOGGER.debug("fine")
        LOGGER.info("doing")
        LOGGER.warning("%s: see /opt/a/b.txt", values["image"][0])
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            logging.captureWarnings(True)
            warnings.warn("from a library", stacklevel=1)
        return 1

    logger = logging.getLogger("sct_lesion_losses")
    before = (logger.level, list(logger.handlers))
    assert example(work)(["-i", "/data/Jean Dupont/t2.nii.gz", "-v", verbosity]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[: len(said)] == said
    assert ("from a library" in err) == (verbosity == "2")
    assert (logger.level, list(logger.handlers)) == before


def test_positional_arguments_are_kept_beside_options():
    seen = {}

    @command("sct_example")
    @click.argument("action")
    @option("-thr <float>", "Threshold.", default=0.5)
    def run(**values: Any) -> None:
        seen.update(values)

    assert run(["-thr", "0.1", "list"]) == 0
    assert seen == {"action": "list", "thr": 0.1}


NAMES = {"-o": False, "-ofolder": False, "-thr": False, "-qc": False, "-i": True}


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        # The values of an option that takes many go on until the next option.
        (["-i", "a", "b", "-o", "c"], ["-i", "a", "-i", "b", "-o", "c"]),
        # Right behind its option a value may begin with a dash; a negative number may anywhere.
        (["-i", "-scan.nii.gz"], ["-i", "-scan.nii.gz"]),
        *((["-i", "a", n], ["-i", "a", "-i", n]) for n in ("-1", "-0.5", "-.5", "-1e-3", "-2.")),
        *((["-i", "a", word, "-nonsense"], ["--help"]) for word in ("-h", "--help")),
        # An equals sign binds a value and more may follow.
        (["-i=a=b", "c"], ["-i", "a=b", "-i", "c"]),
    ],
)
def test_options_and_values_are_told_apart(args, expected):
    assert pairs(args, NAMES) == expected


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["-ofoldr=x"], "no such option: -ofoldr; did you mean -ofolder"),  # no cluster of letters
        (["-ofold", "x"], "no such option: -ofold"),  # an abbreviation
        (["--thr", "0.3"], "did you mean -thr"),
        (["-zzzzz"], "-zzzzz; -h lists the options"),
        (["-i", "a.nii", "-b.nii"], r"no such option: -b\.nii"),
        (["-o", "a", "b"], "unexpected 'b': -o takes one value"),
        (["scan.nii", "-o", "a"], r"unexpected 'scan\.nii'"),
        *((args, "needs a value") for args in (["-o"], ["-o", "-thr", "1"])),
        *((args, "needs a value") for args in (["-o="], ["-o", ""], ["-i", "-h"])),
    ],
)
def test_words_that_are_no_option_and_no_value_are_refused(args, said):
    with pytest.raises(click.UsageError, match=said):
        pairs(args, NAMES)


VALUES = st.text(string.ascii_letters + string.digits + " ./_-=é", min_size=1).filter(
    lambda value: value not in (*NAMES, "-h", "--help")
)


@given(single=VALUES, many=st.lists(VALUES.filter(lambda v: v[0] != "-"), min_size=1))
def test_every_value_comes_back_behind_its_option(single, many):
    expected = ["-o", single, *(word for value in many for word in ("-i", value))]
    assert pairs(["-o", single, "-i", *many], NAMES) == expected
