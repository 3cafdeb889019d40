from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sct_lesion_losses.geometry.grid import Grid
from sct_lesion_losses.phantom import sites
from sct_lesion_losses.phantom.acquisition import rpi_grid
from sct_lesion_losses.phantom.anatomy import Body
from sct_lesion_losses.phantom.scan import _in_view
from sct_lesion_losses.phantom.sites import Protocol

MANY = 200


@pytest.fixture(scope="module")
def protocols() -> list[sites.Protocol]:
    return [sites.any_protocol(np.random.default_rng([9, k])) for k in range(MANY)]


def test_a_field_of_view_elsewhere_shows_no_cord_where_the_spine_is_drawn(
    bodies: list[Body], protocols: list[Protocol]
) -> None:
    drawn = noise = 0
    for k, protocol in enumerate(protocols):
        moved, with_column = sites.elsewhere(np.random.default_rng(k), protocol)
        body = bodies[k % len(bodies)]
        assert len(_in_view(body, rpi_grid(body, protocol))) > 0
        assert not with_column or len(_in_view(body, rpi_grid(body, moved))) == 0
        drawn += with_column
        noise += moved.snr < 1
    # 35 of 100 lie beside the canal, 10 are nothing but noise.
    assert drawn / MANY == pytest.approx(0.35, abs=0.1)
    assert noise / MANY == pytest.approx(0.1, abs=0.06)


def test_a_cropped_field_is_no_larger_and_holds_the_cord_in_nearly_all(
    bodies: list[Body], protocols: list[Protocol]
) -> None:
    cropped = 0
    for k, protocol in enumerate(protocols):
        made = sites.cropped(np.random.default_rng(k), protocol)
        assert all(a <= b for a, b in zip(made.fov_mm, protocol.fov_mm, strict=True))
        usual = {"fov_mm": protocol.fov_mm, "middle_mm": protocol.middle_mm, "edge": protocol.edge}
        assert replace(made, **usual) == protocol
        assert made.edge == (0 if made != protocol else protocol.edge)
        cropped += made != protocol
        body = bodies[k % len(bodies)]
        assert len(_in_view(body, rpi_grid(body, made))) > 0
    assert cropped / MANY == pytest.approx(0.3, abs=0.1)


def test_a_tiny_field_is_isotropic_and_straight(protocols: list[Protocol]) -> None:
    made = sites.tiny(protocols[0])
    assert made.pixel_mm == made.slice_mm == 0.8
    assert made.gap_mm == 0
    assert made.tilt == (0.0, 0.0, 0.0)
    assert made.plane == "3d"


@given(st.sampled_from(sites.ORIENTATIONS), st.integers(2, 5), st.integers(2, 5), st.integers(2, 5))
@settings(max_examples=30)
def test_every_voxel_keeps_its_place_in_storage(orientation: str, x: int, y: int, z: int) -> None:
    rpi = Grid((x, y, z), np.array([[-2, 0, 0, 5], [0, 3, 0, -7], [0, 0, 4, 1], [0, 0, 0, 1.0]]))
    array = np.arange(x * y * z).reshape(x, y, z)
    stored = sites.stored_grid(rpi, orientation)
    assert stored.orientation == orientation
    kept = stored.to_rpi()[1].undo(array)
    assert kept.shape == stored.shape
    for voxel in np.ndindex(*stored.shape):
        place = np.round(rpi.to_voxel(stored.to_world(voxel))).astype(int)
        assert array[tuple(place)] == kept[voxel]


@pytest.mark.parametrize(
    ("dtype", "stored", "expected"),
    [
        # -0.5, 1.24, 50 and 100 times 1000; whole numbers end at the largest of their type.
        ("int16", np.int16, [0, 1240, 32767, 32767]),
        ("int16-scaled", np.int16, [0, 1240, 32767, 32767]),
        ("uint16", np.uint16, [0, 1240, 50000, 65535]),
        ("float32", np.float32, [-500, 1240, 50000, 100000]),
    ],
)
def test_the_signal_is_scaled_rounded_and_clipped_to_its_type(
    dtype: str, stored: type, expected: list[float]
) -> None:
    protocol = sites.draw_protocol(np.random.default_rng(0), sites.SITES[0])
    signal = np.array([-0.5, 1.24, 50, 100], np.float32)
    found = sites.typed(signal, replace(protocol, dtype=dtype, scale=1000.0))
    assert found.dtype == stored
    assert found.tolist() == pytest.approx(expected)
