from __future__ import annotations

import pytest

from sct_lesion_losses.training.callbacks import EpochLine, Progress, Steps, duration, seconds_left


def after(*losses: float) -> Progress:
    progress = Progress()
    for epoch, loss in enumerate(losses, start=1):
        progress = progress.advanced(EpochLine(epoch, loss, loss, 1e-4, 10.0 * epoch))
    return progress


def test_progress_counts_epochs_since_the_best():
    progress = after(0.5, 0.4, 0.45, 0.41)
    assert (progress.best_epoch, progress.best_loss, progress.waited) == (2, 0.4, 2)
    assert progress.epoch == 4


def test_an_epoch_begins_without_steps():
    progress = after(0.5).stepped(0.4, 1.0)
    assert progress.steps == Steps(1, 0.4, 1.0)
    assert progress.advanced(EpochLine(2, 0.4, 0.4, 1e-4, 1.0)).steps == Steps()


def test_loss_of_an_epoch_is_the_mean_of_its_steps():
    steps = Steps().plus(0.5, 1.0).plus(0.25, 2.0)
    assert (steps.done, steps.loss, steps.seconds) == (2, 0.375, 3.0)


@pytest.mark.parametrize(
    ("epochs", "early_stop", "ended"),
    [(4, None, True), (5, None, False), (5, 2, True), (5, 3, False)],
)
def test_a_training_ends_by_its_epochs_or_by_its_patience(epochs, early_stop, ended):
    assert after(0.5, 0.4, 0.45, 0.41).ended(epochs, early_stop) is ended


def test_time_left_follows_the_last_epochs():
    # Seconds of the last five: 20 to 60, their median 40; four epochs are left.
    assert seconds_left(after(*[0.5] * 6).history, 10) == 160


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0 s"), (59, "59 s"), (90, "2 min"), (3599, "1 h 0 min"), (31_300, "8 h 42 min")],
)
def test_durations_are_said_as_people_say_them(seconds, said):
    assert duration(seconds) == said
