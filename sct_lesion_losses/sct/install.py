"""The Spinal Cord Toolbox on this machine: its folder, its files, and its commands."""

from __future__ import annotations

import logging
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from sct_lesion_losses.errors import SctError

VARIABLE = "SCT_DIR"
HOW_TO_INSTALL = f"install it (https://spinalcordtoolbox.com), or set ${VARIABLE} to its folder"
LAST_LINES, MOST_LETTERS = 5, 300  # of what a failed command printed
_TRACEBACK = "Traceback (most recent call last)"
# Escape sequences: colours and cursor movements (CSI), titles (OSC), and the two-letter ones.
ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
# SCT has a Python and libraries of its own; the caller's must not be mixed in, nor the Qt that
# `import cv2` of opencv-python names.
UNSET = (
    "LD_LIBRARY_PATH",
    "PYTHONPATH",
    "PYTHONHOME",
    "QT_QPA_PLATFORM_PLUGIN_PATH",
    "QT_QPA_FONTDIR",
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Installation:
    """An installation of SCT, or a copy of its data alone.

    Attributes
    ----------
    root : Path
        What $SCT_DIR stands for.
    bin : Path or None
        Folder of its commands; None where there are only data.
    """

    root: Path
    bin: Path | None

    @property
    def data(self) -> Path:
        """Folder of its models."""
        return self.root / "data"

    @property
    def version(self) -> str | None:
        """Version it states, None where it states none."""
        try:
            text = (self.root / "spinalcordtoolbox" / "version.txt").read_text("utf-8")
        except (OSError, UnicodeDecodeError):
            return None
        return text.strip() or None

    def has(self, command: str) -> bool:
        """Tell whether one of SCT's commands is there, rather than only its models."""
        return self.bin is not None and (self.bin / command).exists()

    def read(self, folder: str, name: str, remedy: str = "") -> bytes:
        """Contents of a file of a data set of SCT's.

        Parameters
        ----------
        folder : str
            Folder of the data set.
        name : str
            File in it.
        remedy : str
            See `run`.

        Raises
        ------
        SctError
            It is not there.
        """
        path = self.data / folder / name
        try:
            return path.read_bytes()
        except OSError as error:
            download = folder.startswith("deepseg_")  # the others come with SCT itself
            raise SctError(
                f"SCT has no data/{folder}/{name} ({error.strerror}); "
                + (f"get it with: sct_download_data -d {folder}" if download else "reinstall SCT")
                + (remedy and f", or {remedy}")
            ) from error

    def run(self, command: Sequence[str], folder: Path | None = None, remedy: str = "") -> str:
        """Run one of SCT's commands and return what it printed, without colours.

        Parameters
        ----------
        command : sequence of str
            Its name and its arguments; they never pass through a shell.
        folder : Path, optional
            Working directory.
        remedy : str
            What to do without the command, as the end of a message.

        Raises
        ------
        SctError
            SCT has no such command, or the command failed: what it said last, and the remedy. All
            that it said is logged for debugging.
        """
        name, *arguments = command
        program = None if self.bin is None else shutil.which(name, path=str(self.bin))
        if program is None:
            raise SctError(f"SCT's command {name} was not found; {_without(remedy)}")
        kept = {key: value for key, value in os.environ.items() if key not in UNSET}
        path = os.pathsep.join([str(self.bin), kept.get("PATH", os.defpath)])
        try:
            done = subprocess.run(
                [program, *arguments],
                cwd=folder,
                env=kept | {VARIABLE: str(self.root), "PATH": path},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                check=False,
            )
        except (OSError, ValueError) as error:
            raise SctError(
                f"SCT's command {name} cannot be run: {error}; {_without(remedy)}"
            ) from error
        printed = ANSI.sub("", done.stdout.decode("utf-8", errors="replace"))
        if done.returncode != 0:
            logger.debug("%s", printed)
            words = [PurePath(word).name if os.sep in word else word for word in command]
            raise SctError(
                f"SCT's command failed with exit status {done.returncode}, {shlex.join(words)}: "
                f"{_reason(printed)}{remedy and '; '}{remedy}"
            )
        return printed


def find() -> Installation | None:
    """Find SCT: at $SCT_DIR, else where `sct_version` on the PATH leads; None where it is not."""
    command = shutil.which("sct_version")
    folder = None if command is None else Path(command).parent
    above = None if command is None else _root_above(command)
    given = os.environ.get(VARIABLE, "")
    root = Path(given).expanduser()
    if given and root.is_dir():
        if shutil.which("sct_version", path=str(root / "bin")):
            return Installation(root, root / "bin")
        return Installation(root, folder if above == root.resolve() else None)
    if given:
        logger.warning("$%s is no folder: looking for SCT on the PATH", VARIABLE)
    return None if folder is None else Installation(above or folder.parent, folder)


def require(remedy: str = "") -> Installation:
    """Find SCT, or raise SctError saying how to install it, or the remedy that goes without."""
    installation = find()
    if installation is None:
        raise SctError(f"the Spinal Cord Toolbox was not found; {_without(remedy)}")
    return installation


def _reason(printed: str) -> str:
    """Last words of a failed command: the beginning of the exception where it ended by one."""
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    raised = _TRACEBACK in printed
    last = " ".join(lines[-1:] if raised else lines[-LAST_LINES:])
    if not last:
        return "it said nothing"
    if len(last) <= MOST_LETTERS:
        return last
    return f"{last[:MOST_LETTERS]}…" if raised else f"…{last[-MOST_LETTERS:]}"


def _without(remedy: str) -> str:
    return f"{remedy}, or {HOW_TO_INSTALL}" if remedy else HOW_TO_INSTALL


def _root_above(command: str) -> Path | None:
    """Nearest folder above a command that looks like $SCT_DIR."""
    for folder in Path(command).resolve().parents[:-1]:
        if (folder / "data").is_dir() and (folder / "spinalcordtoolbox").is_dir():
            return folder
    return None
