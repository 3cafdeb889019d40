from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sct_lesion_losses.bundle.check import check_weights
from sct_lesion_losses.errors import BundleError


def file(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(shape: Any = (2,), offsets: Any = (0, 8), dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def test_the_numbers_are_counted(weights: bytes) -> None:
    assert check_weights(weights) == 28  # 3 x 3 x 3 + 1


def test_a_file_of_safetensors_is_accepted() -> None:
    safetensors: Any = pytest.importorskip("safetensors.numpy")
    arrays = {
        "a": np.ones((2, 3), np.float32),
        "b": np.arange(4),
        "c": np.zeros((0, 2), np.float16),
        "d": np.array(3.0),
    }
    assert check_weights(safetensors.save(arrays, metadata={"format": "keras"})) == 6 + 4 + 0 + 1


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(
    make_weights: Callable[..., bytes], value: float
) -> None:
    with pytest.raises(BundleError, match="'bad': 1 NaN or infinite"):
        check_weights(make_weights({"good": np.ones(3, "f4"), "bad": np.array([1, value], "f4")}))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_is_refused(protocol: int) -> None:
    with pytest.raises(BundleError, match="pickles"):
        check_weights(pickle.dumps({"weights": list(range(1000))}, protocol))


@pytest.mark.parametrize(
    "content", [b"", b"\x89HDF\r\n\x1a\n" + bytes(99), b"PK\x03\x04" + bytes(99)]
)
def test_other_formats_are_refused(content: bytes) -> None:
    with pytest.raises(BundleError, match="not a safetensors file"):
        check_weights(content)


@pytest.mark.parametrize(
    "content",
    [
        file(b"not json"),
        file([1, 2]),
        file(b"[" * 100_000),
        file({"a": 3}),
        file({"a": entry(dtype="PICKLE")}, bytes(8)),
        file({"a": entry(dtype=[])}, bytes(8)),
        file({"a": entry(shape=None)}, bytes(8)),
        file({"a": entry(shape=(-1, -2))}, bytes(8)),
        file({"a": entry(shape=(True, 2))}, bytes(8)),
        file({"a": entry(shape=(1.0, 2))}, bytes(8)),
        file({"a": entry(shape=(2**39, 2**39))}, bytes(8)),
        file({"a": entry(shape=(1,) * 9)}, bytes(8)),
        file({"a": entry(offsets=(0, 4, 8))}, bytes(8)),
        file({"a": entry(offsets=(8, 0))}, bytes(8)),
        file({"a": entry()}, bytes(7)),
        file({"a": entry()}, bytes(9)),
        file({"a": entry(), "b": entry()}, bytes(8)),
        file({"a": entry(offsets=(4, 12))}, bytes(12)),
    ],
)
def test_a_header_that_does_not_fit_is_refused(content: bytes) -> None:
    with pytest.raises(BundleError, match=r"weights\.safetensors"):
        check_weights(content)


@given(st.binary(max_size=200))
def test_random_bytes_are_refused(content: bytes) -> None:
    with pytest.raises(BundleError):
        check_weights(content)


@given(st.data())
def test_changed_bytes_are_accepted_or_refused(weights: bytes, data: st.DataObject) -> None:
    changed = bytearray(weights)
    changed[data.draw(st.integers(0, len(weights) - 1))] = data.draw(st.integers(0, 255))
    try:
        check_weights(bytes(changed))
    except BundleError:
        return


def test_a_file_cut_short_anywhere_is_refused(weights: bytes) -> None:
    for length in range(len(weights)):
        with pytest.raises(BundleError):
            check_weights(weights[:length])
