from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from sct_lesion_losses.bundle.schema import LesionPoint
from sct_lesion_losses.report.figures import froc

POINT = LesionPoint(
    peak=0.5,
    volume_mm3=3.0,
    preset="paper",
    f1=0.6,
    f1_unfiltered=0.5,
    froc={"peaks": (0.3, 0.5, 0.9), "sensitivity": (0.9, 0.8, 0.3), "false_lesions": (3, 1, 0.2)},
    n_scans=4,
)


def test_the_curve_is_drawn_as_png_and_svg(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    written = froc.draw(POINT, tmp_path / "tiny 1.0", "tiny")
    assert [path.name for path in written] == ["tiny 1.0.png", "tiny 1.0.svg"]
    assert written[0].read_bytes().startswith(b"\x89PNG")
    assert ElementTree.parse(written[1]).getroot().tag.endswith("svg")
