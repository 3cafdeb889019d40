"""Bundles by name or by path, loaded verified and saved whole."""

from __future__ import annotations

import difflib
import hashlib
import logging
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

from sct_lesion_losses.bundle import document, verify
from sct_lesion_losses.bundle.metadata import with_metadata, without_metadata
from sct_lesion_losses.bundle.publish import check_replaceable, publish, set_aside
from sct_lesion_losses.bundle.schema import BundleInfo, SctPreparation, StudyPreparation
from sct_lesion_losses.errors import BundleError

PACKAGED = Path(__file__).resolve().parent.parent / "bundles"
PERSONAL = "~/.local/share/sct_lesion_losses/bundles"
VARIABLE = "SCT_LESION_BUNDLES"
SCT_NAME = "sct"
_TRIES = 5
_PAUSE_SECONDS = 0.02

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Bundle:
    """A trained model, verified.

    Attributes
    ----------
    info : BundleInfo
        What it is.
    network : bytes
        ONNX model, channels first or last, to be given to an engine.
    folder : Path or None
        Where it was read from; None for a model that is no bundle on disk, as SCT's.
    weights : bytes
        safetensors file to train on; empty for a model that is no bundle on disk.
    """

    info: BundleInfo
    network: bytes = field(repr=False)
    folder: Path | None = None
    weights: bytes = field(default=b"", repr=False)

    @property
    def name(self) -> str:
        """Name of the bundle."""
        return self.info.name

    @property
    def threshold(self) -> float:
        """Decision threshold: a voxel is lesion where p >= threshold."""
        return self.info.operating_point.threshold

    @property
    def tuned_threshold(self) -> float | None:
        """The decision threshold if it was chosen on scans; None for the default of 0.5."""
        point = self.info.operating_point
        return point.threshold if point.kind == "tuned" else None

    @property
    def preparation(self) -> StudyPreparation | SctPreparation:
        """What turns a scan into the network's input."""
        return self.info.preparation

    @property
    def weights_sha256(self) -> str:
        """Hash of the weights to train on, as `MANIFEST.sha256` lists it."""
        return hashlib.sha256(self.weights).hexdigest()

    @property
    def sha256(self) -> str:
        """Hash of the network file, as `MANIFEST.sha256` lists it."""
        return hashlib.sha256(self.network).hexdigest()

    @property
    def pmap_sha256(self) -> str:
        """Hash of what its p-maps follow from: the network without its metadata, the preparation.

        The same whatever the decision threshold, the name and the version.
        """
        preparation = self.preparation.model_dump_json().encode()
        return hashlib.sha256(without_metadata(self.network) + preparation).hexdigest()


def search_folders() -> list[Path]:
    """Folders whose sub-folders are bundles: the package, $SCT_LESION_BUNDLES, the user's own."""
    given = [Path(word) for word in os.environ.get(VARIABLE, "").split(os.pathsep) if word]
    return [PACKAGED, *given, personal_folder()]


def personal_folder() -> Path:
    """Where imported bundles go."""
    return Path(os.path.expanduser(PERSONAL))  # noqa: PTH111 - does not fail without a home


def available() -> dict[str, Path]:
    """Folder of every bundle on the search path by name, sorted; unverified.

    A name that is there twice is the first on the search path.
    """
    found: dict[str, Path] = {}
    for root in search_folders():
        try:
            folders = sorted(path for path in root.iterdir() if not path.name.startswith("."))
        except OSError:
            continue
        for folder in folders:
            if (folder / verify.INFO).is_file():
                found.setdefault(folder.name, folder)
    return dict(sorted(found.items()))


def find(name_or_path: str | Path) -> Path:
    """Folder of a bundle: a name on the search path, else a path.

    A name means the same bundle wherever it is typed; ``./tversky`` is the one in this folder.

    Raises
    ------
    BundleError
        No such bundle; the message lists the names there are, and the closest.
    """
    name = str(name_or_path)
    path = Path(os.path.expanduser(name))  # noqa: PTH111 - does not fail without a home
    try:
        known = {} if os.sep in name else available()
        here = bool(name) and (path / verify.INFO).is_file()
        if name in known:
            if here and not path.samefile(known[name]):
                _LOG.warning("%s is not the folder here, which is ./%s", known[name], name)
            return known[name]
        if here:
            return path
        if path.suffix == ".zip" and path.is_file():
            raise BundleError(f"{name}: an archive; run sct_lesion_bundle import {path.name} first")
        if os.sep in name or (name and path.is_dir()):
            raise BundleError(f"{name}: {_why_not(path)}")
    except OSError as error:
        raise BundleError(f"{name[:80]}: cannot be read ({error.strerror})") from error
    raise BundleError(_unknown_name(name, list(known)))


