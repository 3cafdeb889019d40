import dataclasses
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import sct_graph
from small_data import save_changed, save_filtering

from sct_lesion_losses.bundle import store
from sct_lesion_losses.bundle.schema import OperatingPoint
from sct_lesion_losses.cohorts import table as cohorts
from sct_lesion_losses.errors import DataError, ImageError, UsageError
from sct_lesion_losses.inference import models, predict
from sct_lesion_losses.inference.predict import InferenceSettings
from sct_lesion_losses.metrics import PRESETS, lesionwise, voxelwise
from sct_lesion_losses.sct import lesion as sct_lesion
from sct_lesion_losses.thresholds import THRESHOLDS, binarize, lesion_filter
from sct_lesion_losses.workflows import evaluate, tune
from sct_lesion_losses.workflows.evaluate import EvaluateSettings

TABLES = (
    *("table1", "table2", "intervals", "thresholds", "models"),
    *("patients", "sites", "lesion_sizes", "published", "froc"),
)


@pytest.fixture(scope="module")
def scts(tmp_path_factory) -> Path:
    """A small network with random weights that stands for SCT's model."""
    return sct_graph.install(tmp_path_factory.mktemp("sct"), sct_graph.make((2, 4)))


@pytest.fixture
def with_sct(scts, monkeypatch):
    monkeypatch.setenv("SCT_DIR", str(scts))


@pytest.fixture(scope="module")
def evaluated(small, split_table, scts, tmp_path_factory) -> Path:
    """Output of the bundle and of SCT's model on the split cohort."""
    folder = tmp_path_factory.mktemp("evaluated")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCT_DIR", str(scts))
        settings = EvaluateSettings(command="sct_evaluate_lesion -x")
        evaluate.run([small, "sct"], split_table, folder, settings)
    return folder


@pytest.fixture(scope="module")
def rows(evaluated) -> pd.DataFrame:
    """The scores as they are read again."""
    return read(evaluated / "scores.tsv")


def read(table: Path) -> pd.DataFrame:
    # The engine that reads numbers as Python does, to the last bit.
    return pd.read_csv(table, sep="\t", na_values="n/a", keep_default_na=False, engine="python")


def part(split_table: Path, name: str) -> list[cohorts.CohortScan]:
    return [scan for scan in cohorts.read(split_table) if scan.split == name]


def told(folder: Path, name: str = "scores") -> dict[str, object]:
    return json.loads((folder / f"{name}.json").read_text())


def test_every_unseen_scan_has_a_row_per_model_threshold_and_preset(rows, split_table):
    unseen = part(split_table, "unseen")
    expected = {
        (scan.name, bundle, threshold, preset)
        for scan in unseen
        for preset in PRESETS
        for bundle, thresholds in (
            ("small", THRESHOLDS),
            ("sct", THRESHOLDS),
            ("sct as shipped", [-1.0]),  # without a threshold
        )
        for threshold in thresholds
    }
    columns = rows[["scan", "bundle", "threshold", "preset"]].fillna({"threshold": -1.0})
    keys = list(columns.itertuples(index=False, name=None))
    assert len(keys) == len(expected)
    assert set(keys) == expected
    assert set(rows["site"]) <= {"A", "B"}
    assert set(rows["subject"]) == {scan.subject for scan in unseen}


def test_scores_are_those_of_each_mask(rows, small, split_table):
    bundle, network = predict.opened(str(small), "t2", "auto", "float32")
    own = rows[rows["bundle"] == "small"].set_index(["scan", "threshold", "preset"])
    for scan in part(split_table, "unseen"):
        found = models.locate(scan)
        pmap = found.pmap(bundle, network)
        for threshold in (0.0, 0.15, 0.5, 1.0):
            mask = binarize(pmap, threshold)
            whole = voxelwise.score(found.truth, mask)
            for preset in PRESETS:
                parts = lesionwise.score(found.truth, mask, (0.5, 0.5, 0.5), preset)
                expected = {
                    **{"truth_vox": whole.n_truth, "predicted_vox": whole.n_predicted},
                    **{"tp_vox": whole.tp, "fp_vox": whole.fp, "fn_vox": whole.fn},
                    **{"v_sensitivity": whole.sensitivity, "v_precision": whole.precision},
                    **{"v_f1": whole.f1, "truth_lesions": parts.n_truth},
                    **{"predicted_lesions": parts.n_predicted, "detected_lesions": parts.detected},
                    **{"correct_lesions": parts.correct, "l_sensitivity": parts.sensitivity},
                    **{"l_precision": parts.precision, "l_f1": parts.f1},
                    **{"truth_mm3": parts.truth_mm3, "predicted_mm3": parts.predicted_mm3},
                }
                row = own.loc[(scan.name, threshold, preset), list(expected)].astype(float)
                # Exactly: what is written is read again to the bit.
                np.testing.assert_array_equal(row, list(expected.values()))


