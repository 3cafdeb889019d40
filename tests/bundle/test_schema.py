from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from sct_lesion_losses.bundle import schema
from sct_lesion_losses.bundle import schema as document
from sct_lesion_losses.errors import BundleError

PERCENTILES = (1.0, 50.0, 99.0)


def make_info(**changes: Any) -> schema.BundleInfo:
    fields: dict[str, Any] = {
        "name": "tiny",
        "loss": {"name": "tversky", "numbers": {"fn_weight": 0.7, "fp_weight": 0.3}},
        "preparation": {"kind": "study", "percentiles": PERCENTILES, "landmarks": (0, 40, 100)},
        "network": {"filters": (16, 32, 64), "levels": 3},
        "provenance": {"data": "Three simulated scans."},
        "intended_use": "Tests.",
        "limits": ("Not for use.",),
    }
    return schema.BundleInfo.model_validate(fields | changes)


def tuned(**changes: Any) -> dict[str, Any]:
    point: dict[str, Any] = {
        "kind": "tuned",
        "threshold": 0.3,
        "objective": "median V-F1",
        "thresholds": (0.25, 0.3, 0.35),
        "curve": (0.4, 0.5, 0.45),
        "per_scan": [{"scan": "scan-01", "subject": "subject-01", "values": (0.4, 0.5, None)}],
        "interval": (0.25, 0.35),
        "n_scans": 1,
        "n_subjects": 1,
    }
    return point | changes


def damaged(**changes: Any) -> bytes:
    fields = json.loads(document.dump(make_info()))
    return json.dumps(fields | changes).encode()


unit = st.floats(0, 1, allow_nan=False)
score = st.none() | st.floats(-1e6, 1e6, allow_nan=False)
words = st.text(max_size=20)
keys = st.text(min_size=1, max_size=8)


@st.composite
def operating_points(draw: st.DrawFn) -> dict[str, Any]:
    grid = sorted(draw(st.sets(st.floats(0.01, 1), min_size=1, max_size=6)))
    values = st.tuples(*[score] * len(grid))
    return {
        "kind": "tuned",
        "objective": "median V-F1",
        "threshold": draw(st.sampled_from(grid)),
        "thresholds": grid,
        "curve": draw(values),
        "per_scan": [{"scan": "scan-1", "subject": "subject-1", "values": draw(values)}],
        "interval": tuple(sorted((draw(unit), draw(unit)))),
        "loss_at_pm_0_05": (draw(score), draw(score)),
        "leave_one_out": draw(score),
        "n_scans": 1,
        "n_subjects": 1,
        "warnings": draw(st.lists(words, max_size=2)),
    }


@st.composite
def infos(draw: st.DrawFn) -> schema.BundleInfo:
    number = st.floats(allow_nan=False, allow_infinity=False)
    landmarks = sorted(draw(st.sets(number, min_size=3, max_size=3)))
    return make_info(
        preparation={"kind": "study", "percentiles": PERCENTILES, "landmarks": landmarks},
        loss={"name": "dice", "numbers": draw(st.dictionaries(keys, number | st.booleans()))},
        operating_point=draw(operating_points()),
        seeds=draw(st.dictionaries(keys, st.integers(0, 2**63))),
        metrics=draw(st.dictionaries(keys, st.fixed_dictionaries({"value": score}), max_size=3)),
        provenance={"data": draw(words.filter(lambda t: bool(t.strip())))},
        created=draw(st.none() | st.dates()),
    )


@given(infos())
@settings(max_examples=50)
def test_reading_what_was_written_gives_the_same_info(info: schema.BundleInfo) -> None:
    assert document.parse(document.dump(info)) == info


@given(infos())
@settings(max_examples=30)
def test_writing_what_was_read_gives_the_same_bytes(info: schema.BundleInfo) -> None:
    text = document.dump(info)
    assert document.dump(document.parse(text)) == text


def test_table_order_does_not_change_the_bytes() -> None:
    one = make_info(seeds={"data": 1, "weights": 2})
    other = make_info(seeds={"weights": 2, "data": 1})
    assert document.dump(one) == document.dump(other)


def test_lists_of_numbers_stay_on_one_line() -> None:
    text = document.dump(make_info()).decode()
    assert '"landmarks": [0.0, 40.0, 100.0]' in text
    assert text.endswith("}\n")


def test_a_bracket_in_a_text_is_left_alone() -> None:
    info = make_info(intended_use="see [ 1,   2 ] and [\n 3,\n 4\n]")
    assert document.parse(document.dump(info)).intended_use == info.intended_use


@pytest.mark.parametrize("threshold", [0, -0.1, 1.0001, True, "0.5", None])
def test_a_threshold_outside_0_to_1_is_refused(threshold: object) -> None:
    with pytest.raises(BundleError, match=r"operating_point\.threshold"):
        document.parse(damaged(operating_point={"threshold": threshold}))


