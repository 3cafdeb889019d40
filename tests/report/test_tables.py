from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scan_rows import NAN, bearing, lesion_free
from sweep_rows import BROAD, NARROW, THRESHOLDS, swept

from sct_lesion_losses.metrics import scores
from sct_lesion_losses.metrics.lesionwise import PRESETS
from sct_lesion_losses.metrics.scores import MEASURES, ScanScore, TruthLesion, between_thresholds
from sct_lesion_losses.metrics.statistics import holm, wilcoxon
from sct_lesion_losses.report import tables
from sct_lesion_losses.report import tables as markup
from sct_lesion_losses.report import tables as numbers
from sct_lesion_losses.report.tables import Table

SCANS = 10
WRITERS = {"tsv": markup.tsv, "md": markup.markdown, "tex": markup.latex}


def rises(*falling: int) -> list[float]:
    """Changes of 0.02 to 0.20, all of another size; the k-th falls for k in `falling`."""
    return [(-0.02 if k in falling else 0.02) * k for k in range(1, SCANS + 1)]


def rows_of(bundle: str, threshold: float, changes: dict[str, list[float]]) -> list[ScanScore]:
    """Ten scans with lesions and two without, at 0.5 and, changed from there, at the tuned one."""
    rows = [bearing(f"s{k}", bundle, 0.5) for k in range(SCANS)]
    for k in range(SCANS):
        measures = {name: 0.4 + by[k] for name, by in changes.items()}
        rows.append(bearing(f"s{k}", bundle, threshold, True, measures, detected=k % 2))
    for at, is_tuned in ((0.5, False), (threshold, True)):
        rows += [lesion_free("f1", bundle, at, is_tuned)]
        rows += [lesion_free("f2", bundle, at, is_tuned, n_predicted=int(is_tuned))]
    return rows


# 12 tests. Ten pairs of which all rise have p = 2 / 1024, of which all but the smallest 4 / 1024,
# of which all but the second smallest 6 / 1024: times 12, 11 and 10 they are 0.023, 0.043, 0.059.
ROWS = [
    *rows_of(
        "focal_tversky",
        0.15,
        {"V-F1": rises(), "V-sensitivity": rises(1), "V-precision": rises(2)},
    ),
    *rows_of("sct", 0.05, {}),
]


def tuned_table(rows: list[ScanScore]) -> Table:
    at_tuned = scores.tuned(rows)
    return tables.tuned(at_tuned, between_thresholds(scores.untuned(rows), at_tuned))


def bold(table: Table) -> set[tuple[str, str]]:
    return {
        (line[0].text, name)
        for line in (*table.rows, *table.footer)
        for name, cell in zip(table.header, line, strict=True)
        if cell.bold
    }


@pytest.mark.parametrize("ending", WRITERS)
@pytest.mark.parametrize("name", ["table1", "table2"])
def test_the_tables_of_the_study_are_golden(testing_data: Path, name: str, ending: str) -> None:
    table = tuned_table(ROWS) if name == "table2" else tables.untuned(scores.untuned(ROWS))
    golden = testing_data / "tables" / f"{name}.{ending}"
    assert WRITERS[ending](table) == golden.read_text(encoding="utf-8")


def test_bold_is_what_the_correction_leaves() -> None:
    assert bold(tuned_table(ROWS)) == {
        ("focal_tversky", "V-F1"),
        ("focal_tversky", "V-sensitivity"),
    }
    assert bold(tables.untuned(scores.untuned(ROWS))) == set()


@settings(max_examples=10)
@given(st.lists(st.sampled_from([0, 1, 2, 3]), min_size=6, max_size=6), st.booleans())
def test_bold_follows_from_the_tests_of_all_models_together(
    falling: list[int], second: bool
) -> None:
    changes = {name: rises(*range(1, 1 + k)) for name, k in zip(MEASURES, falling, strict=True)}
    rows = rows_of("a", 0.3, changes) + (rows_of("b", 0.2, {}) if second else [])
    p = [wilcoxon([0.4] * SCANS, [0.4 + x for x in by]).p for by in changes.values()]
    adjusted = holm(p + [1.0] * (6 if second else 0))
    expected = {("a", n) for n, q in zip(MEASURES, adjusted, strict=False) if q < 0.05}
    assert bold(tuned_table(rows)) == expected


def test_a_column_of_nan_alone_is_unknown_and_has_n_0() -> None:
    free = [lesion_free("f", "a", at, at < 0.5) for at in (0.5, 0.3)]
    table = tuned_table(free)
    assert [cell.text for cell in table.rows[0]] == ["a", "0.3", *["n/a"] * 7, "1.00"]
    assert [cell.text for cell in table.footer[0]] == ["n", "", *["0"] * 7, "1"]
    assert "over 0 tests" in table.notes[-1]


def test_one_undefined_measure_has_a_lower_n_than_the_others() -> None:
    rows = [bearing("s1"), bearing("s2", measures={"L-F1": NAN})]
    (numbers,) = tables.untuned(scores.untuned(rows)).footer
    assert [cell.text for cell in numbers] == ["n", "2", "2", "2", "1", "2", "2", "2", "0"]


