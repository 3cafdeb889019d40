import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from score_rows import bearing, lesion_free

from sct_lesion_losses.geometry.location import Location
from sct_lesion_losses.images import bids
from sct_lesion_losses.metrics import PRESETS
from sct_lesion_losses.metrics.lesionwise import MeasuredLesion
from sct_lesion_losses.metrics.scores import TruthLesion
from sct_lesion_losses.report import columns
from sct_lesion_losses.report.columns import LesionRow

FOUND = (
    LesionRow(
        MeasuredLesion(1, 143.2, 12.0, (1.0, -2.5, 30.25), 0.61234567, float(np.float32(0.9))),
        Location(31.25, 12.5, 4.0, -1.5, 0.25, "left", "central", 0.4, 4, (3, 4)),
    ),
    LesionRow(MeasuredLesion(2, 1.0, 0.8, (0.0, 0.0, 0.0), 0.4, 0.5)),
)


def test_the_lesions_of_a_mask_have_a_row_each_and_their_columns_are_described(
    tmp_path: Path,
) -> None:
    table, about = columns.write(tmp_path / "x_lesions.tsv", columns.PREDICTED_LESIONS, FOUND)
    measured = "lesion volume_mm3 length_mm x_mm y_mm z_mm mean_p highest_p vanishes_above "
    located = (
        "level levels from_top_mm side depth right_mm front_mm cord_length_mm diameter_mm "
        "cord_share"
    )
    assert [line.split("\t") for line in table.read_text().splitlines()] == [
        (measured + located).split(),
        [
            *("1", "143.200", "12.000", "1.000", "-2.500", "30.250", "0.6123", "0.9000"),
            *("0.899999976", "C4", "C3-C4", "31.250", "left", "central", "-1.500", "0.250"),
            *("12.500", "4.000", "0.4000"),
        ],
        [
            *("2", "1.000", "0.800", "0.000", "0.000", "0.000", "0.4000", "0.5000", "0.5"),
            *10 * ("n/a",),
        ],
    ]
    # The value of vanishes_above, as -thr, still keeps the lesion.
    assert np.float32("0.899999976") == np.float32(0.9)
    assert about.name == "x_lesions.json"
    described = json.loads(about.read_text())
    assert list(described) == table.read_text().splitlines()[0].split("\t")
    assert described["volume_mm3"] == {"Description": "Volume", "Units": "mm^3"}


def test_the_lesions_of_manual_masks_have_a_row_each(tmp_path: Path) -> None:
    lesions = [
        TruthLesion(bearing("a", "dice", 0.35, True, subject="one"), 1, 0.1 + 0.2, True),
        TruthLesion(bearing("a", "dice", None, subject="one", preset="anima"), 2, 7.0, False),
    ]
    levels = {"bundle": {"dice": {"Version": "1"}}, "preset": columns.PRESET_LEVELS}
    table, about = columns.write(
        tmp_path / "x.tsv", columns.TRUTH_LESIONS, lesions, levels, {"Contrast": "t2"}
    )
    assert table.read_text().splitlines() == [
        "scan\tsubject\tbundle\tthreshold\ttuned\tpreset\tlesion\tvolume_mm3\tdetected",
        "a\tone\tdice\t0.35\t1\tpaper\t1\t0.30000000000000004\t1",
        "a\tone\tdice\tn/a\t0\tanima\t2\t7.0\t0",
    ]
    described = json.loads(about.read_text())
    assert described["Contrast"] == "t2"
    assert described["bundle"]["Levels"] == levels["bundle"]
    assert set(described["preset"]["Levels"]) == set(PRESETS)
    empty, _ = columns.write(tmp_path / "empty.tsv", columns.TRUTH_LESIONS, [])
    assert empty.read_text() == table.read_text().splitlines()[0] + "\n"


@given(st.floats(0, 1))
def test_a_number_is_read_again_to_the_bit(value: float) -> None:
    (column,) = (one for one in columns.of_scans({"tversky": "1"}) if one.name == "v_f1")
    assert float(column.text(bearing("a", measures={"V-F1": value}))) == value


def test_the_scores_of_every_scan_have_every_column() -> None:
    rows = [bearing("a\tb", threshold=0.3, site="S"), lesion_free("c", threshold=None)]
    first, second = (
        {column.name: column.text(row) for column in columns.of_scans({"tversky": "1.2"})}
        for row in rows
    )
    assert not any("\t" in text for text in first.values())
    assert (first["scan"], first["version"], first["threshold"]) == ("a b", "1.2", "0.3")
    assert (second["site"], second["threshold"], second["l_f1"]) == ("n/a",) * 3


@pytest.mark.parametrize(
    ("preset", "said"),
    [
        (
            "paper",
            "18-neighbour lesions, detected where at least 25 % is covered and the largest "
            "overlaps, up to 65 % of it, are with lesions of which at most 70 % lies outside.",
        ),
        (
            "anima",
            "6-neighbour lesions of more than 3 mm³, detected where more than 10 % is covered and "
            "the largest overlaps, up to 65 % of it, are with lesions of which at most 70 % lies "
            "outside.",
        ),
        (
            "candidate",
            "18-neighbour lesions, detected where at least 25 % is covered by a single lesion of "
            "which at most 70 % lies outside.",
        ),
    ],
)
def test_a_rule_names_its_preset_and_all_its_numbers(preset: str, said: str) -> None:
    assert columns.rule(PRESETS[preset]) == f"Lesion-wise scores by the preset {preset}: {said}"


def test_a_table_is_read_back_as_texts(tmp_path: Path) -> None:
    row = {"scan": "sub-01", "status": "failed", "error": "a\ttab and\na line", "lesions": 2}
    table, _ = columns.write(tmp_path / "t.tsv", columns.SEGMENTED_SCANS, [row])
    names = [column.name for column in columns.SEGMENTED_SCANS]
    [read] = bids.read_table(table, own=names)
    assert list(read) == names
    assert (read["scan"], read["error"], read["lesions"]) == ("sub-01", "a tab and a line", "2")
    assert read["mask"] == ""
    before = table.read_text()
    assert columns.write(table, columns.SEGMENTED_SCANS, [read])[0].read_text() == before
