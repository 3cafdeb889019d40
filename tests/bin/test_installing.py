"""Installing: into SCT's own Python 3.10, without moving one of its packages; launchers."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
SETUP = ROOT / "setup.cfg"
# What requirements.txt of SCT 7.4 resolves to on Python 3.10, as far as this package needs it.
SCT_HOLDS = {
    "click": "8.5.1",
    "filelock": "4.1.0",
    "jinja2": "3.1.6",
    "matplotlib": "3.10.9",
    "nibabel": "5.4.2",
    "numpy": "1.26.4",
    "onnx": "1.16.1",
    "onnxruntime": "1.21.1",
    "opencv-python": "4.11.0.86",
    "pandas": "1.5.3",
    "pydantic": "2.14.4",
    "safetensors": "0.8.0",
    "scipy": "1.15.3",
    "tqdm": "4.70.1",
}
SCT_LACKS = {"distributed", "openvino"}
PINS = "\n".join(f"{name}=={version}" for name, version in SCT_HOLDS.items())


def required(*extras: str) -> list[Requirement]:
    """Requirements of setup.cfg that hold on Python 3.10, those of extras included."""
    setup = configparser.ConfigParser()
    setup.read(SETUP)
    texts = [setup["options"]["install_requires"]]
    texts += [setup["options.extras_require"][extra] for extra in extras]
    lines = [line for text in texts for line in text.splitlines() if line.strip()]
    found = [Requirement(line) for line in lines]
    here = {"python_version": "3.10", "python_full_version": "3.10.13"}
    return [one for one in found if one.marker is None or one.marker.evaluate(here)]


def test_what_sct_holds_satisfies_every_requirement() -> None:
    needed = required("report", "fast", "cluster")
    assert {one.name for one in needed} == SCT_HOLDS.keys() | SCT_LACKS
    moved = {
        str(one) for one in needed if not one.specifier.contains(SCT_HOLDS.get(one.name, "9999"))
    }
    assert not moved


def uv(*args: str | Path, **env: str) -> str:
    """Run uv and return what it printed; the test is skipped without uv or a package index."""
    program = shutil.which("uv", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("uv is not installed")
    # A Python of its own would be downloaded.
    environment = {"UV_PYTHON_DOWNLOADS": "never", "UV_NO_PROGRESS": "1", **os.environ, **env}
    made = subprocess.run([program, *args], env=environment, capture_output=True, text=True)
    if re.search("network|connect|dns|fetch|resolve host", made.stderr, re.IGNORECASE):
        pytest.skip(f"no package index: {made.stderr[:200]}")
    assert made.returncode == 0, made.stderr
    return made.stdout


def test_nothing_that_is_needed_further_on_moves_what_sct_holds(tmp_path: Path) -> None:
    pins = tmp_path / "pins.txt"
    pins.write_text(PINS)
    options = ["--quiet", "--python-version", "3.10", "--no-annotate", "--no-header"]
    options += ["--extra", "report", "--constraint", str(pins)]
    lines = uv("pip", "compile", *options, SETUP).splitlines()
    assert set(PINS.splitlines()) <= set(lines)


def test_launchers_do_not_see_the_python_that_a_user_has_set(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT / "bin", checkout / "bin", symlinks=True)
    for name in ("setup.cfg", "constraints.txt"):
        shutil.copy(ROOT / name, checkout)
    # An environment that is set up: a command that tells its variables, and the marks of bin/.
    command = checkout / ".venv" / "bin" / "sct_lesion_bundle"
    command.parent.mkdir(parents=True)
    command.write_text('#!/bin/sh\nenv; echo "arguments: $*"\n')
    command.chmod(0o755)
    state = subprocess.run(
        "cat setup.cfg constraints.txt | cksum", shell=True, cwd=checkout, stdout=subprocess.PIPE
    ).stdout
    for extra in ("segment", "report"):
        (checkout / ".venv" / f".with-{extra}").write_bytes(state)
    users = {"PYTHONPATH": "/opt/fsl", "PYTHONHOME": "/opt/conda", "SCT_DIR": "/opt/sct"}
    said = subprocess.run(
        [checkout / "bin" / "sct_lesion_bundle", "list"],
        env={"PATH": os.environ["PATH"], **users},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "arguments: list" in said
    assert "SCT_DIR=/opt/sct" in said
    assert "/opt/fsl" not in said
    assert "/opt/conda" not in said
