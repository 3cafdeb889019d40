"""A process that cuts the crops of a cohort into a cache, and says what it did.

    python crop_cache_process.py COHORT CACHE [HANG]

It waits for a line on stdin. HANG is the number of the entry in whose writing it says so and hangs.
"""

import json
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sct_lesion_losses.cohorts import table
from sct_lesion_losses.images.atomic import replacing
from sct_lesion_losses.preprocessing import cache

written: list[Path] = []


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


@contextmanager
def hanging(path: Path) -> Iterator[Path]:
    with replacing(path) as temporary:
        written.append(path)
        if len(written) == int(sys.argv[3]):
            temporary.write_bytes(b"half")
            say("writing")
            time.sleep(600)
        yield temporary


def main() -> None:
    scans = table.read(Path(sys.argv[1]))
    if len(sys.argv) > 3:
        cache.replacing = hanging
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    say("ready")
    sys.stdin.readline()
    cut = cache.crop_scans(scans, cache.CacheSettings(Path(sys.argv[2])))
    say(json.dumps([one.seen for one in cut]))


if __name__ == "__main__":
    main()
