from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sct_lesion_losses.cli.tune import main
from sct_lesion_losses.errors import DataError
from sct_lesion_losses.metrics.lesionwise import PRESETS
from sct_lesion_losses.thresholds import OBJECTIVES, Curve, choose
from sct_lesion_losses.workflows import tune


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "-bundle"),
        (["-bundle", "b", "-objective", "best"], "is not one of"),
        (["-bundle", "b", "-beta", "0"], "not in the range"),
        (["-bundle", "b", "-specificity", "1.1"], "not in the range"),
        (["-bundle", "b", "-preset", "study"], "is not one of"),
        (["-bundle", "b", "-jobs", "0"], "not in the range"),
        (["-bundle", "b", "-objective", "l_f1_at_specificity"], "needs a specificity"),
    ],
)
def test_wrong_use_gives_2(args: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-i", "cohort", *args]) == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_options_reach_the_tuning_and_the_threshold_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    received: dict[str, Any] = {}

    def run(bundle: str, data: Path, settings: tune.Settings, **rest: Any) -> object:
        received.update(bundle=bundle, data=data, settings=settings, **rest)
        curve = Curve(np.array([0.3, 0.5, 0.7]), np.array([5, 2, 1]), np.zeros(3, int), 9)
        return choose([curve], bootstraps=0)

    monkeypatch.setattr(tune, "run", run)
    args = ["-objective", "l_f1_at_specificity", "-specificity", "0.9", "-preset", "candidate"]
    args += ["-results", "kept", "-jobs", "2", "-beta", "3"]
    assert main(["-bundle", "b", "-i", "cohort", *args, "-v", "0"]) == 0
    assert capsys.readouterr().out == "0.3\n"
    expected = tune.Settings("l_f1_at_specificity", beta=3.0, preset="candidate", specificity=0.9)
    assert received["settings"] == expected
    assert (received["results"], received["jobs"]) == (Path("kept"), 2)
    assert received["command"].startswith("sct_tune_lesion -bundle b -i cohort -objective")


@pytest.mark.parametrize(
    ("subjects", "said"),
    [
        (("a",), "(interval unknown: one subject): median_v_f1 0.714 over 1 scan of 1 subject"),
        (
            ("a", "a"),
            "(interval unknown: one subject): median_v_f1 0.714 over 2 scans of 1 subject",
        ),
        (("a", "b"), "(95 % interval 0.3 to 0.3): median_v_f1 0.714 over 2 scans of 2 subjects"),
    ],
)
def test_the_interval_is_logged_unless_there_is_one_subject(
    subjects: tuple[str, ...],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    curve = Curve(np.array([0.3, 0.5, 0.7]), np.array([5, 2, 1]), np.zeros(3, int), 9)
    found = choose([curve] * len(subjects), subjects, bootstraps=20)
    monkeypatch.setattr(tune, "run", lambda *_, **__: found)
    with caplog.at_level("INFO"):
        assert main(["-bundle", "b", "-i", "cohort"]) == 0
    assert said in caplog.text


def test_a_failure_gives_1_and_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*_: object, **__: object) -> None:
        raise DataError("no scan holds lesions")

    monkeypatch.setattr(tune, "run", run)
    assert main(["-bundle", "b", "-i", "cohort"]) == 1
    assert capsys.readouterr().err == "sct_tune_lesion: error: no scan holds lesions\n"


@pytest.mark.parametrize(("name", "known"), [("objective", OBJECTIVES), ("preset", PRESETS)])
def test_every_word_that_the_library_knows_can_be_given(name: str, known: Any) -> None:
    [option] = [option for option in main.params if option.name == name]
    assert set(option.type.choices) == set(known)
