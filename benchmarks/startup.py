"""Start of `sct_deepseg_lesion_tuned -h`, against a Python that does nothing.

    python benchmarks/startup.py

Both in turn, in one run. To reach: 0.3 s.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

TURNS = 15
HELP = [str(Path(sys.executable).with_name("sct_deepseg_lesion_tuned")), "-h"]
NOTHING = [sys.executable, "-c", "pass"]


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    turns = [(seconds(HELP), seconds(NOTHING)) for _ in range(TURNS + 1)][1:]  # one warms up
    helped, empty = (statistics.median(times) for times in zip(*turns, strict=True))
    ratio = statistics.median(a / b for a, b in turns)
    print(f"-h            median {helped:.3f} s")
    print(f"python, idle  median {empty:.3f} s")
    print(f"ratio         median {ratio:.1f}")


if __name__ == "__main__":
    main()
