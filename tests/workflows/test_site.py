from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from small_data import train_small, write_cohort

from sct_lesion_losses.bundle import store
from sct_lesion_losses.cohorts import table as cohorts
from sct_lesion_losses.errors import BundleError, DataError, NoCordError, UsageError
from sct_lesion_losses.inference import cohort
from sct_lesion_losses.workflows import site as of_site
from sct_lesion_losses.workflows import tune
from sct_lesion_losses.workflows.site import SiteSettings


@pytest.fixture(scope="module")
def shipped(tmp_path_factory) -> Path:
    """The tuned bundle `small`, trained enough to find bright blocks."""
    split = train_small(tmp_path_factory.mktemp("recalibration"))
    folder = split.parent.with_name("small")
    tune.run(folder, split, tune.TuneSettings(measure=False))
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """Three scans with lesions and one without, of another place."""
    return write_cohort(tmp_path_factory.mktemp("site") / "data", 4, lesion_free=1, seed=11)


@pytest.fixture(scope="module")
def written(shipped, site):
    """What recalibrating says, the bundle it starts from and the new one."""
    before = {path.name: path.read_bytes() for path in shipped.iterdir()}
    folder = shipped.with_name("small-zurich")
    command = "sct_tune_lesion -bundle ./small -i data -site Zurich -ofolder small-zurich"
    heard = []
    found = of_site.run(
        shipped,
        site,
        SiteSettings("Zurich", folder),
        command=command,
        report=lambda *now: heard.append(now),
    )
    assert heard == [(k, 4) for k in range(1, 5)]
    assert {path.name: path.read_bytes() for path in shipped.iterdir()} == before
    return found, store.load(shipped), store.load(folder)


def test_the_new_bundle_is_the_old_one_but_for_threshold_and_name(written):
    found, old, new = written
    assert new.weights == old.weights
    assert new.network == old.network
    assert (new.name, new.threshold) == ("small-zurich", found.threshold)
    same = {"name", "operating_point", "metrics", "limits", "provenance"}
    assert new.info.model_dump(exclude=same) == old.info.model_dump(exclude=same)
    assert new.info.provenance.trained_on == old.info.provenance.trained_on


def test_it_keeps_its_ancestry_and_both_curves(written):
    found, old, new = written
    point, site = new.info.operating_point, new.info.operating_point.site
    assert new.info.provenance.ancestor == f"small 1.0.0, weights {old.weights_sha256}"
    assert new.info.provenance.commands[:-1] == old.info.provenance.commands
    assert new.info.provenance.commands[-1].startswith("sct_tune_lesion -bundle ./small")
    assert site.name == "Zurich"
    assert site.shipped_threshold == old.threshold
    assert site.shipped_curve == old.info.operating_point.curve
    assert site.local_curve == pytest.approx(found.local_curve)
    assert [scan.scan for scan in point.per_scan] == ["scan-01", "scan-02", "scan-03"]
    assert np.median([scan.values for scan in point.per_scan], axis=0) == pytest.approx(
        site.local_curve
    )
    assert point.objective == old.info.operating_point.objective


def test_its_card_says_what_it_is(written):
    found, _, new = written
    card = (new.folder / "card.md").read_text(encoding="utf-8")
    assert "Nothing was trained anew: the weights are those of small 1.0.0" in card
    assert f"`Zurich`. The curve is theirs, with the weight {found.weight:.2f}" in card
    assert "- its threshold is that of the site Zurich" in card
    assert "few scans: 3 with lesions, of 3 subjects" in card
    assert "Not measured." in card


def test_an_existing_bundle_is_kept_unless_told(written, site, tmp_path):
    _, old, new = written
    kept = tmp_path / "kept"
    shutil.copytree(new.folder, kept)
    before = (kept / "bundle.json").read_bytes()
    with pytest.raises(BundleError, match="replace it with -force 1"):
        of_site.run(old.folder, site, SiteSettings("Bern", kept))
    assert (kept / "bundle.json").read_bytes() == before
    of_site.run(old.folder, site, SiteSettings("Bern", kept, force=True))
    assert store.load(kept).info.operating_point.site.name == "Bern"


