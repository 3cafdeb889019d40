from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sct_lesion_losses.errors import DataError, TrainingError
from sct_lesion_losses.study import stages
from sct_lesion_losses.study.stages import Estimate, Ledger, Stage, digest, plan, run

scalars = st.one_of(st.none(), st.integers(), st.text(max_size=5), st.floats(allow_nan=False))
facts = st.dictionaries(st.text(max_size=5), scalars, max_size=4)


class Workshop:
    """A source file, a copy of it, and a copy of the copy: each made by a stage."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ran: list[str] = []
        self.failing: dict[str, Exception] = {}
        (root / "source").write_text("one")

    def stage(self, name: str, source: str, needs: tuple[str, ...] = (), **rest: object) -> Stage:
        made = self.root / name

        def work(_: object) -> None:
            self.ran.append(name)
            if name in self.failing:
                raise self.failing[name]
            made.write_text((self.root / source).read_text())

        def inputs(_: object) -> dict[str, str]:
            return {"source": (self.root / source).read_text()}

        return Stage(name, inputs, work, lambda: [made], needs, **rest)  # type: ignore[arg-type]

    def chain(self) -> list[Stage]:
        return [
            self.stage("first", "source"),
            self.stage("second", "first", ("first",)),
            self.stage("aside", "source"),
        ]

    def again(self) -> list[str]:
        """Names of the stages that another run does."""
        self.ran.clear()
        run(self.chain(), Ledger(self.root))
        return list(self.ran)


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    made = Workshop(tmp_path)
    assert made.again() == ["first", "second", "aside"]
    return made


def test_what_has_not_changed_is_not_done_again(shop: Workshop) -> None:
    assert shop.again() == []


def test_a_changed_input_is_followed_by_all_that_depends_on_it(shop: Workshop) -> None:
    (shop.root / "source").write_text("two")
    assert shop.again() == ["first", "second", "aside"]
    assert (shop.root / "second").read_text() == "two"
    assert shop.again() == []


def test_an_output_that_is_gone_or_damaged_is_made_again_and_nothing_else(shop: Workshop) -> None:
    (shop.root / "second").write_text("damaged")
    assert shop.again() == ["second"]
    (shop.root / "aside").unlink()
    assert shop.again() == ["aside"]
    assert shop.again() == []


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"version": 1}'])
def test_a_damaged_record_is_none(shop: Workshop, text: str) -> None:
    Ledger(shop.root).path("aside").write_text(text)
    assert shop.again() == ["aside"]


def test_another_version_of_the_software_does_everything_again(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "__version__", "99")
    assert shop.again() == ["first", "second", "aside"]


def test_a_failure_is_kept_and_leaves_out_what_needs_it_alone(
    shop: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    (shop.root / "source").write_text("two")
    shop.failing["first"] = DataError("no such scan")
    results = run(shop.chain(), Ledger(shop.root))
    assert {name: found.outcome for name, found in results.items()} == {
        "first": "failed",
        "second": "left out",
        "aside": "done",
    }
    assert results["first"].why == "no such scan"
    assert "first failed: no such scan" in caplog.text
    shop.failing.clear()
    assert shop.again() == ["first", "second"]


def test_an_unforeseen_error_is_named_with_its_kind(shop: Workshop) -> None:
    (shop.root / "source").write_text("two")
    shop.failing["aside"] = ValueError("shape")
    assert run(shop.chain(), Ledger(shop.root))["aside"].why == "ValueError: shape"


def test_an_essential_stage_ends_the_work(shop: Workshop) -> None:
    shop.failing["first"] = TrainingError("broken")
    (shop.root / "source").write_text("two")
    first, *others = shop.chain()
    shop.ran.clear()
    with pytest.raises(TrainingError, match="broken"):
        run([replace(first, essential=True), *others], Ledger(shop.root))
    assert shop.ran == ["first"]


def test_a_stage_that_was_stopped_leaves_no_record(shop: Workshop) -> None:
    (shop.root / "source").write_text("two")
    shop.failing["first"] = KeyboardInterrupt()  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        run(shop.chain(), Ledger(shop.root))
    shop.failing.clear()
    assert shop.again() == ["first", "second", "aside"]


def test_remote_neighbours_are_sent_together(shop: Workshop) -> None:
    (shop.root / "source").write_text("two")
    sent: list[list[str]] = []

    def elsewhere(some: list[Stage], results: object) -> object:
        sent.append([stage.name for stage in some])
        return stages.alone(some, results)  # type: ignore[arg-type]

    first, second, aside = shop.chain()
    remote = [replace(first, remote=True), replace(aside, remote=True), second]
    run(remote, Ledger(shop.root), elsewhere)  # type: ignore[arg-type]
    assert sent == [["first", "aside"]]


def test_a_plan_says_what_a_run_does_and_does_nothing(shop: Workshop) -> None:
    ledger = Ledger(shop.root)
    assert [one.action for one in plan(shop.chain(), ledger)] == ["skip"] * 3
    (shop.root / "source").write_text("two")
    shop.ran.clear()
    found = plan([replace(shop.chain()[0], begun=lambda: True), *shop.chain()[1:]], ledger)
    assert [one.action for one in found] == ["resume", "run", "run"]
    assert [one.why for one in found] == ["changed: source", "after first", "changed: source"]
    assert all(one.estimate.by == "the last time" for one in found)
    assert shop.ran == []


def test_an_estimate_is_that_of_the_stage_then_of_its_kind_then_unknown(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)

    def named(name: str) -> Stage:
        return Stage(name, lambda _: {}, lambda _: None, list)

    for name, seconds in (("tune a", 2.0), ("tune b", 5.0)):
        ledger.write(named(name), {}, seconds)
    assert ledger.seconds(named("tune a")) == Estimate(2.0, "the last time")
    assert ledger.seconds(named("tune c")) == Estimate(5.0, "the last time of another tune")
    assert ledger.seconds(named("train a")).seconds is None


@given(facts, facts)
def test_inputs_have_one_digest_if_and_only_if_they_are_equal(
    one: dict[str, object], other: dict[str, object]
) -> None:
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (digest(one) == digest(other)) == same  # type: ignore[arg-type]


def test_changes_are_named_the_first_few(shop: Workshop) -> None:
    ledger, stage = Ledger(shop.root), shop.chain()[0]
    before = {"source": "one", **{f"scan {k}": "x" for k in range(9)}}
    ledger.write(stage, before, 0.0)
    after = {"source": "one", **{f"scan {k}": "y" for k in range(9)}}
    assert ledger.changed(stage, after) == "changed: scan 0, scan 1, scan 2 and 6 more"
    assert ledger.changed(stage, before) is None


def test_a_kept_stage_knows_how_long_it_took(
    shop: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = Ledger(shop.root)
    stage = shop.chain()[0]
    ledger.write(stage, {"source": "one"}, 12.0)
    with caplog.at_level(logging.INFO):
        found = run([stage], ledger)
    assert (found["first"].outcome, found["first"].seconds) == ("kept", 12.0)
    assert "first: nothing has changed" in caplog.text