def test_a_bundle_with_a_filter_of_lesions_is_scored_as_it_is_used(mine, fresh, tmp_path):
    old = store.load(mine)
    save_filtering(mine, old, peak=0.6, volume_mm3=8.0, threshold=0.4)
    found = evaluate.run([mine], fresh, tmp_path / "out")
    network = predict.opened(str(mine), "t2", "auto", "float32")[1]
    dropped = 0
    for scan in cohorts.read(fresh):
        seen = models.locate(scan)
        pmap = seen.pmap(old, network)
        for row in found.rows:
            if row.scan != scan.name or not row.threshold:
                continue
            mask = binarize(pmap, row.threshold)
            rule = lesion_filter.Filter(0.6, 8.0)
            kept = lesion_filter.mask_at(pmap, row.threshold, 0.125, rule)[0]
            spacing_mm = seen.image.grid.spacing_mm
            assert row.voxels == voxelwise.score(seen.truth, kept)
            assert row.lesions == lesionwise.score(seen.truth, kept, spacing_mm, row.lesions.preset)
            dropped += np.count_nonzero(mask) - np.count_nonzero(kept)
    assert dropped > 0
    said = told(tmp_path / "out")["bundle"]["Levels"]["small"]["LesionFilter"]
    assert said == {"LeastPeak": 0.6, "LeastVolumeMm3": 8.0}


def test_tuned_rows_are_those_of_the_bundles_own_threshold(rows, small):
    tuned = rows[rows["tuned"] == 1].groupby("bundle")["threshold"].unique()
    assert tuned["small"].tolist() == [store.load(small).tuned_threshold]
    assert np.isnan(tuned["sct as shipped"]).all()


def test_scts_model_is_tuned_on_the_scans_of_thr_optimization(
    evaluated, rows, split_table, with_sct
):
    bundle, network = predict.opened("sct", "t2", "auto", "float32")
    curves = []
    for scan in part(split_table, "thr-optimization"):
        found = models.locate(scan)
        pmap = found.pmap(bundle, network)
        curves.append([voxelwise.score(found.truth, binarize(pmap, t)).f1 for t in THRESHOLDS])
    medians = np.median(curves, axis=0)
    [tuned] = rows[(rows["bundle"] == "sct") & (rows["tuned"] == 1)]["threshold"].unique()
    assert medians[THRESHOLDS.index(tuned)] == medians.max()
    described = told(evaluated)["bundle"]["Levels"]["sct"]
    assert described["TunedThreshold"] == tuned
    assert described["Tuning"]["Scans"] == len(curves)


def test_scts_rule_is_the_mask_of_sct(rows, split_table, with_sct):
    _, network = predict.opened("sct", "t2", "auto", "float32")
    scan = part(split_table, "unseen")[0]
    found = models.locate(scan)
    mask = sct_lesion.sct_rule(found.image.array, found.image.grid, found.sct_line, "t2", network)
    own = rows[(rows["scan"] == scan.name) & (rows["bundle"] == "sct as shipped")]
    assert set(own["predicted_vox"]) == {np.count_nonzero(mask)}
    assert set(own["tp_vox"]) == {np.count_nonzero(mask & found.truth)}


def test_scts_rule_is_computed_in_onnx_runtime(fresh, tmp_path, with_sct, monkeypatch):
    engines = []
    real = predict.opened

    def opened(name, contrast, engine, precision, sha256):
        engines.append(engine)
        return real(name, contrast, engine, precision, sha256)

    monkeypatch.setattr(predict, "opened", opened)
    found = evaluate.run(["sct"], fresh, tmp_path)
    assert engines == ["auto", "onnxruntime"] * 3
    # Without scans that tune it, the published threshold of its contrast is its own.
    assert {row.threshold for row in found.rows if row.tuned} == {0.05, None}
    note = "sct at 0.05, published (Hussein et al. 2023, Table 2: tuned on 14 scans of patients)."
    assert note in found.tables["table2"].notes


