import shutil
import stat
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_bundle import make_files

from sct_lesion_losses.bundle import archive, check, store
from sct_lesion_losses.errors import BundleError

Members = list[tuple[str | zipfile.ZipInfo, bytes]]


@pytest.fixture
def members() -> Members:
    """Names and contents of a good archive, to be damaged."""
    return [(f"tiny/{name}", content) for name, content in make_files().items()]


@pytest.fixture
def kept(members: Members) -> Members:
    """Those of an archive whose card is missing."""
    return [member for member in members if member[0] != "tiny/card.md"]


@pytest.fixture
def into(tmp_path: Path) -> Path:
    """Folder in which archives are unpacked."""
    folder = tmp_path / "into"
    folder.mkdir()
    return folder


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write members as an archive."""

    def build(members: Members, method: int = zipfile.ZIP_DEFLATED) -> Path:
        path = tmp_path / "tiny.zip"
        with warnings.catch_warnings(), zipfile.ZipFile(path, "w", method) as out:
            warnings.simplefilter("ignore", UserWarning)  # duplicate names are meant
            for name, content in members:
                out.writestr(name, content)
        return path

    return build


def refused(path: Path, into: Path, words: str) -> None:
    """The archive is refused, and nothing is written anywhere."""
    before = sorted(into.parent.rglob("*"))
    with pytest.raises(BundleError, match=words):
        archive.unpack(path, into)
    assert sorted(into.parent.rglob("*")) == before


def test_what_is_packed_is_unpacked_and_packing_twice_gives_the_same_bytes(
    bundle: store.Bundle, tmp_path: Path, into: Path
) -> None:
    for name in ("a.zip", "b.zip"):
        archive.pack(bundle.folder, tmp_path / name)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    target = archive.unpack(tmp_path / "a.zip", into)
    assert target == into / "tiny"
    assert check.read_files(target) == check.read_files(bundle.folder)


def test_a_damaged_bundle_is_not_packed(bundle: store.Bundle, tmp_path: Path) -> None:
    (bundle.folder / check.CARD).write_text("changed")
    with pytest.raises(BundleError, match="hash"):
        archive.pack(bundle.folder, tmp_path / "tiny.zip")
    assert not (tmp_path / "tiny.zip").exists()


Write = Callable[..., Path]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_archive_of_another_zip_program_is_unpacked_without_what_desktops_add(
    members: Members, write: Write, into: Path, method: int
) -> None:
    names = ["__MACOSX/tiny/._card.md", "tiny/.DS_Store", "tiny/Thumbs.db", ".DS_Store"]
    added = [("tiny/", b""), *((name, b"x") for name in names)]
    target = archive.unpack(write([*added, *members], method), into)
    assert check.read_files(target) == {name[5:]: content for name, content in members}


def test_an_existing_bundle_is_not_replaced_unasked(
    members: Members, write: Write, into: Path
) -> None:
    path = write(members)
    archive.unpack(path, into)
    with pytest.raises(BundleError, match="exists"):
        archive.unpack(path, into)
    archive.unpack(path, into, overwrite=True)


@pytest.mark.parametrize(
    "name",
    [
        *("/etc/card.md", "//card.md", "../card.md", "tiny/../card.md", "tiny/../../card.md"),
        *("..\\card.md", "C:\\card.md", "C:/card.md", "tiny/sub/card.md", "card.md", "./card.md"),
        *("tiny/weights.pkl", "tiny/model.keras", "tiny/saved_model.pb", "tiny/CARD.MD"),
    ],
)
def test_a_file_elsewhere_or_of_another_kind_is_refused(
    kept: Members, write: Write, into: Path, name: str
) -> None:
    refused(write([*kept, (name, b"# tiny\n")]), into, r"tiny\.zip: .*( is not a file of|folders)")


def test_a_name_with_a_null_byte_is_refused(members: Members, write: Write, into: Path) -> None:
    path = write([*members, ("tiny/card.mdXexe", b"x")])
    path.write_bytes(path.read_bytes().replace(b"card.mdXexe", b"card.md\0exe"))
    refused(path, into, r"tiny\.zip: ")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFDIR])
def test_a_member_that_is_not_a_regular_file_is_refused(
    kept: Members, write: Write, into: Path, kind: int
) -> None:
    special = zipfile.ZipInfo("tiny/card.md")
    special.external_attr = (kind | 0o777) << 16
    refused(write([*kept, (special, b"/etc/passwd")]), into, "link or a special file")


def test_a_name_that_is_there_twice_is_refused(members: Members, write: Write, into: Path) -> None:
    refused(write([*members, members[0]]), into, "twice")


def test_a_bundle_packed_under_another_name_is_refused(write: Write, into: Path) -> None:
    path = write([(f"x/{name}", content) for name, content in make_files().items()])
    refused(path, into, "'tiny' is packed as 'x'")


def test_a_bomb_is_refused_by_its_size_and_where_it_lies_about_it(
    kept: Members, write: Write, into: Path
) -> None:
    # 50 MB of zeros deflate to 50 kB; a card holds at most 1 MiB.
    path = write([*kept, ("tiny/card.md", bytes(50_000_000))])
    assert path.stat().st_size < 200_000
    refused(path, into, "50000000 bytes, expected at most 1048576")
    size, lie = struct.pack("<L", 50_000_000), struct.pack("<L", 10)
    path.write_bytes(path.read_bytes().replace(size, lie))
    refused(path, into, "cannot be unpacked")


def test_too_many_members_are_refused(write: Write, into: Path) -> None:
    refused(write([(f"tiny/{k}", b"") for k in range(101)]), into, "more than 100 members")


def test_an_encrypted_member_is_refused(members: Members, write: Write, into: Path) -> None:
    path = write(members, zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    # The flags are at byte 8 of an entry of the central directory, at byte 6 of a local header.
    for signature, at in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        content[content.index(signature) + at] |= 1
    path.write_bytes(content)
    refused(path, into, "encrypted")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_unusual_compression_is_refused(
    members: Members, write: Write, into: Path, method: int
) -> None:
    refused(write(members, method), into, "compressed in an unknown way")


@pytest.mark.parametrize("content", [b"", b"PK", b"<html>not found</html>" * 10])
def test_what_is_no_zip_is_refused(tmp_path: Path, into: Path, content: bytes) -> None:
    (tmp_path / "tiny.zip").write_bytes(content)
    refused(tmp_path / "tiny.zip", into, "not a zip file")


def test_an_archive_that_is_not_there_is_said(tmp_path: Path, into: Path) -> None:
    refused(tmp_path / "nowhere.zip", into, r"nowhere\.zip: cannot be read")


def test_an_archive_cut_short_is_refused(members: Members, write: Write, into: Path) -> None:
    path = write(members)
    content = path.read_bytes()
    for length in range(0, len(content), 97):
        path.write_bytes(content[:length])
        refused(path, into, r"tiny\.zip")


@given(data=st.data())
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_changed_bytes_are_refused_or_change_nothing(
    members: Members, write: Write, into: Path, data: st.DataObject
) -> None:
    path = write(members)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    shutil.rmtree(into)
    try:
        target = archive.unpack(path, into)
    except BundleError:
        assert not into.exists()
        into.mkdir()
        return
    assert check.read_files(target) == {name[5:]: content for name, content in members}
