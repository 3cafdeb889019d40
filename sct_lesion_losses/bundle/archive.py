"""A bundle as one zip file: written the same for equal bundles, unpacked member by member."""

from __future__ import annotations

import io
import stat
import zipfile
from pathlib import Path

from sct_lesion_losses.bundle import check
from sct_lesion_losses.bundle.store import publish
from sct_lesion_losses.errors import BundleError
from sct_lesion_losses.images.atomic import write_bytes

MAX_ARCHIVE_BYTES = sum(check.MAX_BYTES.values()) + 2**20
_MAX_MEMBERS = 100  # with what desktops add
_MEMBER = b"PK\x01\x02"  # begins every entry of the list of members
_EPOCH = (1980, 1, 1, 0, 0, 0)
_UNIX = 3
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


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
    write_bytes(archive, content.getvalue())


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
    except Exception as error:  # zipfile meets damage in many ways
        raise BundleError(f"{archive}: cannot be unpacked ({error}); get it again") from error
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
    if len(content) > MAX_ARCHIVE_BYTES:
        raise BundleError(f"more than {MAX_ARCHIVE_BYTES} bytes, too large for a bundle")
    # Known before zipfile builds a list of whatever length.
    if content.count(_MEMBER) > _MAX_MEMBERS:
        raise BundleError(f"more than {_MAX_MEMBERS} members, too many for a bundle")
    files: dict[str, bytes] = {}
    folders: set[str] = set()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for member in archive.infolist():
            if any(map(check.is_left_by_desktop, member.filename.split("/"))):
                continue
            folder, _, name = member.filename.partition("/")
            folders.add(folder)
            if member.filename == f"{folder}/":
                continue
            if name in files:
                raise BundleError(f"{name} is there twice; get the archive again")
            files[name] = _member(archive, member, name)
    if len(folders) != 1:
        raise BundleError(f"{len(folders)} folders, expected one bundle; get the archive again")
    return files, folders.pop()


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> bytes:
    """Contents of a member of this name in the bundle's folder, if it may be unpacked."""
    path = member.filename[:80]
    if name not in check.MAX_BYTES:
        raise BundleError(check.unknown(name or path))
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG):
        raise BundleError(f"{path!r} is a link or a special file; get it again")
    if member.compress_type not in _METHODS:
        raise BundleError(f"{path!r} is compressed in an unknown way; use zip's default")
    if member.file_size > check.MAX_BYTES[name]:
        raise BundleError(
            f"{path}: {member.file_size} bytes, expected at most {check.MAX_BYTES[name]}"
        )
    with archive.open(member) as stream:
        return stream.read(member.file_size)  # never more, whatever it would unpack to
