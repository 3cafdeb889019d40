import math
import struct
import sys
import xml.dom.minidom
from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from example_points import LESIONS, LIMIT
from score_rows import THRESHOLDS, bearing, f1, lesion_free, medians, sweep_rows

from sct_lesion_losses.bundle.schema import DetectionLimit, LesionPoint
from sct_lesion_losses.errors import DataError, OutputError
from sct_lesion_losses.metrics.froc import FrocScore
from sct_lesion_losses.metrics.patientwise import proportion
from sct_lesion_losses.report import figures, page
from sct_lesion_losses.report.figures import evaluation, style
from sct_lesion_losses.report.tables import PUBLISHED

NAMES = tuple(name for name, figure in figures.FIGURES.items() if figure.of_rows)


def labelled(axes, label):
    """The one artist of a label."""
    (found,) = [artist for artist in axes.get_children() if artist.get_label() == label]
    return found


def files_of(*names: str) -> set[str]:
    return {f"{name}.{ending}" for name in names for ending in ("png", "svg")}


def test_every_figure_has_its_place_in_the_report() -> None:
    anchors = {anchor for anchor, _, _ in page.SECTIONS}
    assert {figure.section for figure in figures.FIGURES.values()} <= anchors


def test_every_figure_is_written_as_png_and_svg_the_same_whatever_the_settings(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(evaluation, "mine", lambda rows: style.sheet(1), raising=False)
    mine = figures.ReportFigure("scores", "evaluation.mine", "Nothing.", of_rows=True)
    monkeypatch.setitem(figures.FIGURES, "mine", mine)  # registered once, a figure is written
    written = figures.write(sweep_rows(), tmp_path / "one")
    assert {path.name for path in written} == files_of(*NAMES, "mine")
    with matplotlib.rc_context({"font.size": 20, "svg.fonttype": "path", "lines.linewidth": 7}):
        figures.write(sweep_rows(), tmp_path / "two")
    for path in written:
        content = path.read_bytes()
        assert content == (tmp_path / "two" / path.name).read_bytes()
        if path.suffix == ".png":
            assert struct.unpack(">I", content[16:20]) == (2160,)  # 7.2 inch at 300 dpi
        elif path.stem != "mine":
            root = xml.dom.minidom.parseString(content).documentElement
            assert root is not None
            text = "".join(node.toxml() for node in root.getElementsByTagName("text"))
            assert "tversky" in text
            assert "bce" in text


def test_boxes_show_the_quartiles_of_every_threshold() -> None:
    made = evaluation.boxes(sweep_rows())
    assert [axes.get_title() for axes in made.axes] == [
        "tversky\nn = 7, tuned: 0.35",
        "bce\nn = 7, tuned: 0.35",
    ]
    for m, axes in enumerate(made.axes):
        assert axes.get_ylim() == (0, 1)
        segments = labelled(axes, "medians").get_segments()
        assert [segment[:, 0].mean() for segment in segments] == pytest.approx(THRESHOLDS)
        assert [segment[0, 1] for segment in segments] == pytest.approx(medians(m))
        boxes = [path.vertices for path in labelled(axes, "boxes").get_paths()]
        assert len(boxes) == 21
        for threshold, box in zip(THRESHOLDS, boxes, strict=True):
            quartiles = np.percentile([f1(m, s, threshold) for s in range(7)], (25, 75))
            assert (box[:, 1].min(), box[:, 1].max()) == pytest.approx(tuple(quartiles))
        fills = labelled(axes, "boxes").get_facecolor()
        assert [k for k, fill in enumerate(fills) if (fill != fills[0]).any()] == [7]
        assert labelled(axes, "tuned").get_xdata() == [0.35]


def test_few_scans_have_points_and_a_median_but_no_box() -> None:
    (axes,) = evaluation.boxes(sweep_rows(["a"], scans=4)).axes
    assert "boxes" not in {artist.get_label() for artist in axes.collections}
    assert len(labelled(axes, "medians").get_segments()) == 21
    assert len(axes.collections[-1].get_offsets()) == 4 * 21


def test_boxes_of_a_tuned_threshold_off_the_grid_do_not_overlap() -> None:
    rows = sweep_rows(["a"])
    rows += [bearing(f"s{s}", "a", 0.36, False, {"V-F1": 0.5}) for s in range(7)]
    (axes,) = evaluation.boxes(rows).axes
    edges = sorted(
        (p.vertices[:, 0].min(), p.vertices[:, 0].max())
        for p in labelled(axes, "boxes").get_paths()
    )
    assert all(left[1] < right[0] for left, right in pairwise(edges))


def test_lines_are_the_medians_and_dots_the_tuned_thresholds() -> None:
    (axes,) = evaluation.lines(sweep_rows()).axes
    assert axes.get_ylim() == (0, 1)
    for m, model in enumerate(("tversky", "bce")):
        line = labelled(axes, model)
        assert line.get_xdata() == pytest.approx(THRESHOLDS)
        assert line.get_ydata() == pytest.approx(medians(m))
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    assert [dot.get_xydata()[0] for dot in dots] == [
        pytest.approx((0.35, medians(m)[7])) for m in (0, 1)
    ]


@pytest.mark.parametrize("number", [1, 2, 12])
def test_labels_at_the_ends_of_lines_do_not_overlap(number: int) -> None:
    (axes,) = evaluation.lines(sweep_rows([f"m{k}" for k in range(number)])).axes
    made = axes.figure
    made.draw_without_rendering()
    boxes = [
        text.get_window_extent()
        for text in axes.texts
        if text.get_text() in {f"m{k}" for k in range(number)}
    ]
    assert len(boxes) == number
    width, height = made.bbox.size
    for k, box in enumerate(boxes):
        assert 0 <= box.y0 < box.y1 <= height
        assert box.x1 <= width
        assert not any(box.overlaps(other) for other in boxes[:k])


def test_a_rule_without_thresholds_is_a_level_line_and_has_no_boxes() -> None:
    rows = sweep_rows()
    rows += [bearing(f"s{s}", "rule", None, True, {"V-F1": s / 10}) for s in range(7)]
    (axes,) = evaluation.lines(rows).axes
    assert list(labelled(axes, "rule").get_ydata()) == pytest.approx([0.3, 0.3])
    assert len(evaluation.boxes(rows).axes) == 2


def test_points_are_the_patient_wise_scores_with_their_intervals() -> None:
    made = evaluation.patients(sweep_rows())
    assert "preset paper" in made.get_suptitle()
    axes = made.axes[0]
    assert axes.get_xlim() == axes.get_ylim() == (0, 1)
    # At 0.5 lesions are detected in 4 of 7 scans, tuned in all; 1 of 2 lesion-free scans is clean.
    for label, found in (("0.5", proportion(4, 7)), ("tuned", proportion(7, 7))):
        assert labelled(axes, label).get_xydata()[0] == pytest.approx((0.5, found.value))
        assert any(
            list(line.get_ydata()) == pytest.approx([found.low, found.high])
            for line in axes.lines
            if len(line.get_ydata()) == 2
        )
    assert len([text for text in axes.texts if getattr(text, "arrow_patch", None)]) == 1
    assert labelled(axes, "bce").get_xydata()[0] == pytest.approx((0.5, 1.0))


def test_a_figure_that_the_rows_do_not_allow_is_left_out_and_an_old_one_removed(
    tmp_path: Path,
) -> None:
    for name in files_of(*NAMES):
        (tmp_path / name).touch()
    figures.write(sweep_rows(free=0), tmp_path)
    left = [name for name in NAMES if name != "patients"]
    assert {path.name for path in tmp_path.iterdir()} == files_of(*left)
    with pytest.raises(DataError, match="scans with lesions and scans without"):
        evaluation.patients(sweep_rows(free=0))
    rows = [lesion_free("f", "a", threshold, threshold == 0.35) for threshold in THRESHOLDS]
    assert figures.write(rows, tmp_path) == ()
    assert list(tmp_path.iterdir()) == []
    for draw in (evaluation.boxes, evaluation.lines):
        with pytest.raises(DataError, match="no scan has lesions"):
            draw(rows)


def test_v_f1_is_counted_once_where_rows_are_of_several_presets() -> None:
    rows = [bearing(f"s{s}", "a", 0.5, preset=p) for s in range(6) for p in ("paper", "anima")]
    (axes,) = evaluation.boxes(rows).axes
    assert axes.get_title() == "a\nn = 6, untuned"


def test_without_matplotlib_one_line_says_so(tmp_path: Path, monkeypatch, caplog) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    caplog.set_level("INFO")
    assert figures.write(sweep_rows(), tmp_path / "out") == ()
    assert not (tmp_path / "out").exists()
    (record,) = caplog.records
    assert "sct_lesion_losses[report]" in record.getMessage()
    with pytest.raises(OutputError, match=r"sct_lesion_losses\[report\]"):
        style.save(None, tmp_path / "a.png")


def test_no_two_models_look_the_same() -> None:
    names = [*PUBLISHED, "sct as shipped", "default", *(f"mine {k}" for k in range(14))]
    found = style.looks(names)
    assert len({tuple(look.values()) for look in found.values()}) == len(names)


def test_whiskers_reach_1_5_box_lengths_along_the_axis() -> None:
    values = np.array([1.0, 4.0, 8.0, 16.0, 100.0])
    # Quartiles 4, 8, 16. Linear: from 4 - 18 to 16 + 18. Logarithmic: from 4 / 8 to 16 * 8.
    assert evaluation.box(values, logarithmic=False) == (1.0, 4.0, 8.0, 16.0, 16.0)
    assert evaluation.box(values, logarithmic=True) == (1.0, 4.0, 8.0, 16.0, 100.0)


def test_the_froc_curve_is_that_of_the_point_its_peak_marked(tmp_path: Path) -> None:
    made = evaluation.froc(LesionPoint(**LESIONS), "tiny")
    curve, chosen = made.axes[0].lines
    assert curve.get_xydata().tolist() == [[2.5, 0.7], [0.2, 0.5]]
    assert chosen.get_xydata().tolist() == [[0.2, 0.5]]
    written = style.save_all(made, tmp_path / "tiny 1.0")
    assert [path.name for path in written] == ["tiny 1.0.png", "tiny 1.0.svg"]


def test_froc_curves_are_lines_and_masks_are_points_that_are_in_the_picture() -> None:
    model = FrocScore((0, 0.5, 2), (0, 0.25, 0.75), True, 4, 2)
    rater = FrocScore((0, 5), (0, 1), False, 4, 2)
    [axes] = evaluation.froc_curves({"tversky": model, "rater": rater}).axes
    drawn = {str(line.get_label()): line.get_xydata().tolist() for line in axes.lines}
    assert drawn["tversky"] == [[0, 0], [0.5, 0.25], [2, 0.75]]
    assert drawn["rater"] == [[5, 1]]
    assert axes.get_xlim()[1] > 5
    with pytest.raises(DataError, match="no scan has lesions"):
        evaluation.froc_curves({"rater": FrocScore((0, 5), (0, math.nan), False, 4, 0)})


def test_the_detection_limit_has_a_point_for_every_range_with_implants() -> None:
    made = evaluation.detection_limit(DetectionLimit(**LIMIT), "here 1.0.0")
    contrast, volume = made.axes
    bar, point = contrast.lines
    assert bar.get_xydata().tolist() == [[0, 0], [0, 0.5]]
    assert point.get_xydata().tolist() == [[0, 0.25]]
    labels = [tick.get_text() for tick in contrast.get_xticklabels()]
    assert labels == ["under 1.1\nn = 4", "from 1.1\nn = 0"]
    assert [line.get_xydata().tolist() for line in volume.lines] == [[[0, 1.0]]]
    assert "implants, not patients' lesions, in scans of 2 people" in made.get_suptitle()
