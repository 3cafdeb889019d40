import dataclasses
import math
import re
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from score_rows import NAN, bearing, lesion_free

from sct_lesion_losses.metrics import PRESETS, statistics
from sct_lesion_losses.metrics.patientwise import proportion
from sct_lesion_losses.metrics.scores import MEASURES, ScanScore, TruthLesion
from sct_lesion_losses.metrics.statistics import Interval, holm, spread, wilcoxon
from sct_lesion_losses.report import columns, tables
from sct_lesion_losses.report.tables import WRITERS, Strong, Table
from sct_lesion_losses.thresholds import THRESHOLDS

SCANS = 10


def rises(*falling: int) -> list[float]:
    """Changes of 0.02 to 0.20, all of another size; the k-th falls for k in `falling`."""
    return [(-0.02 if k in falling else 0.02) * k for k in range(1, SCANS + 1)]


def evaluated(bundle: str, threshold: float, changes: dict[str, list[float]]) -> list[ScanScore]:
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
    *evaluated(
        "focal_tversky", 0.15, {"V-F1": rises(), "V-sensitivity": rises(1), "V-precision": rises(2)}
    ),
    *evaluated("sct", 0.05, {}),
]


HEADER = ("Model", "V-F1", "p")
SMALL = Table(
    title="Two models",
    body=pd.DataFrame(
        [("focal_tversky", Strong("0.40±0.10"), "<0.0001"), ("a", "-0.1", "")],
        columns=HEADER,
        dtype=object,
    ),
    footer=pd.DataFrame([("n", "26", "26")], columns=HEADER),
    notes=("5 % of mm³ & more.",),
)


def table(name: str, rows: list[ScanScore], published: dict[str, str] | None = None) -> Table:
    return tables.study(rows, [], published or {})[name]


def texts(part: pd.DataFrame) -> list[list[str]]:
    return part.values.tolist()


def body(name: str, rows: list[ScanScore], **more) -> list[list[str]]:
    return texts(table(name, rows, **more).body)


def bold(found: Table) -> set[tuple[str, str]]:
    return {
        (line[0], name)
        for line in (*texts(found.body), *texts(found.footer))
        for name, text in zip(found.body.columns, line, strict=True)
        if isinstance(text, Strong)
    }


@pytest.mark.parametrize("ending", WRITERS)
@pytest.mark.parametrize("name", ["small", "table1", "table2"])
def test_tables_are_golden(testing_data: Path, name: str, ending: str) -> None:
    golden = testing_data / "tables" / f"{name}.{ending}"
    found = SMALL if name == "small" else table(name, ROWS)
    assert WRITERS[ending](found) == golden.read_text(encoding="utf-8")


@settings(max_examples=10)
@given(st.lists(st.sampled_from([0, 1, 2, 3]), min_size=6, max_size=6), st.booleans())
def test_bold_follows_from_the_tests_of_all_models_together(
    falling: list[int], second: bool
) -> None:
    changes = {name: rises(*range(1, 1 + k)) for name, k in zip(MEASURES, falling, strict=True)}
    rows = evaluated("a", 0.3, changes) + (evaluated("b", 0.2, {}) if second else [])
    p = [wilcoxon([0.4] * SCANS, [0.4 + x for x in by]).p for by in changes.values()]
    adjusted = holm(p + [1.0] * (6 if second else 0))
    expected = {("a", n) for n, q in zip(MEASURES, adjusted, strict=False) if q < 0.05}
    found = tables.study(rows, [], {})
    assert bold(found["table2"]) == expected
    assert bold(found["table1"]) == set()


def test_a_column_of_nan_alone_is_unknown_and_has_n_0() -> None:
    found = table("table2", [lesion_free("f", "a", at, at < 0.5) for at in (0.5, 0.3)])
    assert texts(found.body) == [["a", "0.3", *["n/a"] * 7, "1.00"]]
    assert texts(found.footer) == [["n", "", *["0"] * 7, "1"]]
    assert "over 0 tests" in found.notes[-1]