def test_lesions_are_listed_at_one_half_and_at_the_tuned_threshold(
    evaluated, rows, small, split_table
):
    lesions = read(evaluated / "lesions.tsv")
    own = lesions[lesions["bundle"] == "small"]
    assert set(own["threshold"]) == {0.5, store.load(small).tuned_threshold}
    at_half = own[(own["threshold"] == 0.5) & (own["preset"] == "paper")]
    masks = {
        scan.name: nib.load(scan.lesion_mask).get_fdata() > 0
        for scan in part(split_table, "unseen")
    }
    expected = {name: mask.sum() / 8 for name, mask in masks.items() if mask.any()}
    assert dict(zip(at_half["scan"], at_half["volume_mm3"], strict=True)) == expected
    chosen = (rows["bundle"] == "small") & (rows["threshold"] == 0.5) & (rows["preset"] == "paper")
    assert at_half["detected"].sum() == rows[chosen]["detected_lesions"].sum()


def test_the_description_names_columns_models_and_presets(evaluated, small):
    for name in ("scores", "lesions"):
        header = list(read(evaluated / f"{name}.tsv"))
        assert list(told(evaluated, name))[: len(header)] == header
    described = told(evaluated)
    assert described["truth_mm3"]["Units"] == "mm^3"
    assert described["bundle"]["Levels"]["small"]["NetworkSHA256"] == store.load(small).sha256
    assert described["preset"]["Levels"]["anima"]["Parameters"]["min_volume_mm3"] == 3.0
    assert described["Centerline"] == "cohort"
    assert described["ScansWithoutCord"] == []
    assert described["GeneratedBy"]["Command"] == "sct_evaluate_lesion -x"


def test_tables_and_figures_are_written_in_every_form(evaluated):
    assert {path.name for path in (evaluated / "tables").iterdir()} == {
        f"{name}.{ending}" for name in TABLES for ending in ("tsv", "md", "tex")
    }
    first, second = (read(evaluated / "tables" / f"table{k}.tsv")["Model"] for k in (1, 2))
    assert first.tolist() == ["small", "sct", "n"]  # the rule has no threshold to be 0.5
    assert {"small", "sct as shipped"} <= set(second)
    published = (evaluated / "tables" / "published.tsv").read_text("utf-8").splitlines()
    [small] = [line.split("\t") for line in published if line.startswith("small\t")]
    assert small[2::2] == ["0.3", "0.41", "0.40", "0.65", "0.26"]  # of the study's Tversky loss
    names = {path.name for path in (evaluated / "figures").iterdir()}
    assert {"figure2.png", "figure2.svg", "stability.png", "froc.png", "froc.svg"} <= names
    text = (evaluated / "figures" / "stability.svg").read_text("utf-8")
    assert all(f">{name}<" in text for name in ("small", "sct", "sct as shipped"))


def test_a_second_run_computes_nothing_and_workers_find_the_same(
    small, fresh, tmp_path, pmaps, caplog
):
    heard = []
    first = evaluate.run([small], fresh, tmp_path / "out", report=lambda *now: heard.append(now))
    assert heard == [(1, 3), (2, 3), (3, 3)]
    assert len(pmaps) == 3
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*")}
    caplog.set_level("INFO")
    assert evaluate.run([small], fresh, tmp_path / "out").rows == first.rows
    assert len(pmaps) == 3
    assert "3 of 3 results" in caplog.text
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*")} == before
    two = evaluate.run([small], fresh, tmp_path / "two", EvaluateSettings(jobs=2))
    assert [(r.scan, r.threshold, r.voxels.tp) for r in two.rows] == [
        (r.scan, r.threshold, r.voxels.tp) for r in first.rows
    ]


