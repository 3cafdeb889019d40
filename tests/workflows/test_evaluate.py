from __future__ import annotations

import csv
import dataclasses
import json
import math
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import sct_graph
from small_data import train_small, write_cohort

from sct_lesion_losses.bundle import store
from sct_lesion_losses.cohorts import table as cohorts
from sct_lesion_losses.errors import DataError, ImageError, NoCordError, UsageError
from sct_lesion_losses.inference import cohort, predict
from sct_lesion_losses.inference import predict as models
from sct_lesion_losses.inference.predict import InferenceSettings
from sct_lesion_losses.metrics import PRESETS, lesionwise, voxelwise
from sct_lesion_losses.sct import lesion as sct_lesion
from sct_lesion_losses.thresholds import THRESHOLDS, binarize
from sct_lesion_losses.workflows import evaluate, tune

TABLES = (
    *("table1", "table2", "intervals", "thresholds", "models"),
    *("patients", "sites", "lesion_sizes", "published"),
)


@pytest.fixture(scope="module")
def split_table(tmp_path_factory) -> Path:
    """The tuned bundle `small`, and the split of its cohort."""
    table = train_small(tmp_path_factory.mktemp("evaluating"))
    tune.run(table.parent.with_name("small"), table, tune.TuneSettings(measure=False))
    return table


@pytest.fixture(scope="module")
def small(split_table) -> Path:
    return split_table.parent.with_name("small")


@pytest.fixture(scope="module")
def fresh(tmp_path_factory) -> Path:
    """A cohort without a split that no bundle has seen."""
    folder = tmp_path_factory.mktemp("fresh")
    return write_cohort(folder / "data", subjects=3, lesion_free=1, seed=11)


@pytest.fixture(scope="module")
def evaluated(small, split_table, tmp_path_factory) -> Path:
    """Output of the bundle and of SCT's model, a stand-in, on the split cohort."""
    folder = tmp_path_factory.mktemp("evaluated")
    with pytest.MonkeyPatch.context() as patch:
        use_sct(patch, folder / "sct")
        evaluate.run([small, "sct"], split_table, folder / "out", command="sct_evaluate_lesion -x")
    return folder / "out"


