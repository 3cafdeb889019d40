"""The benchmark of the detector counts what it cannot measure apart from what is refused."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from sct_lesion_losses.errors import CenterlineError, NoCordError
from sct_lesion_losses.geometry.centerline import Centerline
from sct_lesion_losses.geometry.grid import Grid

GRID = Grid((4, 4, 6), np.diag([-1.0, 1.0, 1.0, 1.0]))
FILE = Path(__file__).parents[2] / "benchmarks" / "centerline.py"


@pytest.fixture
def measuring() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_of_centerlines", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_cannot_be_measured_is_counted_by_why(measuring, tmp_path, monkeypatch, capsys):
    cord, known = np.zeros(GRID.shape), np.ones((6, 2))
    cord[2, 2, 3:] = 1
    elsewhere = np.where(cord.any((0, 1))[:, None], np.nan, known)
    outcomes = [NoCordError(""), CenterlineError("too narrow"), elsewhere, known, known]
    (tmp_path / "dataset_description.json").touch()
    for k in range(len(outcomes)):
        scan = tmp_path / f"sub-{k}" / f"sub-{k}_T2w.nii.gz"
        scan.parent.mkdir()
        scan.touch()
        described = '{"SimulationProtocol": {"plane": "sagittal"}}'
        scan.with_name(f"sub-{k}_T2w.json").write_text(described)

    def detect(_image, grid):
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return Centerline(grid, outcome)

    monkeypatch.setattr(measuring, "detect", detect)
    monkeypatch.setattr(measuring, "load", lambda _path: (cord, GRID))
    measuring.simulated(tmp_path, jobs=1)
    said = capsys.readouterr()
    everything = said.out.splitlines()[1].split()
    assert everything[:5] == ["all", "5", "1", "1", "1"]
    assert int(everything[5]) == 2 * 3  # slices of the two scans that are measured
    assert said.err == "sub-1_T2w.nii.gz: too narrow\n"


def test_a_scan_without_a_cord_that_cannot_be_looked_at_is_not_refused(
    measuring, monkeypatch, capsys
):
    def shows_cord(image, _grid):
        if image.mean() < 1:
            raise CenterlineError("every voxel is 0")
        return image.mean() > 2

    def make_scan(_seed, number, **_rest):
        return type("Scan", (), {"image": np.full(GRID.shape, number), "grid": None})()

    monkeypatch.setattr(measuring, "shows_cord", shows_cord)
    monkeypatch.setattr(measuring.phantom, "make_scan", make_scan)
    measuring.without_cord(4, jobs=1)
    assert capsys.readouterr().out.split() == ["without", "a", "cord", "4", "2", "1"]