@pytest.mark.parametrize("token", ["NaN", "Infinity", "1e999"])
def test_a_threshold_that_is_not_finite_is_refused(token: str) -> None:
    text = document.dump(make_info()).replace(b'"threshold": 0.5', f'"threshold": {token}'.encode())
    with pytest.raises(BundleError, match=r"operating_point\.threshold"):
        document.parse(text)


def test_a_threshold_of_one_is_accepted() -> None:
    info = document.parse(damaged(operating_point={"threshold": 1.0}))
    assert info.operating_point.threshold == 1


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_schema_version_is_refused(version: object) -> None:
    with pytest.raises(BundleError, match=r"schema version is .*expected 1"):
        document.parse(damaged(schema_version=version))


def test_an_unknown_field_is_named() -> None:
    with pytest.raises(BundleError, match="colour"):
        document.parse(damaged(colour="red"))


@pytest.mark.parametrize("text", [b"", b"not json", b"[1]", b"\xff\xfe", b"[" * 100_000])
def test_what_is_not_a_json_object_is_refused(text: bytes) -> None:
    with pytest.raises(BundleError, match=r"bundle\.json"):
        document.parse(text)


@pytest.mark.parametrize(
    "landmarks",
    [(0, 100), (0, 50, 50), (0, 60, 50), (0, float("nan"), 100), (0, 50, float("inf"))],
    ids=["too few", "flat", "falling", "nan", "infinite"],
)
def test_landmarks_that_do_not_map_intensities_are_refused(landmarks: tuple[float, ...]) -> None:
    with pytest.raises(ValidationError, match="landmarks"):
        schema.StudyPreparation(percentiles=PERCENTILES, landmarks=landmarks)


def test_the_preparation_is_told_by_its_kind() -> None:
    sct = {
        "kind": "sct",
        "contrast": "t2s",
        "percentiles": PERCENTILES,
        "landmarks": (0, 1, 2),
        "mean": 1011.31,
        "std": 678.985,
    }
    info = document.parse(document.dump(make_info(preparation=sct)))
    assert isinstance(info.preparation, schema.SctPreparation)


def test_a_bundle_is_untuned_at_one_half_unless_said() -> None:
    point = make_info().operating_point
    assert (point.kind, point.threshold) == ("untuned", 0.5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"curve": (0.4, 0.5)}, "2 values for 3 thresholds"),
        ({"threshold": 0.31}, "not on its grid"),
        ({"thresholds": (0.3, 0.25, 0.35)}, "must increase"),
        ({"interval": (0.4, 0.3)}, "upside down"),
        ({"objective": ""}, "needs its objective"),
        ({"per_scan": tuned()["per_scan"] * 2}, "twice"),
    ],
)
def test_an_operating_point_that_contradicts_itself_is_refused(
    changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValidationError, match=words):
        schema.OperatingPoint.model_validate(tuned(**changes))


@pytest.mark.parametrize("scan", ["sub-01_T2w", "scan-", "scan-01/../x", "jane"])
def test_a_scan_of_the_tuning_set_must_be_numbered(scan: str) -> None:
    with pytest.raises(ValidationError, match="scan"):
        schema.ScanCurve(scan=scan, subject="subject-01", values=())


def test_a_score_that_is_not_defined_is_null_in_the_file() -> None:
    info = make_info(metrics={"V-precision": {"value": float("nan"), "n": 3}})
    assert json.loads(document.dump(info))["metrics"]["V-precision"]["value"] is None


def test_numpy_numbers_become_plain_numbers() -> None:
    point = tuned(curve=np.array([0.1, np.nan, 0.3]), threshold=np.float64(0.3))
    info = make_info(operating_point=point | {"n_scans": np.int64(4)})
    assert info.operating_point.curve == (0.1, None, 0.3)
    assert document.parse(document.dump(info)) == info


@pytest.mark.parametrize(
    "command", ["/opt/bin/sct_train_lesion", "sct_train_lesion -i /home/jane", "x -i=~/data"]
)
def test_a_command_with_an_absolute_path_is_refused(command: str) -> None:
    with pytest.raises(ValidationError, match="absolute path"):
        schema.Provenance(data="x", commands=(command,))


def test_an_info_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        make_info().name = "other"


def test_a_number_of_the_loss_stays_a_number() -> None:
    assert make_info().loss.numbers["fn_weight"] == 0.7
    loss = schema.Loss(name="dice", numbers={"smooth": 1, "squared": False})
    assert type(loss.numbers["smooth"]) is float
    assert loss.numbers["squared"] is False