def use_sct(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let a small network with random weights stand for SCT's model."""
    if not folder.exists():
        sct_graph.install(folder, sct_graph.make((2, 4)))
    patch.setenv("SCT_DIR", str(folder))


def read(table: Path) -> list[dict[str, str]]:
    with table.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def number(text: str) -> float:
    return math.nan if text == "n/a" else float(text)


@pytest.fixture
def pmaps(monkeypatch) -> list[str]:
    """Names of the bundles of the p-maps that are predicted from here on."""
    made: list[str] = []
    real = predict.pmap

    def pmap(bundle, *args, **rest):
        made.append(bundle.name)
        return real(bundle, *args, **rest)

    monkeypatch.setattr(predict, "pmap", pmap)
    return made


def test_every_unseen_scan_has_a_row_per_model_threshold_and_preset(evaluated, split_table):
    unseen = [scan for scan in cohorts.read(split_table) if scan.split == "unseen"]
    rows = read(evaluated / "scores.tsv")
    expected = {
        (scan.name, bundle, threshold, preset)
        for scan in unseen
        for preset in PRESETS
        for bundle, thresholds in (
            ("small", [repr(t) for t in THRESHOLDS]),
            ("sct", [repr(t) for t in THRESHOLDS]),
            ("sct as shipped", ["n/a"]),
        )
        for threshold in thresholds
    }
    keys = [(row["scan"], row["bundle"], row["threshold"], row["preset"]) for row in rows]
    assert len(keys) == len(expected)
    assert set(keys) == expected
    assert {row["site"] for row in rows} <= {"A", "B"}
    assert {row["subject"] for row in rows} == {scan.subject for scan in unseen}


def test_scores_are_those_of_each_mask(evaluated, small, split_table):
    rows = read(evaluated / "scores.tsv")
    bundle, network = models.opened(str(small), "t2", "auto", "float32")
    for scan in cohorts.read(split_table):
        if scan.split != "unseen":
            continue
        found = cohort.locate(scan)
        pmap = found.pmap(bundle, network)
        for threshold in (0.0, 0.15, 0.5, 1.0):
            mask = binarize(pmap, threshold)
            whole = voxelwise.score(found.truth, mask)
            for preset in PRESETS:
                parts = lesionwise.score(found.truth, mask, (0.5, 0.5, 0.5), preset)
                [row] = [
                    row
                    for row in rows
                    if (row["scan"], row["bundle"], row["preset"]) == (scan.name, "small", preset)
                    and row["threshold"] == repr(threshold)
                ]
                written = [
                    number(row[name])
                    for name in (
                        *("truth_vox", "predicted_vox", "tp_vox", "fp_vox", "fn_vox"),
                        *("v_sensitivity", "v_precision", "v_f1"),
                        *("truth_lesions", "predicted_lesions"),
                        *("detected_lesions", "correct_lesions"),
                        *("l_sensitivity", "l_precision", "l_f1", "truth_mm3", "predicted_mm3"),
                    )
                ]
                # Exactly: what is written is read again to the bit.
                np.testing.assert_array_equal(
                    written,
                    [
                        *(whole.n_truth, whole.n_predicted, whole.tp, whole.fp, whole.fn),
                        *(whole.sensitivity, whole.precision, whole.f1),
                        *(parts.n_truth, parts.n_predicted, parts.detected, parts.correct),
                        *(parts.sensitivity, parts.precision, parts.f1),
                        *(parts.truth_mm3, parts.predicted_mm3),
                    ],
                )


def test_tuned_rows_are_those_of_the_bundles_own_threshold(evaluated, small):
    rows = [row for row in read(evaluated / "scores.tsv") if row["tuned"] == "1"]
    tuned = store.load(small).tuned_threshold
    assert {row["threshold"] for row in rows if row["bundle"] == "small"} == {repr(tuned)}
    assert {row["threshold"] for row in rows if row["bundle"] == "sct as shipped"} == {"n/a"}


def test_scts_model_is_tuned_on_the_scans_of_thr_optimization(evaluated, split_table, monkeypatch):
    use_sct(monkeypatch, evaluated.with_name("sct"))
    bundle, network = models.opened("sct", "t2", "auto", "float32")
    curves = []
    for scan in cohorts.read(split_table):
        if scan.split == "thr-optimization":
            found = cohort.locate(scan)
            pmap = predict.pmap(
                bundle, found.image.array, found.image.grid, found.sct_line, network=network
            )
            curves.append([voxelwise.score(found.truth, binarize(pmap, t)).f1 for t in THRESHOLDS])
    medians = np.median(curves, axis=0)
    [tuned] = {
        float(row["threshold"])
        for row in read(evaluated / "scores.tsv")
        if row["bundle"] == "sct" and row["tuned"] == "1"
    }
    assert medians[THRESHOLDS.index(tuned)] == medians.max()
    described = json.loads((evaluated / "scores.json").read_text())["bundle"]["Levels"]["sct"]
    assert described["TunedThreshold"] == tuned
    assert described["Tuning"]["Scans"] == len(curves)


def test_scts_rule_is_the_mask_of_sct(evaluated, split_table, monkeypatch):
    use_sct(monkeypatch, evaluated.with_name("sct"))
    _, network = models.opened("sct", "t2", "auto", "float32")
    scan = next(scan for scan in cohorts.read(split_table) if scan.split == "unseen")
    found = cohort.locate(scan)
    mask = sct_lesion.sct_rule(found.image.array, found.image.grid, found.sct_line, "t2", network)
    [row] = [
        row
        for row in read(evaluated / "scores.tsv")
        if (row["scan"], row["bundle"]) == (scan.name, "sct as shipped")
        and row["preset"] == "paper"
    ]
    assert int(row["predicted_vox"]) == np.count_nonzero(mask)
    assert int(row["tp_vox"]) == np.count_nonzero(mask & found.truth)


def test_scts_rule_is_computed_in_onnx_runtime(fresh, tmp_path, monkeypatch):
    use_sct(monkeypatch, tmp_path / "sct")
    engines = []
    real = models.opened

    def opened(name, contrast, engine, precision, sha256):
        engines.append(engine)
        return real(name, contrast, engine, precision, sha256)

    monkeypatch.setattr(models, "opened", opened)
    evaluate.run(["sct"], fresh, tmp_path / "out")
    assert engines == ["auto", "onnxruntime"] * 3


def test_lesions_are_listed_at_one_half_and_at_the_tuned_threshold(evaluated, small, split_table):
    rows = [row for row in read(evaluated / "lesions.tsv") if row["bundle"] == "small"]
    tuned = store.load(small).tuned_threshold
    assert {row["threshold"] for row in rows} == {"0.5", repr(tuned)}
    masks = {
        scan.name: nib.load(scan.lesion_mask).get_fdata() > 0
        for scan in cohorts.read(split_table)
        if scan.split == "unseen"
    }
    at_half = [row for row in rows if row["threshold"] == "0.5" and row["preset"] == "paper"]
    volumes = {row["scan"]: float(row["volume_mm3"]) for row in at_half}
    assert volumes == {name: mask.sum() / 8 for name, mask in masks.items() if mask.any()}
    scores = [
        row
        for row in read(evaluated / "scores.tsv")
        if (row["bundle"], row["threshold"], row["preset"]) == ("small", "0.5", "paper")
    ]
    assert sum(int(row["detected"]) for row in at_half) == sum(
        int(row["detected_lesions"]) for row in scores
    )


def test_the_description_names_columns_models_and_presets(evaluated, small):
    told = json.loads((evaluated / "scores.json").read_text())
    header = (evaluated / "scores.tsv").read_text().splitlines()[0].split("\t")
    assert list(told)[: len(header)] == header
    assert told["truth_mm3"]["Units"] == "mm^3"
    assert told["bundle"]["Levels"]["small"]["NetworkSHA256"] == store.load(small).sha256
    assert told["preset"]["Levels"]["anima"]["Parameters"]["min_volume_mm3"] == 3.0
    assert told["Centerline"] == "cohort"
    assert told["ScansWithoutCord"] == []
    assert told["GeneratedBy"]["Command"] == "sct_evaluate_lesion -x"
    lesions = json.loads((evaluated / "lesions.json").read_text())
    header = (evaluated / "lesions.tsv").read_text().splitlines()[0].split("\t")
    assert list(lesions)[: len(header)] == header


def test_figures_are_written_in_two_forms(evaluated):
    names = {path.name for path in (evaluated / "figures").iterdir()}
    assert {"figure2.png", "figure2.svg", "stability.png", "stability.svg"} <= names
    text = (evaluated / "figures" / "stability.svg").read_text("utf-8")
    assert all(f">{name}<" in text for name in ("small", "sct", "sct as shipped"))


def test_tables_are_written_in_three_forms(evaluated):
    assert {path.name for path in (evaluated / "tables").iterdir()} == {
        f"{name}.{ending}" for name in TABLES for ending in ("tsv", "md", "tex")
    }
    first = [row["Model"] for row in read(evaluated / "tables" / "table1.tsv")]
    assert first == ["small", "sct", "n"]  # the rule has no threshold to be 0.5
    names = [row["Model"] for row in read(evaluated / "tables" / "table2.tsv")]
    assert {"small", "sct as shipped"} <= set(names)
    published = (evaluated / "tables" / "published.tsv").read_text("utf-8").splitlines()
    [small] = [line.split("\t") for line in published if line.startswith("small\t")]
    assert small[2::2] == ["0.3", "0.41", "0.40", "0.65", "0.26"]  # of the study's Tversky loss


def test_a_second_run_computes_nothing(small, fresh, tmp_path, pmaps, caplog):
    first = evaluate.run([small], fresh, tmp_path / "out")
    assert len(pmaps) == 3
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*")}
    caplog.set_level("INFO")
    second = evaluate.run([small], fresh, tmp_path / "out")
    assert len(pmaps) == 3
    assert "3 of 3 results" in caplog.text
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*")} == before
    assert [row.scan for row in second.rows] == [row.scan for row in first.rows]


def test_only_what_is_new_changed_or_damaged_is_computed_again(small, fresh, tmp_path, pmaps):
    data = shutil.copytree(fresh, tmp_path / "data")
    out = tmp_path / "out"
    evaluate.run([small], data, out)
    pmaps.clear()

    evaluate.run([small, "tversky"], data, out)
    assert pmaps == ["tversky"] * 3
    pmaps.clear()

    [mask] = data.glob("derivatives/labels/sub-002/anat/*lesion_seg.nii.gz")
    image = nib.load(mask)
    nib.save(nib.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine), mask)
    found = evaluate.run([small, "tversky"], data, out)
    assert pmaps == ["small", "tversky"]
    assert {row.voxels.n_truth for row in found.rows if row.subject == "sub-002"} == {0}
    pmaps.clear()

    (out / "scans" / "sub-003_T2w.json").write_text('{"content": ')
    evaluate.run([small, "tversky"], data, out)
    assert pmaps == ["small", "tversky"]
    pmaps.clear()

    evaluate.run([small], data, out, evaluate.EvaluateSettings(preset="anima"))
    assert pmaps == []
    with pytest.raises(DataError, match="no cord"):  # these blocks are none to the detector
        evaluate.run([small], data, out, evaluate.EvaluateSettings(InferenceSettings("embedded")))


