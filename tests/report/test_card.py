from pathlib import Path
from typing import Any

import numpy as np
import pytest
from example_points import LESIONS, LIMIT

from sct_lesion_losses.bundle import check, store
from sct_lesion_losses.bundle.schema import BundleInfo
from sct_lesion_losses.metrics.patientwise import proportion
from sct_lesion_losses.report import card
from sct_lesion_losses.thresholds import ScanCounts, count
from sct_lesion_losses.thresholds.lesion_filter import Filter, candidates

SHIPPED = store.load("tversky").info.model_dump()
POINT: dict[str, Any] = SHIPPED["operating_point"]


def text(**changes: Any) -> str:
    """Card of the bundle tversky, but for some of its entries."""
    return card.text(BundleInfo.model_validate(SHIPPED | changes))


@pytest.mark.parametrize("folder", sorted(store.PACKAGED.iterdir()), ids=lambda path: path.name)
def test_the_card_of_a_shipped_bundle_follows_from_its_description(folder: Path) -> None:
    shipped = (folder / check.CARD).read_text(encoding="utf-8")
    assert card.text(store.load(str(folder)).info) == shipped


def test_one_of_anything_is_singular() -> None:
    recipe = {
        **{"optimiser": "adam", "rate": 1e-4, "batch_size": 1, "epochs_planned": 1},
        **{"epochs_run": 1, "patience": 1, "rate_factor": 0.5, "minutes": 1.2},
    }
    point = POINT | {"n_scans": 1, "n_subjects": 1, "lesions": LESIONS | {"n_scans": 1}}
    said = text(recipe=recipe, operating_point=point)
    for words in (
        "batches of 1 patch,",
        "- 1 epoch run of 1 planned",
        "after 1 epoch without a better one",
        "- 1 minute on",
        "on 1 scan of 1 subject.",
        "chosen on 1 scan with lesions and 0 without",
    ):
        assert words in said


def test_one_subject_gives_no_interval() -> None:
    metric = {"value": 0.067, "low": float("nan"), "high": float("nan"), "n": 1, "note": "a|b"}
    point = POINT | {"interval": None, "n_subjects": 1}
    said = text(operating_point=point, metrics={"v_f1_median": metric})
    assert "- no interval: one subject\n" in said
    assert "bootstrap interval" not in said
    assert "| v_f1_median | 0.067 | n/a | 1 | a\\|b |" in said


def test_the_curve_is_a_table_with_the_choice_marked() -> None:
    point = POINT | {
        "threshold": 0.3,
        "thresholds": (0.25, 0.3, 0.35),
        "curve": (0.4, 0.5, None),
        "per_scan": [
            {"scan": "scan-01", "subject": "subject-01", "values": (0.3, 0.45, None)},
            {"scan": "scan-02", "subject": "subject-02", "values": (0.5, 0.55, None)},
        ],
        **{"interval": (0.25, 0.35), "plateau": (0.3, 0.3), "loss_at_pm_0_05": (0.1, None)},
        **{"n_scans": 2, "n_subjects": 2},
    }
    said = text(operating_point=point)
    assert (
        "```\n"
        "threshold  median_v_f1  worst scan  best scan\n"
        "     0.25        0.400       0.300      0.500\n"
        "     0.30        0.500       0.450      0.550 *\n"
        "     0.35            -           -          -\n"
        "```\n"
    ) in said
    for words in (
        "**0.3**, chosen for the best `median_v_f1` on 2 scans of 2 subjects",
        "95 % bootstrap interval over subjects: 0.25 to 0.35",
        "- lost 0.05 below: 0.100; 0.05 above: -",
    ):
        assert words in said


def test_the_numbers_of_the_objective_are_said() -> None:
    point = POINT | {"objective": "l_f1_at_specificity", "preset": "paper", "specificity": 0.9}
    said = text(operating_point=point)
    assert "`l_f1_at_specificity` (preset paper, P-specificity >= 0.9) on" in said
    point = POINT | {"objective": "mean_v_fbeta", "beta": 2.0}
    assert "`mean_v_fbeta` (beta 2.0) on" in text(operating_point=point)


