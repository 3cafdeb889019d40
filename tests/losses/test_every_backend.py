"""Every loss on each installed backend: the oracle, degenerate input, half precision, training."""

import functools
import itertools

import numpy as np
import pytest
from on_backend import BACKENDS, DTYPES, OVERLAP, POOLINGS, functions, run

from sct_lesion_losses import losses

FUNCTIONS = functions()
WITHOUT_ORACLE = ("dice_bce", "blob")
IN_ORACLE = [name for name in FUNCTIONS if name not in WITHOUT_ORACLE]
CASES = [
    "all_background_ones",
    "all_background_soft",
    "all_background_tiny",
    "all_background_zeros",
    "all_foreground_ones",
    "all_foreground_soft",
    "all_foreground_zeros",
    "mixed_half",
    "mixed_inverted",
    "mixed_near_saturated",
    "mixed_ones",
    "mixed_perfect",
    "mixed_saturated",
    "mixed_soft",
    "mixed_zeros",
    "soft_labels_soft",
]
# float32(1 - 1e-7) is 1 - 1.19e-7: a logarithm of an exactly saturated term is off by 1.1 %.
SATURATED = 0.012
# The oracle is exact to 2e-6; JAX adds the 1536 terms of a case with an error of 2.2e-6.
SUM = 3e-6
# What rounding of a gradient may put between two backends: a unit or two in the last place.
ROUNDING = {"float32": 1e-5, "float16": 2**-9, "bfloat16": 2**-7}


@pytest.fixture(scope="module")
def table_on(testing_data):
    inputs = testing_data / "oracles" / "losses.npz"
    return functools.cache(lambda backend: run(backend, "loss_table", inputs))


def test_every_loss_has_an_oracle_or_is_named_as_without(testing_data):
    with np.load(testing_data / "oracles" / "losses.npz") as stored:
        known = {key.split("/")[1] for key in stored if key.startswith("grad/")}
    assert known | set(WITHOUT_ORACLE) >= set(losses.LOSSES)


@pytest.fixture(scope="module", params=BACKENDS)
def table(request, table_on):
    return table_on(request.param)


def cases(name):
    """Cases of the oracle; a focused loss has no slope at 0, so it is held to soft cases there."""
    if name == "asymmetric_focal_tversky":
        return [case for case in CASES if case.endswith(("_soft", "_half"))]
    return CASES


def tolerance(name, case, otherwise):
    overlap = FUNCTIONS[name][0] in OVERLAP
    saturated = case.endswith(("_ones", "_saturated", "_inverted"))
    return SATURATED if saturated and not overlap else otherwise


@pytest.mark.parametrize("what", ["value", "gradient"])
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("name", IN_ORACLE)
def test_values_and_gradients_are_those_of_the_oracle(table, oracle, name, pooling, what):
    values, slopes = oracle
    for case in cases(name):
        if what == "value":
            expected, apart = np.broadcast_to(values[name][case][pooling], 3), SUM
        else:
            expected, apart = slopes[f"grad/{name}/{pooling}/{case}"], 0
        found, relative = (
            table[f"{what}/{name}/float32/{pooling}/{case}"],
            tolerance(name, case, apart),
        )
        np.testing.assert_allclose(found, expected, rtol=relative, atol=1e-6, err_msg=case)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", losses.LOSSES)
def test_every_degenerate_case_has_a_finite_value_and_gradient(table, name, dtype):
    for pooling, case in itertools.product(POOLINGS, CASES):
        key = f"{name}/{dtype}/{pooling}/{case}"
        value = table[f"value/{key}"]
        assert (value.dtype, value.shape) == (np.float32, (3,)), key
        assert np.isfinite(value).all(), key
        assert np.isfinite(table[f"gradient/{key}"]).all(), key


@pytest.mark.parametrize("name", losses.LOSSES)
def test_half_precision_does_not_overflow_on_a_whole_patch(table, name):
    # Combo is a·CE - (1 - a)·DSC; a loss under a root ends where its slope would be infinite.
    expected, apart = {
        "combo": (-0.5, 1e-5),
        "focal_tversky": (1e-7**0.75, 1e-6),
        "asymmetric_focal_tversky": (1e-7**0.25 / 2, 1e-6),
    }.get(name, (0, 1e-5))
    assert table[f"patch/{name}"] == pytest.approx([expected], abs=apart)


@pytest.mark.parametrize("name", losses.LOSSES)
def test_a_network_learns_with_the_loss_in_a_compiled_step(table, name):
    history = table[f"fit/{name}"]
    assert history[-1] < history[0] - 0.1 * abs(history[0])


@pytest.mark.parametrize("backend", BACKENDS[1:])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_backend_gives_the_numbers_of_the_first(table_on, name, backend):
    first, other = table_on(BACKENDS[0]), table_on(backend)
    keys = [
        f"{what}/{name}/{dtype}/{pooling}/{case}"
        for what in ("value", "gradient")
        for dtype, pooling, case in itertools.product(DTYPES, POOLINGS, CASES)
    ]
    for key in keys:
        apart = ROUNDING["float32" if key.startswith("value") else key.split("/")[2]]
        np.testing.assert_allclose(other[key], first[key], rtol=apart, atol=2e-6, err_msg=key)
