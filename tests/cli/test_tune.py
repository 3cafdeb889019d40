from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sct_lesion_losses.bundle import store
from sct_lesion_losses.bundle.schema import LesionPoint
from sct_lesion_losses.cli.tune import main
from sct_lesion_losses.inference.predict import InferenceSettings
from sct_lesion_losses.thresholds import (
    THRESHOLDS,
    Choice,
    Objective,
    ScanCounts,
    choose,
)
from sct_lesion_losses.thresholds.site import Curves, recalibrate
from sct_lesion_losses.workflows import tune

CURVE = ScanCounts(np.array([0.3, 0.5, 0.7]), np.array([5, 2, 1]), np.zeros(3, int), 9)


def written(choice: Choice, elsewhere: bool = False) -> tune.Tuned:
    """Stand-in for what tuning writes: a bundle of the package."""
    return tune.Tuned(choice, store.load("default"), elsewhere)


def test_options_reach_the_tuning_and_the_threshold_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    received: dict[str, Any] = {}

    def run(bundle: str, data: Path, settings: tune.TuneSettings, _report: Any) -> object:
        received.update(bundle=bundle, data=data, settings=settings)
        return written(choose([CURVE], bootstraps=0), elsewhere=True)

    monkeypatch.setattr(tune, "run", run)
    args = ["-objective", "l_f1_at_specificity", "-specificity", "0.9", "-preset", "candidate"]
    args += ["-results", "kept", "-jobs", "2", "-beta", "3", "-ofolder", "new", "-force", "1"]
    assert main(["-bundle", "b", "-i", "cohort", *args, "-v", "0"]) == 0
    assert capsys.readouterr().out == f"0.3\n{store.PACKAGED / 'default'}\n"
    objective = Objective("l_f1_at_specificity", 3.0, "candidate", 0.9)
    settings = received["settings"]
    assert settings.command.startswith("sct_tune_lesion -bundle b -i cohort -objective")
    assert dataclasses.replace(settings, command="") == tune.TuneSettings(
        objective, folder=Path("new"), force=True, results=Path("kept"), jobs=2
    )


@pytest.mark.parametrize(
    ("subjects", "said"),
    [
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
    found = choose([CURVE] * len(subjects), subjects, bootstraps=20)
    monkeypatch.setattr(tune, "run", lambda *_, **__: written(found))
    with caplog.at_level("INFO"):
        assert main(["-bundle", "b", "-i", "cohort"]) == 0
    assert said in caplog.text


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Stand-in for the recalibration by two subjects: it notes how it was called."""
    found = []
    scores = np.exp(-((np.array(THRESHOLDS) - 0.4) ** 2))[None].repeat(2, axis=0)

    def run(bundle: str, data: Path, settings: tune.TuneSettings, _report: Any) -> object:
        found.append((bundle, data, settings))
        names = ["a", "a" if settings.site == "Bern" else "b"]
        local, shipped = Curves(scores, names), Curves(scores, ["c", "d"])
        chosen = recalibrate(local, shipped, THRESHOLDS, 0.4, bootstraps=10)
        return tune.Tuned(chosen, store.load("default"), elsewhere=True)

    monkeypatch.setattr(tune, "run", run)
    return found


def test_a_site_gets_a_bundle_of_its_own(
    calls: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    args = "-bundle x/b -i data -site Zurich -ofolder out/b-zurich -force 1 -centerline svm -jobs 2"
    assert main(args.split()) == 0
    settings = tune.TuneSettings(
        inference=InferenceSettings(centerline="svm"),
        site="Zurich",
        folder=Path("out/b-zurich"),
        force=True,
        jobs=2,
        command="sct_tune_lesion -bundle ./b -i data -site Zurich -ofolder b-zurich -force 1 "
        "-centerline svm -jobs 2",
    )
    assert calls == [("x/b", Path("data"), settings)]
    assert capsys.readouterr().out.splitlines() == ["0.4", "out/b-zurich"]


@pytest.mark.parametrize(
    ("site", "said"),
    [
        ("Zurich", "median_v_f1 held out 1.000, at the shipped threshold 1.000"),
        ("Bern", "median_v_f1 held out unknown: one subject, at the shipped threshold 1.000"),
    ],
)
def test_what_is_held_out_is_logged_unless_there_is_one_subject(
    site: str, said: str, calls: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        assert main(f"-bundle x/b -i data -site {site} -ofolder out".split()) == 0
    assert said in caplog.text
    assert "nan" not in caplog.text


def test_the_froc_curve_of_the_tuned_bundle_is_drawn(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    shipped = store.load("default")
    froc = {"peaks": (0.35, 0.9), "sensitivity": (0.8, 0.5), "false_lesions": (2.0, 0.5)}
    lesions = LesionPoint(
        peak=0.9, volume_mm3=3.0, preset="paper", f1=0.6, f1_unfiltered=0.5, froc=froc, n_scans=4
    )
    point = shipped.info.operating_point.model_copy(update={"lesions": lesions})
    info = shipped.info.model_copy(update={"operating_point": point})
    made = tune.Tuned(choose([CURVE], bootstraps=0), dataclasses.replace(shipped, info=info))
    monkeypatch.setattr(tune, "run", lambda *_, **__: made)
    args = ["-bundle", "b", "-i", "data", "-lesion_point", "1", "-froc", str(tmp_path / "froc")]
    assert main([*args, "-v", "0"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out == ["0.3", str(tmp_path / "froc.png"), str(tmp_path / "froc.svg")]
    assert all(Path(path).is_file() for path in out[1:])
