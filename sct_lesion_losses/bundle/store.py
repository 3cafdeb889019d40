"""Bundles by name or by path, loaded verified and saved whole."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import logging
import os
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

from sct_lesion_losses.bundle import check, schema
from sct_lesion_losses.bundle.check import INFO, MAX_BYTES, Files, is_left_by_desktop
from sct_lesion_losses.bundle.schema import BundleInfo, SctPreparation, StudyPreparation
from sct_lesion_losses.errors import BundleError, OutputError
from sct_lesion_losses.images.atomic import locked, write_bytes

PACKAGED = Path(__file__).resolve().parent.parent / "bundles"
PERSONAL = "~/.local/share/sct_lesion_losses/bundles"
VARIABLE = "SCT_LESION_BUNDLES"
SCT_NAME = "sct"
LOCK = ".sct_lesion_bundles.lock"
LOCK_SECONDS = 60.0
_PREVIOUS = ".previous"
_PAUSES_SECONDS = (0.02,) * 4

_LOG = logging.getLogger(__name__)


def publish(folder: Path, files: Files, *, overwrite: bool = False) -> None:
    """Write `files` as the folder `folder`, at once.

    They are written to a hidden folder beside the target, which is then renamed. Writers wait for
    each other. A bundle that is replaced is set aside as `.NAME.previous` for the moment between
    two renames; a writer that finds it there without the bundle puts it back first.

    Raises
    ------
    BundleError
        The folder exists and `overwrite` is not set, or holds files of its own.
    OutputError
        The file system refuses, or another writer does not end.
    """
    folder = Path(os.path.abspath(folder))  # noqa: PTH100 - links are not followed
    new = folder.with_name(f".{folder.name}.new")
    busy = (
        f"{folder}: another process is writing here since {LOCK_SECONDS:.0f} s;"
        " wait for it to end, or choose another folder"
    )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder.parent / LOCK, busy, LOCK_SECONDS):
            _settle(folder, new)
            check_replaceable(folder, overwrite)
            try:
                for name, content in files.items():
                    write_bytes(new / name, content)
                if folder.exists():
                    folder.rename(set_aside(folder))
                new.rename(folder)
            finally:
                _settle(folder, new)
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot write this bundle ({error.strerror or error}), and nothing was "
            "changed; choose another folder with -ofolder"
        ) from error


def _settle(folder: Path, new: Path) -> None:
    """Finish what this writer, or a killed one, left: a bundle set aside goes or comes back."""
    previous = set_aside(folder)
    if previous.exists() and not folder.exists():
        previous.rename(folder)
    for left in (previous, new):
        shutil.rmtree(left, ignore_errors=True)


def set_aside(folder: Path) -> Path:
    """Name under which the former bundle lies while `folder` is being replaced."""
    return folder.with_name(f".{folder.name}{_PREVIOUS}")


def is_shipped(folder: Path) -> bool:
    """Tell whether a folder lies in the installed package, which is never written."""
    return PACKAGED.resolve() in folder.resolve().parents


def check_replaceable(folder: Path, overwrite: bool) -> None:
    """Refuse a folder that is there, unless it is a bundle and may be replaced, or is empty.

    One in the installed package is refused in any case, and so is the name of SCT's own model.

    Raises
    ------
    BundleError
    """
    if folder.name == SCT_NAME:
        raise BundleError(
            f"{folder}: {SCT_NAME} names the toolbox's own lesion model; choose another name"
        )
    if is_shipped(folder):
        raise BundleError(
            f"{folder.name}: comes with the package and is never changed; choose another folder"
        )
    if not folder.exists() and not folder.is_symlink():
        return
    if not folder.is_dir() or folder.is_symlink():
        raise BundleError(f"{folder}: exists and is not a folder; choose another name")
    names = {e.name for e in folder.iterdir() if not is_left_by_desktop(e.name)}
    if names and (INFO not in names or not names <= set(MAX_BYTES)):
        strange = sorted(names - set(MAX_BYTES)) or sorted(names)
        raise BundleError(
            f"{folder}: holds files that are not a bundle's ({', '.join(strange[:3])});"
            " choose another folder"
        )
    if names and not overwrite:
        raise BundleError(
            f"{folder}: this bundle exists; choose another name, or replace it with -force 1"
        )


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
        """The decision threshold if it was chosen on scans, published or not; None: untuned."""
        point = self.info.operating_point
        return None if point.kind == "untuned" else point.threshold

    @property
    def preparation(self) -> StudyPreparation | SctPreparation:
        """Preparation that turns a scan into the network's input."""
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
        """Hash of what its p-maps follow from: the network and the preparation.

        The same whatever the decision threshold, the name and the version.
        """
        preparation = self.preparation.model_dump_json().encode()
        return hashlib.sha256(self.network + preparation).hexdigest()


