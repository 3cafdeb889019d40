"""A bundle as one zip file: written the same for equal bundles, unpacked member by member."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
import zlib
from pathlib import Path

from sct_lesion_losses.bundle import check
from sct_lesion_losses.bundle.store import publish
from sct_lesion_losses.errors import BundleError
from sct_lesion_losses.images import atomic as whole_files

MAX_ARCHIVE_BYTES = sum(check.MAX_BYTES.values()) + 2**20
_MAX_MEMBERS = 100  # with what desktops add
_MAX_DIRECTORY_BYTES = 2**14
_EPOCH = (1980, 1, 1, 0, 0, 0)
_END = struct.Struct("<4s4H2LH")
_END_SIGNATURE, _LOCATOR_64_SIGNATURE, _LOCATOR_64_BYTES = b"PK\x05\x06", b"PK\x06\x07", 20
_UNIX = 3
_ENCRYPTED = 0x1
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    struct.error,
    OverflowError,
)


def pack(folder: Path, archive: Path) -> None:
    """Verify the bundle in `folder` and write it to `archive`.

    Equal bundles give equal bytes: members sorted and stored, dates fixed.

    Raises
    ------
    BundleError
        The bundle is damaged or refused.
    OutputError
        The archive cannot be written.
    """
    files = check.read_files(folder)
    info = check.check(files, str(folder))
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as out:
        for name in sorted(files):
            member = zipfile.ZipInfo(f"{info.name}/{name}", _EPOCH)
            member.create_system = _UNIX
            member.external_attr = (stat.S_IFREG | 0o644) << 16
            out.writestr(member, files[name])
    with whole_files.replacing(archive) as temporary:
        temporary.write_bytes(content.getvalue())


def unpack(archive: Path, into: Path, *, overwrite: bool = False) -> Path:
    """Unpack a bundle to `into`/its name, once everything in it has been checked.

    Raises
    ------
    BundleError
        Not an archive of a bundle; absolute paths, `..`, links, duplicate or unknown names,
        encryption, too many bytes; the bundle is refused; it exists and `overwrite` is not set.
    OutputError
        The folder cannot be written.
    """
    try:
        with archive.open("rb") as stream:
            files, folder = _read(stream.read(MAX_ARCHIVE_BYTES + 1))
    except BundleError as error:
        raise BundleError(f"{archive}: {error}") from error
    except OSError as error:
        raise BundleError(f"{archive}: cannot be read ({error.strerror})") from error
    except _DAMAGED as error:
        raise BundleError(f"{archive}: damaged zip ({error}); get it again") from error
    info = check.check(files, str(archive))
    if folder != info.name:
        raise BundleError(
            f"{archive}: the bundle {info.name!r} is packed as {folder!r}; get it again"
        )
    target = into / info.name
    publish(target, files, overwrite=overwrite)
    return target


def _read(content: bytes) -> tuple[dict[str, bytes], str]:
    """Files of an archive by name, and the folder they are packed in."""
    _check_end(content)
    files: dict[str, bytes] = {}
    folders: set[str] = set()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for member in archive.infolist():
            if any(map(check.is_left_by_desktop, member.filename.split("/"))):
                continue
            folder, name = _parts(member)
            folders.add(folder)
            if not name:
                continue
            if name in files:
                raise BundleError(f"{name} is there twice; get the archive again")
            files[name] = _member(archive, member, check.MAX_BYTES[name])
    if len(folders) != 1:
        raise BundleError(f"{len(folders)} folders, expected one bundle; get the archive again")
    return files, folders.pop()


def _check_end(content: bytes) -> None:
    """Look at the end record before zipfile builds a list of whatever length it claims."""
    if len(content) > MAX_ARCHIVE_BYTES:
        raise BundleError(f"more than {MAX_ARCHIVE_BYTES} bytes, too large for a bundle")
    if len(content) < _END.size or content[-_END.size :][:4] != _END_SIGNATURE:
        raise BundleError("not a zip file of sct_lesion_bundle export; get it again")
    _, _, _, _, members, directory_bytes, _, _ = _END.unpack(content[-_END.size :])
    before = content[: -_END.size][-_LOCATOR_64_BYTES:]
    if members > _MAX_MEMBERS or before.startswith(_LOCATOR_64_SIGNATURE):
        raise BundleError(f"{members} members, expected at most {_MAX_MEMBERS}; get it again")
    if directory_bytes > _MAX_DIRECTORY_BYTES:
        raise BundleError("its list of members is too long; get it again")


def _parts(member: zipfile.ZipInfo) -> tuple[str, str]:
    """Folder and file name of a member that may be unpacked; the file name of a folder is empty."""
    path = member.filename
    kind = stat.S_IFMT(member.external_attr >> 16)
    folder, slash, name = path.partition("/")
    if path != member.orig_filename or not slash or folder in ("", ".", "..") or "\\" in path:
        raise BundleError(f"{path[:80]!r} does not lie in the bundle's folder; get it again")
    if ".." in path.split("/") or "/" in name:
        raise BundleError(f"{path[:80]!r} leads elsewhere; get it again")
    if kind not in (0, stat.S_IFREG if name else stat.S_IFDIR):
        raise BundleError(f"{path[:80]!r} is a link or a special file; get it again")
    if name and name not in check.MAX_BYTES:
        raise BundleError(check.unknown(name[:80]))
    if member.flag_bits & _ENCRYPTED:
        raise BundleError(f"{path[:80]!r} is encrypted; export it without a password")
    if member.compress_type not in _METHODS:
        raise BundleError(f"{path[:80]!r} is compressed in an unknown way; use zip's default")
    return folder, name


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, limit: int) -> bytes:
    if member.file_size > limit:
        raise BundleError(f"{member.filename}: {member.file_size} bytes, expected at most {limit}")
    with archive.open(member) as stream:
        content = stream.read(limit + 1)
    if len(content) > limit:
        raise BundleError(f"{member.filename}: unpacks to more than {limit} bytes")
    return content
