import click
import pytest
import sct_graph
from small_data import write_cohort

from sct_lesion_losses.bundle import store
from sct_lesion_losses.bundle.schema import Recipe
from sct_lesion_losses.cli import options
from sct_lesion_losses.cli.train import main
from sct_lesion_losses.errors import UsageError
from sct_lesion_losses.training.recipe import settings, study


def test_a_training_from_scts_model_takes_over_its_network(tmp_path, monkeypatch, capsys):
    scts = sct_graph.install(tmp_path / "sct", sct_graph.make((2, 4)), "t2_ax")
    monkeypatch.setenv("SCT_DIR", str(scts))
    cohort = write_cohort(tmp_path / "cohort", subjects=8)
    args = ["-i", str(cohort), "-ofolder", str(tmp_path / "b"), "-init", "sct", "-c", "t2_ax"]
    small = ["-epochs", "1", "-batch", "2", "-patches_per_epoch", "2", "-validation_patches", "2"]
    assert main([*args, *small, "-bundle_version", "2.1", "-tta", "1", "-v", "0"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'b'}\n"
    info = store.load(tmp_path / "b").info
    assert info.version == "2.1"
    assert info.preparation.tta
    card = (tmp_path / "b" / "card.md").read_text("utf-8")
    assert "overlap by 75%, in turn mirrored along x, y, both or neither and moved" in card
    assert (info.network.architecture, info.network.filters) == ("unet3d_doubling", (2, 4))
    assert "sct_train_lesion -i cohort -ofolder b -init sct -c t2_ax" in info.provenance.commands[0]


def given(*args: str) -> Recipe:
    """The recipe that a command line asks for."""

    @click.command()
    @options.LOSS
    @options.RECIPE
    @options.COHORT_SHARES
    def probe(**values: object) -> Recipe:
        return options.recipe(values, {})

    return probe.main([word for arg in args for word in arg.split()], standalone_mode=False)


def test_without_options_the_recipe_is_the_study_s():
    assert given() == study()
    assert given("-loss combo") == study("combo")


def test_every_entry_of_a_recipe_has_an_option():
    found = given(
        "-loss dice -loss_numbers squared=True -filters 8 -filters 16 -batch 4 -optimiser adadelta",
        "-rate 0.5 -patience 3 -rate_factor 0.1 -epochs 7 -early_stop 5 -patches_per_epoch 80",
        "-lesion_share 0.25 -validation_patches 16 -mirrors 0 -rotations 0 -shift 1.5",
        "-intensity 0.5 -precision mixed_bfloat16 -prior 0.02 -seed 3 -ema 0.99 -free_share 0.1",
        "-stripe 0.5 -keep last -cohort_shares b=c=0.75 -cohort_shares a=0.25",
    )
    expected = study(
        "dice",
        arguments={"squared": True},
        filters=(8, 16),
        batch_size=4,
        optimiser="adadelta",
        rate=0.5,
        patience=3,
        rate_factor=0.1,
        epochs_planned=7,
        stop_patience=5,
        patches_per_epoch=80,
        lesion_share=0.25,
        validation_patches=16,
        mirrors=False,
        rotations=False,
        shift_mm=1.5,
        intensity=0.5,
        stripe=0.5,
        keep="last",
        precision="mixed_bfloat16",
        prior=0.02,
        seed=3,
        ema=0.99,
        free_share=0.1,
        cohort_shares={"a": 0.25, "b=c": 0.75},
    )
    assert found == expected
    plain, study_s = settings(found), settings(study())
    # The architecture follows from what a training starts from.
    assert [name for name in plain if plain[name] == study_s[name]] == ["architecture"]


@pytest.mark.parametrize("word", ["a", "=0.5", "a=half", "a="])
def test_a_share_that_is_none_is_refused(word):
    with pytest.raises(UsageError, match=f"-cohort_shares {word}: expected cohort=share"):
        given(f"-cohort_shares {word}")