def test_scans_that_were_trained_on_are_refused_before_any_work(
    small, split_table, tmp_path, pmaps
):
    data = shutil.copytree(split_table.parent.parent / "data", tmp_path / "renamed")
    with pytest.raises(DataError, match="was trained on"):
        evaluate.run([small], data, tmp_path / "out")
    assert pmaps == []
    assert not (tmp_path / "out").exists()


def test_scans_that_chose_the_threshold_are_refused_even_where_they_are_kept(
    small, split_table, fresh, tmp_path
):
    scans = cohorts.read(split_table)
    chose = [dataclasses.replace(s, split="") for s in scans if s.split == "thr-optimization"]
    table = tmp_path / "plain.tsv"
    cohorts.write([*cohorts.read(fresh), *chose], table)
    again = shutil.copytree(small, tmp_path / "again" / "small")
    tune.run(again, split_table, tune.TuneSettings(measure=False, results=tmp_path / "out"))
    said = rf"bundle small was chosen on {len(chose)} of these scans .* flatter its scores"
    with pytest.raises(DataError, match=said):
        evaluate.run([small], table, tmp_path / "out")
    assert not (tmp_path / "out" / "scores.tsv").exists()


def test_a_bundle_may_know_the_scans_that_sct_alone_sees(small, split_table, tmp_path, monkeypatch):
    use_sct(monkeypatch, tmp_path / "sct")
    parts = {"training": "thr-optimization", "thr-optimization": "training"}
    table = tmp_path / "swapped.tsv"
    scans = [
        dataclasses.replace(scan, split=parts.get(scan.split, scan.split))
        for scan in cohorts.read(split_table)
    ]
    chosen = [scan for scan in scans if scan.split == "thr-optimization"][:2]
    unseen = [scan for scan in scans if scan.split == "unseen"][:1]
    cohorts.write([*chosen, *unseen], table)
    found = evaluate.run([small, "sct"], table, tmp_path / "out")
    assert {row.scan for row in found.rows} == {unseen[0].name}


