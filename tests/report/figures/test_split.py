import struct
from pathlib import Path

import numpy as np
import pytest

from sct_lesion_losses.cohorts.splits import LesionLoad, PartLoad
from sct_lesion_losses.report.figures import split, style


def part(name: str, volumes: list[float], lesion_free: int = 0) -> PartLoad:
    loads = [LesionLoad(1 + k % 4, mm3) for k, mm3 in enumerate(volumes)]
    loads += [LesionLoad(0, 0.0)] * lesion_free
    return PartLoad(name, subjects=len(loads), sites=1, loads=tuple(loads))


PARTS = [
    part("training", [5.0, 20.0, 40.0, 80.0, 160.0, 900.0]),
    part("validation", [33.0]),
    part("thr-optimization", []),
    part("unseen", [50.0, 70.0], lesion_free=3),
]


def test_the_same_parts_give_the_same_files_wide_enough_for_print(tmp_path: Path) -> None:
    for name in ("one", "two"):
        style.save_all(split.figure(PARTS), tmp_path / name)
    for ending in ("png", "svg"):
        one, two = ((tmp_path / f"{name}.{ending}").read_bytes() for name in ("one", "two"))
        assert one == two
    content = (tmp_path / "one.png").read_bytes()
    assert struct.unpack(">II", content[16:24]) == (2160, 1050)  # 7.2 x 3.5 inch at 300 dpi


@pytest.mark.parametrize(
    "volumes", [[], [7.0], [7.0] * 6, [1e-3, 1e6, 10.0, 20.0, 30.0], list(np.linspace(1, 9, 3000))]
)
def test_any_load_can_be_drawn(volumes: list[float], tmp_path: Path) -> None:
    made = split.figure([part("training", volumes, lesion_free=1)])
    style.save(made, tmp_path / "split.png")


def test_labels_count_scans_subjects_and_the_lesion_free() -> None:
    assert [split.label(p) for p in PARTS] == [
        "training\n6 scans, 6 subjects",
        "validation\n1 scan, 1 subject",
        "thr-optimization\n0 scans, 0 subjects",
        "unseen\n5 scans, 5 subjects\n3 without lesions",
    ]