def search_folders() -> list[Path]:
    """Folders whose sub-folders are bundles: the package, $SCT_LESION_BUNDLES, the user's own."""
    given = [Path(word) for word in os.environ.get(VARIABLE, "").split(os.pathsep) if word]
    return [PACKAGED, *given, personal_folder()]


def personal_folder() -> Path:
    """Return the folder of imported bundles."""
    return Path(os.path.expanduser(PERSONAL))  # noqa: PTH111 - does not fail without a home


def available() -> dict[str, Path]:
    """Folder of every bundle on the search path by name, sorted; unverified.

    A name that is there twice is the first on the search path.
    """
    found: dict[str, Path] = {}
    for root in search_folders():
        for file in root.glob(f"[!.]*/{INFO}"):
            found.setdefault(file.parent.name, file.parent)
    return dict(sorted(found.items()))


def find(name_or_path: str | Path) -> Path:
    """Return the folder of a bundle: a name on the search path, else a path.

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
        here = bool(name) and (path / check.INFO).is_file()
        if name in known:
            if here and not path.samefile(known[name]):
                _LOG.warning("%s is not the folder here, which is ./%s", known[name], name)
            return known[name]
        if here:
            return path.absolute()  # which no bundle of this name can be taken for
        if path.suffix == ".zip" and path.is_file():
            raise BundleError(f"{name}: an archive; run sct_lesion_bundle import {path.name} first")
        if os.sep in name or (name and path.is_dir()):
            raise BundleError(f"{name}: {_why_not(path)}")
    except OSError as error:
        raise BundleError(f"{name[:80]}: cannot be read ({error.strerror})") from error
    raise BundleError(_unknown_name(name, list(known)))


def load(name_or_path: str | Path) -> Bundle:
    """Find and read a bundle, its hashes and its description checked.

    One given by a path is verified whole: nobody imported it. What another process replaces at this
    moment is whole again in the next.

    Raises
    ------
    BundleError
        There is none, or it is damaged or refused (see `check.check`).
    """
    for pause in _PAUSES_SECONDS:
        before = _present(name_or_path)
        try:
            return _read(find(name_or_path))
        except BundleError:
            after = _present(name_or_path)
            if after == before and not any(folder.name.endswith(_PREVIOUS) for folder in after):
                raise
        time.sleep(pause)
    return _read(find(name_or_path))


def _present(name_or_path: str | Path) -> dict[Path, tuple[int, int]]:
    """Folders that a name may mean, also those set aside; a new one differs in node or time."""
    path = Path(os.path.expanduser(name_or_path))  # noqa: PTH111 - does not fail without a home
    found = {}
    for place in (path, *(root / path for root in search_folders())):
        with contextlib.suppress(OSError, ValueError):  # too long, or no name of a folder
            for folder in (set_aside(place), place):
                if folder.is_dir():
                    found[folder] = (folder.stat().st_ino, folder.stat().st_mtime_ns)
    return found


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

    The manifest is computed and everything is verified before the folder appears under its name,
    at once.

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
    check_replaceable(target, overwrite=True)
    files = {
        check.INFO: schema.dump(info),
        check.NETWORK: network,
        check.WEIGHTS: weights,
        check.CARD: card.encode(),
    }
    files[check.MANIFEST] = check.manifest(files)
    check.check(files, str(target))
    publish(target, files, overwrite=overwrite)
    return Bundle(info, files[check.NETWORK], target, weights)


def _read(folder: Path) -> Bundle:
    files = check.read_files(folder)
    imported = folder.parent in search_folders()
    info = check.check(files, str(folder), contents=not imported)
    if folder.name and info.name != folder.name:
        _LOG.warning("the bundle in the folder %r is named %r", folder.name, info.name)
    return Bundle(info, files[check.NETWORK], folder, files[check.WEIGHTS])


def _why_not(path: Path) -> str:
    if set_aside(path).is_dir():
        return (
            f"replacing this bundle was interrupted; rename {set_aside(path).name} beside it back"
        )
    if path.is_dir():
        return f"not a bundle, it holds no {check.INFO}; give the folder of a bundle"
    return "no such folder; give the folder or the name of a bundle"


def _unknown_name(name: str, known: list[str]) -> str:
    if name == SCT_NAME:
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
