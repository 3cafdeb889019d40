from __future__ import annotations

import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sct_lesion_losses.errors import OutputError
from sct_lesion_losses.report import page
from sct_lesion_losses.report.page import Section
from sct_lesion_losses.report.tables import Cell, Table, html, row

SMALL = Table(
    "A & B",
    ("Model", "p <"),
    ((Cell("dice"), Cell("<0.0001", bold=True)),),
    footer=(row("n", "26"),),
    notes=("5 % of mm³.",),
)


def test_a_table_as_html() -> None:
    assert html(SMALL) == (
        '<div class="table" role="region" tabindex="0" aria-label="A &amp; B">\n<table>\n'
        "<caption>A &amp; B</caption>\n"
        '<thead><tr><th scope="col">Model</th><th scope="col">p &lt;</th></tr></thead>\n<tbody>\n'
        '<tr><th scope="row">dice</th><td><strong>&lt;0.0001</strong></td></tr>\n</tbody>\n'
        '<tfoot>\n<tr><th scope="row">n</th><td>26</td></tr>\n</tfoot>\n</table>\n</div>\n'
        '<p class="note">5 % of mm³.</p>\n'
    )


@given(st.text(alphabet="<>&\"'/a b=", max_size=30))
def test_no_text_becomes_markup(text: str) -> None:
    table = Table(text, (text,), ((Cell(text),),), notes=(text,))
    made = [page.paragraph(text), page.heading(text), page.bullets([text]), page.code(text)]
    made += [page.table(table), page.page(text, [], [Section("a", text, ())])]
    empty = Table("", ("",), ((Cell(""),),), notes=("",))
    plain = [page.paragraph(""), page.heading(""), page.bullets([""]), page.code("")]
    plain += [page.table(empty), page.page("", [], [Section("a", "", ())])]
    for one, other in zip(made, plain, strict=True):
        assert one.count("<") == other.count("<")
        assert one.count(">") == other.count(">")
        assert one.count('"') == other.count('"')


def test_a_picture_is_inlined_to_the_byte(tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes(b"\x89PNG content")
    made = page.figure(picture, "What & why", 'a "curve"')
    encoded = base64.b64encode(b"\x89PNG content").decode()
    assert f'src="data:image/png;base64,{encoded}" alt="a &quot;curve&quot;"' in made
    assert "<figcaption>What &amp; why</figcaption>" in made


@pytest.mark.parametrize("name", ["a.jpg", "none.svg"])
def test_what_is_no_picture_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=name):
        page.figure(tmp_path / name, "", "")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/home/me/out/bundles/dice: cannot write", "dice: cannot write"),
        ("see ~/x/y.json", "see y.json"),
        ("a rate of 1/2, and/or less", "a rate of 1/2, and/or less"),
        ("https://host/a/b", "https://host/a/b"),
    ],
)
def test_folders_of_absolute_paths_are_cut_away(text: str, shown: str) -> None:
    assert page.without_folders(text) == shown
