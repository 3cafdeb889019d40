from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from sct_lesion_losses.metrics.lesionwise import MeasuredLesion
from sct_lesion_losses.report import sidecar

HEADER = "lesion\tvolume_mm3\tlength_mm\tx_mm\ty_mm\tz_mm\tmean_p\thighest_p\tvanishes_above\n"


def test_the_table_has_one_row_per_lesion(tmp_path: Path) -> None:
    found = [
        MeasuredLesion(1, 143.2, 12.0, (1.0, -2.5, 30.25), 0.61234567, float(np.float32(0.9))),
        MeasuredLesion(2, 1.0, 0.8, (0.0, 0.0, 0.0), 0.4, 0.5),
    ]
    table, _ = sidecar.write(tmp_path / "t2_lesionseg_lesions.tsv", found)
    assert table.read_text() == (
        HEADER
        + "1\t143.200\t12.000\t1.000\t-2.500\t30.250\t0.6123\t0.9000\t0.899999976\n"
        + "2\t1.000\t0.800\t0.000\t0.000\t0.000\t0.4000\t0.5000\t0.5\n"
    )


def test_the_threshold_of_a_row_still_keeps_its_lesion(tmp_path: Path) -> None:
    highest = np.float32(0.7123456)
    found = [MeasuredLesion(1, 1, 1, (0, 0, 0), 0.5, float(highest))]
    table, _ = sidecar.write(tmp_path / "x.tsv", found)
    assert np.float32(table.read_text().split()[-1]) == highest


def test_an_empty_table_keeps_its_header(tmp_path: Path) -> None:
    table, _ = sidecar.write(tmp_path / "x.tsv", [])
    assert table.read_text() == HEADER


def test_every_column_is_described(tmp_path: Path) -> None:
    _, description = sidecar.write(tmp_path / "x.tsv", [])
    described = json.loads(description.read_text())
    assert description.name == "x.json"
    assert list(described) == HEADER.split()
    assert described["volume_mm3"] == {"Description": "Volume", "Units": "mm^3"}
    assert all(column["Description"] for column in described.values())
