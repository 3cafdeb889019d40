from __future__ import annotations

from dataclasses import replace

from sct_lesion_losses.operating_point import THRESHOLDS
from sct_lesion_losses.scan_results import Conditions, Model, key

MODEL = Model("tversky", "ab" * 32, THRESHOLDS)
CONDITIONS = Conditions("cohort", "t2", "auto")


def test_a_key_follows_from_the_network_and_not_from_its_name():
    assert key(replace(MODEL, name="./tversky"), CONDITIONS) == key(MODEL, CONDITIONS)
    assert key(replace(MODEL, sha256="cd" * 32), CONDITIONS) != key(MODEL, CONDITIONS)


def test_a_key_follows_from_all_conditions():
    others = [
        replace(CONDITIONS, centerline="svm"),
        replace(CONDITIONS, contrast="t2s"),
        replace(CONDITIONS, engine="openvino"),
        replace(CONDITIONS, precision="bfloat16"),
    ]
    assert len({key(MODEL, each) for each in [CONDITIONS, *others]}) == 5
