from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sct_lesion_losses import recalibrate
from sct_lesion_losses.cli.tune import main
from sct_lesion_losses.operating_point import THRESHOLDS
from sct_lesion_losses.operating_point.shrink import Curves
from sct_lesion_losses.operating_point.shrink import recalibrate as shrink


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
        ("-force 1", "-ofolder and -force go with -site"),
        ("-site Zurich -ofolder out -measure 0", "-measure does not go with -site"),
        ("-site Zurich -ofolder out -objective mean_v_f1", "-objective does not go with -site"),
    ],
)
def test_options_that_do_not_go_together_are_wrong_use(given, said, calls, capsys):
    assert main(["-bundle", "b", "-i", "data", *given.split()]) == 2
    assert said in capsys.readouterr().err
    assert calls == []