def load(name_or_path: str | Path) -> Bundle:
    """Find, verify and read a bundle.

    Raises
    ------
    BundleError
        There is none, or it is damaged or refused (see `verify.check`).
    """
    for _ in range(_TRIES - 1):
        before = _versions(name_or_path)
        try:
            return _read(find(name_or_path))
        except BundleError:
            if not _is_being_replaced(name_or_path, before):
                raise
            time.sleep(_PAUSE_SECONDS)
    return _read(find(name_or_path))


def save(
    folder: str | Path,
    info: BundleInfo,
    network: bytes,
    weights: bytes,
    card: str,
    *,
    overwrite: bool = False,
) -> Bundle:
    """Write a bundle and return it as it is loaded again.

    The metadata of the network is set from `info`, the manifest is computed, and everything is
    verified before the folder appears under its name, at once.

    Parameters
    ----------
    folder : path
        The bundle's own folder, named as the bundle.
    info : BundleInfo
    network, weights : bytes
        ONNX model and safetensors file.
    card : str
        Model card, Markdown (see `report.card`).
    overwrite : bool
        Replace a bundle that is there; a folder with other files is never replaced.

    Raises
    ------
    BundleError
        The parts are refused, or the folder exists.
    OutputError
        The folder cannot be written; a bundle that was there still is.
    """
    target = Path(folder)
    check_target(target, info.name)
    files = {
        verify.INFO: document.dump(info),
        verify.NETWORK: with_metadata(network, info.metadata()),
        verify.WEIGHTS: weights,
        verify.CARD: card.encode(),
    }
    files[verify.MANIFEST] = verify.manifest(files)
    verify.check(files, str(target))
    publish(target, files, overwrite=overwrite)
    return Bundle(info, files[verify.NETWORK], target, weights)


def check_target(folder: str | Path, name: str) -> None:
    """Refuse a folder that a bundle of that name could not replace, before any work is done.

    Raises
    ------
    BundleError
        It holds other files, or the name is the one under which SCT's own model is known.
    """
    if name == SCT_NAME:
        raise BundleError(
            f"{folder}: {SCT_NAME} names the toolbox's own lesion model; choose another name"
        )
    check_replaceable(Path(folder), overwrite=True)


def _read(folder: Path) -> Bundle:
    files = verify.read_files(folder)
    info = verify.check(files, str(folder))
    if folder.name and info.name != folder.name:
        _LOG.warning("the bundle in the folder %r is named %r", folder.name, info.name)
    return Bundle(info, files[verify.NETWORK], folder, files[verify.WEIGHTS])


def _versions(name_or_path: str | Path) -> dict[Path, tuple[int, int] | None]:
    """Every folder that a name may mean, and what tells one version of it from the next."""
    found: dict[Path, tuple[int, int] | None] = {}
    for root in (Path(), *search_folders()):
        folder = root / name_or_path
        try:
            status = folder.stat()
            found[folder] = (status.st_ino, status.st_mtime_ns)
        except (OSError, ValueError):
            found[folder] = None
    return found


def _is_being_replaced(
    name_or_path: str | Path, before: dict[Path, tuple[int, int] | None]
) -> bool:
    """Whether another process replaced the bundle while it was looked for and read."""
    try:
        return _versions(name_or_path) != before or any(map(Path.exists, map(set_aside, before)))
    except (OSError, ValueError):
        return False


def _why_not(path: Path) -> str:
    if set_aside(path).is_dir():
        return (
            f"replacing this bundle was interrupted; rename {set_aside(path).name} beside it back"
        )
    if path.is_dir():
        return f"not a bundle, it holds no {verify.INFO}; give the folder of a bundle"
    return "no such folder; give the folder or the name of a bundle"


def _unknown_name(name: str, known: list[str]) -> str:
    if name == "sct":
        return (
            "'sct' is the model of the Spinal Cord Toolbox and not a bundle on disk;"
            " use it with sct_deepseg_lesion_tuned -bundle sct"
        )
    listed = ", ".join(known) or "none"
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}? " if close else ""
    return (
        f"no bundle is named {name[:80]!r}; {hint}found: {listed} (in the package, "
        f"${VARIABLE} and {PERSONAL}); give one of them, or a folder"
    )
