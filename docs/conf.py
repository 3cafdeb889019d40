"""Sphinx settings of the site; the reference of the commands is their own help."""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parent.parent
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")

project = SETUP["metadata"]["name"]
extensions = ["myst_parser", "sphinx.ext.autodoc", "numpydoc"]
exclude_patterns = ["study/table*.md"]
html_theme = "furo"
html_title = project
html_show_copyright = False
html_static_path, html_css_files = ["_static"], ["site.css"]
myst_heading_anchors = 4
numpydoc_show_class_members = False
default_role = "code"  # numpydoc's single backticks
autodoc_typehints = "none"  # the docstrings have them, with shapes
nitpick_ignore_regex = [("py:.*", ".*")]  # there, types are prose


def helped(command: str, module: str, function: str) -> str:
    """Section of a command: its help."""
    code = f"from {module} import {function} as main; main(['-h'])"
    env = os.environ | {"COLUMNS": "80", "PYTHONPATH": str(ROOT)}
    page = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=env
    )
    return f"\n## {command}\n\n```text\n{page.stdout}```\n"


def add_help(_app: Sphinx, name: str, source: list[str]) -> None:
    """Append the help of every command to the page of them."""
    if name == "reference/commands":
        scripts = SETUP["options.entry_points"]["console_scripts"].strip().splitlines()
        for command, function in (line.split(" = ") for line in scripts):
            source[0] += helped(command, *function.split(":"))


def setup(app: Sphinx) -> None:
    """Connect what is generated."""
    app.connect("source-read", add_help)
