from pathlib import Path

import numpy as np
import pytest

from sct_lesion_losses.bundle.schema import Epoch
from sct_lesion_losses.errors import DataError
from sct_lesion_losses.report.figures import learning


def history(*losses: float | None) -> tuple[Epoch, ...]:
    return tuple(
        Epoch(epoch=k, loss=0.5 / k, val_loss=loss, rate=1e-3 / k)
        for k, loss in enumerate(losses, start=1)
    )


def test_each_training_has_its_losses_and_its_rate() -> None:
    made = learning.figure({"a": history(0.9, 0.4, 0.6), "none": (), "b": history(3, 2, 1)})
    assert [axes.get_title() for axes in made.axes] == ["a", "", "b", ""]
    loss, rate = made.axes[:2]
    lines = {line.get_label(): line for line in loss.lines}
    assert list(lines["training"].get_ydata()) == pytest.approx([0.5, 0.25, 0.5 / 3])
    assert list(lines["validation"].get_ydata()) == pytest.approx([0.9, 0.4, 0.6])
    assert lines["lowest validation loss"].get_xydata()[0] == pytest.approx((2, 0.4))
    assert list(rate.lines[0].get_ydata()) == pytest.approx([1e-3, 5e-4, 1e-3 / 3])
    assert made.axes[0].get_ylim() != made.axes[2].get_ylim()


def test_what_was_not_measured_is_a_gap() -> None:
    unknown = (Epoch(epoch=1), Epoch(epoch=2))
    made = learning.figure({"a": history(0.9, None, 0.6), "b": unknown})
    values = made.axes[0].lines[1].get_ydata()
    assert np.isnan(values).tolist() == [False, True, False]


def test_the_start_is_drawn_and_is_not_the_best_epoch() -> None:
    made = learning.figure({"a": (Epoch(epoch=0, val_loss=0.1), *history(0.9, 0.4))})
    lines = {line.get_label(): line for line in made.axes[0].lines}
    assert lines["validation"].get_xydata()[0] == pytest.approx((0, 0.1))
    assert lines["lowest validation loss"].get_xydata()[0] == pytest.approx((2, 0.4))


def test_bundles_without_a_history_are_refused() -> None:
    with pytest.raises(DataError, match="no training has an epoch"):
        learning.figure({"sct": ()})


@pytest.mark.parametrize("name", ["a.png", "a.svg"])
def test_one_training_is_drawn_with_its_best_epoch(name: str, tmp_path: Path) -> None:
    for epochs in (history(0.9, 0.5, 0.6), history(*np.linspace(1, 0.1, 100))):
        learning.draw_history(epochs, tmp_path / name)
        learning.draw_history(epochs, tmp_path / f"again_{name}")
        content = (tmp_path / name).read_bytes()
        assert content == (tmp_path / f"again_{name}").read_bytes()
    assert name == "a.png" or b"best: 0.1000 in epoch 100" in content