def test_the_shares_of_patches_and_the_averaging_of_weights_are_said_where_there_are_any() -> None:
    recipe = SHIPPED["recipe"] | {
        **{"cohort_shares": {"implants": 0.4, "simulated": 0.6}, "free_share": 0.25, "ema": 0.999}
    }
    said = text(recipe=recipe)
    for words in (
        "- weights averaged over the steps: 0.999 of the average stays at each\n",
        "- patches by cohort: 40% of implants, 60% of simulated\n",
        "- patches without lesion: 25% from scans without any lesion\n",
    ):
        assert words in said


def curves(*val_losses: float | None) -> list[str]:
    """Rows of the training's curves."""
    history = [
        {"epoch": k, "loss": 0.5, "val_loss": value, "rate": 1e-3}
        for k, value in enumerate(val_losses, start=1)
    ]
    shown = text(history=history).split("epoch    loss  validation    rate\n")[1]
    return shown.split("\n```")[0].splitlines()


def test_the_curves_of_a_training_are_a_table_with_the_best_epoch_marked() -> None:
    # Bars of 40 characters at most: 0.8 is the largest, 0.4 is half of it.
    assert curves(0.8, 0.4, 0.6) == [
        "    1   0.500       0.800   0.001  " + "█" * 40,
        "    2   0.500       0.400   0.001  " + "█" * 20 + " *",
        "    3   0.500       0.600   0.001  " + "█" * 30,
    ]
    # One that was not measured has no bar.
    assert curves(None, -0.2) == [
        "    1   0.500           -   0.001",
        "    2   0.500      -0.200   0.001   *",
    ]


def test_the_start_of_a_training_is_epoch_0_and_never_the_best() -> None:
    said = text(history=[{"epoch": 0, "val_loss": 0.1}, {"epoch": 1, "loss": 0.5, "val_loss": 0.2}])
    assert "- validation loss of the start, epoch 0 below: 0.100\n" in said
    assert (
        "rate\n"
        f"    0       -       0.100       -  {'█' * 20}\n"
        f"    1   0.500       0.200       -  {'█' * 40} *\n"
    ) in said


def test_the_curves_of_a_long_training_keep_its_best_and_its_last_epoch() -> None:
    values = [1.0 + 0.001 * k for k in range(300)]
    values[100] = 0.2
    rows = curves(*values)
    # Every 12th of 300 from the first is 25 rows; epochs 101 and 300 come on top.
    assert len(rows) == 27
    assert [row.split()[0] for row in rows if row.endswith("*")] == ["101"]
    assert rows[-1].split()[0] == "300"


def test_what_is_missing_is_said_or_left_out() -> None:
    nothing: dict[str, Any] = {"metrics": {}, "provenance": {"data": "x"}, "seeds": {}}
    nothing |= {"packages": {}, "git_commit": None, "split_hash": None}
    said = text(operating_point={}, recipe=None, **nothing)
    assert "0.5, untuned: no scan was used to choose it" in said
    assert "Not measured." in said
    assert "No command was recorded." in said
    assert "## Training" not in said


def test_a_published_threshold_is_shown_with_its_source() -> None:
    point = {"kind": "published", "threshold": 0.05, "source": "a paper, Table 2"}
    assert "\n**0.05**, published (a paper, Table 2).\n" in text(operating_point=point)


def test_the_preparation_of_sct_is_described() -> None:
    preparation = {
        "kind": "sct",
        "contrast": "t2_ax",
        "percentiles": (1.0, 99.0),
        "landmarks": (0.0, 2611.0),
        "mean": 835.592,
        "std": 528.386,
    }
    said = text(preparation=preparation)
    assert "SCT's `t2_ax` lesion model wants them, less 835.592, divided by 528.386" in said


