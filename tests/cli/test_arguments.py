from __future__ import annotations

import string

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sct_lesion_losses.cli.parser import Names, pairs

NAMES = Names(single=["-o", "-ofolder", "-thr", "-qc", "-qc-dataset"], many=["-i"])


def test_values_of_a_many_option_go_on_until_the_next_option() -> None:
    assert pairs(["-i", "a", "b", "-o", "c"], NAMES) == ["-i", "a", "-i", "b", "-o", "c"]


def test_a_word_is_never_read_as_a_cluster_of_short_options() -> None:
    with pytest.raises(click.UsageError, match="no such option: -ofoldr; did you mean -ofolder"):
        pairs(["-ofoldr=x"], NAMES)


def test_an_abbreviation_is_not_an_option() -> None:
    with pytest.raises(click.UsageError, match="no such option: -ofold"):
        pairs(["-ofold", "x"], NAMES)


def test_a_double_dash_is_not_an_option() -> None:
    with pytest.raises(click.UsageError, match="did you mean -thr"):
        pairs(["--thr", "0.3"], NAMES)


def test_an_unknown_option_unlike_any_other_points_to_the_help() -> None:
    with pytest.raises(click.UsageError, match="-zzzzz; -h lists the options"):
        pairs(["-zzzzz"], NAMES)


def test_a_value_right_behind_its_option_may_begin_with_a_dash() -> None:
    assert pairs(["-i", "-scan.nii.gz"], NAMES) == ["-i", "-scan.nii.gz"]


def test_a_later_value_that_begins_with_a_dash_is_an_unknown_option() -> None:
    with pytest.raises(click.UsageError, match=r"no such option: -b\.nii"):
        pairs(["-i", "a.nii", "-b.nii"], NAMES)


@pytest.mark.parametrize("number", ["-1", "-0.5", "-.5", "-1e-3", "-2."])
def test_a_negative_number_is_a_value_anywhere(number: str) -> None:
    assert pairs(["-i", "a", number], NAMES) == ["-i", "a", "-i", number]


def test_an_equals_sign_binds_a_value_and_more_may_follow() -> None:
    assert pairs(["-i=a=b", "c"], NAMES) == ["-i", "a=b", "-i", "c"]


@pytest.mark.parametrize("args", [["-o"], ["-o", "-thr", "1"], ["-o="], ["-o", ""], ["-i", "-h"]])
def test_an_option_without_a_value_is_refused(args: list[str]) -> None:
    with pytest.raises(click.UsageError, match="needs a value"):
        pairs(args, NAMES)


def test_a_second_value_of_a_single_option_is_refused() -> None:
    with pytest.raises(click.UsageError, match="unexpected 'b': -o takes one value"):
        pairs(["-o", "a", "b"], NAMES)


def test_a_value_without_an_option_is_refused() -> None:
    with pytest.raises(click.UsageError, match=r"unexpected 'scan\.nii'"):
        pairs(["scan.nii", "-o", "a"], NAMES)


def test_positional_values_come_first_where_the_command_takes_them() -> None:
    names = Names(single=["-o"], positional=True)
    assert pairs(["info", "-o", "x", "tversky"], names) == ["info", "tversky", "-o", "x"]


@pytest.mark.parametrize("word", ["-h", "--help"])
def test_help_wins_over_what_follows_it(word: str) -> None:
    assert pairs(["-i", "a", word, "-nonsense"], NAMES) == ["--help"]


VALUES = st.text(string.ascii_letters + string.digits + " ./_-=é", min_size=1).filter(
    lambda value: value not in NAMES
)


@given(single=VALUES, many=st.lists(VALUES.filter(lambda v: v[0] != "-"), min_size=1))
def test_every_value_comes_back_behind_its_option(single: str, many: list[str]) -> None:
    expected = ["-o", single, *(word for value in many for word in ("-i", value))]
    assert pairs(["-o", single, "-i", *many], NAMES) == expected
