"""A table as text: TSV, Markdown, LaTeX or HTML."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_MARKDOWN = re.compile(r"[\\`*|]|<(?=[A-Za-z/!?])|(?<!\w)_|_(?!\w)")
_MINUS = re.compile(r"(?<!\w)-(?=\d)")
_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        **{mark: f"\\{mark}" for mark in "&%$#_{}"},
        **{mark: f"${mark}$" for mark in "<>|"},
        "±": r"$\pm$",
        "³": "$^3$",
    }
)


@dataclass(frozen=True)
class Cell:
    """What stands in one place of a table."""

    text: str
    bold: bool = False


Row = tuple[Cell, ...]


def row(*texts: str) -> Row:
    """Cells with nothing in bold."""
    return tuple(Cell(text) for text in texts)


@dataclass(frozen=True)
class Table:
    """A table, its cells written out already.

    Attributes
    ----------
    title : str
    header : tuple of str
    rows : tuple of Row
        Each as long as the header.
    footer : tuple of Row
        Rows below a rule, such as the numbers of scans.
    notes : tuple of str
        Sentences below.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[Row, ...]
    footer: tuple[Row, ...] = ()
    notes: tuple[str, ...] = ()


def tsv(table: Table) -> str:
    """Header, rows and footer, separated by tabs; a bold cell ends in ``*``.

    Title and notes are left out, so that every line has the same columns.
    """
    lines = [[_plain(name) for name in table.header]]
    lines += [
        [_plain(cell.text) + "*" * cell.bold for cell in line]
        for line in (*table.rows, *table.footer)
    ]
    return "".join("\t".join(line) + "\n" for line in lines)


def markdown(table: Table) -> str:
    """Title, table and notes in GitHub's Markdown, its columns aligned in the text, too."""
    lines = [[_escaped(name) for name in table.header]]
    lines += [
        [f"**{_escaped(c.text)}**" if c.bold else _escaped(c.text) for c in line]
        for line in (*table.rows, *table.footer)
    ]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    shown = [_piped(lines[0], widths), _piped(rule, widths)]
    shown += [_piped(line, widths) for line in lines[1:]]
    notes = "".join(f"\n{_escaped(note)}\n" for note in table.notes)
    return f"**{_escaped(table.title)}**\n\n" + "\n".join(shown) + "\n" + notes


def latex(table: Table) -> str:
    """Return a ``table`` environment, to be set with the package booktabs."""
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_set(table.title)}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}",
        r"\toprule",
        " & ".join(map(_set, table.header)) + r" \\",
        r"\midrule",
        *map(_set_row, table.rows),
    ]
    if table.footer:
        lines += [r"\midrule", *map(_set_row, table.footer)]
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [rf"\par {_set(note)}" for note in table.notes]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def html(table: Table) -> str:
    """Return a ``table`` element in a box of its own that scrolls, its notes below."""
    caption = f"<caption>{escape(table.title)}</caption>"
    head = "".join(f'<th scope="col">{escape(_plain(name))}</th>' for name in table.header)
    lines = [f"<thead><tr>{head}</tr></thead>", "<tbody>", *map(_html_row, table.rows), "</tbody>"]
    if table.footer:
        lines += ["<tfoot>", *map(_html_row, table.footer), "</tfoot>"]
    box = f'<div class="table" role="region" tabindex="0" aria-label="{escape(table.title)}">'
    notes = [f'<p class="note">{escape(_plain(note))}</p>' for note in table.notes]
    return "\n".join([box, "<table>", caption, *lines, "</table>", "</div>", *notes]) + "\n"


def _plain(text: str) -> str:
    return " ".join(text.split())


def _escaped(text: str) -> str:
    return _MARKDOWN.sub(r"\\\g<0>", _plain(text))


def _piped(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(cells, widths, strict=True)
    padded = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
    return f"| {' | '.join(padded)} |"


def _set(text: str) -> str:
    return _MINUS.sub("$-$", _plain(text).translate(_LATEX))


def _set_row(line: Row) -> str:
    cells = (rf"\textbf{{{_set(c.text)}}}" if c.bold else _set(c.text) for c in line)
    return " & ".join(cells) + r" \\"


def _html_row(line: Row) -> str:
    first, *others = (
        f"<strong>{escape(_plain(c.text))}</strong>" if c.bold else escape(_plain(c.text))
        for c in line
    )
    cells = "".join(f"<td>{text}</td>" for text in others)
    return f'<tr><th scope="row">{first}</th>{cells}</tr>'