def test_only_what_is_new_changed_or_damaged_is_computed_again(small, fresh, tmp_path, pmaps):
    data, out = shutil.copytree(fresh, tmp_path / "data"), tmp_path / "out"

    def computed(*bundles: object, **settings: object) -> list[str]:
        pmaps.clear()
        found.append(evaluate.run(bundles, data, out, EvaluateSettings(**settings)))
        return list(pmaps)

    found: list[evaluate.Evaluation] = []
    computed(small)
    assert computed(small, "tversky") == ["tversky"] * 3
    [mask] = data.glob("derivatives/labels/sub-002/anat/*lesion_seg.nii.gz")
    image = nib.load(mask)
    nib.save(nib.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine), mask)
    assert computed(small, "tversky") == ["small", "tversky"]
    assert {row.voxels.n_truth for row in found[-1].rows if row.subject == "sub-002"} == {0}
    (out / "scans" / "sub-003_T2w.json").write_text('{"content": ')
    assert computed(small, "tversky") == ["small", "tversky"]
    assert computed(small, preset="anima") == []
    with pytest.raises(DataError, match="no cord"):  # these blocks are none to the detector
        computed(small, inference=InferenceSettings("embedded"))


def test_scans_that_were_trained_on_are_refused_before_any_work(
    small, split_table, tmp_path, pmaps
):
    data = shutil.copytree(split_table.parent.parent / "data", tmp_path / "renamed")
    with pytest.raises(DataError, match="was trained on"):
        evaluate.run([small], data, tmp_path / "out")
    assert pmaps == []
    assert not (tmp_path / "out").exists()


def test_scans_that_chose_the_threshold_are_refused_even_where_they_are_kept(
    mine, split_table, fresh, tmp_path
):
    chose = [dataclasses.replace(s, split="") for s in part(split_table, "thr-optimization")]
    table, out = tmp_path / "plain.tsv", tmp_path / "out"
    cohorts.write([*cohorts.read(fresh), *chose], table)
    tune.run(mine, split_table, tune.TuneSettings(measure=False, results=out))
    said = rf"bundle small was chosen on {len(chose)} of these scans .* flatter its scores"
    with pytest.raises(DataError, match=said):
        evaluate.run([mine], table, out)
    assert not (out / "scores.tsv").exists()


def test_a_bundle_may_know_the_scans_that_sct_alone_sees(small, split_table, tmp_path, with_sct):
    tuning = [
        dataclasses.replace(s, split="thr-optimization") for s in part(split_table, "training")
    ]
    table, unseen = tmp_path / "swapped.tsv", part(split_table, "unseen")[:1]
    cohorts.write([*tuning[:2], *unseen], table)
    found = evaluate.run([small, "sct"], table, tmp_path / "out")
    assert {row.scan for row in found.rows} == {unseen[0].name}


def test_a_scan_without_a_cord_is_left_out_counted_and_said(
    small, fresh, tmp_path, without_cord, caplog, pmaps
):
    without_cord("sub-002")
    found = evaluate.run([small], fresh, tmp_path)
    assert found.without_cord == ("sub-002_T2w",)
    assert {row.subject for row in found.rows} == {"sub-001", "sub-003"}
    assert "no cord was found: 1 of 3 scans (sub-002_T2w)" in caplog.text
    assert told(tmp_path)["ScansWithoutCord"] == ["sub-002_T2w"]
    assert told(tmp_path)["ScansEvaluated"] == 2
    for name in TABLES:
        text = (tmp_path / "tables" / f"{name}.md").read_text("utf-8")
        assert "Left out, because no cord was found: 1 of 3 scans." in text
    assert len(pmaps) == 2
    evaluate.run([small], fresh, tmp_path)
    assert len(pmaps) == 2
    without_cord("sub-")
    with pytest.raises(DataError, match="in any of the 3 scans"):
        evaluate.run([small], fresh, tmp_path / "none")
    assert not (tmp_path / "none" / "scores.tsv").exists()


def test_where_no_session_keeps_two_scans_with_a_cord_the_scores_are_written_even_so(
    fresh, tmp_path, with_sct, without_cord, caplog
):
    without_cord("sub-002")
    subjects = {"sub-001": "one", "sub-002": "one"}
    scans = [
        dataclasses.replace(scan, subject=subjects.get(scan.subject, scan.subject))
        for scan in cohorts.read(fresh)
    ]
    cohorts.write(scans, tmp_path / "data.tsv")
    out = tmp_path / "out"
    found = evaluate.run(["sct"], tmp_path / "data.tsv", out, EvaluateSettings(repeat=True))
    assert "repeat" not in found.tables
    assert "no two scans of one session" in caplog.text
    assert "no two scans of one session." in (out / "tables" / "table2.md").read_text()
    assert set(read(out / "scores.tsv")["scan"]) == {"sub-001_T2w", "sub-003_T2w"}


