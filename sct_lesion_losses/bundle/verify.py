"""Whether a bundle is whole and safe: files, hashes, schema, network, weights, in that order.

Nothing of a bundle is executed or unpickled, and nothing is handed to an engine before this.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from sct_lesion_losses.bundle import document, network, weights
from sct_lesion_losses.bundle.metadata import metadata
from sct_lesion_losses.bundle.schema import BundleInfo
from sct_lesion_losses.errors import BundleError

INFO, NETWORK, WEIGHTS = "bundle.json", "model.onnx", "weights.safetensors"
CARD, MANIFEST = "card.md", "MANIFEST.sha256"
MAX_BYTES = {
    INFO: 16 * 2**20,
    NETWORK: network.MAX_NETWORK_BYTES,
    WEIGHTS: weights.MAX_WEIGHTS_BYTES,
    CARD: 2**20,
    MANIFEST: 2**16,
}
_LINE = re.compile(r"([0-9a-f]{64}) [ *]([^/\\\s]{1,100})")

Files = Mapping[str, bytes]


def manifest(files: Files) -> bytes:
    """`MANIFEST.sha256` of `files`, as `sha256sum -c` reads it, sorted by name."""
    names = sorted(set(files) - {MANIFEST})
    return "".join(f"{_sha256(files[name])}  {name}\n" for name in names).encode()


def verify(folder: Path) -> BundleInfo:
    """Read and check the bundle in `folder`.

    Raises
    ------
    BundleError
        A file is missing, unknown, too large, a link, or fails one of the checks of `check`.
    """
    return check(read_files(folder), str(folder))


def check(files: Files, where: str) -> BundleInfo:
    """Check the files of a bundle against its manifest, the schema and each other.

    Parameters
    ----------
    files : mapping of str to bytes
        All files by name.
    where : str
        What the message of an error begins with.

    Raises
    ------
    BundleError
        A hash differs, a file is missing or not listed, bundle.json is refused, the network is
        refused or names another bundle or threshold, the weights are not finite, or the card is
        not text.
    """
    try:
        _check_manifest(files)
        return check_contents(files)
    except BundleError as error:
        raise BundleError(f"{where}: {error}") from error


def check_contents(files: Files) -> BundleInfo:
    """Check schema, network, weights and card, hashes left out; return what is in bundle.json."""
    info = document.parse(files[INFO])
    network.inspect(files[NETWORK])
    inside, expected = metadata(files[NETWORK]), info.metadata()
    for key, value in expected.items():
        if inside.get(key) != value:
            raise BundleError(
                f"model.onnx: {key} is {inside.get(key)!r}, bundle.json says {value!r};"
                " get the bundle again, or run sct_tune_lesion on it"
            )
    weights.check(files[WEIGHTS])
    try:
        files[CARD].decode()
    except UnicodeDecodeError as error:
        raise BundleError("card.md: not UTF-8 text; get the bundle again") from error
    return info


def read_files(folder: Path) -> dict[str, bytes]:
    """Contents of a bundle's folder by name.

    Raises
    ------
    BundleError
        The folder cannot be read, or holds something that is not one of a bundle's regular files.
    """
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208 - names, not paths
    except OSError as error:
        raise BundleError(f"{folder}: cannot read this bundle ({error.strerror})") from error
    for name in names:
        if name not in MAX_BYTES:
            raise BundleError(f"{folder}: {unknown(name)}")
    return {name: read_file(folder / name) for name in names}


def unknown(name: str) -> str:
    """Why a file of this name is refused."""
    return (
        f"{name!r} is not a file of a bundle ({', '.join(sorted(MAX_BYTES))});"
        " pickles and saved models are never loaded; remove it, or get the bundle again"
    )


def read_file(path: Path) -> bytes:
    """Contents of one of a bundle's files; neither a link nor a pipe is followed.

    Raises
    ------
    BundleError
        It cannot be read, is not a regular file, or is larger than a file of that name may be.
    """
    limit = MAX_BYTES[path.name]
    try:
        # A named pipe would block open(), a link would lead elsewhere.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise BundleError(f"{path}: not a regular file; get the bundle again")
        with os.fdopen(descriptor, "rb") as stream:
            content = stream.read(limit + 1)
    except OSError as error:
        if path.is_symlink():
            raise BundleError(f"{path}: a symbolic link; copy the file itself here") from error
        raise BundleError(f"{path}: cannot be read ({error.strerror})") from error
    if len(content) > limit:
        raise BundleError(f"{path}: more than {limit} bytes; get the bundle again")
    return content


def _check_manifest(files: Files) -> None:
    listed = _listed(files)
    required = set(MAX_BYTES) - {MANIFEST}
    present = set(files) - {MANIFEST}
    for name in sorted(required | set(listed)):
        if name not in present:
            raise BundleError(f"{name} is missing; get the bundle again")
    for name in sorted(present):
        if name not in listed:
            raise BundleError(f"{name} is not listed in {MANIFEST}; get the bundle again")
        if _sha256(files[name]) != listed[name]:
            raise BundleError(
                f"{name} does not have the hash that {MANIFEST} lists, it was damaged or changed;"
                " get the bundle again"
            )


def _listed(files: Files) -> dict[str, str]:
    if MANIFEST not in files:
        raise BundleError(f"{MANIFEST} is missing; get the bundle again")
    table: dict[str, str] = {}
    for line in files[MANIFEST].decode("utf-8", "replace").splitlines():
        match = _LINE.fullmatch(line)
        if match is None or match[2] in table:
            raise BundleError(f"{MANIFEST}: unexpected line {line[:80]!r}; get the bundle again")
        table[match[2]] = match[1]
    return table


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
