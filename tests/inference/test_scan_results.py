from __future__ import annotations

from dataclasses import replace

import pytest

from sct_lesion_losses.centerline import find
from sct_lesion_losses.cohorts.table import CohortScan
from sct_lesion_losses.inference.cohort import Conditions, Model, content, key
from sct_lesion_losses.thresholds import THRESHOLDS

MODEL = Model("tversky", "ab" * 32, THRESHOLDS)
CONDITIONS = Conditions("cohort", "t2", "auto")


def test_a_key_follows_from_the_network_and_not_from_its_name():
    assert key(replace(MODEL, name="./tversky"), CONDITIONS) == key(MODEL, CONDITIONS)
    assert key(replace(MODEL, sha256="cd" * 32), CONDITIONS) != key(MODEL, CONDITIONS)


def test_a_key_follows_from_all_conditions():
    others = [
        replace(CONDITIONS, centerline="svm"),
        replace(CONDITIONS, finder="12ab"),
        replace(CONDITIONS, engine="openvino"),
        replace(CONDITIONS, precision="bfloat16"),
    ]
    assert len({key(MODEL, each) for each in [CONDITIONS, *others]}) == 5


def test_the_rule_of_sct_knows_no_engine_but_its_own():
    rule = replace(MODEL, name="sct", sct_rule=True)
    others = [replace(CONDITIONS, engine="openvino"), replace(CONDITIONS, precision="bfloat16")]
    assert {key(rule, each) for each in [CONDITIONS, *others]} == {key(rule, CONDITIONS)}
    assert rule.computed_in(others[0]) == ("onnxruntime", "float32")


def test_the_contrast_counts_where_something_is_chosen_by_it():
    def differ(conditions, model=MODEL):
        return key(model, conditions) != key(model, replace(conditions, contrast="t2s"))

    assert not differ(CONDITIONS)
    assert not differ(replace(CONDITIONS, centerline="embedded"))
    assert differ(replace(CONDITIONS, centerline="svm"))
    assert not differ(replace(CONDITIONS, centerline="embedded", finder="12ab"))
    assert differ(replace(CONDITIONS, finder="12ab"))
    assert differ(replace(CONDITIONS, centerline="auto", finder="12ab"))
    assert differ(CONDITIONS, replace(MODEL, name="sct"))


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
        conditions = Conditions.of(centerline, "t2", "auto", scans)
        return [(content(scan, conditions), key(MODEL, conditions)) for scan in scans]

    first, again, other = addresses("a"), addresses("a"), addresses("b")
    assert first == again
    same = [one == two for one, two in zip(first, other, strict=True)]
    assert same == [centerline == "cohort", False]


def test_a_cohort_with_centerlines_asks_for_no_method(scans, monkeypatch):
    monkeypatch.delattr(find, "identity")
    assert Conditions.of("cohort", "t2", "auto", scans[:1]).finder == ""
