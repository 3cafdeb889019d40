from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sct_lesion_losses.report.figures import style
from sct_lesion_losses.study import pictures
from sct_lesion_losses.study.settings import Settings

HEADER = "scan\tlesion_mask\tsubject\tsite\tsplit\tcenterline\tlesions\tlesion_volume_mm3\n"


def table_of(folder: Path, volumes: list[float], split: str = "unseen") -> Path:
    lines = []
    for k, volume in enumerate(volumes):
        (folder / f"s{k}.nii.gz").touch()
        lines.append(f"s{k}.nii.gz\ts{k}.nii.gz\tp{k}\t\t{split}\t\t{int(volume > 0)}\t{volume}\n")
    table = folder / "split.tsv"
    table.write_text(HEADER + "".join(lines))
    return table


@given(st.lists(st.integers(0, 50), min_size=1, max_size=8))
def test_as_many_scans_hold_more_lesion_as_hold_less(
    tmp_path_factory: pytest.TempPathFactory, volumes: list[int]
) -> None:
    chosen = pictures.typical(table_of(tmp_path_factory.mktemp("t"), [float(v) for v in volumes]))
    bearing = sorted(v for v in volumes if v)
    if not bearing:
        assert chosen is None
        return
    assert chosen is not None
    assert volumes[int(chosen.name[1:])] == bearing[(len(bearing) - 1) // 2]


def test_other_parts_and_scans_without_a_cord_are_not_shown(tmp_path: Path) -> None:
    assert pictures.typical(table_of(tmp_path, [5.0], split="training")) is None
    table = table_of(tmp_path, [5.0, 9.0, 1.0])
    chosen = pictures.typical(table, ["s0"])
    assert chosen is not None
    assert chosen.name == "s2"


def test_figures_of_an_earlier_call_do_not_stay(tmp_path: Path) -> None:
    folder = tmp_path / "figures"
    folder.mkdir()
    for stem in (pictures.SCAN, pictures.CURVES):
        for path in style.paths_of(folder / stem):
            path.write_text("of other models")
    (tmp_path / "scores.json").write_text('{"ScansWithoutCord": []}')
    table = table_of(tmp_path, [0.0])
    pictures.draw(folder, table, tmp_path / "scores.json", [], Settings())
    assert list(folder.iterdir()) == []
