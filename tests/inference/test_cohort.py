from __future__ import annotations

import json
from dataclasses import asdict, replace
from hashlib import sha256
from types import SimpleNamespace

import numpy as np
import pytest

from sct_lesion_losses import __version__
from sct_lesion_losses.centerline import find
from sct_lesion_losses.cohorts.table import CohortScan
from sct_lesion_losses.images import nifti
from sct_lesion_losses.inference.cohort import IN_COHORT, Model, finder_of, key, locate, scan_hash
from sct_lesion_losses.inference.predict import InferenceSettings
from sct_lesion_losses.metrics.lesionwise import PRESETS
from sct_lesion_losses.thresholds import THRESHOLDS

MODEL = Model("tversky", "ab" * 32, THRESHOLDS)


def key_of(model: Model = MODEL, finder: str = "", **inference: object) -> str:
    return key(model, replace(IN_COHORT, **inference), finder)


def test_a_key_follows_from_the_network_and_not_from_its_name():
    assert key_of(replace(MODEL, name="./tversky")) == key_of()
    assert key_of(replace(MODEL, sha256="cd" * 32)) != key_of()


def test_a_key_follows_from_all_of_inference():
    others = [
        key_of(centerline="svm"),
        key_of(centerline="cnn"),
        key_of(centerline="cnn", brain=False),
        key_of(finder="12ab"),
        key_of(engine="openvino"),
        key_of(precision="bfloat16"),
    ]
    assert len({key_of(), *others}) == 7


def test_a_key_is_the_one_under_which_earlier_counts_were_kept():
    facts = {
        "software": __version__,
        "network": MODEL.sha256,
        "thresholds": THRESHOLDS,
        "sct_rule": False,
        "presets": [asdict(preset) for preset in PRESETS.values()],
        "centerline": "cohort",
        "contrast": "",
        "engine": "auto",
    }
    assert key_of() == sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def test_the_rule_of_sct_knows_no_engine_but_its_own():
    rule = replace(MODEL, name="sct", sct_rule=True)
    others = [key_of(rule, engine="openvino"), key_of(rule, precision="bfloat16")]
    assert {key_of(rule), *others} == {key_of(rule)}
    assert rule.computed_in(replace(IN_COHORT, engine="openvino")) == ("onnxruntime", "float32")


@pytest.mark.parametrize(
    ("differs", "model", "centerline", "finder"),
    [
        (False, MODEL, "cohort", ""),
        (False, MODEL, "embedded", ""),
        (True, MODEL, "svm", ""),
        (False, MODEL, "embedded", "12ab"),
        (True, MODEL, "cohort", "12ab"),
        (True, MODEL, "auto", "12ab"),
        (True, replace(MODEL, name="sct"), "cohort", ""),
    ],
)
def test_the_contrast_counts_where_something_is_chosen_by_it(differs, model, centerline, finder):
    keys = {
        key_of(model, finder, centerline=centerline, contrast=contrast)
        for contrast in ("t2", "t2s")
    }
    assert len(keys) == 1 + differs


def test_the_cord_is_found_by_the_method_of_the_settings_or_the_cohorts_file(scans, monkeypatch):
    asked = []

    def centerline(_image, _grid, method="auto", **how):
        asked.append((method, how.get("file"), how.get("brain"), how.get("as_sct", False)))
        return "line"

    monkeypatch.setattr(find, "centerline", centerline)
    monkeypatch.setattr(nifti, "read", lambda _file: SimpleNamespace(array=None, grid=None))
    monkeypatch.setattr(nifti, "read_mask", lambda _file, like: SimpleNamespace(array=np.zeros(1)))
    with_file, without = scans
    locate(with_file, for_sct=False)
    locate(without)
    locate(with_file, InferenceSettings("cnn", brain=False))
    locate(with_file)
    line = with_file.centerline
    assert asked == [
        ("auto", line, True, False),
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
    def addresses(finder: str) -> list[tuple[str, str]]:
        monkeypatch.setattr(find, "identity", lambda method, _contrast: f"{method} {finder}")
        inference = InferenceSettings(centerline)
        found_by = finder_of(scans, inference)
        model_key = key(MODEL, inference, found_by)
        return [(scan_hash(scan, inference, found_by), model_key) for scan in scans]

    first, again, other = addresses("a"), addresses("a"), addresses("b")
    assert first == again
    same = [one == two for one, two in zip(first, other, strict=True)]
    assert same == [centerline == "cohort", False]


def test_a_cohort_with_centerlines_asks_for_no_method(scans, monkeypatch):
    monkeypatch.delattr(find, "identity")
    assert finder_of(scans[:1], IN_COHORT) == ""