def test_numbers_of_scans_are_those_of_each_measure_and_of_the_models_alike() -> None:
    rows = [bearing("s1", "a"), bearing("s1", "b"), bearing("s2", "b", measures={"L-F1": NAN})]
    rows.append(bearing("s1", "c"))
    assert texts(table("table1", rows).footer) == [
        ["n (a, c)", *["1"] * 7, "0"],
        ["n (b)", "2", "2", "2", "1", "2", "2", "2", "0"],
    ]


def test_without_rows_every_table_is_its_header() -> None:
    for found in tables.study([], [], {}).values():
        assert len(found.body) == len(found.footer) == 0
        for write in WRITERS.values():
            assert found.body.columns[1] in write(found)


def test_one_model_has_no_pair_and_fills_the_other_tables() -> None:
    lesions = [TruthLesion(bearing("s1", "focal_tversky", 0.15, True), 1, 50.0, True)]
    found = tables.study(ROWS[: len(ROWS) // 2], lesions, {})
    assert {name: len(one.body) for name, one in found.items()} == {
        **{"table1": 1, "table2": 1, "intervals": 2, "thresholds": 6, "models": 0},
        **{"patients": 1, "sites": 1, "lesion_sizes": 3, "published": 1},
    }


@pytest.mark.parametrize("preset", list(PRESETS))
def test_every_table_names_the_lesion_preset_with_its_numbers(preset: str) -> None:
    scored = [
        dataclasses.replace(row, lesions=dataclasses.replace(row.lesions, preset=PRESETS[preset]))
        for row in ROWS
    ]
    for name, found in tables.study(scored, [], {}).items():
        assert found.notes.count(columns.rule(PRESETS[preset])) == 1, name


def test_a_comparison_says_all_of_its_numbers_and_what_is_not_tested() -> None:
    found = tables.study([*ROWS, *evaluated("own", 0.5, {})], [], {})
    lines = texts(found["thresholds"].body)
    assert lines[1][:6] == ["V-sensitivity", "focal_tversky", "0.5", "focal_tversky", "0.15", "10"]
    assert lines[1][6].startswith("+0.11 (+0.0")  # of -0.02, 0.04, ... 0.20: from 0.10 to 0.12
    # The smallest of the ranks 1 to 10 falls: r = (54 - 1) / 55. Corrected as without "own".
    assert lines[1][7:] == ["10", "1", "+0.96", "0.0039", "0.0430"]
    assert [isinstance(line[-1], Strong) for line in lines] == [True, True] + [False] * 16
    assert [line[-1] for line in lines if line[1] == "own"] == ["n/a"] * 6
    assert any("is not tested against itself" in note for note in found["thresholds"].notes)
    models = texts(found["models"].body)
    assert [(line[0], line[1], line[3]) for line in models[:2]] == [
        ("V-F1", "focal_tversky", "sct"),
        ("L-F1", "focal_tversky", "sct"),
    ]


def test_published_values_stand_beside_the_measured() -> None:
    rows = [*ROWS, *evaluated("own", 0.3, {}), *evaluated("mine", 0.3, {})]
    found = table("published", rows, {"mine": "tversky"})
    assert [*found.body.columns[3:5]] == ["V-F1", "V-F1, published"]
    lines = {line[0]: line[1:] for line in texts(found.body)}
    assert lines["focal_tversky"] == [
        *("0.15", "0.15", "0.51", "0.31", "0.40", "0.26", "0.50", "0.65", "0.50", "0.22")
    ]
    assert lines["mine"][1::2] == ["0.3", "0.41", "0.40", "0.65", "0.26"]
    assert lines["own"][1::2] == ["n/a"] * 5


def test_published_thresholds_are_of_the_grid_and_specificities_shares_of_the_lesion_free() -> None:
    shares = {f"{k / 46:.2f}" for k in range(47)}  # of the 46 unseen scans without lesions
    for threshold, *_, specificity in tables.PUBLISHED.values():
        assert float(threshold) in THRESHOLDS
        assert specificity in shares
    assert set(tables.PUBLISHED) == {
        *("bce", "combo", "dice", "focal_tversky", "generalized_dice", "log_cosh_dice", "sct"),
        "tversky",
    }


def test_both_rules_of_patient_wise_scores_stand_side_by_side() -> None:
    rows = [bearing(f"s{k}", "a", 0.3, True, detected=int(k < 15)) for k in range(26)]
    rows += [lesion_free("f", "a", 0.3, True), lesion_free("g", "a", 0.3, True, n_predicted=2)]
    (line,) = body("patients", rows)
    assert line[2:5] == ["0.58 (0.39 to 0.74)", "1.00 (0.87 to 1.00)", "0.50 (0.09 to 0.91)"]
    assert [*line[:2], *line[5:]] == ["a", "0.3", "26", "2"]


def test_sites_are_sorted_and_scans_of_none_come_last() -> None:
    rows = [
        bearing("s1", "a", 0.3, True, {"V-F1": 0.2}),
        bearing("s2", "a", 0.3, True, {"V-F1": 0.6}, site="Lyon"),
        bearing("s3", "a", 0.3, True, {"V-F1": 0.8}, site="Lyon", detected=0),
        lesion_free("s4", "a", 0.3, True, site="Basel"),
        bearing("s2", "b", 0.5, True, {"V-F1": 0.6}, site="Lyon"),
    ]
    # Of 0.6 and 0.8: median and mean 0.7, deviation 0.2 / sqrt(2).
    one = ["0.40 (0.40±n/a)", "n/a", "1.00", "n/a", "1", "0"]
    assert body("sites", rows) == [
        ["Basel", "a", "0.3", "n/a", "n/a", "n/a", "n/a", "n/a", "1.00", "0", "1"],
        [
            *("Lyon", "a", "0.3", "0.70 (0.70±0.14)", "0.60 to 0.80"),
            *("0.40 (0.40±0.00)", "0.40 to 0.40", "0.50", "n/a", "2", "0"),
        ],
        ["Lyon", "b", "0.5", "0.60 (0.60±n/a)", "n/a", *one],
        ["n/a", "a", "0.3", "0.20 (0.20±n/a)", "n/a", *one],
    ]


def test_lesions_are_counted_by_size_and_an_edge_belongs_above() -> None:
    def lesion(
        label: int, volume_mm3: float, detected: bool, bundle: str = "a", tuned: bool = True
    ) -> TruthLesion:
        scan = bearing("s1", bundle, 0.3, tuned, subject=f"p{label}")
        return TruthLesion(scan, label, volume_mm3, detected)

    lesions = [lesion(1, 29.9, False), lesion(2, 30, True), lesion(3, 99.9, True)]
    lesions += [lesion(1, 29.9, True, "b"), lesion(4, 5, True, tuned=False)]
    assert texts(tables.study([], lesions, {})["lesion_sizes"].body) == [
        ["under 30", "a", "0.3", "1", "0", "0.00 (n/a)"],
        ["under 30", "b", "0.3", "1", "1", "1.00 (n/a)"],
        ["30 to 100", "a", "0.3", "2", "2", "1.00 (1.00 to 1.00)"],
        ["30 to 100", "b", "0.3", "0", "0", "n/a"],
        ["100 or more", "a", "0.3", "0", "0", "n/a"],
        ["100 or more", "b", "0.3", "0", "0", "n/a"],
    ]


@pytest.mark.parametrize(
    ("written", "value", "text"),
    [
        (tables.spread, spread([0.2, 0.4, NAN, 0.0, 0.9, 0.35]), "0.35 (0.37±0.33)"),  # the oracle
        (tables.spread, spread([0.5]), "0.50 (0.50±n/a)"),
        (tables.spread, spread([NAN, NAN]), "n/a"),
        (tables.change, 0.126, "+0.13"),
        (tables.change, -0.126, "-0.13"),
        (tables.change, -0.001, "0.00"),  # a change has a sign unless it is none
        (tables.change, NAN, "n/a"),
        (tables.p_value, 0.04996, "0.0500"),
        (tables.p_value, 0.00009, "<0.0001"),  # never 0
        (tables.p_value, 0.0001, "0.0001"),
        (tables.p_value, NAN, "n/a"),
        (tables.threshold_text, 0.05, "0.05"),
        (tables.threshold_text, 1.0, "1"),
        (tables.threshold_text, None, "n/a"),
        (tables.with_bounds, proportion(15, 26), "0.58 (0.39 to 0.74)"),
        (tables.with_bounds, proportion(0, 0), "n/a"),
        (tables.with_bounds, Interval(0.1, NAN, NAN, 3), "0.10 (n/a)"),
        (tables.bounds, Interval(0.1, -0.05, 0.2, 9), "-0.05 to 0.20"),
        (tables.bounds, Interval(0.1, NAN, NAN, 3), "n/a"),
    ],
)
def test_a_number_is_written(written, value, text: str) -> None:
    assert written(value) == text


V_F1 = {"s1": 0.1, "s2": 0.2, "s3": 0.6, "s4": 0.7, "s5": 0.9}
OWNERS = {"s1": "p", "s2": "p", "s3": "q", "s4": "r", "s5": "r"}


def test_intervals_resample_subjects_and_list_every_model_at_half_and_at_its_tuned_threshold():
    rows = []
    for bundle, threshold, tuned in (
        *(("a", 0.5, False), ("a", 0.3, True)),
        *(("b", 0.5, True), ("rule", None, True)),
    ):
        about = (bundle, threshold, tuned)
        rows += [
            bearing(scan, *about, {"V-F1": v}, subject=OWNERS[scan]) for scan, v in V_F1.items()
        ]
        rows.append(lesion_free("s6", *about))
    # Subjects p and r own two scans each: 0.1 and 0.2, 0.7 and 0.9.
    expected = statistics.interval(list(V_F1.values()), list(OWNERS.values()))
    by_scan = statistics.interval(list(V_F1.values()), list(V_F1))
    assert (expected.low, expected.high) != (by_scan.low, by_scan.high)
    found = body("intervals", rows)
    assert [line[:2] for line in found] == [
        ["a", "0.5"],
        ["a", "0.3"],
        ["b", "0.5"],
        ["rule", "n/a"],
    ]
    assert {line[2] for line in found} == {f"0.60 ({expected.low:.2f} to {expected.high:.2f})"}
    assert [line[-2:] for line in found] == [["5", "3"]] * 4


@pytest.mark.parametrize("other", [NAN, 0.4])
def test_one_subject_alone_has_no_interval(other):
    rows = [bearing("s1", subject="p"), bearing("s2", measures={"V-F1": other}, subject="q")]
    (line,) = body("intervals", rows)
    v_f1 = "0.40 (n/a)" if math.isnan(other) else "0.40 (0.40 to 0.40)"
    assert (line[2], line[5]) == (v_f1, "0.40 (0.40 to 0.40)")  # V-F1, L-F1


strings = st.text(st.characters(blacklist_categories=("Cs",)), max_size=20)


def test_a_table_without_rows_is_its_header() -> None:
    empty = Table("None", pd.DataFrame(columns=["A", "B"]))
    assert tables.tsv(empty) == "A\tB\n"
    assert tables.markdown(empty) == "**None**\n\n| A   |   B |\n| --- | --: |\n"
    assert "\\midrule\n\\bottomrule" in tables.latex(empty)


@pytest.mark.parametrize(
    ("write", "text", "escaped"),
    [
        (tables.markdown, "a|b*c<b>_d_`e\\", r"a\|b\*c\<b>\_d\_\`e\\"),
        (
            tables.latex,
            r"a\b{c}~^#$%&_|",
            r"a\textbackslash{}b\{c\}\textasciitilde{}\textasciicircum{}\#\$\%\&\_$|$ \\",
        ),
    ],
)
def test_marks_in_a_name_are_escaped(write, text: str, escaped: str) -> None:
    assert escaped in write(Table("t", pd.DataFrame({"x": [text]})))


@given(st.lists(st.tuples(strings, strings, st.booleans()), max_size=5))
def test_no_text_breaks_the_columns(drawn: list[tuple[str, str, bool]]) -> None:
    rows = [(a, Strong(b) if bold else b) for a, b, bold in drawn]
    found = Table("t", pd.DataFrame(rows, columns=["one", "two"], dtype=object))
    lines = tables.tsv(found).split("\n")
    assert len(lines) == len(rows) + 2
    assert all(line.count("\t") == 1 for line in lines[:-1])
    piped = tables.markdown(found).split("\n")[2:-1]
    assert len(piped) == len(rows) + 2
    assert all(len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) == 3 for line in piped)
    typeset = tables.latex(found).split("\\midrule\n")[1].split("\\bottomrule")[0]
    assert len(re.findall(r"(?<!\\)&", typeset)) == len(rows)
