import configparser
import os
import subprocess
import sys
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent / "golden"
SETUP = configparser.ConfigParser()
SETUP.read(Path(__file__).parents[2] / "setup.cfg")
SCRIPTS = SETUP["options.entry_points"]["console_scripts"]
COMMANDS = dict(line.split(" = ") for line in SCRIPTS.strip().splitlines())
HEAVY = ("numpy", "scipy", "nibabel", "cv2", "pydantic", "onnx", "onnxruntime")
HEAVY += ("keras", "tensorflow", "matplotlib", "pandas", "tqdm")
CODE = """
import sys
from {module} import {function} as main
status = main(sys.argv[1:])
print("loaded:", *[name for name in {heavy} if name in sys.modules], file=sys.stderr)
sys.exit(status)
"""


def call(command: str, *args: str) -> subprocess.CompletedProcess[str]:
    module, function = COMMANDS[command].split(":")
    code = CODE.format(module=module, function=function, heavy=HEAVY)
    return subprocess.run(
        [sys.executable, "-c", code, *args],
        capture_output=True,
        text=True,
        env={"COLUMNS": "80", "PATH": "", "LANG": "C.UTF-8"},
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_help_reads_as_documented_and_loads_no_heavy_library(command):
    done, page = call(command, "-h"), GOLDEN / f"{command}.txt"
    if "UPDATE_GOLDEN" in os.environ:
        page.write_text(done.stdout)
    assert done.stdout == page.read_text()
    assert (done.stderr.splitlines()[-1], done.returncode) == ("loaded:", 0)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("args", [[], ["-i", "a.nii", "-nonsense", "1"]])
def test_wrong_arguments_load_no_heavy_library(command, args):
    done = call(command, *args)
    assert (done.stderr.splitlines()[-1], done.returncode) == ("loaded:", 2)


def test_segmenting_loads_nothing_that_only_reports_training_or_verifying_need():
    code = "import sys, sct_lesion_losses.workflows.segment; print(*sys.modules)"
    made = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    others = {"scipy.stats", "pandas", "jinja2", "matplotlib", "keras", "onnx", "safetensors"}
    assert not others & set(made.stdout.split())
