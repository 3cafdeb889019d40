from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from sct_lesion_losses.bundle import check, store
from sct_lesion_losses.bundle.schema import BundleInfo, Epoch
from sct_lesion_losses.report import card

POINT: dict[str, Any] = {
    "kind": "tuned",
    "threshold": 0.3,
    "objective": "median_v_f1",
    "thresholds": (0.25, 0.3, 0.35),
    "curve": (0.4, 0.5, None),
    "per_scan": [
        {"scan": "scan-01", "subject": "subject-01", "values": (0.3, 0.45, None)},
        {"scan": "scan-02", "subject": "subject-02", "values": (0.5, 0.55, None)},
    ],
    "interval": (0.25, 0.35),
    "plateau": (0.3, 0.3),
    "loss_at_pm_0_05": (0.1, None),
    "leave_one_out": 0.48,
    "n_scans": 2,
    "n_subjects": 2,
    "warnings": ("few scans",),
}


def make_info(**changes: Any) -> BundleInfo:
    fields: dict[str, Any] = {
        "name": "tiny",
        "created": date(2026, 1, 31),
        "loss": {"name": "tversky", "numbers": {"fn_weight": 0.7, "fp_weight": 0.3}},
        "preparation": {
            "kind": "study",
            "percentiles": (1.0, 50.0, 99.0),
            "landmarks": (0.0, 40.0, 100.0),
        },
        "network": {"filters": (16, 32, 64), "levels": 3, "parameters": 350_000},
        "recipe": {
            "optimiser": "adam",
            "rate": 1e-4,
            "batch_size": 8,
            "epochs_planned": 300,
            "epochs_run": 40,
            "best_epoch": 33,
            "augmentations": ("mirrors",),
        },
        "history": [{"epoch": 33, "loss": 0.41, "val_loss": 0.52, "rate": 1e-4}],
        "operating_point": POINT,
        "metrics": {"v_f1_median": {"value": 0.44, "low": 0.3, "high": 0.6, "n": 9, "note": "a|b"}},
        "provenance": {
            "data": "Simulated scans only.",
            "scans": {"training": 5},
            "commands": ("sct_train_lesion -i data -ofolder tiny",),
        },
        "seeds": {"training": 1},
        "packages": {"numpy": "2.0"},
        "intended_use": "Showing how it works.",
        "limits": ("Never saw a real scan.",),
    }
    return BundleInfo.model_validate(fields | changes)


@pytest.mark.parametrize("folder", sorted(store.PACKAGED.iterdir()), ids=lambda path: path.name)
def test_the_card_of_a_shipped_bundle_follows_from_its_description(folder: Path) -> None:
    shipped = (folder / check.CARD).read_text(encoding="utf-8")
    assert card.text(store.load(str(folder)).info) == shipped


def test_a_card_ends_in_one_newline() -> None:
    text = card.text(make_info())
    assert text.endswith("```\n")
    assert "\n\n\n" not in text


@pytest.mark.parametrize(
    "words",
    [
        "# tiny 1.0.0",
        "Research software, not a medical device",
        "Showing how it works.",
        "- Never saw a real scan.",
        "Simulated scans only.",
        "Scans: 5 training.",
        "RPI at 0.5 mm, 48 x 48 voxels around the centerline",
        "overlap by 75%",
        "50 % to 40.0",
        "- 40 epochs run of 300 planned",
        "- weights of epoch 33, the best by `val_loss`",
        "- loss 0.410, validation loss 0.520 at that epoch",
        "fn_weight = 0.7",
        "350,000 parameters",
        "Made on 2026-01-31.",
        "**0.3**, chosen for the best `median_v_f1` on 2 scans of 2 subjects",
        "95 % bootstrap interval over subjects: 0.25 to 0.35",
        "- lost 0.05 below: 0.100; 0.05 above: -",
        "- leave-one-subject-out: 0.480",
        "- warning: few scans",
        "| v_f1_median | 0.440 | 0.300 to 0.600 | 9 | a\\|b |",
        "sct_train_lesion -i data -ofolder tiny",
        "- packages: numpy 2.0",
        "sct_deepseg_lesion_tuned -i t2.nii.gz -bundle tiny",
    ],
)
def test_a_card_says(words: str) -> None:
    assert words in card.text(make_info())


def test_one_of_anything_is_singular() -> None:
    recipe = {
        **{"optimiser": "adam", "rate": 1e-4, "batch_size": 1, "epochs_planned": 1},
        **{"epochs_run": 1, "patience": 1, "rate_factor": 0.5, "minutes": 1.2},
    }
    lesions = {
        **{"peak": 0.5, "volume_mm3": 0, "preset": "paper", "f1": 0.5, "f1_unfiltered": 0.4},
        **{"n_scans": 1, "froc": {"peaks": (0.3,), "sensitivity": (1,), "false_lesions": (0,)}},
    }
    point = POINT | {"n_scans": 1, "n_subjects": 1, "lesions": lesions}
    text = card.text(make_info(recipe=recipe, operating_point=point))
    for words in (
        "batches of 1 patch,",
        "- 1 epoch run of 1 planned",
        "after 1 epoch without a better one",
        "- 1 minute on",
        "on 1 scan of 1 subject.",
        "chosen on 1 scan with lesions and 0 without",
    ):
        assert words in text


