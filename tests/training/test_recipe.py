from __future__ import annotations

import json

import pytest

from sct_lesion_losses.errors import UsageError
from sct_lesion_losses.preprocessing.augmentation import Augmentation
from sct_lesion_losses.training.recipe import Recipe, differences, from_dict, study


def test_defaults_are_the_study_s():
    recipe = study()
    assert (recipe.batch_size, recipe.rate, recipe.epochs) == (8, 1e-4, 300)
    assert (recipe.patience, recipe.rate_factor) == (15, 0.5)
    assert recipe.filters == (16, 32, 64)
    assert recipe.augmentation == Augmentation(mirrors=True, rotations=True)


def test_combo_is_trained_by_adadelta_with_a_rate_of_1():
    assert (study("combo").optimiser, study("combo").rate) == ("adadelta", 1.0)
    assert study("combo", rate=0.1).rate == 0.1


def test_another_optimiser_has_its_own_rate():
    assert study("combo", optimiser="adam").rate == 1e-4
    assert study("tversky", optimiser="adadelta").rate == 1.0
    assert study("tversky", optimiser="adadelta", rate=0.5).rate == 0.5


def test_a_recipe_comes_back_from_json():
    recipe = study(epochs=3, filters=(4, 8), augmentation=Augmentation(shift_mm=3))
    assert from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_differences_name_what_changed():
    assert differences(study().to_dict(), study(rate=0.01).to_dict()) == ["rate: 0.0001 -> 0.01"]


def test_unknown_entries_are_refused():
    with pytest.raises(UsageError, match="unknown entry momentum"):
        study(momentum=0.9)


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("batch_size", 0),
        ("rate", 0.0),
        ("rate_factor", 1.0),
        ("epochs", 0),
        ("prior", 0.0),
        ("lesion_share", 1.5),
        ("optimiser", "sgd"),
        ("precision", "float8"),
        ("filters", ()),
        ("filters", (2, 4, 8, 16, 32, 64)),  # 48 voxels can be halved four times
        ("architecture", "unet2d"),
    ],
)
def test_entries_out_of_range_are_refused(entry, value):
    with pytest.raises(UsageError, match=f"recipe: {entry} is"):
        Recipe(**{entry: value})
