from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from sct_lesion_losses.report import tables
from sct_lesion_losses.report.tables import Strong, Table, frame

HEADER = ("Model", "V-F1", "p")
SMALL = Table(
    title="Two models",
    body=frame(HEADER, [("focal_tversky", Strong("0.40±0.10"), "<0.0001"), ("a", "-0.1", "")]),
    footer=frame(HEADER, [("n", "26", "26")]),
    notes=("5 % of mm³ & more.",),
)

texts = st.text(st.characters(blacklist_categories=("Cs",)), max_size=20)


def test_a_table_as_tsv() -> None:
    assert tables.tsv(SMALL) == (
        "Model\tV-F1\tp\nfocal_tversky\t0.40±0.10*\t<0.0001\na\t-0.1\t\nn\t26\t26\n"
    )


def test_a_table_as_markdown() -> None:
    assert tables.markdown(SMALL) == (
        "**Two models**\n\n"
        "| Model         |          V-F1 |       p |\n"
        "| ------------- | ------------: | ------: |\n"
        "| focal_tversky | **0.40±0.10** | <0.0001 |\n"
        "| a             |          -0.1 |         |\n"
        "| n             |            26 |      26 |\n"
        "\n5 % of mm³ & more.\n"
    )


def test_a_table_as_latex() -> None:
    assert tables.latex(SMALL) == (
        "\\begin{table}\n\\centering\n\\caption{Two models}\n\\begin{tabular}{lrr}\n\\toprule\n"
        "Model & V-F1 & p \\\\\n\\midrule\n"
        "focal\\_tversky & \\textbf{0.40$\\pm$0.10} & $<$0.0001 \\\\\n"
        "a & $-$0.1 &  \\\\\n"
        "\\midrule\nn & 26 & 26 \\\\\n\\bottomrule\n\\end{tabular}\n"
        "\\par 5 \\% of mm$^3$ \\& more.\n\\end{table}\n"
    )


def test_a_table_without_rows_is_its_header() -> None:
    empty = Table("None", frame(("A", "B")))
    assert tables.tsv(empty) == "A\tB\n"
    assert tables.markdown(empty) == "**None**\n\n| A   |   B |\n| --- | --: |\n"
    assert "\\midrule\n\\bottomrule" in tables.latex(empty)


def test_marks_of_markdown_in_a_name_are_escaped() -> None:
    shown = tables.markdown(Table("t", frame(("x",), [("a|b*c<b>_d_`e\\",)])))
    assert r"a\|b\*c\<b>\_d\_\`e\\" in shown


def test_marks_of_latex_in_a_name_are_escaped() -> None:
    shown = tables.latex(Table("t", frame(("x",), [(r"a\b{c}~^#$%&_|",)])))
    expected = r"a\textbackslash{}b\{c\}\textasciitilde{}\textasciicircum{}\#\$\%\&\_$|$ \\"
    assert expected in shown


@given(st.lists(st.tuples(texts, texts, st.booleans()), max_size=5))
def test_no_text_breaks_the_columns(drawn: list[tuple[str, str, bool]]) -> None:
    rows = [(a, Strong(b) if bold else b) for a, b, bold in drawn]
    table = Table("t", frame(("one", "two"), rows))
    lines = tables.tsv(table).split("\n")
    assert len(lines) == len(rows) + 2
    assert all(line.count("\t") == 1 for line in lines[:-1])
    piped = tables.markdown(table).split("\n")[2:-1]
    assert len(piped) == len(rows) + 2
    assert all(len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) == 3 for line in piped)
    body = tables.latex(table).split("\\midrule\n")[1].split("\\bottomrule")[0]
    assert len(re.findall(r"(?<!\\)&", body)) == len(rows)
