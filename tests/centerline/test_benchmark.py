"""The benchmark of the detector counts what it cannot measure apart from what is refused."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import nibabel as nib
import numpy as np
import pytest

from sct_lesion_losses.errors import CenterlineError, NoCordError
from sct_lesion_losses.geometry.centerline import Centerline

SHAPE = (4, 4, 6)
FILE = Path(__file__).parents[2] / "benchmarks" / "centerline.py"


@pytest.fixture
def measuring() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_of_centerlines", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """Five scans, told apart by their first voxel, with the cord in the last three slices."""
    (tmp_path / "dataset_description.json").write_text("{}")
    for k in range(5):
        scan = tmp_path / f"sub-{k}" / "anat" / f"sub-{k}_T2w.nii.gz"
        labels = tmp_path / "derivatives" / "labels" / f"sub-{k}" / "anat"
        for folder in (scan.parent, labels):
            folder.mkdir(parents=True)
        image, cord = np.full(SHAPE, k, np.uint8), np.zeros(SHAPE, np.uint8)
        cord[2, 2, 3:] = 1
        nib.save(nib.Nifti1Image(image, np.diag([-1.0, 1, 1, 1])), scan)
        mask = labels / f"sub-{k}_T2w_label-SC_seg.nii.gz"
        nib.save(nib.Nifti1Image(cord, np.diag([-1.0, 1, 1, 1])), mask)
        protocol = {"SimulationProtocol": {"plane": "sagittal"}}
        scan.with_name(f"sub-{k}_T2w.json").write_text(json.dumps(protocol))
    return tmp_path


def test_what_cannot_be_measured_is_counted_by_why(measuring, cohort, monkeypatch, capsys):
    def detect(image, grid):
        which = int(image[0, 0, 0])
        if which == 1:
            raise NoCordError("no cord")
        if which == 2:
            raise CenterlineError("the field of view is too narrow")
        rpi, _ = grid.to_rpi()
        xy = np.full((SHAPE[2], 2), 1.0)
        if which == 3:
            xy[3:] = np.nan
        return Centerline(rpi, xy)

    monkeypatch.setattr(measuring, "detect", detect)
    measuring.simulated(cohort, jobs=1)
    said = capsys.readouterr()
    everything = said.out.splitlines()[1].split()
    assert everything[:5] == ["all", "5", "1", "1", "1"]
    assert int(everything[5]) == 2 * 3  # slices of the two scans that are measured
    assert said.err == "sub-2_T2w.nii.gz: the field of view is too narrow\n"


def test_a_scan_without_a_cord_that_cannot_be_looked_at_is_not_refused(
    measuring, monkeypatch, capsys
):
    def shows_cord(image, _grid):
        if image.mean() < 1:
            raise CenterlineError("every voxel is 0")
        return image.mean() > 2

    def make_scan(_seed, number, **_rest):
        return type("Scan", (), {"image": np.full(SHAPE, number), "grid": None})()

    monkeypatch.setattr(measuring, "shows_cord", shows_cord)
    monkeypatch.setattr(measuring.phantom, "make_scan", make_scan)
    measuring.without_cord(4, jobs=1)
    assert capsys.readouterr().out.split() == ["without", "a", "cord", "4", "2", "1"]
