"""Entries in SCT's quality-control report."""

from __future__ import annotations

import tempfile
from pathlib import Path

from sct_lesion_losses.errors import OutputError, SctError
from sct_lesion_losses.sct import install

COMMAND = "sct_qc"
REMEDY = "make a page of the masks without SCT by -qc_page page.html in place of -qc"


def installed() -> bool:
    """Tell whether SCT's command for the report is there."""
    found = install.find()
    return found is not None and found.has(COMMAND)


def require() -> None:
    """Raise an SctError where SCT, or its command for the report, is not installed."""
    if not install.require(REMEDY).has(COMMAND):
        raise SctError(f"-qc needs SCT's command {COMMAND}; {REMEDY}, or {install.HOW_TO_INSTALL}")


def entry(
    image: Path,
    mask: Path,
    cord: Path,
    plane: str,
    folder: Path,
    dataset: str | None = None,
    subject: str | None = None,
) -> None:
    """Add a lesion mask to a QC report by `sct_qc`.

    SCT keeps its working directory and its command line in the report. It is therefore run in a
    temporary folder, on links: the report holds the names of the files but not where they lie.

    Parameters
    ----------
    image, mask, cord : Path
        Scan, lesion mask, and cord mask or centerline, on one grid.
    plane : {"axial", "sagittal"}
    folder : Path
        The report's; made where it is missing.
    dataset, subject : str, optional
        As SCT, the names of the folders above the image's where left out.

    Raises
    ------
    SctError
        SCT is missing, or the command failed.
    OutputError
        The folder cannot be made.
    """
    installation = install.require(REMEDY)
    above = [parent.name for parent in image.absolute().parents]
    contrast, above_subject, above_dataset = [name or "unknown" for name in (*above, "", "", "")][
        :3
    ]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{folder.name}: cannot be made ({error.strerror}); use another -qc"
        ) from (error)
    with tempfile.TemporaryDirectory(prefix="sct_lesion_qc_") as temporary:
        work = Path(temporary)
        linked = [
            _link(work / "scan" / contrast, image),
            _link(work / "mask", mask),
            _link(work / "cord", cord),
        ]
        (work / "report").symlink_to(folder.absolute(), target_is_directory=True)
        scan, lesions, line = (str(path.relative_to(work)) for path in linked)
        command = [COMMAND, "-i", scan, "-s", line, "-d", lesions, "-p", "sct_deepseg_lesion"]
        command += ["-plane", plane, "-qc", "report"]
        command += ["-qc-dataset", dataset or above_dataset]
        command += ["-qc-subject", subject or above_subject]
        installation.run(command, work, REMEDY)


def _link(folder: Path, target: Path) -> Path:
    """Link a file under its own name into a folder of its own."""
    folder.mkdir(parents=True)
    link = folder / target.name
    link.symlink_to(target.absolute())
    return link
