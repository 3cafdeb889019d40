"""The page of masks with thousands of scans: its size, and how soon it opens in Chromium.

    python benchmarks/qc_page.py ENTRY.json [ENTRY.json ...] [-n 2000]

Entries that `-qc_page` left beside masks are repeated under other names. To reach: 3 s until the
first scan is drawn and the list can be sorted. The work is that of the page's main thread, in time
of a CPU; the others count the waiting for one, too.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from sct_lesion_losses.report import qc_page

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from browser import Browser

TURNS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("entries", nargs="+", type=Path)
    parser.add_argument("-n", type=int, default=2000)
    given = parser.parse_args()
    held = [json.loads(file.read_text()) for file in given.entries]
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, f"{number:05d}.json") for number in range(given.n)]
        for number, file in enumerate(files):
            entry = held[number % len(held)]
            named = {"name": f"sub-{number:05d}_{entry['name']}", "digest": f"{number:016x}"}
            file.write_text(json.dumps({**entry, **named}))
        page = Path(folder, "page.html")
        start = time.perf_counter()
        qc_page.write(page, files)
        megabytes = page.stat().st_size / 1e6
        print(
            f"{given.n} scans, {megabytes:.1f} MB, written in {time.perf_counter() - start:.1f} s"
        )
        names = ("first scan drawn", "all read", "work of the page", "last scan drawn")
        seconds: dict[str, list[float]] = {name: [] for name in names}
        with Browser(Path(folder)) as browser:
            for _ in range(TURNS):
                browser.call("Page.navigate", url="about:blank")
                before = browser.busy_seconds()
                start = time.perf_counter()
                browser.open(page)
                browser.until("document.title === 'page' && document.body.dataset.shown")
                seconds["first scan drawn"].append(time.perf_counter() - start)
                browser.until("document.readyState === 'complete'")
                seconds["all read"].append(time.perf_counter() - start)
                seconds["work of the page"].append(browser.busy_seconds() - before)
                start = time.perf_counter()
                browser.value("show(shown.at(-1))")
                browser.until("seen && document.body.dataset.shown === scans[at].name")
                seconds["last scan drawn"].append(time.perf_counter() - start)
        for name, times in seconds.items():
            listed = " ".join(f"{one:.2f}" for one in times)
            print(f"{name:17} median {statistics.median(times):.2f} s ({listed})")


if __name__ == "__main__":
    main()
