from __future__ import annotations

import numpy as np
import pytest

from sct_lesion_losses.phantom.acquisition import make_lattice, rpi_grid
from sct_lesion_losses.phantom.anatomy import make_body
from sct_lesion_losses.phantom.sites import SITES, draw_protocol


def test_coordinates_from_the_lattice_are_those_of_the_body() -> None:
    body = make_body(np.random.default_rng(1))
    protocol = draw_protocol(np.random.default_rng(1), SITES[0])
    grid = rpi_grid(body, protocol)
    lattice = make_lattice(body, grid, (0, 1, 2))
    rows, columns = np.arange(0.0, grid.shape[1], 17), np.arange(0.0, grid.shape[2], 19)
    found = lattice.coordinates(5.3, rows, columns)
    world = grid.to_world(np.stack(np.meshgrid([5.3], rows, columns, indexing="ij"), axis=-1)[0])
    assert found == pytest.approx(np.stack(body.coordinates(world)), abs=0.08)
