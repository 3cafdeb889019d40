from __future__ import annotations

import pytest

from sct_lesion_losses.training import unet
from sct_lesion_losses.training.recipe import DOUBLING, EPSILON, Architecture


def widths(architecture: Architecture) -> dict[str, int]:
    """Filters of every convolution of the network that is built."""
    model = unet.build(architecture, 8)
    return {layer.name: layer.filters for layer in model.layers if hasattr(layer, "filters")}


def test_the_study_s_levels_have_one_width_each():
    assert widths(Architecture((2, 6))) == {
        **{"down0_conv_a": 2, "down0_conv_b": 2, "bottom_conv_a": 6, "bottom_conv_b": 6},
        **{"up0_transpose": 2, "up0_conv_a": 2, "up0_conv_b": 2, "lesion": 1},
    }


def test_a_doubling_network_doubles_within_a_level_and_keeps_channels_on_the_way_up():
    assert widths(Architecture((2, 6), DOUBLING)) == {
        **{"down0_conv_a": 1, "down0_conv_b": 2, "bottom_conv_a": 3, "bottom_conv_b": 6},
        **{"up0_transpose": 6, "up0_conv_a": 2, "up0_conv_b": 2, "lesion": 1},
    }


def test_plain_filters_are_the_study_s_kind():
    plain, named = unet.build((2, 4), 8, seed=5), unet.build(Architecture((2, 4)), 8, seed=5)
    assert [layer.name for layer in plain.layers] == [layer.name for layer in named.layers]
    for a, b in zip(plain.get_weights(), named.get_weights(), strict=True):
        assert (a == b).all()


def test_epsilon_is_that_of_the_layers():
    assert unet.build((2,), 8).get_layer("bottom_norm_a").epsilon == EPSILON


def test_people_read_the_kind_and_the_filters():
    assert str(Architecture((32, 64), DOUBLING)) == "unet3d_doubling 32-64"


@pytest.mark.parametrize(
    ("filters", "kind", "said"),
    [
        ((), "unet3d", "filters is .*, expected whole numbers above 0"),
        ((4, 0), "unet3d", "expected whole numbers above 0"),
        ((4, 7), DOUBLING, "expected even numbers above 0"),
        ((4, 8), "resnet", "architecture is 'resnet', expected one of unet3d, unet3d_doubling"),
    ],
)
def test_a_network_that_cannot_be_is_refused(filters, kind, said):
    with pytest.raises(ValueError, match=said):
        Architecture(filters, kind)
