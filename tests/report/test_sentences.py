from __future__ import annotations

import math
from collections.abc import Sequence

from sweep_rows import BROAD, NARROW, swept

from sct_lesion_losses.report import sentences, trends
from sct_lesion_losses.report.tables import PUBLISHED


def both() -> list[trends.Trend]:
    return trends.of([*swept("dice", BROAD, 0.35), *swept("bce", NARROW, 0.3, {0.3: 3, 0.5: 1})])


def test_models_are_told_from_the_most_stable_to_the_least() -> None:
    (said,) = sentences.stability(both())
    assert said.endswith("narrowest: dice from 0.2 to 0.8 (0.6 wide); bce at 0.3 alone.")


def test_models_that_are_as_stable_are_told_together() -> None:
    found = trends.of([*swept("dice", BROAD, 0.35), *swept("combo", BROAD, 0.5)])
    assert "dice (0.2 to 0.8) and combo (0.2 to 0.8), 0.6 wide." in sentences.stability(found)[0]


def test_gains_and_losses_are_told_with_their_significance() -> None:
    rows = [*swept("dice", BROAD, 0.35, scans=14), *swept("bce", NARROW, 0.3, scans=14)]
    said = " ".join(sentences.gains(trends.of(rows)))
    assert "Tuning raises the median V-F1 of bce from 0.20 to 0.40." in said
    assert "It hardly changes that of dice." in said
    assert "differs from that at 0.5 for bce (p = 0.0" in said
    assert "significant for no other (smallest p of these" in said


def test_no_significance_is_said_to_be_none() -> None:
    found = trends.of(swept("bce", {0.3: 0.4, 0.5: 0.2}, 0.3, scans=3))
    said = " ".join(sentences.gains(found))
    assert "significant for none of 1 models (smallest p = " in said
    assert "differs from that" not in said


def test_a_model_tuned_to_one_half_is_not_compared_with_itself() -> None:
    found = trends.of(swept("bce", BROAD, 0.5))
    assert sentences.gains(found) == ["Tuning leaves bce at 0.5."]


def test_what_tuning_costs_in_specificity() -> None:
    said = sentences.costs(both())
    assert said == [
        "It lowers the P-specificity, over 4 lesion-free scans, of bce from 0.75 to 0.25.",
        "It is the same at both thresholds for dice.",
    ]


def test_without_lesion_free_scans_no_specificity_is_told() -> None:
    rows = [row for row in swept("bce", NARROW, 0.3) if row.scan.startswith("s")]
    found = trends.of(rows)
    assert math.isnan(found[0].cost)
    assert sentences.costs(found) == [
        "The unseen scans all hold lesions, so that P-specificity is not known."
    ]


def test_the_side_of_one_half_is_compared_with_the_published_one() -> None:
    found = trends.of([*swept("dice", {0.3: 0.5}, 0.3), *swept("bce", {0.8: 0.5}, 0.8)])
    said = " ".join(sentences.against(found, PUBLISHED))
    assert "another side of 0.5 than the published one for bce (0.8, published 0.15)" in said
    assert "on the same side for dice (0.3, published 0.3)" in said


def test_a_threshold_of_one_half_is_on_no_side() -> None:
    said = " ".join(sentences.against(trends.of(swept("bce", {0.5: 0.5}, 0.5)), PUBLISHED))
    assert "is at 0.5, or the published one is, for bce (0.5, published 0.15)." in said


def test_the_order_of_models_is_compared_by_rank() -> None:
    # Published medians: 0.30, 0.31, 0.33, 0.36, 0.37.
    rising = ("combo", "focal_tversky", "bce", "dice", "log_cosh_dice")

    def said(names: Sequence[str]) -> str:
        rows = [
            row for k, name in enumerate(names) for row in swept(name, {0.3: 0.3 + k / 10}, 0.3)
        ]
        return " ".join(sentences.against(trends.of(rows), PUBLISHED))

    beside = "the published one (Spearman's rank correlation"
    assert f"by median V-F1 is like {beside} +1.00, p = 0.0167)" in said(rising)
    assert f"by median V-F1 reverses {beside} -1.00, p = 0.0167)" in said(rising[::-1])
    assert f"by median V-F1 shows no clear relation to {beside} +1.00, p = 0.3333)" in said(
        rising[:3]
    )
    assert "highest median V-F1 is that of log_cosh_dice, 0.70" in said(rising)


def test_a_model_of_no_published_loss_is_not_compared() -> None:
    assert sentences.against(trends.of(swept("mine", BROAD, 0.3)), PUBLISHED) == []


def test_of_no_trend_nothing_is_told() -> None:
    for told in (sentences.stability, sentences.gains, sentences.costs):
        assert told([]) == []
