"""The default bundle as it is shipped, on the packaged scan that `bin/demo` segments."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import pytest

import sct_lesion_losses as sll
from sct_lesion_losses.bundle import store
from sct_lesion_losses.cli.segment import main

SCAN = "t2_fake_lesion.nii.gz"


class Demo(NamedTuple):
    folder: Path
    said: str


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, testing_data: Path) -> Demo:
    folder = tmp_path_factory.mktemp("demo")
    args = ["-i", str(testing_data / SCAN), "-ofolder", str(folder), "-centerline", "embedded"]
    with contextlib.redirect_stderr(io.StringIO()) as stderr:
        assert main([*args, "-pmap", "1", "-lesions", "1", "-figure", "1"]) == 0
    return Demo(folder, stderr.getvalue())


@pytest.fixture
def segmented(demo: Demo) -> Path:
    return demo.folder


def test_the_command_says_how_the_cord_was_found_and_what_was(demo: Demo) -> None:
    first, last = demo.said.splitlines()[0], demo.said.splitlines()[-1]
    assert first.startswith("t2_fake_lesion.nii.gz: centerline by embedded (detector")
    assert " lesion" in last
    assert "highest probability" in last
    assert str(demo.folder) not in demo.said


def array(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def test_the_drawn_lesion_is_found(segmented: Path, testing_data: Path) -> None:
    mask = array(segmented / "t2_fake_lesion_lesionseg.nii.gz").astype(bool)
    truth = array(testing_data / "t2_fake_lesion_lesion_seg.nii.gz").astype(bool)
    assert (mask & truth).sum() >= 0.5 * truth.sum()


def test_the_mask_has_the_placement_of_the_scan(segmented: Path, testing_data: Path) -> None:
    scan = nib.load(testing_data / SCAN)
    mask = nib.load(segmented / "t2_fake_lesion_lesionseg.nii.gz")
    assert mask.shape == scan.shape
    assert mask.get_data_dtype() == np.uint8
    assert set(np.unique(array(segmented / "t2_fake_lesion_lesionseg.nii.gz"))) == {0, 1}
    for code in ("sform_code", "qform_code"):
        assert mask.header[code] == scan.header[code]
    np.testing.assert_array_equal(mask.get_sform(), scan.get_sform())
    np.testing.assert_allclose(mask.get_qform(), scan.get_qform(), atol=1e-5)


def test_the_sidecar_says_the_tuned_threshold_was_applied(segmented: Path) -> None:
    told = json.loads((segmented / "t2_fake_lesion_lesionseg.json").read_text())
    assert told["Bundle"] == "default"
    assert told["Threshold"] == told["TunedThreshold"] == store.load("default").threshold
    assert told["LesionCount"] >= 1


def test_everything_asked_for_is_written(segmented: Path) -> None:
    stem = "t2_fake_lesion_lesionseg"
    assert {path.name for path in segmented.iterdir()} == {
        *(f"{stem}.nii.gz", f"{stem}.json", f"{stem}.png", f"{stem}_pmap.nii.gz"),
        *(f"{stem}_labels.nii.gz", f"{stem}_lesions.tsv", f"{stem}_lesions.json"),
    }


def test_python_gives_the_mask_of_the_command(
    segmented: Path, testing_data: Path, tmp_path: Path
) -> None:
    found = sll.segment(testing_data / SCAN, ofolder=tmp_path, centerline="embedded")
    names = ["t2_fake_lesion_lesionseg.nii.gz", "t2_fake_lesion_lesionseg.json"]
    assert [path.name for path in found.written] == names
    assert found.written[0].read_bytes() == (segmented / names[0]).read_bytes()
    np.testing.assert_array_equal(found.mask, array(found.written[0]))
    np.testing.assert_array_equal(
        found.pmap, array(segmented / "t2_fake_lesion_lesionseg_pmap.nii.gz")
    )
    told = json.loads(found.written[1].read_text())
    assert (found.found.lesions, found.threshold) == (told["LesionCount"], told["Threshold"])
    assert told["GeneratedBy"][0]["Name"] == "sct_lesion_losses: segment t2_fake_lesion.nii.gz"
    assert 0 < told["CenterlineSlices"] <= told["ScanSlices"] == found.mask.shape[1]


def test_the_rooms_are_loaded_when_they_are_used() -> None:
    code = (
        "import sys, sct_lesion_losses as sll\n"
        "loaded = lambda: [n for n in ('numpy', 'keras', 'nibabel') if n in sys.modules]\n"
        "before = loaded(); sll.metrics.lesionwise.score\n"
        "print(before, loaded(), hasattr(sll, 'lsses'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[] ['numpy'] False\n"


@pytest.mark.parametrize("ending", [".nii.gz", ".csv"])
def test_the_centerline_that_is_left_makes_the_same_mask(
    ending: str, segmented: Path, testing_data: Path, tmp_path: Path
) -> None:
    stem = "t2_fake_lesion_lesionseg"
    common = ["-i", str(testing_data / SCAN), "-v", "0", "-ofolder"]
    assert main([*common, str(tmp_path), "-centerline", "embedded", "-r", "0"]) == 0
    line = tmp_path / f"{stem}_centerline{ending}"
    assert main([*common, str(tmp_path / "again"), "-file_centerline", str(line)]) == 0
    again = (tmp_path / "again" / f"{stem}.nii.gz").read_bytes()
    assert again == (segmented / f"{stem}.nii.gz").read_bytes()
