from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib import image

from sct_lesion_losses.errors import UsageError
from sct_lesion_losses.report.figures import learning
from sct_lesion_losses.report.figures import learning as curves
from sct_lesion_losses.training.callbacks import EpochLine, Progress


def after(*losses: float) -> Progress:
    progress = Progress()
    for epoch, loss in enumerate(losses, start=1):
        progress = progress.advanced(EpochLine(epoch, loss, loss + 0.1, 1e-4 / epoch, 1.0))
    return progress


def scalars(folder: Path) -> dict[tuple[str, int], float]:
    """What TensorBoard would show: the values of every tag by epoch."""
    tf = pytest.importorskip("tensorflow")
    found = {}
    for file in sorted(folder.glob("events*")):
        for record in tf.data.TFRecordDataset(str(file)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            if event.session_log.status == tf.compat.v1.SessionLog.START:
                found = {key: value for key, value in found.items() if key[1] < event.step}
            for value in event.summary.value:
                found[value.tag, event.step] = value.simple_value
    return found


def test_the_picture_shows_both_losses_and_the_best_epoch(tmp_path):
    curves.draw_history(after(0.9, 0.5, 0.6), tmp_path / "a.png")
    shown = image.imread(tmp_path / "a.png")[..., :3]
    for colour in (learning.TRAINING_COLOUR, learning.VALIDATION_COLOUR):
        wanted = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        assert (np.abs(shown - wanted).max(axis=-1) < 0.02).sum() > 100
    text = tmp_path / "a.svg"
    curves.draw_history(after(0.9, 0.5, 0.6), text)
    assert text.read_text().startswith("<?xml")


def test_a_hundred_rates_are_not_all_labelled(tmp_path):
    curves.draw_history(after(*np.linspace(1, 0.1, 100)), tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 0


def test_the_picture_is_there_at_the_end_with_the_last_epoch(tmp_path):
    with curves.drawn(tmp_path) as after_epoch:
        after_epoch(after(0.9))
        first = (tmp_path / curves.PICTURE).read_bytes()
        after_epoch(after(0.9, 0.5))
        assert (tmp_path / curves.PICTURE).read_bytes() == first  # a minute has not passed
    assert (tmp_path / curves.PICTURE).read_bytes() != first
    assert [path.name for path in tmp_path.iterdir()] == [curves.PICTURE]


def test_a_training_without_an_epoch_has_no_picture(tmp_path):
    with curves.drawn(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_event_files_hold_every_epoch_once_also_after_going_on(tmp_path):
    with curves.drawn(tmp_path, tensorboard=True) as after_epoch:
        for losses in ((0.9,), (0.9, 0.5), (0.9, 0.5, 0.7)):
            after_epoch(after(*losses))
    with curves.drawn(tmp_path, tensorboard=True) as after_epoch:
        after_epoch(after(0.9, 0.5, 0.4))  # the third epoch once more
    found = scalars(tmp_path / curves.EVENTS)
    assert found["loss/training", 3] == pytest.approx(0.4)
    assert found["loss/validation", 2] == pytest.approx(0.6)
    assert found["rate", 1] == pytest.approx(1e-4)
    assert len(found) == 9


def test_tensorboard_without_its_package_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with (
        pytest.raises(UsageError, match="pip install tensorboardX"),
        curves.drawn(tmp_path, tensorboard=True),
    ):
        pass
