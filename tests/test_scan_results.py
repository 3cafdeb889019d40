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
        replace(CONDITIONS, automatic="12ab"),
        replace(CONDITIONS, engine="openvino"),
        replace(CONDITIONS, precision="bfloat16"),
    ]
    assert len({key(MODEL, each) for each in [CONDITIONS, *others]}) == 5


def test_the_contrast_counts_where_something_is_chosen_by_it():
    def differ(conditions, model=MODEL):
        return key(model, conditions) != key(model, replace(conditions, contrast="t2s"))

    assert not differ(CONDITIONS)
    assert not differ(replace(CONDITIONS, centerline="embedded"))
    assert differ(replace(CONDITIONS, centerline="svm"))
    assert differ(replace(CONDITIONS, automatic="12ab"))
    assert differ(CONDITIONS, replace(MODEL, name="sct"))
