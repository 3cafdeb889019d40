import json
from typing import Any

import numpy as np
import pytest
from example_points import FROC, LESIONS, LIMIT, SHARE, SITE, TUNED
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from small_bundle import make_info

from sct_lesion_losses.bundle import schema
from sct_lesion_losses.errors import BundleError

PERCENTILES = (1.0, 50.0, 99.0)


SEEN = ("ab" * 16, "cd" * 16)


unit = st.floats(0, 1, allow_nan=False)
score = st.none() | st.floats(-1e6, 1e6, allow_nan=False)
words = st.text(max_size=20)
keys = st.text(min_size=1, max_size=8)


@st.composite
def operating_points(draw: st.DrawFn) -> dict[str, Any]:
    grid = sorted(draw(st.sets(st.floats(0.01, 1), min_size=1, max_size=6)))
    values = st.tuples(*[score] * len(grid))
    return TUNED | {
        "threshold": draw(st.sampled_from(grid)),
        "thresholds": grid,
        "curve": draw(values),
        "per_scan": [{"scan": "scan-1", "subject": "subject-1", "values": draw(values)}],
        "interval": tuple(sorted((draw(unit), draw(unit)))),
        "loss_at_pm_0_05": (draw(score), draw(score)),
        "leave_one_out": draw(score),
        "warnings": draw(st.lists(words, max_size=2)),
    }


number = st.floats(allow_nan=False, allow_infinity=False)
FIELDS = {
    "preparation": st.fixed_dictionaries(
        {
            "kind": st.just("study"),
            "percentiles": st.just(PERCENTILES),
            "landmarks": st.sets(number, min_size=3, max_size=3).map(sorted),
        }
    ),
    "loss": st.fixed_dictionaries(
        {"name": st.just("dice"), "numbers": st.dictionaries(keys, number | st.booleans())}
    ),
    "operating_point": operating_points(),
    "seeds": st.dictionaries(keys, st.integers(0, 2**63)),
    "metrics": st.dictionaries(keys, st.fixed_dictionaries({"value": score}), max_size=3),
    "provenance": st.fixed_dictionaries({"data": words.filter(lambda text: bool(text.strip()))}),
    "created": st.none() | st.dates(),
}


@given(st.fixed_dictionaries(FIELDS))
@settings(max_examples=50)
def test_reading_what_was_written_gives_the_same_info_and_the_same_bytes(
    fields: dict[str, Any],
) -> None:
    info = make_info(**fields)
    text = schema.dump(info)
    assert schema.parse(text) == info
    assert schema.dump(schema.parse(text)) == text


def test_table_order_does_not_change_the_bytes() -> None:
    one = make_info(seeds={"data": 1, "weights": 2})
    other = make_info(seeds={"weights": 2, "data": 1})
    assert schema.dump(one) == schema.dump(other)


def test_a_bracket_in_a_text_is_left_alone() -> None:
    info = make_info(intended_use="see [ 1,   2 ] and [\n 3,\n 4\n]")
    assert schema.parse(schema.dump(info)).intended_use == info.intended_use


@pytest.mark.parametrize("threshold", [0, -0.1, 1.0001, True, "0.5", None, "NaN", "1e999"])
def test_a_threshold_outside_0_to_1_is_refused(threshold: object) -> None:
    text = schema.dump(make_info()).decode()
    written = threshold if threshold in ("NaN", "1e999") else json.dumps(threshold)
    text = text.replace('"threshold": 0.5', f'"threshold": {written}')
    with pytest.raises(BundleError, match=r"operating_point\.threshold"):
        schema.parse(text.encode())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        *(
            (text, r"not JSON \(\w")
            for text in (b"", b"{", b"not json", b"\xff\xfe", b"[" * 100_000)
        ),
        (b"[1]", r"the whole is \[1\]: should be an object"),
        (b"{}", "no schema version"),
        *(
            (b'{"schema_version": %b}' % version, "schema version is .*expected 1; update")
            for version in (b"0", b"2", b'"1"', b"null")
        ),
    ],
)
def test_what_is_not_a_json_object_of_this_schema_version_is_refused(
    text: bytes, said: str
) -> None:
    with pytest.raises(BundleError, match=rf"^bundle\.json: {said}"):
        schema.parse(text)


def test_an_unknown_field_is_said() -> None:
    text = schema.dump(make_info()).replace(b'"created"', b'"colour": "red", "created"')
    with pytest.raises(BundleError, match="colour"):
        schema.parse(text)


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
    info = schema.parse(schema.dump(make_info(preparation=sct)))
    assert isinstance(info.preparation, schema.SctPreparation)


def test_test_time_augmentation_stands_in_the_file_only_where_it_is_done() -> None:
    preparation = make_info().preparation
    for tta in (False, True):
        changed = preparation.model_copy(update={"tta": tta})
        text = schema.dump(make_info(preparation=changed.model_dump()))
        assert (b'"tta": true' in text, b"tta" in text) == (tta, tta)
        assert schema.parse(text).preparation.tta is tta


