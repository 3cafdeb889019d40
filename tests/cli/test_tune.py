from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from example_points import LESIONS, LIMIT

from sct_lesion_losses.bundle import store
from sct_lesion_losses.bundle.schema import DetectionLimit, LesionPoint
from sct_lesion_losses.cli.tune import main
from sct_lesion_losses.inference.predict import InferenceSettings
from sct_lesion_losses.thresholds import THRESHOLDS, Objective, ScanCounts, choose
from sct_lesion_losses.thresholds.site import Curves, recalibrate
from sct_lesion_losses.workflows import tune
from sct_lesion_losses.workflows.implant import ImplantSettings

CURVE = ScanCounts(np.array([0.3, 0.5, 0.7]), np.array([5, 2, 1]), np.zeros(3, int), 9)


def tuned(elsewhere: bool = False, **changes: object) -> tune.Tuned:
    """The default bundle with changes of its operating point, as if it were tuned."""
    shipped = store.load("default")
    point = shipped.info.operating_point.model_copy(update=changes)
    info = shipped.info.model_copy(update={"operating_point": point})
    return tune.Tuned(choose([CURVE], bootstraps=0), replace(shipped, info=info), elsewhere)


@pytest.fixture
def calls(monkeypatch) -> list[Any]:
    """Stand-in for the tuning by two scans, of one subject in the cohort `one`: it is noted."""
    found = []
    scores = np.exp(-((np.array(THRESHOLDS) - 0.4) ** 2))[None].repeat(2, axis=0)

    def run(bundle: str, data: Path, settings: tune.TuneSettings, _report: Any) -> tune.Tuned:
        found.append((bundle, data, settings))
        subjects = ["a", "a" if data.name == "one" else "b"]
        if settings.site is None:
            chosen: Any = choose([CURVE, CURVE], subjects, bootstraps=20)
        else:
            local, shipped = Curves(scores, subjects), Curves(scores, ["c", "d"])
            chosen = recalibrate(local, shipped, THRESHOLDS, 0.4, bootstraps=10)
        return tune.Tuned(chosen, store.load("default"), elsewhere=settings.folder is not None)

    monkeypatch.setattr(tune, "run", run)
    return found


@pytest.mark.parametrize(
    ("args", "settings", "printed"),
    [
        (
            "-bundle ./b -i cohort -objective l_f1_at_specificity -specificity 0.9 -preset "
            "candidate -results kept -jobs 2 -beta 3 -ofolder new -force 1",
            {
                "objective": Objective("l_f1_at_specificity", 3.0, "candidate", 0.9),
                "folder": Path("new"),
                "results": Path("kept"),
            },
            ["0.3", "new"],
        ),
        (
            "-bundle ./b -i cohort -site Zurich -ofolder b-zurich -force 1 -centerline svm -jobs 2",
            {
                "inference": InferenceSettings(centerline="svm"),
                "site": "Zurich",
                "folder": Path("b-zurich"),
            },
            ["0.4", "b-zurich"],
        ),
    ],
)
def test_options_reach_the_tuning_and_threshold_and_bundle_are_printed(
    args, settings, printed, calls, capsys
):
    assert main(args.split()) == 0
    expected = tune.TuneSettings(**settings, force=True, jobs=2, command=f"sct_tune_lesion {args}")
    assert calls == [("./b", Path("cohort"), expected)]
    assert capsys.readouterr().out.splitlines() == printed


def test_scans_of_healthy_people_reach_the_tuning_with_how_they_are_implanted(
    monkeypatch, tmp_path, capsys
):
    pytest.importorskip("matplotlib")
    calls, made = [], tuned(elsewhere=True, detection_limit=DetectionLimit(**LIMIT))

    def run_healthy(*args: Any) -> tune.Tuned:
        calls.append(args[:-1])
        return made

    monkeypatch.setattr(tune, "run_healthy", run_healthy)
    figure = tmp_path / "limit"
    args = f"-bundle b -healthy a.nii b.nii -cord c.nii d.nii -ofolder new -n 3 -figure {figure}"
    assert main([*args.split(), "-v", "0"]) == 0
    (called,) = calls
    settings = tune.TuneSettings(
        Objective("l_f1_at_specificity", specificity=0.9),
        InferenceSettings(centerline="auto"),
        measure=False,
        lesion_point=True,
        healthy=True,
        folder=Path("new"),
        command=called[3].command,
    )
    scans, cords = ((Path(f"{x}.nii"), Path(f"{y}.nii")) for x, y in ("ab", "cd"))
    assert called == ("b", scans, cords, settings, ImplantSettings(variants=3, free=1.0))
    assert called[3].command.endswith("-n 3 -figure limit -v 0")
    out = capsys.readouterr().out.splitlines()
    assert out == ["0.3", "new", f"{figure}.png", f"{figure}.svg"]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ("-i two", "(95 % interval 0.3 to 0.3): median_v_f1 0.714 over 2 scans of 2 subjects"),
        (
            "-i one",
            "(95 % interval unknown: one subject): median_v_f1 0.714 over 2 scans of 1 subject",
        ),
        ("-i two -site Bern -ofolder b", "median_v_f1 held out 1.000, at the shipped threshold 1"),
        ("-i one -site Bern -ofolder b", "held out unknown: one subject, at the shipped threshold"),
    ],
)
def test_what_a_threshold_is_worth_is_logged_as_far_as_the_subjects_tell(args, said, calls, caplog):
    caplog.set_level("INFO")
    assert main(["-bundle", "x/b", *args.split()]) == 0
    assert said in caplog.text
    assert "nan" not in caplog.text


def test_the_froc_curve_of_the_tuned_bundle_is_drawn(monkeypatch, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    made = tuned(lesions=LesionPoint(**LESIONS))
    monkeypatch.setattr(tune, "run", lambda *_, **__: made)
    args = ["-bundle", "b", "-i", "data", "-lesion_point", "1", "-froc", str(tmp_path / "froc")]
    assert main([*args, "-v", "0"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out == ["0.3", str(tmp_path / "froc.png"), str(tmp_path / "froc.svg")]
    assert all(Path(path).is_file() for path in out[1:])
