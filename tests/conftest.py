"""Fixtures shared by all tests."""

import os
import signal
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import settings
from small_data import write_cohort

# How long an example takes says more of the machine than of the code.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# Keras' own default is TensorFlow, which may be missing where another backend is installed.
BACKENDS = [name for name in ("tensorflow", "jax", "torch") if find_spec(name)]
if BACKENDS:
    os.environ.setdefault("KERAS_BACKEND", BACKENDS[0])

# A shell starts its background jobs with SIGINT ignored, and so would they start the commands that
# tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

REPOSITORY = Path(__file__).resolve().parent.parent
SCT_DIR = os.environ.get("SCT_DIR", "")  # before a test sets it


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with real scans, SCT's models and SCT's outputs; the test is skipped without it."""
    folder = Path(os.environ.get("SCT_LESION_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip("no shared folder beside the checkout (or in SCT_LESION_SHARED)")
    return folder


@pytest.fixture
def sct_dir(shared: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Point SCT_DIR at SCT's model files, without SCT's commands."""
    folder = shared / "data" / "sct"
    if not folder.is_dir():
        pytest.skip("no model files of SCT in data/sct of the shared folder")
    monkeypatch.setenv("SCT_DIR", str(folder))
    return folder


@pytest.fixture(scope="session")
def sct_checkout() -> Path:
    """Folder of a real SCT with its commands; the test is skipped where SCT_DIR names none."""
    folder = Path(SCT_DIR)
    if not SCT_DIR or not (folder / "bin" / "sct_version").exists():
        pytest.skip("SCT_DIR names no SCT with commands in its bin; see docs/contributing.md")
    return folder


@pytest.fixture(scope="session")
def cohort(tmp_path_factory) -> Path:
    """Folder of a cohort of eight, two without lesions; to be left as it is."""
    return write_cohort(tmp_path_factory.mktemp("cohort"), subjects=8, lesion_free=2)


@pytest.fixture(scope="session")
def testing_data() -> Path:
    """Folder of the small files that the tests are shipped with."""
    return REPOSITORY / "testing_data"
