"""Every block of code in README.md and docs/ runs as written, in the order of its page.

A block that cannot run here stands behind a comment that says why, `<!-- not run: reason -->`.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "testing_data"
DOCS = ROOT / "docs"
PAGES = {"README": ROOT / "README.md"} | {
    page.relative_to(DOCS).with_suffix("").as_posix(): page for page in sorted(DOCS.rglob("*.md"))
}
BLOCK = re.compile(r"^(<!-- not run: \w[^\n]*-->\n)?```(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RUN, NOT_RUN = ("sh", "python"), ("text", "{toctree}", "{eval-rst}")

AFTER = {"bundles": "train", "tune": "train", "evaluate": "train"}  # where a page goes on
# How what a page takes for granted is made: by its name there.
LESION_FREE = 'grep -q "$(basename "$scan")" people/truth.tsv || cp "$scan" healthy'
PMAP = "BIDS_FOLDER/derivatives/sct_lesion_losses/sub-002/anat/sub-002_label-L_probseg.nii.gz"
INPUTS = {
    "t2.nii.gz": f"cp '{DATA}/t2_fake_lesion.nii.gz' t2.nii.gz",
    "t2_manual.nii.gz": f"cp '{DATA}/t2_fake_lesion_lesion_seg.nii.gz' t2_manual.nii.gz",
    "t2_seg.nii.gz": f"cp '{DATA}/t2_fake_lesion_sc_seg.nii.gz' t2_seg.nii.gz",
    "thresholds.tsv": "printf 'scan\\tpmap\\tthreshold\\tlesion_point\\n"
    f"sub-002_T2w.nii.gz\\t{PMAP}\\t0.3\\t1\\n' >thresholds.tsv",
    "BIDS_FOLDER": "sct_simulate_lesion -preset tiny -n 3 -seed 9 -ofolder BIDS_FOLDER",
    "BIDS_FOLDER/derivatives/sct_lesion_losses": "sct_deepseg_lesion_tuned -i BIDS_FOLDER",
    "BIDS_FOLDER/derivatives/OLD_TOOL": "sct_deepseg_lesion_tuned -i BIDS_FOLDER -bundle dice "
    "-bids 1 -ofolder BIDS_FOLDER/derivatives/OLD_TOOL",
    "bin": f"ln -s '{ROOT}/bin' bin",
    "local": "sct_simulate_lesion -preset tiny -n 5 -seed 8 -ofolder local",
    "healthy": "sct_simulate_lesion -preset tiny -n 4 -seed 7 -ofolder people; mkdir healthy\n"
    f"for scan in people/sub-*/anat/*_T2w.nii.gz; do {LESION_FREE}; done",
    "HEALTHY_BIDS": "sct_simulate_lesion -preset tiny -n 1 -seed 7 -ofolder HEALTHY_BIDS",
    "lst_masks": "mkdir lst_masks\n"
    "find cohort/derivatives/labels -name '*_label-lesion_seg.nii.gz' -exec cp {} lst_masks ';'",
    "second_rater": "cp -r lst_masks second_rater",
    "pmaps": "sct_deepseg_lesion_tuned -i cohort -bundle dice -thr 0 -ofolder pmaps",
}


def run(block: str, language: str, folder: Path) -> None:
    """Run a block in a folder, as somebody who has installed the package and not SCT."""
    home = folder.parent / "home"
    others = os.environ["PATH"].split(os.pathsep)
    without_sct = [found for found in others if not Path(found, "sct_version").exists()]
    path = os.pathsep.join((str(Path(sys.executable).parent), *without_sct))
    env = os.environ | {"HOME": str(home), "PATH": path}
    env.pop("SCT_DIR", None)
    program = {"sh": ["sh", "-eux", "-c"], "python": [sys.executable, "-c"]}[language]
    done = subprocess.run([*program, block], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"{block}\n{done.stdout[-2000:]}\n{done.stderr[-5000:]}"


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Run a page from top to bottom, once; its folder."""
    root = tmp_path_factory.mktemp("pages")
    folders: dict[str, Path] = {}

    def follow(page: str) -> Path:
        if page in folders:
            return folders[page]
        folder = root / page
        if page in AFTER:
            shutil.copytree(follow(AFTER[page]), folder)
        folder.mkdir(exist_ok=True)
        found = [(language, text) for reason, language, text in blocks(page) if not reason]
        text = "".join(text for _, text in found)
        for name, made in INPUTS.items():
            if (
                re.search(rf"(?<![\w/.-]){re.escape(name)}\b", text)
                and not (folder / name).exists()
            ):
                run(made, "sh", folder)
        for language, block in found:
            if language in RUN:
                run(block, language, folder)
        folders[page] = folder
        return folder

    return follow


def blocks(page: str) -> list[tuple[str, str, str]]:
    """Reason not to run it, language and text of every block of a page."""
    return BLOCK.findall(PAGES[page].read_text())


@pytest.mark.parametrize("page", PAGES)
def test_a_block_is_run_or_says_why_not(page: str) -> None:
    found, text = blocks(page), PAGES[page].read_text()
    assert {language for _, language, _ in found} <= {*RUN, *NOT_RUN}
    marked = re.findall("^<!-- not run", text, re.MULTILINE)
    assert len(marked) == sum(bool(reason) for reason, _, _ in found)
    assert text.count("```") == 2 * len(found)
    lines = [line for _, language, block in found if language in RUN for line in block.split("\n")]
    assert max(map(len, lines), default=0) <= 96, "wider than the column of the site"


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if any(not why and kind in RUN for why, kind, _ in blocks(page))],
)
def test_a_page_runs_as_written(page: str, followed: Callable[[str], Path]) -> None:
    assert any(followed(page).iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("page", ["first_steps", "segment"])
def test_files_that_a_page_names_are_there(page: str, followed: Callable[[str], Path]) -> None:
    named: dict[bool, set[str]] = {True: set(), False: set()}
    for line in PAGES[page].read_text().splitlines():
        asked_for = any(option in line for option in ("-r 0", "-qc_page", "-cord sct"))
        named[asked_for] |= set(re.findall(r"`(t2_lesionseg[\w.]*)`", line))
    there = {path.name for path in followed(page).rglob("t2_lesionseg*")}
    assert len(named[False] - named[True]) > 4
    assert named[False] - named[True] <= there
