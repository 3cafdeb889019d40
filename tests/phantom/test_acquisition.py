from dataclasses import replace

import numpy as np
import pytest

from sct_lesion_losses.phantom import acquisition
from sct_lesion_losses.phantom.anatomy import Body, make_body
from sct_lesion_losses.phantom.sites import SITES, Protocol, any_protocol, draw_protocol


@pytest.fixture
def protocol() -> Protocol:
    return replace(draw_protocol(np.random.default_rng(0), SITES[0]), smooth=0.0, matrix=(1.0, 1.0))


def test_half_pixel_steps_are_averaged_over_the_pixel() -> None:
    fine = np.zeros((8, 8), np.float32)
    fine[3, 4] = 16.0  # between pixels 1 and 2 along the first axis, on pixel 2 of the second
    coarse = acquisition._halved(fine)
    assert coarse.shape == (4, 4)
    # Half of a step's weight 1/2 goes to each neighbour; on the pixel itself 1/2 stays.
    assert coarse[1, 2] == coarse[2, 2] == 2.0
    assert coarse.sum() == 4.0


def test_doubling_keeps_the_pixels() -> None:
    image = np.random.default_rng(0).random((5, 7), np.float32)
    assert np.array_equal(acquisition._doubled(image)[::2, ::2], image)


def test_the_profile_of_a_thick_slice_has_seven_parts_of_which_the_label_counts_five(
    protocol: Protocol,
) -> None:
    parts = acquisition._profile(replace(protocol, slice_mm=3.0, gap_mm=0.3))
    offsets, weights, labels = zip(*parts, strict=True)
    # The spacing is 3.3 mm: the parts at 0.6 of 3 mm are beyond the slice, those at 0.4 within.
    assert offsets == pytest.approx([k * 0.2 * 3 / 3.3 for k in range(-3, 4)])
    assert min(weights) > 0
    assert sum(weights) == pytest.approx(1)
    assert labels == pytest.approx([0, 0.2, 0.2, 0.2, 0.2, 0.2, 0])


def test_the_profile_of_a_3d_scan_has_three_parts(protocol: Protocol) -> None:
    parts = np.array(acquisition._profile(replace(protocol, plane="3d")))
    assert parts == pytest.approx(np.array([(k / 3, 1 / 3, 1 / 3) for k in (-1, 0, 1)]))


def test_the_grid_is_rpi_oblique_and_centred_near_the_cord(bodies: list[Body]) -> None:
    for k, body in enumerate(bodies[:6]):
        protocol = any_protocol(np.random.default_rng(k))
        grid = acquisition.rpi_grid(body, protocol)
        assert grid.orientation == "RPI"
        middle = grid.to_world((np.array(grid.shape) - 1) / 2)
        u, v, _ = body.coordinates(middle)
        assert np.hypot(u - protocol.middle_mm[0], v - protocol.middle_mm[1]) < 6


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


def test_noise_has_the_level_asked_for_in_tissue_and_that_of_a_magnitude_in_air(
    protocol: Protocol,
) -> None:
    tissue, air = (
        acquisition.noisy(np.random.default_rng(0), clean, replace(protocol, snr=12.0))
        for clean in (np.ones((100, 100), np.float32), np.zeros((100, 100), np.float32))
    )
    assert tissue.std() == pytest.approx(1 / 12, rel=0.1)
    assert tissue.min() > 0
    assert air.mean() == pytest.approx(1 / 12 * np.sqrt(np.pi / 2), rel=0.05)  # Rayleigh


def test_the_coil_loses_its_share_over_100_mm_of_the_cord(
    protocol: Protocol, bodies: list[Body]
) -> None:
    steady = replace(protocol, fall=0.7, drift=0.0)
    s = np.float32([20.0, -80.0, -180.0])
    gain = acquisition.sensitivity(bodies[0], steady, np.zeros_like(s), s)
    assert gain[1:] / gain[:-1] == pytest.approx([0.7, 0.7])


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


def test_coordinates_from_the_lattice_are_those_of_the_body() -> None:
    body = make_body(np.random.default_rng(1))
    protocol = draw_protocol(np.random.default_rng(1), SITES[0])
    grid = acquisition.rpi_grid(body, protocol)
    slices = acquisition.make_slices(body, protocol, grid)
    rows, columns = np.arange(0.0, grid.shape[1], 17), np.arange(0.0, grid.shape[2], 19)
    found = slices.coordinates(5.3, rows, columns)
    world = grid.to_world(np.stack(np.meshgrid([5.3], rows, columns, indexing="ij"), axis=-1)[0])
    assert found == pytest.approx(np.stack(body.coordinates(world)), abs=0.08)
