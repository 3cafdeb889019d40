import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

from sct_lesion_losses.bundle import store
from sct_lesion_losses.centerline import find
from sct_lesion_losses.cohorts.table import CohortScan, content_hash
from sct_lesion_losses.images import nifti
from sct_lesion_losses.inference.cohort import (
    ScanTask,
    compute,
    finder_of,
    key,
    names_of,
    scan_hash,
)
from sct_lesion_losses.inference.models import IN_COHORT, Model, locate
from sct_lesion_losses.inference.predict import InferenceSettings
from sct_lesion_losses.thresholds import THRESHOLDS
from sct_lesion_losses.thresholds.lesion_filter import Filter

MODEL = Model("tversky", "ab" * 32, THRESHOLDS)


SCAN = CohortScan(Path("scan.nii"), Path("mask.nii"), "s1")


def key_of(model: Model = MODEL, finder: str = "", scan: CohortScan = SCAN, **how: object) -> str:
    return key(model, scan, replace(IN_COHORT, **how), finder)


def test_a_key_follows_from_the_network_and_all_of_inference_and_not_from_a_name():
    others = [
        key_of(replace(MODEL, sha256="cd" * 32)),
        key_of(replace(MODEL, thresholds=(0.5,))),
        key_of(finder="12ab"),
        key_of(brain=False),
        key_of(contrast="t2s"),
        key_of(engine="openvino"),
        key_of(precision="bfloat16"),
        key_of(scan=replace(SCAN, centerline=Path("line.nii"))),
        key_of(replace(MODEL, rule=Filter(0.9))),
        key_of(replace(MODEL, rule=Filter(0.9, 2.0))),
    ]
    assert len({key_of(), *others}) == 11
    assert key_of(replace(MODEL, name="./tversky")) == key_of()


def test_the_rule_of_sct_knows_no_engine_but_its_own():
    rule = replace(MODEL, name="sct", kind="sct_rule")
    others = [key_of(rule, engine="openvino"), key_of(rule, precision="bfloat16")]
    assert {key_of(rule), *others} == {key_of(rule)}
    assert rule.computed_in(replace(IN_COHORT, engine="openvino")) == ("onnxruntime", "float32")


def test_the_cord_is_found_by_the_method_of_the_settings_or_the_cohorts_file(scans, monkeypatch):
    asked = []

    def centerline(_image, _grid, method="auto", **how):
        asked.append((method, how.get("file"), how.get("brain"), how.get("as_sct", False)))
        return "line"

    monkeypatch.setattr(find, "centerline", centerline)
    monkeypatch.setattr(nifti, "read", lambda _file: SimpleNamespace(array=None, grid=None))
    monkeypatch.setattr(nifti, "read_mask", lambda _file, like: SimpleNamespace(array=np.zeros(1)))
    with_file, without = scans
    locate(without)
    locate(with_file, InferenceSettings("cnn", brain=False))
    found = locate(with_file)
    assert (found.sct_line, found.sct_line) == ("line", "line")
    line = with_file.centerline
    assert asked == [
        ("auto", None, True, False),
        ("cnn", None, False, False),
        ("auto", line, True, False),
        ("auto", line, None, True),
    ]


@pytest.fixture
def scans(tmp_path) -> list[CohortScan]:
    """One with a centerline of the cohort's, one without."""
    files = [tmp_path / name for name in ("scan.nii", "mask.nii", "line.nii")]
    for file in files:
        file.write_bytes(file.name.encode())
    return [CohortScan(*files[:2], "s1", centerline=line) for line in (files[2], None)]


@pytest.mark.parametrize("centerline", ["cohort", "auto", "svm", "cnn", "embedded"])
def test_what_is_kept_is_of_no_use_once_the_cord_is_found_otherwise(scans, monkeypatch, centerline):
    inference = InferenceSettings(centerline)

    def keys(finder: str) -> list[str]:
        monkeypatch.setattr(find, "identity", lambda method, _contrast: f"{method} {finder}")
        return [key(MODEL, scan, inference, finder_of(scans, inference)) for scan in scans]

    first, again, other = keys("a"), keys("a"), keys("b")
    assert first == again
    same = [one == two for one, two in zip(first, other, strict=True)]
    assert same == [centerline == "cohort", False]
    hashes = [scan_hash(scan, inference) for scan in scans]
    assert (hashes[0] == hashes[1]) == (centerline != "cohort")


def test_a_cohort_with_centerlines_asks_for_no_method(scans, monkeypatch):
    monkeypatch.delattr(find, "identity")
    assert finder_of(scans[:1], IN_COHORT) == ""


def test_a_scan_is_known_again_by_its_voxels_and_by_the_host_of_its_implants(tmp_path):
    arrays = np.random.default_rng(0).normal(size=(3, 2, 2, 2)).astype(np.float32)
    scans = [CohortScan(tmp_path / f"{k}.nii", Path("mask.nii"), str(k)) for k in range(3)]
    for scan, array in zip(scans, arrays, strict=True):
        nib.save(nib.Nifti1Image(array, np.eye(4)), scan.scan)
    host = content_hash(arrays[0])
    (tmp_path / "1.json").write_text(json.dumps({"ImplantHostHash": host}))
    assert names_of([host], scans) == ["0.nii", "1.nii"]
    assert names_of([content_hash(arrays[1])], scans) == ["1.nii"]
    assert names_of([], [replace(scans[0], scan=tmp_path / "gone.nii")]) == []


def test_volumes_are_noted_as_use_measures_them_on_a_sheared_grid(tmp_path):
    affine = np.diag([-1.0, 1.0, 1.0, 1.0])
    affine[1, 2] = 0.02  # 1 mm³ a voxel; the product of the spacings is 1.0002
    image = np.random.default_rng(0).integers(1, 900, (40, 40, 40)).astype(np.int16)
    line = np.zeros(image.shape, np.uint8)
    line[20, 20] = 1
    for name, array in (("scan", image), ("mask", line * 0), ("line", line)):
        nib.save(nib.Nifti1Image(array, affine), tmp_path / f"{name}.nii")
    files = [tmp_path / f"{name}.nii" for name in ("scan", "mask", "line")]
    scan = CohortScan(*files[:2], "s1", centerline=files[2])
    model = Model("default", store.load("default").pmap_sha256, (0.5,), noted=True)
    task = ScanTask(scan, tmp_path / "scan.json", "ab", {model: "cd"}, IN_COHORT)
    [noted] = compute(task)[model].noted
    assert noted.voxel_mm3 == pytest.approx(1.0)
