from __future__ import annotations

import numpy as np
import pytest

from sct_lesion_losses.training import unet


def test_study_network_has_0_34_million_parameters():
    assert unet.build().count_params() == 340_209


def test_patches_become_probabilities_of_the_same_shape():
    patches = np.random.default_rng(0).normal(size=(2, 8, 8, 8, 1)).astype(np.float32)
    lesion = np.asarray(unet.build((2, 4), 8)(patches))
    assert lesion.shape == (2, 8, 8, 8, 1)
    assert (lesion >= 0).all()
    assert (lesion <= 1).all()


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_probabilities_are_float32_whatever_the_precision(precision):
    model = unet.build((2,), 8, precision=precision)
    assert model.output.dtype == "float32"
    assert model(np.zeros((1, 8, 8, 8, 1), np.float32)).dtype == "float32"


def test_an_untrained_network_starts_near_its_prior():
    patches = np.random.default_rng(0).normal(size=(1, 8, 8, 8, 1)).astype(np.float32)
    start = np.asarray(unet.build((2,), 8, prior=0.02)(patches))
    # The logit is log(0.02 / 0.98) = -3.9, moved by what the features add.
    assert 0.005 < np.median(start) < 0.08


def test_the_seed_decides_the_weights():
    one, same, other = (unet.build((2,), 8, seed=seed).get_weights() for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert not np.array_equal(one[0], other[0])


def test_no_two_layers_start_alike():
    model = unet.build((2, 2), 8, seed=3)
    a, b = (
        model.get_layer("down0_conv_b").get_weights(),
        model.get_layer("bottom_conv_a").get_weights(),
    )
    assert a[0].shape == b[0].shape
    assert not np.array_equal(a[0], b[0])


def test_a_patch_that_cannot_be_halved_often_enough_is_refused():
    with pytest.raises(ValueError, match="divisible by 4, received 50"):
        unet.build(patch_vox=50)
