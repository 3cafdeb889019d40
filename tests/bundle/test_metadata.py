from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sct_lesion_losses.bundle.check import metadata, with_metadata, without_metadata
from sct_lesion_losses.errors import BundleError

tables = st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=4)


def test_metadata_is_what_onnx_reads(onnx: Any, network: bytes) -> None:
    changed = onnx.load_from_string(with_metadata(network, {"name": "Tverský", "threshold": "0.3"}))
    assert {p.key: p.value for p in changed.metadata_props} == {
        "name": "Tverský",
        "threshold": "0.3",
    }


def test_metadata_written_by_onnx_is_read(onnx: Any, make_model: Callable[..., Any]) -> None:
    model = make_model()
    onnx.helper.set_model_props(model, {"name": "tiny", "empty": ""})
    assert metadata(model.SerializeToString()) == {"name": "tiny", "empty": ""}


def test_the_rest_of_the_model_keeps_its_bytes(onnx: Any, network: bytes) -> None:
    changed = with_metadata(network, {"threshold": "0.3"})
    assert changed.startswith(network)
    model = onnx.load_from_string(changed)
    del model.metadata_props[:]
    assert model == onnx.load_from_string(network)


def test_an_entry_is_replaced_and_others_stay(network: bytes) -> None:
    first = with_metadata(network, {"threshold": "0.5", "author": "x"})
    second = with_metadata(first, {"threshold": "0.3"})
    assert metadata(second) == {"threshold": "0.3", "author": "x"}


@given(tables, tables)
def test_metadata_is_read_back_as_written(first: dict[str, str], second: dict[str, str]) -> None:
    once = with_metadata(b"\x08\x09", first)
    twice = with_metadata(once, second)
    assert metadata(once) == first
    assert metadata(twice) == {**first, **second}
    assert with_metadata(twice, second) == twice


@given(tables)
def test_without_metadata_no_trace_of_it_is_left(entries: dict[str, str]) -> None:
    assert without_metadata(with_metadata(b"\x08\x09", entries)) == b"\x08\x09"


@given(st.binary(max_size=100))
def test_random_bytes_are_read_or_refused(network: bytes) -> None:
    try:
        changed = with_metadata(network, {"a": "b"})
    except BundleError:
        return
    assert metadata(changed)["a"] == "b"


def test_an_entry_that_is_there_twice_is_refused(network: bytes) -> None:
    once = with_metadata(b"\x08\x09", {"a": "b"})
    with pytest.raises(BundleError, match="twice"):
        metadata(once + once[2:])
