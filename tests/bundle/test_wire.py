from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sct_lesion_losses.bundle import check
from sct_lesion_losses.errors import BundleError


def read(message: bytes) -> list[check.Field]:
    return list(check.Reader().fields(memoryview(message)))


def test_a_number_and_a_text_are_read() -> None:
    # field 1, varint 150 = 0x96 0x01 (the example of the encoding guide); field 2, "hi"
    number, text = read(bytes.fromhex("089601") + b"\x12\x02hi")
    assert (number.number, number.integer) == (1, 150)
    assert (text.number, text.text) == (2, "hi")


def test_a_negative_number_takes_ten_bytes() -> None:
    (field,) = read(b"\x08" + b"\xff" * 9 + b"\x01")
    assert field.integer == -1


def test_fields_of_fixed_width_are_read() -> None:
    # field 1 of 4 bytes (key 0x0d), field 2 of 8 bytes (key 0x11)
    four, eight = read(b"\x0d\x00\x00\x80\x3f" + b"\x11" + bytes(8))
    assert isinstance(four.value, memoryview)
    assert bytes(four.value) == b"\x00\x00\x80\x3f"
    assert (eight.number, eight.wire) == (2, check.FIXED64)


def test_the_raw_fields_together_are_the_message() -> None:
    message = b"\x08\x01" + check.encode(7, b"abc") + b"\x0d\x00\x00\x00\x00"
    assert b"".join(field.raw for field in read(message)) == message


@pytest.mark.parametrize(
    "message",
    [
        b"\x08",
        b"\x0a\x05abc",
        b"\x0d\x00",
        b"\x0b",
        b"\x0c",
        b"\x00\x00",
        b"\x08" + b"\xff" * 10,
        b"\x0a" + b"\xff" * 9 + b"\x01",
    ],
    ids=["no value", "short text", "short float", "group", "end", "field 0", "varint", "huge"],
)
def test_what_is_cut_short_or_unknown_is_refused(message: bytes) -> None:
    with pytest.raises(BundleError, match="not a valid ONNX file"):
        read(message)


def test_the_number_of_fields_is_bounded() -> None:
    reader = check.Reader(max_fields=3)
    assert len(list(reader.fields(memoryview(b"\x08\x00" * 2)))) == 2
    with pytest.raises(BundleError, match="too many"):
        list(reader.fields(memoryview(b"\x08\x00" * 2)))


def test_a_text_that_is_not_utf8_is_refused() -> None:
    (field,) = read(b"\x0a\x02\xff\xff")
    with pytest.raises(BundleError, match="UTF-8"):
        _ = field.text


@given(st.integers(1, 1 << 20), st.binary(max_size=300))
def test_what_is_encoded_is_read_back(number: int, content: bytes) -> None:
    (field,) = read(check.encode(number, content))
    assert (field.number, bytes(field.bytes)) == (number, content)


@given(st.binary(max_size=200))
def test_random_bytes_are_read_or_refused(message: bytes) -> None:
    try:
        fields = read(message)
    except BundleError:
        return
    assert b"".join(field.raw for field in fields) == message


@given(st.binary(max_size=60), st.integers(0, 20))
def test_packed_numbers_are_read_or_refused(packed: bytes, limit: int) -> None:
    try:
        numbers = check.varints(memoryview(packed), limit)
    except BundleError:
        return
    assert len(numbers) <= limit
    assert all(-(1 << 63) <= number < 1 << 63 for number in numbers)