def test_a_filter_of_lesions_is_shown_with_its_curve() -> None:
    lesions = LESIONS | {"n_lesion_free": 1, "specificity": 1.0, "specificity_asked": 0.8}
    shown = text(operating_point=POINT | {"lesions": lesions})
    assert "they have **a highest probability of at least 0.5 and at least 3 mm³**, chosen" in shown
    any_size = text(operating_point=POINT | {"lesions": lesions | {"volume_mm3": 0.0}})
    assert "they have **a highest probability of at least 0.5**, chosen" in any_size
    assert "2 scans with lesions and 1 without" in shown
    assert "P-specificity 0.8 or more" in shown
    assert "- median L-F1 0.600, without it 0.500" in shown
    assert "       0.5          0.500                  0.20 *" in shown


def test_the_detection_limit_is_told_with_what_it_is_worth() -> None:
    shown = text(operating_point=POINT | {"detection_limit": LIMIT})
    assert "scans of 2 healthy people: **these are implants, not patients' lesions**" in shown
    assert "by the threshold and filter that the others choose" in shown
    assert "| contrast under 1.1 | 1 | 4 | 0.25 | 0.00 to 0.50 |" in shown
    assert "| from 300 mm³ | 2 | 2 | 1.00 | n/a |" in shown
    assert "False lesions in 2 untouched scans of these people: 0.50 a scan.\n" in shown
    alone = LIMIT | {"people": 1, "held_out": False}
    one = text(operating_point=POINT | {"detection_limit": alone})
    assert "scans of 1 healthy person" in one
    assert "that they chose themselves, which flatters" in one


THRESHOLDS = (0.2, 0.5, 0.9)


def scan(truth_vox: int, low_vox: int = 0, high_vox: int = 0, beside_vox: int = 0) -> ScanCounts:
    """One lesion along x; of it so much at p = 0.6 and at p = 0.3, and so much apart from it."""
    truth, pmap = np.zeros((30, 5, 5), bool), np.zeros((30, 5, 5), np.float32)
    truth[:truth_vox, 0, 0] = True
    pmap[:high_vox, 0, 0] = 0.6
    pmap[high_vox : high_vox + low_vox, 0, 0] = 0.3
    pmap[:beside_vox, 4, 4] = 0.3
    return count(truth, pmap, (1.0, 1.0, 1.0), THRESHOLDS)


# At 0.2: TP 6, 10 and 0 of 10; FP 0, 10 and 0. V-F1 12/16, 20/30, 0. Lesions found: 1, 1, 0; of
# the second scan's two predicted ones 1 is correct. At 0.5: TP 2, 10, 0 and no FP: 4/12, 1, 0.
BEARING = [scan(10, 4, 2), scan(10, 0, 10, beside_vox=10), scan(10)]
FREE = [scan(0), scan(0, beside_vox=3)]
SUBJECTS = ["a", "b", "c", "d", "e"]


def test_summaries_are_those_of_the_scans_with_lesions():
    found = card.metrics([*BEARING, *FREE], SUBJECTS, 0.2)
    values = {name: metric.value for name, metric in found.items()}
    assert values == pytest.approx(
        {
            "v_f1_median": 20 / 30,
            "v_f1_mean": (12 / 16 + 20 / 30) / 3,
            "v_f1_median_at_0.5": 4 / 12,
            "v_f1_mean_at_0.5": (4 / 12 + 1) / 3,
            "v_sensitivity_median": 0.6,
            "v_precision_median": 0.5,
            "l_sensitivity_median": 1.0,
            "l_precision_median": 0.5,
            "l_f1_median": 2 / 3,
            "p_sensitivity": 2 / 3,
            "p_specificity": 1 / 2,
            "scans_refused": 0.0,
        }
    )
    assert {name: metric.n for name, metric in found.items()} == dict.fromkeys(values, 3) | {
        "p_specificity": 2,
        "scans_refused": 5,
    }


