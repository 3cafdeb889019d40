"""A folder of arrays that are made once: by several processes at a time, over and over again.

Every entry is a file of `data.mapped`, named by a hash of all that it was made of. A file appears
whole or not at all, and is never changed; whatever is no longer wanted may be deleted at any time,
the folder as well. Who makes an entry holds its lock, so that a second process waits and finds it.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from numpy.typing import NDArray

from sct_lesion_losses.data import mapped
from sct_lesion_losses.data.mapped import Mapped
from sct_lesion_losses.errors import DamagedError, DataError, ImageError
from sct_lesion_losses.files import remove_left_over

LOCKS = ".locks"
PATIENCE_S = 1800.0  # for another process at the same entry, which may be suspended
WAIT_SAID_AFTER_S = 2.0
_ABANDONED_S = 86400.0
_KEY = "key"
_KEY_DIGITS = 32
_CHUNK_BYTES = 1 << 20

Made = tuple[Mapping[str, NDArray[Any]], Mapping[str, str]]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cache:
    """Entries in a folder, which is made when the first is written.

    Attributes
    ----------
    folder : Path
    """

    folder: Path

    def path(self, key: str) -> Path:
        """File of an entry."""
        return self.folder / f"{key}.safetensors"

    def find(self, key: str) -> Mapped | None:
        """Return the entry of that key, checked to its last byte; None if there is no good one."""
        try:
            return self._load(key)
        except DamagedError:
            return None

    def require(self, key: str) -> Mapped:
        """Return the entry of that key, which was found or made a moment ago."""
        try:
            return self._load(key)
        except DamagedError as error:
            raise DataError(
                f"{error}, though it was there a moment ago; let nobody clear the cache while it "
                "is in use, and start again"
            ) from error

    def make(self, key: str, make: Callable[[], Made]) -> bool:
        """Write an entry, unless another process has done so in the meantime.

        Parameters
        ----------
        key : str
        make : callable
            Returns the arrays and facts of the entry.

        Returns
        -------
        bool
            Whether it was made here.

        Raises
        ------
        OutputError
            The file cannot be written; no part of it is left.
        """
        with self._locked(key) as alone:
            try:
                self._load(key)
            except DamagedError as error:
                if self.path(key).exists():
                    logger.warning("%s: it is made again", error)
            else:
                return False
            if alone:
                remove_left_over(self.folder, self.path(key).name)
            arrays, facts = make()
            mapped.write(self.path(key), arrays, {**facts, _KEY: key})
            return True

    def tidy(self) -> None:
        """Remove what killed processes left over a day ago."""
        remove_left_over(self.folder, before=time.time() - _ABANDONED_S)

    def _load(self, key: str) -> Mapped:
        path = self.path(key)
        found = mapped.load(path)
        if found.facts.pop(_KEY, None) != key:
            raise DamagedError(f"{path}: holds another entry than its name says")
        return found

    @contextmanager
    def _locked(self, key: str) -> Iterator[bool]:
        """Hold the lock of an entry; yields False where there is none, or it cannot be had."""
        lock = FileLock(self.folder / LOCKS / key, timeout=PATIENCE_S)
        try:
            (self.folder / LOCKS).mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(timeout=WAIT_SAID_AFTER_S)
            except Timeout:
                logger.info("another process is at %s, waiting", self.path(key).name)
                lock.acquire()
        except (OSError, NotImplementedError) as error:
            # The work may be done twice then; the file that is renamed last stays.
            logger.debug("%s: no lock (%s)", self.path(key).name, error)
            yield False
            return
        try:
            yield True
        finally:
            lock.release()


def key(*parts: str) -> str:
    """Key of what is made of these parts, in this order."""
    lengths = ",".join(str(len(part)) for part in parts)
    return hashlib.sha256("\n".join([lengths, *parts]).encode()).hexdigest()[:_KEY_DIGITS]


def file_hash(path: Path) -> str:
    """Hash of the bytes of an image file.

    Raises
    ------
    ImageError
        It cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise ImageError(f"{path}: cannot be read: {error.strerror}") from error
    return digest.hexdigest()
