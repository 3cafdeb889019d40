from __future__ import annotations

import functools

import numpy as np
import pytest
from backends import BACKENDS, run

# Three steps of Adam at 1e-2 move a weight by 0.03; where its gradient is next to nothing, Adam's
# division enlarges the rounding of the gradient to some 1e-6.
MOVED = 1e-2
APART = 1e-5


@pytest.fixture(scope="module")
def weights_on():
    return functools.cache(lambda backend: run(backend, "three_steps.py"))


def part(weights, prefix):
    return {name: array for name, array in weights.items() if name.startswith(prefix)}


@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_a_network_starts_from_the_same_weights_on_every_backend(weights_on, backend):
    first, other = (part(weights_on(name), "start/") for name in (BACKENDS[0], backend))
    assert first.keys() == other.keys()
    for name, array in first.items():
        assert np.array_equal(other[name], array), name


@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_three_steps_lead_to_the_same_weights_on_every_backend(weights_on, backend):
    first, other = (part(weights_on(name), "end/") for name in (BACKENDS[0], backend))
    assert {"end/down0_norm_a/moving_mean", "end/down0_norm_a/moving_variance"} <= first.keys()
    for name, array in first.items():
        np.testing.assert_allclose(other[name], array, rtol=0, atol=APART, err_msg=name)


def test_three_steps_move_the_kernels_by_more_than_backends_may_differ(weights_on):
    weights = weights_on(BACKENDS[0])
    for name in part(weights, "end/"):
        if name.endswith("kernel"):
            moved = np.abs(weights[name] - weights[name.replace("end/", "start/")])
            assert moved.max() > MOVED > 100 * APART, name
