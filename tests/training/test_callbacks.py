import numpy as np
import pytest

from sct_lesion_losses.bundle.schema import Epoch
from sct_lesion_losses.errors import OutputError, TrainingError
from sct_lesion_losses.training import callbacks
from sct_lesion_losses.training.callbacks import (
    EventFiles,
    LearningCurves,
    TrainingState,
    seconds_left,
)
from sct_lesion_losses.training.recipe import study


def after(*losses: float, rates: tuple[float, ...] = ()) -> TrainingState:
    rates = rates or (1e-4,) * len(losses)
    lines = [
        Epoch(epoch=epoch, loss=loss, val_loss=loss, rate=rate, seconds=10.0 * epoch)
        for epoch, (loss, rate) in enumerate(zip(losses, rates, strict=True), start=1)
    ]
    return TrainingState({"recipe": {}}, tuple(lines))


def test_the_state_counts_epochs_since_the_best_and_since_the_last_change_of_rate():
    state = after(0.5, 0.4, 0.4, 0.41)
    assert (state.epoch, state.best_epoch, state.idle, state.waited) == (4, 2, 2, 2)
    lowered = after(0.5, 0.4, 0.45, 0.41, 0.42, rates=(1, 1, 1, 1, 0.5))
    assert (lowered.idle, lowered.waited) == (3, 1)
    assert (after().best_epoch, after().waited) == (0, 0)


def test_the_start_is_no_epoch_and_never_the_best_one():
    state = after(0.5, 0.4, 0.45)
    state.history = (Epoch(epoch=0, val_loss=0.1, seconds=1000.0), *state.history)
    assert (state.epoch, state.best_epoch, state.idle, state.waited) == (3, 2, 1, 1)
    assert seconds_left(state.history, 5) == 40  # two epochs of 20 s, the median of 10, 20 and 30
    state.history = state.history[:1]
    assert (state.epoch, state.best_epoch, state.idle, state.waited) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("epochs", "patience", "ended"),
    [(4, None, True), (5, None, False), (5, 2, True), (5, 3, False)],
)
def test_a_training_ends_by_its_epochs_or_by_its_patience(epochs, patience, ended):
    recipe = study(epochs_planned=epochs, stop_patience=patience)
    assert after(0.5, 0.4, 0.45, 0.41).ended(recipe) is ended


def test_a_state_comes_back_from_its_file_whole(tmp_path):
    state = after(0.5, 0.4, 0.45)
    rng = np.random.default_rng(0)
    state.weights = [rng.normal(size=(2, 3)).astype(np.float32) for _ in range(12)]
    state.best_weights = [array + 1 for array in state.weights]
    state.optimiser = [np.array(7, np.int32), rng.normal(size=4).astype(np.float32)]
    callbacks.save(state, tmp_path / "state.npz")
    again = callbacks.load(tmp_path / "state.npz")
    for group in ("weights", "best_weights", "optimiser"):
        stored, expected = getattr(again, group), getattr(state, group)
        assert [array.dtype for array in stored] == [array.dtype for array in expected]
        assert all(np.array_equal(a, b) for a, b in zip(stored, expected, strict=True))
    assert (again.settings, again.history) == (state.settings, state.history)


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 but no archive"])
def test_a_missing_or_damaged_state_is_refused(content, tmp_path):
    path = tmp_path / callbacks.CHECKPOINT
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TrainingError, match="no readable checkpoint"):
        callbacks.load(path)


def test_time_left_follows_the_last_epochs():
    # Seconds of the last five: 20 to 60, their median 40; four epochs are left.
    assert seconds_left(after(*[0.5] * 6).history, 10) == 160


def test_curves_are_drawn_once_a_minute_and_at_the_end(monkeypatch, caplog):
    now = [0.0]
    monkeypatch.setattr(callbacks.time, "monotonic", lambda: now[0])
    drawn = []
    curves = LearningCurves(state := after(0.5), lambda history: drawn.append(len(history)))
    for epoch, seconds in enumerate((0.0, 59.0, 61.0)):
        now[0] = seconds
        curves.on_epoch_end(epoch)
        state.history += (Epoch(epoch=epoch + 2),)
    curves.on_train_end()
    assert drawn == [1, 3, 4]


def test_a_picture_that_cannot_be_written_ends_no_training(caplog):
    def draw(_):
        raise OutputError("disk full")

    LearningCurves(after(0.5), draw).on_train_end()
    assert "no picture of the learning curves: disk full" in caplog.text


def test_event_files_hold_both_losses_and_the_rate_of_every_epoch(tmp_path):
    files = EventFiles(state := after(0.5), tmp_path)
    files.on_epoch_end(0)
    state.history += (Epoch(epoch=2, loss=0.4, val_loss=0.4, rate=1e-4),)
    files.on_epoch_end(1)
    files.on_train_end()
    (written,) = tmp_path.iterdir()
    content = written.read_bytes()
    for tag in (b"loss/training", b"loss/validation", b"rate"):
        assert content.count(tag) >= 2
    assert written.name.endswith(".from00001")
