"""The inference part resolves beside SCT, in SCT's own Python 3.10."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SETUP = Path(__file__).resolve().parents[2] / "setup.cfg"
# SCT 7.4, requirements.txt and what its installer freezes on Python 3.10
SCT_PINS = ("numpy==1.26.4", "onnxruntime==1.21.1", "onnx==1.16.1", "scipy==1.13.1")


def resolved(constraints: Path) -> dict[str, tuple[int, ...]]:
    """Versions that an installer chooses on Python 3.10."""
    uv = shutil.which("uv", path=str(Path(sys.executable).parent))
    if uv is None:
        pytest.skip("uv is not installed")
    options = ["--quiet", "--python-version", "3.10", "--no-annotate", "--no-header"]
    made = subprocess.run(
        [uv, "pip", "compile", *options, "--constraint", str(constraints), str(SETUP)],
        capture_output=True,
        text=True,
    )
    if re.search("network|connect|dns|fetch|resolve host", made.stderr, re.IGNORECASE):
        pytest.skip(f"no package index: {made.stderr[:200]}")
    assert made.returncode == 0, made.stderr
    pairs = re.findall(r"^([a-z0-9-]+)==([0-9.]+)", made.stdout, re.MULTILINE)
    return {name: tuple(map(int, version.strip(".").split("."))) for name, version in pairs}


@pytest.mark.parametrize("pins", [(), SCT_PINS])
def test_no_version_that_sct_holds_is_moved(pins: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "pins.txt").write_text("\n".join(pins))
    versions = resolved(tmp_path / "pins.txt")
    assert versions["numpy"] < (2,)
    assert versions["onnxruntime"] < (1, 22)
    assert versions["onnx"] < (1, 16, 2)
    for name, _, version in (pin.partition("==") for pin in pins):
        assert versions[name] == tuple(map(int, version.split(".")))
