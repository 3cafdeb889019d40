import json

import pytest

from sct_lesion_losses.bundle.schema import Architecture
from sct_lesion_losses.errors import UsageError
from sct_lesion_losses.training import recipe as recipes
from sct_lesion_losses.training.recipe import DOUBLING, differences, network, study


def test_defaults_are_the_study_s():
    recipe = study()
    assert (recipe.batch_size, recipe.rate, recipe.epochs_planned) == (8, 1e-4, 300)
    assert (recipe.patience, recipe.rate_factor, recipe.stop_patience) == (15, 0.5, None)
    assert recipe.network == Architecture(filters=(16, 32, 64), levels=3)
    assert recipe.augmentations == ("mirrors", "90-degree rotations")


@pytest.mark.parametrize(
    ("loss", "entries", "expected"),
    [
        ("combo", {}, ("adadelta", 1.0)),
        ("combo", {"rate": 0.1}, ("adadelta", 0.1)),
        ("combo", {"optimiser": "adam"}, ("adam", 1e-4)),
        ("tversky", {"optimiser": "adadelta"}, ("adadelta", 1.0)),
        ("tversky", {"optimiser": "adadelta", "rate": 0.5}, ("adadelta", 0.5)),
    ],
)
def test_combo_is_trained_by_adadelta_and_every_optimiser_has_its_own_rate(loss, entries, expected):
    recipe = study(loss, **entries)
    assert (recipe.optimiser, recipe.rate) == expected


def test_a_shift_is_rounded_to_whole_voxels_and_widens_the_crop_by_as_many():
    recipe = study(shift_mm=1.2)
    assert (recipe.shift_mm, recipes.margin(recipe)) == (1.0, 2)
    assert recipe.augmentations[2:] == ("centerline moved by up to 1 mm",)
    assert study(mirrors=False, rotations=False, intensity=0.25).augmentations == (
        "gamma, bias, blur and noise",
    )


def test_differences_name_what_changed_but_for_the_end():
    before = recipes.settings(study())
    changed = study(rate=0.01, filters=(2, 4), epochs_planned=7, stop_patience=3, seed=1)
    after = json.loads(json.dumps(recipes.settings(changed)))
    assert differences(before, after) == [
        "filters: [16, 32, 64] -> [2, 4]",
        "rate: 0.0001 -> 0.01",
        "seed: 0 -> 1",
    ]


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("batch_size", 0),
        ("rate", 0.0),
        ("rate_factor", 1.0),
        ("epochs_planned", 0),
        ("prior", 0.0),
        ("lesion_share", 1.5),
        ("optimiser", "sgd"),
        ("precision", "float8"),
        ("momentum", 0.9),
        ("ema", 1.0),
        ("free_share", -0.1),
        ("cohort_shares", {"a": -1}),
    ],
)
def test_entries_out_of_range_and_unknown_ones_are_refused(entry, value):
    with pytest.raises(UsageError, match=f"recipe: {entry}"):
        study(**{entry: value})


def test_shares_of_cohorts_make_1():
    assert study(cohort_shares={"b": 0.7, "a": 0.3}).cohort_shares == {"a": 0.3, "b": 0.7}
    assert study(cohort_shares=dict.fromkeys("abc", 0.33)).cohort_shares["a"] == 0.33
    with pytest.raises(UsageError, match="do not sum up to 1"):
        study(cohort_shares={"a": 0.7, "b": 0.2})


@pytest.mark.parametrize(
    ("unknown", "entry", "changed"),
    [
        (("ema", "cohort_shares", "free_share"), {"ema": 0.99}, ["ema"]),
        (("stripe",), {"stripe": 0.5}, ["augmentations", "stripe"]),
    ],
)
def test_a_state_from_before_an_entry_was_known_belongs_to_recipes_without_it(
    unknown, entry, changed
):
    now = recipes.settings(study())
    before = {name: value for name, value in now.items() if name not in unknown}
    assert differences(before, now) == []
    found = differences(before, recipes.settings(study(**entry)))
    assert [text.partition(":")[0] for text in found] == changed


def test_an_argument_of_the_loss_that_is_not_a_number_is_refused():
    with pytest.raises(UsageError, match="recipe: loss"):
        study("dice", arguments={"smooth": float("nan")})


def test_an_unknown_loss_is_refused_with_those_there_are():
    with pytest.raises(UsageError, match=r"no loss is named 'tverski'; choose one of .*tversky"):
        study("tverski")


@pytest.mark.parametrize(
    ("filters", "kind", "said"),
    [
        ((), "unet3d", "filters is .*, expected whole numbers above 0"),
        ((4, 0), "unet3d", "expected whole numbers above 0"),
        ((4, 7), DOUBLING, "expected even numbers above 0"),
        ((2, 4, 8, 16, 32, 64), "unet3d", "48 voxels can be halved four times"),
        ((4, 8), "resnet", "architecture is 'resnet', expected one of unet3d, unet3d_doubling"),
    ],
)
def test_a_network_that_cannot_be_is_refused(filters, kind, said):
    with pytest.raises(UsageError, match=said):
        network(filters, kind)


def test_people_read_the_kind_and_the_filters():
    assert str(network((32, 64), DOUBLING)) == "unet3d_doubling 32-64"
