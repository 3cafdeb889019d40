"""A real SCT, whose commands run in a folder of their own."""

import json
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

Sheets = dict[str, dict[str, list[float | str]]]
# Analyses many pairs of a lesion mask and a cord mask in one process of SCT's own Python.
ANALYSES = """
import contextlib, io, json, os, pickle, sys
from spinalcordtoolbox.scripts import sct_analyze_lesion
here, found = os.getcwd(), []
for mask, cord in json.loads(sys.stdin.read()):
    os.chdir(here)
    args = ["-m", mask, "-s", cord, "-ofolder", here, "-v", "0", *sys.argv[1:]]
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            sct_analyze_lesion.main(args)
    except (Exception, SystemExit) as error:
        found.append(repr(error))
        continue
    name = os.path.basename(mask).split(".")[0]
    with open(os.path.join(here, name + "_analysis.pkl"), "rb") as stream:
        sheets = pickle.load(stream).items()
    found.append({name: sheet.to_dict("list") for name, sheet in sheets})
print("found:" + json.dumps(found, default=float))
"""


@dataclass(frozen=True)
class Sct:
    """A checkout of SCT and a folder to work in."""

    root: Path
    folder: Path

    def run(self, name: str, *args: object) -> subprocess.CompletedProcess[str]:
        """Run one of its commands, as a shell with its folder on the PATH would."""
        words = [str(self.root / "bin" / name), *map(str, args)]
        return subprocess.run(words, cwd=self.folder, capture_output=True, text=True)

    def analyses(self, pairs: Iterable[tuple[Path, Path]], *more: object) -> list[Sheets | str]:
        """Columns of the sheets of `sct_analyze_lesion`, or its error, for every pair of masks."""
        script = (self.root / "bin" / "sct_analyze_lesion").resolve()
        python = re.findall(r"/\S+/python[\d.]*", script.read_text())[0]
        done = subprocess.run(
            [python, "-c", ANALYSES, *map(str, more)],
            cwd=self.folder,
            input=json.dumps([[str(mask), str(cord)] for mask, cord in pairs]),
            capture_output=True,
            text=True,
        )
        told = [line for line in done.stdout.splitlines() if line.startswith("found:")]
        assert told, done.stderr
        found: list[Sheets | str] = json.loads(told[-1].removeprefix("found:"))
        return found
