"""Installing: into SCT's own Python 3.10, from a wheel alone, into containers; launchers."""

import configparser
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
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


def files_of_the_package() -> set[str]:
    paths = (ROOT / "sct_lesion_losses").rglob("*")
    return {
        path.relative_to(ROOT).as_posix()
        for path in paths
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the source archive, and of the wheel that is made from it."""
    folder = tmp_path_factory.mktemp("built")
    uv("build", "--quiet", "--out-dir", folder, ROOT)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


@pytest.mark.slow
def test_wheel_and_archive_hold_the_package_and_its_licence_alone(built: Path, wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        names = set(opened.namelist())
    about = {name for name in names if ".dist-info/" in name}
    assert names - about == files_of_the_package()
    assert [name for name in about if name.endswith("licenses/LICENSE")]
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as opened_archive:
        paths = [one.name.split("/", 1)[1] for one in opened_archive if one.isfile()]
    about = {path for path in paths if ".egg-info/" in path}
    beside = {"LICENSE", "MANIFEST.in", "PKG-INFO", "README.md", "pyproject.toml", "setup.cfg"}
    assert set(paths) - about == files_of_the_package() | beside


class Environment:
    """A new environment of Python, and an empty folder beside it in which its commands run."""

    def __init__(self, folder: Path, python: str) -> None:
        self.bin, self.work = folder / "env" / "bin", folder / "work"
        self.work.mkdir()
        uv("venv", "--quiet", "--python", python, self.bin.parent)

    def install(self, *what: str | Path) -> None:
        uv("pip", "install", "--quiet", "--python", self.bin / "python", *what)

    def holds(self) -> set[str]:
        return set(uv("pip", "freeze", "--python", self.bin / "python").splitlines())

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.bin / words[0], *words[1:]],
            cwd=self.work,
            env={"PATH": f"{self.bin}:/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )

    def done(self, *words: str) -> str:
        made = self.run(*words)
        assert made.returncode == 0, made.stderr
        return made.stdout


def python310() -> str:
    """Program of a Python 3.10; the test is skipped where there is none."""
    pyenvs = map(str, Path.home().glob(".pyenv/versions/3.10.*/bin/python"))
    for program in (*pyenvs, shutil.which("python3.10")):
        # One of pyenv's on the PATH is there and does not run.
        if program and subprocess.run([program, "-c", ""], capture_output=True).returncode == 0:
            return program
    pytest.skip("no Python 3.10 is installed")


@pytest.mark.slow
def test_scts_own_python_keeps_what_it_holds_and_runs_the_commands(
    wheel: Path, tmp_path: Path
) -> None:
    scts = Environment(tmp_path, python310())
    pins = tmp_path / "pins.txt"
    pins.write_text(PINS)
    scts.install("--requirement", pins)
    before = scts.holds()
    scts.install(f"sct_lesion_losses[report] @ {wheel.as_uri()}")
    assert before <= scts.holds()
    assert [one.split()[0] for one in scts.holds() - before] == ["sct-lesion-losses"]
    scts.done("sct_simulate_lesion", "-preset", "tiny", "-n", "3", "-ofolder", "cohort")
    printed = scts.done(
        *("sct_deepseg_lesion_tuned", "-i", "cohort", "-jobs", "2", "-pmap", "1"),
        *("-figure", "1", "-qc_page", "page.html"),
    )
    written = [line for line in printed.splitlines() if line.startswith(("cohort/", "page"))]
    assert {".png", ".html", ".tsv"} <= {Path(line).suffix for line in written}
    pmap = next(line for line in written if line.endswith("probseg.nii.gz"))
    scts.done("sct_rethreshold_lesion", "-i", pmap, "-thr", "0.2")
    scts.done("sct_evaluate_lesion", "-bundle", "dice", "-i", "cohort", "-ofolder", "results")
    assert (scts.work / "results" / "tables" / "table2.tsv").read_text().count("\t") > 5
    refused = scts.run("sct_train_lesion", "-i", "cohort", "-ofolder", "mine")
    assert refused.returncode == 2
    assert "training needs Python 3.11 to 3.13" in refused.stderr


@pytest.mark.slow
def test_a_wheel_alone_runs_the_demonstration(wheel: Path, tmp_path: Path) -> None:
    alone = Environment(tmp_path, sys.executable)
    alone.install("--constraint", ROOT / "constraints.txt", wheel)
    for link in (ROOT / "bin").glob("sct_*"):
        assert link.name in alone.done(link.name, "-h")
    alone.done("sct_simulate_lesion", "-n", "1", "-ofolder", "demo")
    printed = alone.done("sct_deepseg_lesion_tuned", "-i", "demo", "-qc_page", "demo.html")
    assert "_label-L_mask.nii.gz" in printed
    assert (alone.work / "demo.html").is_file()
    lacking = {"report": ["sct_evaluate_lesion", "-bundle", "dice"], "train": ["sct_train_lesion"]}
    for extra, command in lacking.items():
        refused = alone.run(*command, "-i", "demo", "-ofolder", "out")
        assert refused.returncode in (1, 2)
        assert f"pip install 'sct_lesion_losses[{extra}]'" in refused.stderr


def steps(path: Path) -> dict[str, str]:
    """What a Dockerfile or an Apptainer definition says it starts from, copies and installs."""
    lines = path.read_text().replace("\\\n", " ").splitlines()
    found = {"copies": ""}
    for line in map(str.strip, lines):
        if match := re.match(r"FROM (.+)|From: (.+)", line):
            found["base"] = match[1] or match[2]
        elif match := re.match(r"(?:ARG )?EXTRAS=(.+)", line):
            found["extras"] = match[1]
        elif match := re.match(r"(?:ENV|export) (.+)", line):
            found["environment"] = match[1]
        elif match := re.match(r"COPY (.+) /src/|(\S+) /src/", line):
            found["copies"] += f"{match[1] or match[2]} "
        elif match := re.match(r"(?:RUN )?(pip install .+?\])", line):
            found["installs"] = match[1].replace("{{ EXTRAS }}", "$EXTRAS")
    return found


def test_both_containers_are_made_in_the_same_steps_which_setup_cfg_can_do() -> None:
    docker, apptainer = steps(ROOT / "Dockerfile"), steps(ROOT / "apptainer.def")
    assert docker == apptainer
    setup = configparser.ConfigParser()
    setup.read(SETUP)
    assert set(docker["extras"].split(",")) <= setup["options.extras_require"].keys()
    python = re.fullmatch(r"python:(3\.\d+)-slim-bookworm", docker["base"])
    assert python
    assert f":: {python[1]}" in setup["metadata"]["classifiers"]


@pytest.mark.slow
def test_what_containers_copy_makes_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for name in steps(ROOT / "Dockerfile")["copies"].split():
        assert f"!{name}" in ignored
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    uv("build", "--quiet", "--wheel", "--out-dir", tmp_path / "dist", tmp_path)
    (made,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(made) as here, zipfile.ZipFile(wheel) as there:
        assert set(here.namelist()) == set(there.namelist())