def test_one_subject_gives_no_interval() -> None:
    metric = {"value": 0.067, "low": float("nan"), "high": float("nan"), "n": 1}
    point = POINT | {"interval": None, "n_subjects": 1}
    text = card.text(make_info(operating_point=point, metrics={"v_f1_median": metric}))
    assert "- no interval: one subject\n" in text
    assert "bootstrap interval" not in text
    assert "| v_f1_median | 0.067 | n/a | 1 |" in text


def test_the_curve_is_a_table_with_the_choice_marked() -> None:
    assert card.curve(make_info().operating_point) == (
        "```\n"
        "threshold  median_v_f1  worst scan  best scan\n"
        "     0.25        0.400       0.300      0.500\n"
        "     0.30        0.500       0.450      0.550 *\n"
        "     0.35            -           -          -\n"
        "```"
    )


def test_the_numbers_of_the_objective_are_said() -> None:
    point = POINT | {"objective": "l_f1_at_specificity", "preset": "paper", "specificity": 0.9}
    text = card.text(make_info(operating_point=point))
    assert "`l_f1_at_specificity` (preset paper, P-specificity >= 0.9) on 2 scans" in text
    point = POINT | {"objective": "mean_v_fbeta", "beta": 2.0}
    assert "`mean_v_fbeta` (beta 2.0) on" in card.text(make_info(operating_point=point))


def epochs(*val_losses: float | None) -> tuple[Epoch, ...]:
    return tuple(
        Epoch(epoch=k, loss=0.5, val_loss=value, rate=1e-3)
        for k, value in enumerate(val_losses, start=1)
    )


def test_the_curves_of_a_training_are_a_table_with_the_best_epoch_marked() -> None:
    # Bars of 40 characters at most: 0.8 is the largest, 0.4 is half of it.
    assert card.learning(epochs(0.8, 0.4, 0.6)).splitlines() == [
        "```",
        "epoch    loss  validation    rate",
        "    1   0.500       0.800   0.001  " + "█" * 40,
        "    2   0.500       0.400   0.001  " + "█" * 20 + " *",
        "    3   0.500       0.600   0.001  " + "█" * 30,
        "```",
    ]


def test_the_curves_of_a_long_training_keep_its_best_and_its_last_epoch() -> None:
    values = [1.0 + 0.001 * k for k in range(300)]
    values[100] = 0.2
    rows = card.learning(epochs(*values)).splitlines()[2:-1]
    # Every 12th of 300 from the first is 25 rows; epochs 101 and 300 come on top.
    assert len(rows) == 27
    assert [row.split()[0] for row in rows if row.endswith("*")] == ["101"]
    assert rows[-1].split()[0] == "300"


def test_a_validation_loss_that_was_not_measured_has_no_bar() -> None:
    rows = card.learning(epochs(None, -0.2)).splitlines()[2:-1]
    assert rows == ["    1   0.500           -   0.001", "    2   0.500      -0.200   0.001   *"]


def test_an_untuned_threshold_is_said() -> None:
    text = card.text(make_info(operating_point={}))
    assert "0.5, untuned: no scan was used to choose it" in text


def test_what_was_not_measured_is_said() -> None:
    text = card.text(make_info(metrics={}, provenance={"data": "x"}, seeds={}, packages={}))
    assert "Not measured." in text
    assert "No command was recorded." in text


def test_a_model_without_a_recipe_has_no_training_section() -> None:
    assert "## Training" not in card.text(make_info(recipe=None))


def test_the_preparation_of_sct_is_described() -> None:
    preparation = {
        "kind": "sct",
        "contrast": "t2_ax",
        "percentiles": (1.0, 99.0),
        "landmarks": (0.0, 2611.0),
        "mean": 835.592,
        "std": 528.386,
    }
    text = card.text(make_info(preparation=preparation))
    assert "SCT's `t2_ax` lesion model wants them, less 835.592, divided by 528.386" in text


def test_a_filter_of_lesions_is_shown_with_its_curve() -> None:
    lesions = {
        **{"peak": 0.5, "volume_mm3": 3.0, "preset": "paper", "n_scans": 2, "n_lesion_free": 1},
        **{"f1": 0.625, "f1_unfiltered": 0.5, "specificity": 1.0, "specificity_asked": 0.8},
        "froc": {
            "peaks": (0.3, 0.5),
            "sensitivity": (0.75, 0.5),
            "false_lesions": (2.5, 0.25),
        },
    }
    shown = card.text(make_info(operating_point={**POINT, "lesions": lesions}))
    assert "at least **0.5** and their volume at least **3 mm³**" in shown
    assert "2 scans with lesions and 1 without" in shown
    assert "P-specificity 0.8 or more" in shown
    assert "- median L-F1 0.625, without it 0.500" in shown
    assert "       0.5          0.500                  0.25 *" in shown
