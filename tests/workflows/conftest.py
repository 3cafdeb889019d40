"""A bundle trained and tuned once, and a cohort that it has not seen, for all flows."""

import shutil
from pathlib import Path

import pytest
from small_data import train_small, write_cohort

from sct_lesion_losses import phantom
from sct_lesion_losses.errors import NoCordError
from sct_lesion_losses.inference import models, predict
from sct_lesion_losses.phantom import PhantomScan
from sct_lesion_losses.workflows import tune
from sct_lesion_losses.workflows.tune import TuneSettings


@pytest.fixture(scope="session")
def split_table(tmp_path_factory) -> Path:
    """Split of the cohort of the bundle `small`; its scans are in the folder `data`."""
    return train_small(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="session")
def tuned(split_table) -> tune.Tuned:
    """The bundle `small`, trained enough to find bright blocks, and tuned; to be left as it is."""
    command = "sct_tune_lesion -bundle small -i split.tsv"
    settings = TuneSettings(limits=("it knows bright blocks only",), command=command)
    return tune.run(split_table.parent.with_name("small"), split_table, settings)


@pytest.fixture(scope="session")
def small(tuned) -> Path:
    """Folder of that bundle."""
    return tuned.bundle.folder


@pytest.fixture
def mine(small, tmp_path) -> Path:
    """A copy of it, to be changed."""
    return shutil.copytree(small, tmp_path / "mine" / "small")


@pytest.fixture(scope="session")
def fresh(tmp_path_factory) -> Path:
    """A cohort without a split that no bundle has seen: two scans with lesions, one without."""
    return write_cohort(tmp_path_factory.mktemp("fresh") / "data", 3, lesion_free=1, seed=11)


@pytest.fixture(scope="session")
def simulated() -> PhantomScan:
    """A small scan with lesions."""
    return phantom.make_scan(4, lesions=True, preset="tiny")


@pytest.fixture
def pmaps(monkeypatch) -> list[str]:
    """Names of the bundles of the p-maps that are predicted in this process from here on."""
    made: list[str] = []
    real = predict.pmap

    def pmap(bundle, *args, **rest):
        made.append(bundle.name)
        return real(bundle, *args, **rest)

    monkeypatch.setattr(predict, "pmap", pmap)
    return made


@pytest.fixture
def without_cord(monkeypatch):
    """Let the scans whose names hold a text show no cord."""
    real = models.find.centerline

    def refuse(text: str) -> None:
        def centerline(*args, file=None, **rest):
            if text in file.name:
                raise NoCordError("no spinal cord was recognised")
            return real(*args, file=file, **rest)

        monkeypatch.setattr(models.find, "centerline", centerline)

    return refuse