def test_shares_have_wilson_intervals_and_summaries_those_by_resampling_subjects():
    found = card.metrics([*BEARING, *FREE], SUBJECTS, 0.2, refused=3)
    shares = {"p_sensitivity": (2, 3), "p_specificity": (1, 2), "scans_refused": (3, 8)}
    for name, (some, n) in shares.items():
        wilson, metric = proportion(some, n), found[name]
        assert (metric.value, metric.low, metric.high) == (wilson.value, wilson.low, wilson.high)
    one = card.metrics(BEARING, ["a", "a", "a"], 0.2)["v_f1_median"]
    assert (one.value, one.low, one.high) == (pytest.approx(2 / 3), None, None)  # one subject
    three = card.metrics(BEARING, ["a", "b", "c"], 0.2)["v_f1_median"]
    assert (three.low, three.high) == (0.0, 12 / 16)


def test_what_no_scan_tells_of_is_left_out():
    assert set(card.metrics(FREE, ["d", "e"], 0.2)) == {"p_specificity", "scans_refused"}
    assert card.metrics([], [], 0.2) == {}
    assert set(card.metrics([], [], 0.2, refused=1)) == {"scans_refused"}


def lesions(peaks, truth_vox=0):
    """Predicted lesions of 4 mm³ in a row; the first reaches over a true one of `truth_vox`."""
    truth, pmap = np.zeros((40, 5, 5), bool), np.zeros((40, 5, 5), np.float32)
    truth[:truth_vox, 0, 0] = True
    for k, peak in enumerate(peaks):
        pmap[6 * k : 6 * k + 4, 0, 0] = peak
    return candidates(truth, pmap, 0.2, 1.0)


# With a peak of 0.5 or more: the first scan keeps its true lesion of two predicted ones, the second
# loses it, the third keeps one true and one false; one lesion-free scan of two is left empty.
SEEN = [lesions([0.9, 0.3], 4), lesions([0.3], 4), lesions([0.8, 0.7], 4)]
EMPTY = [lesions([0.3, 0.4]), lesions([0.6])]


def test_the_filter_of_lesions_is_measured_on_every_scan():
    found = card.metrics_filtered([*SEEN, *EMPTY], SUBJECTS, Filter(0.5, 2.0))
    assert {name: (m.value, m.n) for name, m in found.items()} == {
        "v_f1_median_filtered": (pytest.approx(2 / 3), 3),
        "l_f1_median_filtered": (pytest.approx(2 / 3), 3),
        "p_sensitivity_filtered": (pytest.approx(2 / 3), 3),
        "p_specificity_filtered": (0.5, 2),
    }
    assert (found["l_f1_median_filtered"].low, found["l_f1_median_filtered"].high) == (0.0, 1.0)
    wilson = proportion(1, 2)
    share = found["p_specificity_filtered"]
    assert (share.low, share.high) == (wilson.low, wilson.high)
    assert "a highest probability of at least 0.5 and at least 2 mm³, preset paper" in share.note
    assert set(card.metrics_filtered(EMPTY, ["d", "e"], Filter())) == {"p_specificity_filtered"}
    assert card.metrics_filtered([], [], Filter()) == {}


def test_a_filter_that_keeps_all_reaches_what_the_threshold_does():
    truth, pmap = np.zeros((30, 5, 5), bool), np.zeros((30, 5, 5), np.float32)
    truth[:10, 0, 0] = True
    pmap[:10, 0, 0] = pmap[:10, 4, 4] = 0.6
    seen = candidates(truth, pmap, 0.2, 1.0)
    counted = card.metrics([count(truth, pmap, (1.0, 1.0, 1.0), THRESHOLDS)], ["a"], 0.2)
    found = card.metrics_filtered([seen], ["a"], Filter())
    assert found["l_f1_median_filtered"].value == counted["l_f1_median"].value
    assert found["v_f1_median_filtered"].value == counted["v_f1_median"].value
    assert found["p_sensitivity_filtered"].value == counted["p_sensitivity"].value