def test_scans_without_a_cord_that_would_have_tuned_sct_are_listed_apart(
    split_table, tmp_path, with_sct, without_cord
):
    lost = part(split_table, "thr-optimization")[0]
    without_cord(lost.subject)
    found = evaluate.run(["sct"], split_table, tmp_path)
    assert found.without_cord == ()
    assert told(tmp_path)["ScansWithoutCord"] == []
    assert told(tmp_path)["TuningScansWithoutCord"] == [lost.name]
    assert told(tmp_path)["ScansEvaluated"] == len(part(split_table, "unseen"))


@pytest.fixture
def stranger(small, tmp_path) -> Path:
    """The bundle under another name, untuned, that does not say what it was trained on."""
    bundle = store.load(small)
    unknown = bundle.info.provenance.model_copy(update={"trained_on": ()})
    changes = {"operating_point": OperatingPoint(), "provenance": unknown}
    return save_changed(tmp_path / "stranger", bundle, **changes).folder


def test_a_scan_that_fails_is_named_and_what_was_done_before_stays(
    small, stranger, fresh, tmp_path, pmaps
):
    data = shutil.copytree(fresh, tmp_path / "data")
    [image] = data.glob("sub-002/anat/*.nii.gz")
    image.write_bytes(b"no scan")
    with pytest.raises(ImageError, match="sub-002_T2w"):
        evaluate.run([small], data, tmp_path / "out")
    assert [path.name for path in tmp_path.glob("out/**/*.*")] == []
    # A bundle that knows no scan leaves reading to the work itself.
    with pytest.raises(ImageError, match="sub-002_T2w"):
        evaluate.run([stranger], data, tmp_path / "out")
    assert [path.name for path in tmp_path.glob("out/**/*.*")] == ["sub-001_T2w.json"]
    assert len(pmaps) == 1


def test_a_model_that_was_never_tuned_is_in_table_1_alone(small, stranger, fresh, tmp_path, caplog):
    found = evaluate.run([small, stranger], fresh, tmp_path / "out")
    models_of = {name: {*found.tables[name].body["Model"]} for name in TABLES[:2]}
    assert models_of == {"table1": {"small", "stranger"}, "table2": {"small"}}
    assert "table 1 alone: stranger" in caplog.text
    assert not any(row.tuned for row in found.rows if row.bundle == "stranger")


def test_models_of_one_name_are_told_apart(small, fresh, tmp_path):
    newer = save_changed(tmp_path / "newer" / "small", store.load(small), version="2.0")
    found = evaluate.run([small, newer.folder], fresh, tmp_path / "out")
    assert {row.bundle for row in found.rows} == {"small 1.0.0", "small 2.0"}


def test_a_bundle_that_is_tuned_anew_is_evaluated_anew(mine, fresh, tmp_path):
    evaluate.run([mine], fresh, tmp_path / "out")
    anew = {"threshold": 0.33, "thresholds": (0.33,), "curve": (0.5,), "per_scan": ()}
    old = store.load(mine)
    save_changed(mine, old, operating_point=old.info.operating_point.model_copy(update=anew))
    found = evaluate.run([mine], fresh, tmp_path / "out")
    assert {row.threshold for row in found.rows if row.tuned} == {0.33}
    assert len({row.threshold for row in found.rows}) == 22


def test_cohorts_that_cannot_be_evaluated_are_refused(small, fresh, split_table, tmp_path):
    cohorts.write(cohorts.read(fresh), tmp_path / "scores.tsv")
    with pytest.raises(UsageError, match="choose another -ofolder"):
        evaluate.run([small], tmp_path / "scores.tsv", tmp_path)
    seen = [scan for scan in cohorts.read(split_table) if scan.split != "unseen"]
    cohorts.write(seen, tmp_path / "seen.tsv")
    with pytest.raises(DataError, match=r"part unseen; .* scans are then evaluated"):
        evaluate.run([small], tmp_path / "seen.tsv", tmp_path / "out")


def test_a_preset_that_there_is_not_is_refused_before_any_work():
    with pytest.raises(UsageError, match="no lesion-wise preset is named 'study'"):
        EvaluateSettings(preset="study")