def test_a_bundle_is_untuned_at_one_half_unless_said() -> None:
    point = make_info().operating_point
    assert (point.kind, point.threshold) == ("untuned", 0.5)
    assert make_info(operating_point={"threshold": 1.0}).operating_point.threshold == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"curve": (0.4, 0.5)}, "curve: 2 values for 3 thresholds"),
        ({"threshold": 0.31}, "not on its grid"),
        ({"thresholds": (0.3, 0.25, 0.35)}, r"thresholds\n.*must increase"),
        ({"interval": (0.4, 0.3)}, "upside down"),
        ({"objective": ""}, "needs its objective"),
        ({"n_subjects": 0}, "needs its objective, n_scans and n_subjects"),
        ({"source": "a paper"}, "a published threshold has a source, and no other has"),
        ({"kind": "published"}, "a published threshold has a source, and no other has"),
        ({"per_scan": TUNED["per_scan"] * 2}, "twice"),
        ({"site": {**SITE, "local_curve": (0.4,)}}, "local_curve: 1 values for 3 thresholds"),
        ({"site": {**SITE, "weight": 1.5}}, "less than 1"),
        (
            {"lesions": {**LESIONS, "froc": {**FROC, "sensitivity": (0.7,)}}},
            "sensitivity: 1 values for 2 peaks",
        ),
        (
            {"lesions": {**LESIONS, "froc": {**FROC, "peaks": (0.5, 0.3)}}},
            r"lesions\.froc\.peaks\n.*must increase",
        ),
        ({"kind": "untuned", "lesions": LESIONS}, "no filter of lesions"),
        ({"kind": "untuned", "detection_limit": LIMIT}, "no detection limit"),
        (
            {"detection_limit": {**LIMIT, "by_volume": [{**SHARE, "found": 5}]}},
            "5 of 4 lesions found",
        ),
        ({"kind": "untuned", "tuned_on": SEEN}, "a threshold that is untuned has no scans"),
        (
            {"kind": "published", "source": "a paper", "tuned_on": SEEN},
            "a threshold that is published has no scans",
        ),
    ],
)
def test_an_operating_point_that_contradicts_itself_is_refused(
    changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValidationError, match=said):
        make_info(operating_point={**TUNED, **changes})


@pytest.mark.parametrize("scan", ["sub-01_T2w", "scan-", "scan-01/../x", "jane"])
def test_a_scan_of_the_tuning_set_must_be_numbered(scan: str) -> None:
    with pytest.raises(ValidationError, match="scan"):
        schema.ScanCurve(scan=scan, subject="subject-01", values=())


def test_a_score_that_is_not_defined_is_null_in_the_file() -> None:
    info = make_info(metrics={"V-precision": {"value": float("nan"), "n": 3}})
    assert json.loads(schema.dump(info))["metrics"]["V-precision"]["value"] is None


def test_numpy_numbers_become_plain_numbers() -> None:
    numbers = {"curve": np.array([0.1, np.nan, 0.3]), "threshold": np.float64(0.3)}
    info = make_info(operating_point=TUNED | numbers | {"n_scans": np.int64(4)})
    assert info.operating_point.curve == (0.1, None, 0.3)
    assert schema.parse(schema.dump(info)) == info


@pytest.mark.parametrize(
    "command", ["/opt/bin/sct_train_lesion", "sct_train_lesion -i /home/jane", "x -i=~/data"]
)
def test_a_command_with_an_absolute_path_is_refused(command: str) -> None:
    with pytest.raises(ValidationError, match="absolute path"):
        schema.Provenance(data="x", commands=(command,))


def test_a_number_of_the_loss_stays_a_number() -> None:
    assert make_info().loss.numbers["fn_weight"] == 0.7
    loss = schema.Loss(name="dice", numbers={"smooth": 1, "squared": False})
    assert type(loss.numbers["smooth"]) is float
    assert loss.numbers["squared"] is False


def test_the_document_is_what_others_parse(testing_data) -> None:
    info = make_info(operating_point=TUNED, created="2026-01-31")
    assert schema.dump(info) == (testing_data / "bundle.json").read_bytes()


def test_tuning_again_replaces_the_command_that_tuned_before() -> None:
    trained = schema.Provenance(data="Three scans.", commands=("sct_train_lesion -i d",))
    once = trained.followed_by("sct_tune_lesion -i a")
    again = once.followed_by("sct_tune_lesion -i b")
    assert again.commands == ("sct_train_lesion -i d", "sct_tune_lesion -i b")


def test_a_published_threshold_is_read_with_its_source() -> None:
    info = make_info(operating_point={"kind": "published", "threshold": 0.05, "source": "a paper"})
    assert schema.parse(schema.dump(info)) == info


def test_all_that_an_operating_point_may_hold_is_read_as_written() -> None:
    parts = {"site": SITE, "lesions": LESIONS, "detection_limit": LIMIT, "tuned_on": SEEN}
    info = make_info(operating_point={**TUNED, **parts})
    assert schema.parse(schema.dump(info)) == info
    assert info.operating_point.lesions.froc.false_lesions == (2.5, 0.2)
    assert info.operating_point.tuned_on == SEEN
    assert info.operating_point.detection_limit.by_contrast[0].interval == (0, 0.5)
    without = schema.dump(make_info(operating_point=TUNED)).decode()
    assert not any(f'"{name}"' in without for name in parts)


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(0, 1.1, "under 1.1"), (30, 100, "30 to 100"), (1.5, None, "from 1.5")],
)
def test_a_range_of_implants_is_written_in_words(low: float, high: float | None, said: str) -> None:
    assert str(schema.FoundShare(low=low, high=high, n=0, found=0)) == said
