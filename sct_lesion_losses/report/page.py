"""An HTML page that is complete in itself: style and pictures inlined, no script, no font."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from sct_lesion_losses.errors import OutputError
from sct_lesion_losses.report import tables
from sct_lesion_losses.report.tables import Table

_TYPES = {".png": "image/png", ".svg": "image/svg+xml"}
_FOLDERS = re.compile(r"(?<![\w./:~])~?/(?:[^\s/:'\",;()]+/)+")
_STYLE = """\
:root { color-scheme: light dark; --text: #1c2126; --quiet: #57606a; --line: #d0d7de;
  --back: #ffffff; --shade: #f4f6f8; --link: #0b5cad; }
@media (prefers-color-scheme: dark) { :root { --text: #dde3e9; --quiet: #9aa5b1; --line: #3a434d;
  --back: #15191e; --shade: #1e242b; --link: #79b8ff; } }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; padding: 1.5rem 1.25rem 4rem; max-width: 84rem; background: var(--back);
  color: var(--text); font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0.5rem 0; }
h2 { font-size: 1.3rem; margin: 2.75rem 0 0.75rem; padding-top: 0.75rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.75rem 0 0.5rem; }
p, li { max-width: 46rem; overflow-wrap: anywhere; }
a { color: var(--link); }
.lead, .note, figcaption, caption { color: var(--quiet); }
.note, figcaption { font-size: 0.875rem; }
nav ul { columns: 16rem; padding-left: 1.2rem; }
.aside { border-left: 4px solid #b35900; background: var(--shade); padding: 0.6rem 0.9rem;
  max-width: 46rem; }
.table { overflow-x: auto; margin: 1.25rem 0 0.5rem; border: 1px solid var(--line);
  border-radius: 6px; }
.table:focus-visible { outline: 2px solid var(--link); }
table { border-collapse: collapse; width: 100%; font-size: 0.875rem;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: 0.5rem 0.7rem; font-weight: 600; }
th, td { padding: 0.35rem 0.5rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
thead th { border-bottom: 1px solid var(--line); background: var(--shade); vertical-align: bottom; }
tbody th, tfoot th { font-weight: 500; }
tbody tr + tr > * { border-top: 1px solid var(--line); }
tfoot tr > * { border-top: 1px solid var(--line); color: var(--quiet); }
.wrapped td { white-space: normal; text-align: left; overflow-wrap: anywhere; min-width: 8rem; }
.wrapped thead th { text-align: left; }
figure { margin: 1.5rem 0; max-width: 54rem; }
.picture { overflow-x: auto; background: #ffffff; border: 1px solid var(--line);
  border-radius: 6px; }
.picture img { display: block; width: 100%; min-width: 36rem; height: auto; }
figcaption { margin-top: 0.5rem; max-width: 46rem; }
pre { overflow-x: auto; background: var(--shade); padding: 0.7rem 0.9rem; border-radius: 6px;
  font-size: 0.875rem; white-space: pre-wrap; overflow-wrap: anywhere; }
@media print { :root { color-scheme: light; --text: #000000; --quiet: #333333; --line: #999999;
  --back: #ffffff; --shade: #ffffff; --link: #000000; }
  body { max-width: none; padding: 0; font-size: 10pt; } nav { display: none; }
  .table, .picture { overflow: visible; border: 0; } .picture img { min-width: 0; }
  table { font-size: 7pt; }
  th, td { padding: 1pt 3pt; white-space: normal; } figure, tr { break-inside: avoid; }
  h2, h3, caption { break-after: avoid; } a { text-decoration: none; } }
"""


@dataclass(frozen=True)
class Section:
    """A section of a page.

    Attributes
    ----------
    identifier : str
        What links to it say.
    title : str
    parts : tuple of str
        HTML, in order.
    """

    identifier: str
    title: str
    parts: tuple[str, ...]


def page(title: str, before: Sequence[str], sections: Sequence[Section]) -> str:
    """Put a page together.

    Parameters
    ----------
    title : str
    before : sequence of str
        HTML between the title and the table of contents.
    sections : sequence of Section
    """
    contents = "".join(
        f'<li><a href="#{escape(s.identifier)}">{escape(s.title)}</a></li>\n' for s in sections
    )
    body = "".join(
        f'<section id="{escape(s.identifier)}" aria-labelledby="{escape(s.identifier)}-title">\n'
        f'<h2 id="{escape(s.identifier)}-title">{escape(s.title)}</h2>\n'
        + "".join(s.parts)
        + "</section>\n"
        for s in sections
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{_STYLE}</style>\n</head>\n<body>\n"
        f"<header>\n<h1>{escape(title)}</h1>\n{''.join(before)}</header>\n"
        f'<nav aria-label="Contents">\n<ul>\n{contents}</ul>\n</nav>\n'
        f"<main>\n{body}</main>\n</body>\n</html>\n"
    )


def paragraph(text: str, kind: str = "") -> str:
    """Return a paragraph; `kind` is a class of the style: lead, note or aside."""
    shown = f' class="{kind}"' if kind else ""
    return f"<p{shown}>{escape(text)}</p>\n"


def heading(text: str) -> str:
    """Return a heading within a section."""
    return f"<h3>{escape(text)}</h3>\n"


def bullets(texts: Sequence[str]) -> str:
    """Return a list."""
    return "<ul>\n" + "".join(f"<li>{escape(text)}</li>\n" for text in texts) + "</ul>\n"


def code(text: str) -> str:
    """Return text as it is typed."""
    return f"<pre><code>{escape(text)}</code></pre>\n"


def table(content: Table, wrapped: bool = False) -> str:
    """Return a table; `wrapped` lets its cells break into lines, for words more than numbers."""
    made = tables.html(content)
    return made.replace('class="table"', 'class="table wrapped"', 1) if wrapped else made


def figure(picture: Path, caption: str, alt: str) -> str:
    """Return a picture with its caption, the file's contents inlined.

    Raises
    ------
    OutputError
        It cannot be read, or is neither PNG nor SVG.
    """
    kind = _TYPES.get(picture.suffix.lower())
    if kind is None:
        raise OutputError(f"{picture}: expected a picture that ends in {' or '.join(_TYPES)}")
    try:
        content = base64.b64encode(picture.read_bytes()).decode("ascii")
    except OSError as error:
        raise OutputError(f"{picture}: cannot be read ({error.strerror})") from error
    return (
        '<figure>\n<div class="picture" tabindex="0">'
        f'<img src="data:{kind};base64,{content}" alt="{escape(alt)}"></div>\n'
        f"<figcaption>{escape(caption)}</figcaption>\n</figure>\n"
    )


def without_folders(text: str) -> str:
    """Cut the folders of absolute paths away, so that a page can be shared.

    >>> without_folders("/home/me/study/bundles/dice: cannot write here")
    'dice: cannot write here'
    """
    return _FOLDERS.sub("", text)