def test_models_with_other_numbers_of_scans_have_an_n_of_their_own() -> None:
    rows = [bearing("s1", "a"), bearing("s1", "b"), bearing("s2", "b"), bearing("s1", "c")]
    footer = tables.untuned(scores.untuned(rows)).footer
    assert [(line[0].text, line[1].text) for line in footer] == [("n (a, c)", "1"), ("n (b)", "2")]


def test_without_rows_every_table_is_its_header() -> None:
    for table in tables.study([], []).values():
        assert (table.rows, table.footer) == ((), ())
        for write in WRITERS.values():
            assert table.header[1] in write(table)


def test_one_model_has_no_pair_and_fills_the_other_tables() -> None:
    lesions = [TruthLesion("s1", "s1", "focal_tversky", 0.15, True, 1, 50.0, True)]
    found = tables.study(ROWS[: len(ROWS) // 2], lesions)
    assert found.pop("models").rows == ()
    assert {name: len(table.rows) for name, table in found.items()} == {
        "table1": 1,
        "table2": 1,
        "intervals": 2,
        "thresholds": 6,
        "patients": 1,
        "sites": 1,
        "lesion_sizes": 3,
        "published": 1,
    }
    assert all(len(line) == len(t.header) for t in found.values() for line in (*t.rows, *t.footer))


@pytest.mark.parametrize("preset", list(PRESETS))
def test_every_table_names_the_lesion_preset_with_its_numbers(preset: str) -> None:
    scored = [
        dataclasses.replace(row, lesions=dataclasses.replace(row.lesions, preset=PRESETS[preset]))
        for row in ROWS
    ]
    for name, table in tables.study(scored, []).items():
        assert table.notes.count(numbers.rule(PRESETS[preset])) == 1, name


def test_the_table_of_thresholds_says_what_is_not_tested() -> None:
    found = tables.study([*ROWS, *rows_of("own", 0.5, {})], [])["thresholds"]
    assert [line[-1].text for line in found.rows if line[1].text == "own"] == ["n/a"] * 6
    assert any("tuned to 0.5 is not tested against itself" in note for note in found.notes)
    assert found.rows[1][-1].text == "0.0430"  # as without that model


def test_a_comparison_says_all_of_its_numbers() -> None:
    found = tables.study(ROWS, [])
    texts = [cell.text for cell in found["thresholds"].rows[1]]
    assert texts[:6] == ["V-sensitivity", "focal_tversky", "0.5", "focal_tversky", "0.15", "10"]
    assert texts[6].startswith("+0.11 (+0.0")  # of -0.02, 0.04, ... 0.20: between 0.10 and 0.12
    # The smallest of the ranks 1 to 10 falls: r = (54 - 1) / 55.
    assert texts[7:] == ["10", "1", "+0.96", "0.0039", "0.0430"]
    assert [line[-1].bold for line in found["thresholds"].rows] == [True, True] + [False] * 10
    models = found["models"].rows
    assert [(line[0].text, line[1].text, line[3].text) for line in models] == [
        ("V-F1", "focal_tversky", "sct"),
        ("L-F1", "focal_tversky", "sct"),
    ]


def test_published_values_stand_beside_the_measured() -> None:
    rows = [*ROWS, *rows_of("own", 0.3, {}), *rows_of("mine", 0.3, {})]
    found = tables.beside_published(scores.tuned(rows), {"mine": "tversky"})
    texts = {line[0].text: [cell.text for cell in line[1:]] for line in found.rows}
    assert texts["focal_tversky"] == [
        *("0.15", "0.15", "0.51", "0.31", "0.40", "0.26", "0.50", "0.65", "0.50", "0.22")
    ]
    assert texts["mine"][1::2] == ["0.3", "0.41", "0.40", "0.65", "0.26"]
    assert texts["own"][1::2] == ["n/a"] * 5
    assert len(set(found.header)) == len(found.header)
    assert found.header[3:5] == ("V-F1", "V-F1, published")


def test_the_range_of_thresholds_near_the_best_is_listed_for_each_model() -> None:
    free = [lesion_free("f", "free", 0.5, True)]
    rule = [bearing("s", "sct as shipped", None, True)]
    rows = [*swept("dice", BROAD, 0.35), *swept("bce", NARROW, 0.3), *free, *rule]
    found = [[cell.text for cell in line] for line in tables.over_thresholds(rows).rows]
    assert found == [
        ["dice", "0.5", "0.50", "0.2 to 0.8", "0.60", "0.35"],
        ["bce", "0.3", "0.40", "0.3", "0.00", "0.3"],
    ]


@given(st.dictionaries(st.sampled_from(THRESHOLDS), st.floats(0, 1, allow_nan=False), min_size=1))
def test_a_plateau_holds_the_best_and_nothing_far_below_it(curve: dict[float, float]) -> None:
    low, high = tables.plateau(curve)
    best = tables.best_of(curve)
    assert low <= best <= high
    assert curve[best] == max(curve.values())
    inside = [value for threshold, value in curve.items() if low <= threshold <= high]
    assert min(inside) >= max(curve.values()) - 0.1 - 1e-9
