from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from sct_lesion_losses.bundle import store
from sct_lesion_losses.bundle.schema import LesionPoint
from sct_lesion_losses.cli.tune import main
from sct_lesion_losses.thresholds import THRESHOLDS, Curve, choose
from sct_lesion_losses.thresholds.site import Curves
from sct_lesion_losses.thresholds.site import recalibrate as shrink
from sct_lesion_losses.workflows import site as recalibrate
from sct_lesion_losses.workflows import tune


@pytest.fixture
def calls(monkeypatch):
    """Stand-in for the recalibration: it notes how it was called."""
    found = []
    scores = np.exp(-((np.array(THRESHOLDS) - 0.4) ** 2))[None]

    def run(*args, **rest):
        found.append((args, rest))
        curves = Curves(scores, ["a"])
        return shrink(curves, curves, THRESHOLDS, 0.4, bootstraps=10)

    monkeypatch.setattr(recalibrate, "run", run)
    return found


def test_a_site_gets_a_bundle_of_its_own(calls, capsys):
    args = "-bundle x/b -i data -site Zurich -ofolder out/b-zurich -force 1 -centerline svm -jobs 2"
    assert main(args.split()) == 0
    [((bundle, data, site, folder, settings), rest)] = calls
    assert (bundle, data, site, folder) == ("x/b", Path("data"), "Zurich", Path("out/b-zurich"))
    assert settings == recalibrate.Settings(centerline="svm")
    assert (rest["force"], rest["jobs"], rest["results"]) == (True, 2, None)
    assert rest["command"] == (
        "sct_tune_lesion -bundle ./b -i data -site Zurich -ofolder b-zurich -force 1 "
        "-centerline svm -jobs 2"
    )
    assert capsys.readouterr().out.splitlines() == ["0.4", "out/b-zurich"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("-site Zurich", "name its folder with -ofolder"),
        ("-ofolder out", "-ofolder and -force go with -site"),
        ("-froc picture", "add it"),
        ("-site Zurich -ofolder out -froc picture", "-froc does not go with -site"),
        ("-force 1", "-ofolder and -force go with -site"),
        ("-site Zurich -ofolder out -measure 0", "-measure does not go with -site"),
        ("-site Zurich -ofolder out -objective mean_v_f1", "-objective does not go with -site"),
    ],
)
def test_options_that_do_not_go_together_are_wrong_use(given, said, calls, capsys):
    assert main(["-bundle", "b", "-i", "data", *given.split()]) == 2
    assert said in capsys.readouterr().err
    assert calls == []


def test_the_froc_curve_of_the_tuned_bundle_is_drawn(monkeypatch, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    shipped = store.load("default")
    froc = {"peaks": (0.35, 0.9), "sensitivity": (0.8, 0.5), "false_lesions": (2.0, 0.5)}
    lesions = LesionPoint(
        peak=0.9, volume_mm3=3.0, preset="paper", f1=0.6, f1_unfiltered=0.5, froc=froc, n_scans=4
    )
    point = shipped.info.operating_point.model_copy(update={"lesions": lesions})
    info = shipped.info.model_copy(update={"operating_point": point})
    curve = Curve(np.array([0.3, 0.5, 0.7]), np.array([5, 2, 1]), np.zeros(3, int), 9)
    monkeypatch.setattr(tune, "run", lambda *_, **__: choose([curve], bootstraps=0))
    monkeypatch.setattr(store, "load", lambda _: dataclasses.replace(shipped, info=info))
    args = ["-bundle", "b", "-i", "data", "-lesion_point", "1", "-froc", str(tmp_path / "froc")]
    assert main([*args, "-v", "0"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out == ["0.3", str(tmp_path / "froc.png"), str(tmp_path / "froc.svg")]
    assert all(Path(path).is_file() for path in out[1:])
