from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from sct_lesion_losses.report.tables import Cell, Table, latex, markdown, row, tsv

SMALL = Table(
    title="Two models",
    header=("Model", "V-F1", "p"),
    rows=(
        (Cell("focal_tversky"), Cell("0.40±0.10", bold=True), Cell("<0.0001")),
        row("a", "-0.1", ""),
    ),
    footer=(row("n", "26", "26"),),
    notes=("5 % of mm³ & more.",),
)

texts = st.text(st.characters(blacklist_categories=("Cs",)), max_size=20)


def test_a_table_as_tsv() -> None:
    assert tsv(SMALL) == (
        "Model\tV-F1\tp\nfocal_tversky\t0.40±0.10*\t<0.0001\na\t-0.1\t\nn\t26\t26\n"
    )


def test_a_table_as_markdown() -> None:
    assert markdown(SMALL) == (
        "**Two models**\n\n"
        "| Model         |          V-F1 |       p |\n"
        "| ------------- | ------------: | ------: |\n"
        "| focal_tversky | **0.40±0.10** | <0.0001 |\n"
        "| a             |          -0.1 |         |\n"
        "| n             |            26 |      26 |\n"
        "\n5 % of mm³ & more.\n"
    )


def test_a_table_as_latex() -> None:
    assert latex(SMALL) == (
        "\\begin{table}\n\\centering\n\\caption{Two models}\n\\begin{tabular}{lrr}\n\\toprule\n"
        "Model & V-F1 & p \\\\\n\\midrule\n"
        "focal\\_tversky & \\textbf{0.40$\\pm$0.10} & $<$0.0001 \\\\\n"
        "a & $-$0.1 &  \\\\\n"
        "\\midrule\nn & 26 & 26 \\\\\n\\bottomrule\n\\end{tabular}\n"
        "\\par 5 \\% of mm$^3$ \\& more.\n\\end{table}\n"
    )


def test_a_table_without_rows_is_its_header() -> None:
    empty = Table("None", ("A", "B"), ())
    assert tsv(empty) == "A\tB\n"
    assert markdown(empty) == "**None**\n\n| A   |   B |\n| --- | --: |\n"
    assert "\\midrule\n\\bottomrule" in latex(empty)


def test_marks_of_markdown_in_a_name_are_escaped() -> None:
    shown = markdown(Table("t", ("x",), (row("a|b*c<b>_d_`e\\"),)))
    assert r"a\|b\*c\<b>\_d\_\`e\\" in shown


def test_marks_of_latex_in_a_name_are_escaped() -> None:
    shown = latex(Table("t", ("x",), (row(r"a\b{c}~^#$%&_|"),)))
    expected = r"a\textbackslash{}b\{c\}\textasciitilde{}\textasciicircum{}\#\$\%\&\_$|$ \\"
    assert expected in shown


@given(st.lists(st.tuples(texts, texts, st.booleans()), max_size=5))
def test_no_text_breaks_the_columns(drawn: list[tuple[str, str, bool]]) -> None:
    rows = tuple((Cell(a), Cell(b, bold=bold)) for a, b, bold in drawn)
    table = Table("t", ("one", "two"), rows)
    lines = tsv(table).split("\n")
    assert len(lines) == len(rows) + 2
    assert all(line.count("\t") == 1 for line in lines[:-1])
    piped = markdown(table).split("\n")[2:-1]
    assert len(piped) == len(rows) + 2
    assert all(len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) == 3 for line in piped)
    body = latex(table).split("\\midrule\n")[1].split("\\bottomrule")[0]
    assert len(re.findall(r"(?<!\\)&", body)) == len(rows)