def test_the_document_is_what_others_parse() -> None:
    text = document.dump(make_info(operating_point=tuned(), created="2026-01-31")).decode()
    assert text.startswith(
        """\
{
  "schema_version": 1,
  "name": "tiny",
  "version": "1.0.0",
  "created": "2026-01-31",
  "loss": {
    "name": "tversky",
    "numbers": {
      "fn_weight": 0.7,
      "fp_weight": 0.3
    }
  },
  "preparation": {
    "spacing_mm": 0.5,
    "window_vox": 48,
    "patch_vox": 48,
    "percentiles": [1.0, 50.0, 99.0],
    "landmarks": [0.0, 40.0, 100.0],
    "kind": "study",
    "overlap": 0.75
  },
"""
    )
    assert (
        """\
  "operating_point": {
    "kind": "tuned",
    "threshold": 0.3,
    "objective": "median V-F1",
    "beta": null,
    "preset": "",
    "specificity": null,
    "thresholds": [0.25, 0.3, 0.35],
    "curve": [0.4, 0.5, 0.45],
    "per_scan": [
      {
        "scan": "scan-01",
        "subject": "subject-01",
        "values": [0.4, 0.5, null]
      }
    ],
    "interval": [0.25, 0.35],
    "plateau": null,
    "loss_at_pm_0_05": [null, null],
    "leave_one_out": null,
    "n_scans": 1,
    "n_subjects": 1,
    "centerline": "",
    "warnings": []
  },
"""
        in text
    )


def test_tuning_again_replaces_the_command_that_tuned_before() -> None:
    trained = schema.Provenance(data="Three scans.", commands=("sct_train_lesion -i d",))
    once = trained.followed_by("sct_tune_lesion -i a")
    again = once.followed_by("sct_tune_lesion -i b")
    assert again.commands == ("sct_train_lesion -i d", "sct_tune_lesion -i b")


SITE = {
    **{"name": "Zurich", "weight": 0.4, "shipped_threshold": 0.3, "local_threshold": 0.4},
    **{"shipped_curve": (0.5, 0.4), "local_curve": (0.4, None), "held_out_shipped": 0.4},
}
LESIONS = {
    **{"peak": 0.5, "volume_mm3": 3.0, "preset": "paper", "n_scans": 2},
    **{"f1": 0.6, "f1_unfiltered": 0.5},
    "froc": {"peaks": (0.3, 0.5), "sensitivity": (0.7, 0.5), "false_lesions": (2.5, 0.2)},
}
SMALL = {
    **{"kind": "tuned", "threshold": 0.3, "objective": "median_v_f1", "n_scans": 2},
    **{"n_subjects": 2, "thresholds": (0.3, 0.4), "curve": (0.5, 0.4)},
}


def test_a_site_and_a_filter_of_lesions_are_read_as_written(make_info):
    info = make_info(operating_point={**SMALL, "site": SITE, "lesions": LESIONS})
    assert document.parse(document.dump(info)) == info
    assert info.operating_point.lesions.froc.false_lesions == (2.5, 0.2)


def test_what_is_not_there_is_not_written(make_info):
    text = document.dump(make_info(operating_point=SMALL)).decode()
    assert '"site"' not in text
    assert '"lesions"' not in text
    assert '"tuned_on"' not in text


def test_the_scans_that_chose_the_threshold_are_read_as_written(make_info):
    info = make_info(operating_point={**SMALL, "tuned_on": ("ab" * 16, "cd" * 16)})
    assert document.parse(document.dump(info)) == info
    assert info.operating_point.tuned_on == ("ab" * 16, "cd" * 16)
    with pytest.raises(ValueError, match="an untuned threshold has no scans"):
        make_info(operating_point={"tuned_on": ("ab" * 16,)})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"site": {**SITE, "local_curve": (0.4,)}}, "local_curve: 1 values for 2 thresholds"),
        ({"site": {**SITE, "weight": 1.5}}, "less than 1"),
        ({"lesions": {**LESIONS, "peak": 0.2}}, "is below the threshold"),
        (
            {"lesions": {**LESIONS, "froc": {**LESIONS["froc"], "sensitivity": (0.7,)}}},
            "sensitivity: 1 values for 2 peaks",
        ),
        (
            {"lesions": {**LESIONS, "froc": {**LESIONS["froc"], "peaks": (0.5, 0.3)}}},
            "peaks must increase",
        ),
    ],
)
def test_a_site_or_filter_that_does_not_fit_is_refused(make_info, change, said):
    with pytest.raises(ValidationError, match=said):
        make_info(operating_point={**SMALL, **change})


def test_an_untuned_threshold_has_no_filter_of_lesions(make_info):
    with pytest.raises(ValidationError, match="no filter of lesions"):
        make_info(operating_point={"lesions": LESIONS})
