"""The pages of docs/ make a site; links and options in them, and in README.md, are real."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Options in these are also those of scripts in benchmarks/ and of other tools.
OTHER = {"benchmarks.md", "cohort.md", "contributing.md"}
PAGES = [
    p for p in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))) if p.name not in OTHER
]
HELP = {page.stem: page.read_text() for page in (ROOT / "tests/cli/golden").glob("*.txt")}


def options(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])-[a-z]\w*(?:-[a-z]+)?", text))


def slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    strict = ["-m", "sphinx", "-q", "-E", "-n", "-W", "--keep-going", "-d", str(tmp_path / "trees")]
    made = subprocess.run(
        [sys.executable, *strict, str(ROOT / "docs"), str(tmp_path / "site")],
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
    reference = (tmp_path / "site/reference/commands.html").read_text()
    for command, page in HELP.items():
        assert f'id="{command}"' in reference
        assert all(option in reference for option in options(page))
    api = (tmp_path / "site/reference/api.html").read_text()
    assert "Tversky loss, 1 − (TP + s)" in api
    assert 'id="sct_lesion_losses.thresholds.binarize"' in api


def test_links_of_the_readme_lead_somewhere() -> None:
    text = (ROOT / "README.md").read_text()
    links = re.findall(r"\]\((?!https:)([^)#]*)(?:#([^)]*))?\)", text)
    assert len(links) > 15
    for path, anchor in links:
        assert (ROOT / path).exists(), path
        headings = re.findall(r"^#+ (.*)", (ROOT / path).read_text(), re.M) if anchor else []
        assert not anchor or anchor in map(slug, headings), f"{path}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_option_named_is_one_of_a_command(page: Path) -> None:
    fragments = re.findall(r"(?s)^```sh\n(.*?)^```|`([^`\n]+)`", page.read_text(), re.M)
    lines = [line for pair in fragments for line in "".join(pair).replace("\\\n", "").splitlines()]
    for line in lines:
        before, *called = re.split(r"(?<![\w/.-])(sct_\w+)", line.split("#")[0])
        for name, given in zip(called[::2], called[1::2], strict=True):
            unknown = options(given) - options(HELP.get(name, given))
            assert not unknown, f"{line}: {unknown}"
        if before.startswith("-"):
            unknown = options(line) - options(" ".join(HELP.values()))
            assert not unknown, f"{line}: {unknown}"