def test_scans_that_were_trained_on_are_refused_and_nothing_is_written(shipped, tmp_path):
    with pytest.raises(DataError, match="was trained on"):
        of_site.run(shipped, shipped.parent / "data", SiteSettings("Zurich", tmp_path / "new"))
    assert list(tmp_path.iterdir()) == []


def test_scans_that_chose_the_shipped_threshold_are_refused_and_later_ones_remembered(
    written, site, shipped, tmp_path
):
    _, old, new = written
    before, after = old.info.operating_point.tuned_on, new.info.operating_point.tuned_on
    assert before
    assert set(before) < set(after)
    assert len(after) == len(before) + 4
    scans = cohorts.read(shipped.with_name("small.training") / "split.tsv")
    chose = [dataclasses.replace(s, split="") for s in scans if s.split == "thr-optimization"]
    cohorts.write([*cohorts.read(site), chose[0]], tmp_path / "site.tsv")
    with pytest.raises(DataError, match=r"chosen on 1 of these scans .* would count twice"):
        of_site.run(shipped, tmp_path / "site.tsv", SiteSettings("Zurich", tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_scans_without_lesions_decide_nothing(shipped, tmp_path):
    free = write_cohort(tmp_path / "free", 2, lesion_free=2, seed=12)
    with pytest.raises(DataError, match="no local scan holds lesions"):
        of_site.run(shipped, free, SiteSettings("Zurich", tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_scans_without_a_cord_are_left_out_and_counted(shipped, site, tmp_path, monkeypatch):
    real = cohort.find.centerline

    def centerline(*args, file=None, **rest):
        if "sub-002" in file.name:
            raise NoCordError("no spinal cord was recognised")
        return real(*args, file=file, **rest)

    monkeypatch.setattr(cohort.find, "centerline", centerline)
    found = of_site.run(shipped, site, SiteSettings("Zurich", tmp_path / "new"))
    assert found.n_scans == 2
    point = store.load(tmp_path / "new").info.operating_point
    assert "left out, because no cord was found: 1 of the scans" in point.warnings


@pytest.mark.parametrize(
    ("place", "folder", "match"),
    [
        ("a site", "new", "-site is 'a site'"),
        ("Zurich", "a folder", "choose another folder name"),
        ("Zurich", "small", "is the bundle small itself"),
    ],
)
def test_names_that_cannot_be_are_refused_before_a_scan_is_read(shipped, place, folder, match):
    with pytest.raises(UsageError, match=match):
        of_site.run(shipped, Path("no such data"), SiteSettings(place, shipped.with_name(folder)))


def test_an_untuned_bundle_and_one_of_a_site_are_refused(written, site, tmp_path):
    _, old, new = written
    with pytest.raises(UsageError, match="is that of the site Zurich already"):
        of_site.run(new.folder, site, SiteSettings("Bern", tmp_path / "new"))
    info = old.info.model_copy(
        update={"name": "raw", "operating_point": type(new.info.operating_point)()}
    )
    raw = store.save(tmp_path / "raw", info, old.network, old.weights, "# raw\n")
    with pytest.raises(UsageError, match="was never tuned"):
        of_site.run(raw.folder, site, SiteSettings("Bern", tmp_path / "new"))


def test_what_has_to_be_said_is_said(written):
    found, _, _ = written
    good = dataclasses.replace(
        found,
        n_subjects=6,
        interval=(0.3, 0.5),
        curve=-np.abs(found.thresholds - 0.4),
        leave_one_out=0.6,
        held_out_shipped=0.5,
    )
    assert of_site.said(good) == ()
    for change, words in (
        ({"n_subjects": 4}, "few scans"),
        ({"interval": (0.2, 0.6)}, "wide, 0.2 to 0.6"),
        ({"curve": found.thresholds}, "end of the grid"),
        ({"leave_one_out": 0.5}, "no better than the shipped one"),
        ({"leave_one_out": float("nan")}, "scans of one subject"),
    ):
        [said] = of_site.said(dataclasses.replace(good, **change))
        assert words in said
    assert len(of_site.said(good, refused=1, had_filter=True)) == 2
