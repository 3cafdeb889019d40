from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sct_lesion_losses.phantom import acquisition
from sct_lesion_losses.phantom.sites import SITES, Protocol, draw_protocol


@pytest.fixture
def protocol() -> Protocol:
    return replace(draw_protocol(np.random.default_rng(0), SITES[0]), smooth=0.0, matrix=(1.0, 1.0))


def test_a_smooth_image_passes_k_space_unharmed(protocol: Protocol) -> None:
    x = np.linspace(0, 3, 80, dtype=np.float32)
    fine = np.sin(x)[:, None] + np.cos(x)[None]
    image = acquisition.through_k_space(fine, protocol, (40, 40))
    assert image[3:-3, 3:-3] == pytest.approx(fine[::2, ::2][3:-3, 3:-3], abs=0.01)


def test_truncation_rings_beside_an_edge(protocol: Protocol) -> None:
    cut = replace(protocol, matrix=(0.6, 1.0))
    fine = np.zeros((160, 40), np.float32)
    fine[80:] = 1.0
    image = acquisition.through_k_space(fine, cut, (80, 20))
    # Gibbs: an overshoot of about 9 % of the step, and a second wave of the other sign.
    assert 0.05 < image[40:60, 10].max() - 1 < 0.13
    assert image[42:60, 10].min() < 0.99


def test_noise_has_the_level_asked_for(protocol: Protocol) -> None:
    clean = np.full((100, 100), 1.0, np.float32)
    noisy = acquisition.noisy(np.random.default_rng(0), clean, replace(protocol, snr=12.0))
    assert noisy.std() == pytest.approx(1 / 12, rel=0.1)
    assert noisy.min() > 0


def test_noise_in_air_is_that_of_a_magnitude(protocol: Protocol) -> None:
    clean = np.zeros((100, 100), np.float32)
    noisy = acquisition.noisy(np.random.default_rng(0), clean, replace(protocol, snr=10.0))
    assert noisy.mean() == pytest.approx(0.1 * np.sqrt(np.pi / 2), rel=0.05)  # Rayleigh


def test_the_first_share_is_that_of_the_first_axis_in_plane(protocol: Protocol) -> None:
    window = acquisition._window(replace(protocol, matrix=(0.5, 1.0)), (40, 40))
    # Frequencies of -10 to 10 of the 40 are within half of the band; of the others, all are.
    assert np.count_nonzero(window[:, 0]) == 21
    assert np.count_nonzero(window[0]) == 40


def test_ghosts_are_copies_along_the_second_axis_in_plane(protocol: Protocol) -> None:
    pulse = np.zeros((20, 100), np.float32)
    pulse[7, 50] = 1.0
    ghost = acquisition.ghosts(pulse, replace(protocol, ghost=0.04))
    # A shift of 100 x (0.13 + 2.5 x 0.04) pixels, to either side.
    assert np.argwhere(ghost).tolist() == [[7, 27], [7, 73]]
    assert ghost[7, 27] == pytest.approx(0.04 * protocol.contrast.csf)
