from __future__ import annotations

import dataclasses

import pytest

from sct_lesion_losses.report.tables import COHORT, PUBLISHED
from sct_lesion_losses.thresholds import THRESHOLDS


def test_the_study_has_seven_losses_and_sct() -> None:
    assert sorted(PUBLISHED) == [
        "bce",
        "combo",
        "dice",
        "focal_tversky",
        "generalized_dice",
        "log_cosh_dice",
        "sct",
        "tversky",
    ]


def test_the_parts_of_its_cohort_are_all_its_scans() -> None:
    parts = dataclasses.asdict(COHORT)
    scans = parts.pop("scans")
    del parts["subjects"], parts["sites"]
    assert sum(parts.values()) == scans


@pytest.mark.parametrize("name", PUBLISHED)
def test_thresholds_are_of_the_grid_and_specificities_are_shares_of_the_lesion_free(
    name: str,
) -> None:
    found = PUBLISHED[name]
    assert found.threshold in THRESHOLDS
    shares = {round(k / COHORT.unseen_without, 2) for k in range(COHORT.unseen_without + 1)}
    assert found.p_specificity in shares
