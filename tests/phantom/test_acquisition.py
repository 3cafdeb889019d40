from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sct_lesion_losses.phantom import acquisition
from sct_lesion_losses.phantom.anatomy import make_body
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


def test_the_profile_of_a_thick_slice_has_seven_parts_and_three_for_the_surroundings(
    protocol: Protocol,
) -> None:
    parts = acquisition._profile(replace(protocol, slice_mm=3.0, gap_mm=0.3))
    assert len(parts) == 7
    assert [p.whole for p in parts] == [False, True, False, True, False, True, False]
    assert sum(p.weight for p in parts) == pytest.approx(1)
    # The spacing is 3.3 mm: the parts at 0.6 of 3 mm are beyond the slice, those at 0.4 within.
    assert parts[0].offset == pytest.approx(-0.6 * 3 / 3.3)
    assert parts[0].weight > 0
    assert [p.label for p in parts] == pytest.approx([0, 0.2, 0.2, 0.2, 0.2, 0.2, 0])


def test_the_profile_of_a_3d_scan_has_three_parts_and_one_for_the_surroundings(
    protocol: Protocol,
) -> None:
    parts = acquisition._profile(replace(protocol, plane="3d"))
    assert [p.offset for p in parts] == pytest.approx([-1 / 3, 0, 1 / 3])
    assert [p.whole for p in parts] == [False, True, False]
    assert [p.weight for p in parts] == [p.label for p in parts] == pytest.approx([1 / 3] * 3)


def test_the_grid_is_rpi_oblique_and_centred_near_the_cord() -> None:
    body = make_body(np.random.default_rng(1))
    for k in range(6):
        protocol = any_protocol(np.random.default_rng(k))
        grid = acquisition.rpi_grid(body, protocol)
        assert grid.orientation == "RPI"
        middle = grid.to_world((np.array(grid.shape) - 1) / 2)
        u, v, _ = body.coordinates(middle)
        assert np.hypot(u - protocol.middle_mm[0], v - protocol.middle_mm[1]) < 6