def test_a_scan_without_a_cord_is_left_out_counted_and_said(
    small, fresh, tmp_path, monkeypatch, caplog, pmaps
):
    real = cohort.find.centerline

    def centerline(*args, file=None, **rest):
        if "sub-002" in file.name:
            raise NoCordError("no spinal cord was recognised")
        return real(*args, file=file, **rest)

    monkeypatch.setattr(cohort.find, "centerline", centerline)
    found = evaluate.run([small], fresh, tmp_path / "out")
    assert found.without_cord == ("sub-002_T2w",)
    assert {row.subject for row in found.rows} == {"sub-001", "sub-003"}
    assert "no cord was found: 1 of 3 scans (sub-002_T2w)" in caplog.text
    told = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert told["ScansWithoutCord"] == ["sub-002_T2w"]
    assert told["ScansEvaluated"] == 2
    for name in TABLES:
        text = (tmp_path / "out" / "tables" / f"{name}.md").read_text("utf-8")
        assert "Left out, because no cord was found: 1 of 3 scans." in text
    assert len(pmaps) == 2
    evaluate.run([small], fresh, tmp_path / "out")
    assert len(pmaps) == 2


def test_scans_without_a_cord_that_would_have_tuned_sct_are_listed_apart(
    split_table, tmp_path, monkeypatch
):
    use_sct(monkeypatch, tmp_path / "sct")
    scans = cohorts.read(split_table)
    lost = next(scan for scan in scans if scan.split == "thr-optimization")
    real = cohort.find.centerline

    def centerline(*args, file=None, **rest):
        if file == lost.centerline:
            raise NoCordError("no spinal cord was recognised")
        return real(*args, file=file, **rest)

    monkeypatch.setattr(cohort.find, "centerline", centerline)
    found = evaluate.run(["sct"], split_table, tmp_path / "out")
    assert (found.without_cord, found.tuning_without_cord) == ((), (lost.name,))
    told = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert told["ScansWithoutCord"] == []
    assert told["TuningScansWithoutCord"] == [lost.name]
    assert told["ScansEvaluated"] == sum(scan.split == "unseen" for scan in scans)


def test_no_cord_in_any_scan_is_an_error(small, fresh, tmp_path, monkeypatch):
    def centerline(*_args, **_rest):
        raise NoCordError("no spinal cord was recognised")

    monkeypatch.setattr(cohort.find, "centerline", centerline)
    with pytest.raises(DataError, match="in any of the 3 scans"):
        evaluate.run([small], fresh, tmp_path / "out")
    assert not (tmp_path / "out" / "scores.tsv").exists()


