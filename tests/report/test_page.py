from __future__ import annotations

import base64
from pathlib import Path

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from sct_lesion_losses.report import page
from sct_lesion_losses.report.figures import ReportFigure
from sct_lesion_losses.report.tables import Strong, Table

SMALL = Table(
    "A & B",
    pd.DataFrame({"Model": ["dice"], "p <": [Strong("<0.0001")], "n": ["1"]}, dtype=object),
    footer=pd.DataFrame({"Model": ["n"], "p <": ["26"], "n": [""]}),
    notes=("5 % of mm³.",),
)


def html(text: str, table: Table) -> str:
    return page.html(text, [text], {"parts": table}, text)


def test_a_table_as_html() -> None:
    assert (
        '<div class="table" role="region" tabindex="0" aria-label="A &amp; B">\n<table>\n'
        "<caption>A &amp; B</caption>\n"
        '<thead><tr><th scope="col">Model</th><th scope="col">p &lt;</th><th scope="col">n</th>'
        "</tr></thead>\n<tbody>\n"
        '<tr><th scope="row">dice</th><td><strong>&lt;0.0001</strong></td><td>1</td></tr>\n'
        "</tbody>\n<tfoot>\n"
        '<tr><th scope="row">n</th><td>26</td><td></td></tr>\n</tfoot>\n</table>\n</div>\n'
        '<p class="note">5 % of mm³.</p>\n'
    ) in html("", SMALL)


@given(st.text(alphabet="<>&\"'/a b=", min_size=1, max_size=30))
def test_no_text_becomes_markup(text: str) -> None:
    table = Table(text, pd.DataFrame({text: [text]}), notes=(text,))
    plain = Table("a", pd.DataFrame({"a": ["a"]}), notes=("a",))
    one, other = html(text, table), html("a", plain)
    for mark in '<>"':
        assert one.count(mark) == other.count(mark)


def test_folders_are_cut_off_what_is_missing_from_the_study() -> None:
    made = page.html("", ["see /home/me/out/x.json: at 1/2, https://host/a/b"], {})
    assert "see x.json: at 1/2, https://host/a/b" in made


def test_a_figure_is_inlined_to_the_byte_with_its_caption(tmp_path: Path, monkeypatch) -> None:
    one = ReportFigure("cohort", "none.none", 'Figure 1. What & "why". More.')
    monkeypatch.setattr(page, "FIGURES", {"one": one, "not_drawn": one})
    (tmp_path / "one.png").write_bytes(b"\x89PNG content")
    (tmp_path / "one.svg").write_bytes(b"<svg>a longer content</svg>")
    made = page.html("", [], {}, folders=[tmp_path])
    encoded = base64.b64encode(b"\x89PNG content").decode()
    assert made.count("<figure>") == 1
    assert "<pre>" not in made  # there is no command line
    assert f'src="data:image/png;base64,{encoded}" alt="What &amp; &#34;why&#34;"' in made
    assert "<figcaption>Figure 1. What &amp; &#34;why&#34;. More.</figcaption>" in made
