from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from sct_lesion_losses.geometry.grid import Grid
from sct_lesion_losses.phantom import PhantomScan, make_scan
from sct_lesion_losses.phantom.cohort import centerline_mask, write_nifti, write_scan


@pytest.fixture(scope="module")
def scan() -> PhantomScan:
    return make_scan(1, 0, preset="tiny")


def test_a_stored_slope_multiplies_the_stored_numbers(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    write_nifti(tmp_path / "a.nii.gz", array, Grid((2, 3, 4), np.eye(4)), slope=0.5)
    image = nib.load(tmp_path / "a.nii.gz")
    assert image.get_data_dtype() == np.int16
    assert image.dataobj.slope == 0.5
    assert np.array_equal(np.asarray(image.dataobj), array * 0.5)
    assert int(image.header["qform_code"]) == int(image.header["sform_code"]) == 1


def test_the_centerline_mask_has_one_voxel_in_each_slice(scan: PhantomScan) -> None:
    _, turn = scan.grid.to_rpi()
    mask = turn.apply(centerline_mask(scan))
    assert (mask.sum(axis=(0, 1)) == 1).all()
    assert (turn.apply(scan.cord)[mask > 0] == 1).all()


def test_a_scan_without_a_cord_has_an_empty_centerline_mask() -> None:
    scan = make_scan(4, preset="tiny", with_cord=False)
    mask = centerline_mask(scan)
    assert mask.shape == scan.grid.shape
    assert not mask.any()


def test_the_sidecar_tells_of_what_looks_like_a_lesion(scan: PhantomScan, tmp_path: Path) -> None:
    write_scan(scan, tmp_path, tmp_path, "a_T2w")
    sidecar = json.loads((tmp_path / "a_T2w.json").read_text())
    negatives = sidecar["SimulatedHardNegatives"]
    assert scan.hard_negatives is not None
    assert negatives["haze"] == scan.hard_negatives.haze
    assert set(negatives) == {
        "haze", "canal_line_mm", "fissure_mm", "fissure_depth", "rootlets", "bulges_mm",
    }  # fmt: skip
    assert {"flow", "ghost", "edge", "matrix"} <= set(sidecar["SimulationProtocol"])


def test_a_sidecar_of_a_scan_without_a_cord_tells_of_none(tmp_path: Path) -> None:
    write_scan(make_scan(4, preset="tiny", with_cord=False), tmp_path, tmp_path, "a_T2w")
    assert json.loads((tmp_path / "a_T2w.json").read_text())["SimulatedHardNegatives"] == {}