def test_a_scan_that_fails_is_named_and_what_was_done_before_stays(small, fresh, tmp_path, pmaps):
    data = shutil.copytree(fresh, tmp_path / "data")
    [image] = data.glob("sub-002/anat/*.nii.gz")
    image.write_bytes(b"no scan")
    with pytest.raises(ImageError, match="sub-002_T2w"):
        evaluate.run([small], data, tmp_path / "out")
    assert [path.name for path in tmp_path.glob("out/**/*.*")] == []
    # A bundle that knows no scan leaves reading to the work itself.
    with pytest.raises(ImageError, match="sub-002_T2w"):
        evaluate.run([stranger(small, tmp_path)], data, tmp_path / "out")
    assert [path.name for path in tmp_path.glob("out/**/*.*")] == ["sub-001_T2w.json"]
    assert len(pmaps) == 1


def stranger(small: Path, folder: Path) -> Path:
    """The bundle under another name, untuned, that does not say what it was trained on."""
    loaded = store.load(small)
    info = loaded.info
    info = info.model_copy(
        update={
            "name": "stranger",
            "operating_point": type(info.operating_point)(),
            "provenance": info.provenance.model_copy(update={"trained_on": ()}),
        }
    )
    store.save(folder / "stranger", info, loaded.network, loaded.weights, "card", overwrite=True)
    return folder / "stranger"


def test_a_model_that_was_never_tuned_is_in_table_1_alone(small, fresh, tmp_path, caplog):
    found = evaluate.run([small, stranger(small, tmp_path)], fresh, tmp_path / "out")
    models_of = {name: {*found.tables[name].body["Model"]} for name in TABLES[:2]}
    assert models_of == {"table1": {"small", "stranger"}, "table2": {"small"}}
    assert "table 1 alone: stranger" in caplog.text
    assert not any(row.tuned for row in found.rows if row.bundle == "stranger")


def test_models_of_one_name_are_told_apart_or_refused(small, fresh, tmp_path):
    newer = tmp_path / "newer" / "small"
    loaded = store.load(small)
    info = loaded.info.model_copy(update={"version": "2.0"})
    store.save(newer, info, loaded.network, loaded.weights, "card")
    found = evaluate.run([small, newer], fresh, tmp_path / "out")
    assert {row.bundle for row in found.rows} == {"small 1.0.0", "small 2.0"}
    with pytest.raises(UsageError, match="2 of the models are named small"):
        evaluate.run([small, small], fresh, tmp_path / "out")


def test_a_bundle_that_is_tuned_anew_is_evaluated_anew(small, fresh, tmp_path):
    again = tmp_path / "small"
    shutil.copytree(small, again)
    evaluate.run([again], fresh, tmp_path / "out")
    loaded = store.load(again)
    point = loaded.info.operating_point.model_copy(
        update={"threshold": 0.33, "thresholds": (0.33,), "curve": (0.5,), "per_scan": ()}
    )
    info = loaded.info.model_copy(update={"operating_point": point})
    store.save(again, info, loaded.network, loaded.weights, "card", overwrite=True)
    found = evaluate.run([again], fresh, tmp_path / "out")
    assert {row.threshold for row in found.rows if row.tuned} == {0.33}
    assert len({row.threshold for row in found.rows}) == 22


def test_two_jobs_find_what_one_does(small, fresh, tmp_path):
    one = evaluate.run([small], fresh, tmp_path / "one")
    two = evaluate.run([small], fresh, tmp_path / "two", jobs=2)
    assert [(r.scan, r.threshold, r.voxels.tp) for r in one.rows] == [
        (r.scan, r.threshold, r.voxels.tp) for r in two.rows
    ]


def test_report_hears_of_every_scan(small, fresh, tmp_path):
    heard = []
    evaluate.run([small], fresh, tmp_path / "out", report=lambda *now: heard.append(now))
    assert heard == [(1, 3), (2, 3), (3, 3)]


def test_scores_that_would_overwrite_the_cohort_are_refused(small, fresh, tmp_path):
    table = tmp_path / "scores.tsv"
    cohorts.write(cohorts.read(fresh), table)
    with pytest.raises(UsageError, match="choose another -ofolder"):
        evaluate.run([small], table, tmp_path)


def test_a_split_without_unseen_scans_is_refused(small, split_table, tmp_path):
    table = tmp_path / "seen.tsv"
    cohorts.write([s for s in cohorts.read(split_table) if s.split != "unseen"], table)
    with pytest.raises(DataError, match=r"part unseen; .* scans are then evaluated"):
        evaluate.run([small], table, tmp_path / "out")
