from __future__ import annotations

import csv
import logging
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
from small_tubes import with_block as tube

from sct_lesion_losses import losses
from sct_lesion_losses.errors import TrainingError, UsageError
from sct_lesion_losses.preprocessing.augmentation import Augmentation
from sct_lesion_losses.training import callbacks, devices, export, resuming, running
from sct_lesion_losses.training import fit as fitting
from sct_lesion_losses.training.callbacks import Progress
from sct_lesion_losses.training.recipe import Recipe, study
from sct_lesion_losses.training.running import Listener, StepReport
from sct_lesion_losses.training.steps import Machine

tf = pytest.importorskip("tensorflow")

FAST = {
    "filters": (2,),
    "batch_size": 2,
    "patches_per_epoch": 4,
    "validation_patches": 2,
    "rate": 1e-2,
    "augmentation": Augmentation(mirrors=True, rotations=False),
}


def fit(folder, recipe: Recipe, **kwargs) -> fitting.Fitted:
    return fitting.fit([tube(0), tube(1)], [tube(2)], recipe, folder, **kwargs)


@pytest.mark.parametrize("loss", losses.LOSSES)
def test_training_with_any_loss_lowers_the_validation_loss_and_runs_as_onnx(loss, tmp_path):
    settings = FAST | ({"rate": 1.0} if loss == "combo" else {})
    fitted = fit(tmp_path, study(loss, **settings, epochs=4))
    history = fitted.progress.history
    assert min(line.val_loss for line in history[1:]) < history[0].val_loss
    patches = np.random.default_rng(1).normal(size=(2, 48, 48, 48)).astype(np.float32)
    by_keras = np.asarray(fitted.model(patches[..., None], training=False))[..., 0]
    session = onnxruntime.InferenceSession(export.to_onnx(fitted.model, {}))
    by_onnx = session.run(None, {"patches": patches[:, None]})[0][:, 0]
    assert np.abs(by_keras - by_onnx).max() < 1e-5
    assert by_keras.std() > 0.01


def test_training_again_gives_the_same_losses(tmp_path):
    recipe = study(**FAST, epochs=2)
    first, second = fit(tmp_path / "a", recipe), fit(tmp_path / "b", recipe)
    one, two = ([line.loss for line in f.progress.history] for f in (first, second))
    assert one == pytest.approx(two, rel=1e-5)


def test_resumed_training_goes_on_where_it_ended(tmp_path):
    whole = fit(tmp_path / "whole", study(**FAST, epochs=3))
    fit(tmp_path / "parts", study(**FAST, epochs=2))
    parts = fit(tmp_path / "parts", study(**FAST, epochs=3), resume=True)
    assert [line.epoch for line in parts.progress.history] == [1, 2, 3]
    for a, b in zip(whole.model.get_weights(), parts.model.get_weights(), strict=True):
        assert np.allclose(a, b, atol=1e-4)


def test_resuming_a_finished_training_returns_its_best_weights(tmp_path):
    recipe = study(**FAST, epochs=2)
    first, again = fit(tmp_path, recipe), fit(tmp_path, recipe, resume=True)
    assert again.progress == first.progress
    for a, b in zip(first.model.get_weights(), again.model.get_weights(), strict=True):
        assert np.array_equal(a, b)


def test_resuming_with_another_rate_is_refused_and_says_so(tmp_path):
    fit(tmp_path, study(**FAST, epochs=1))
    with pytest.raises(TrainingError, match=r"rate: 0\.01 -> 0\.02"):
        fit(tmp_path, study(**{**FAST, "rate": 0.02}, epochs=2), resume=True)


def test_resuming_with_other_scans_is_refused(tmp_path):
    fit(tmp_path, study(**FAST, epochs=1), data=[("a", "1"), ("b", "2")])
    with pytest.raises(TrainingError, match=r"another training .b has changed.; give"):
        fit(tmp_path, study(**FAST, epochs=2), data=[("a", "1"), ("b", "3")], resume=True)


def test_a_loss_that_is_not_finite_stops_the_training(tmp_path):
    recipe = study(**FAST, epochs=1, loss_numbers={"smooth": float("nan")})
    with pytest.raises(TrainingError, match=r"batch 1 of epoch 1 \(patches of scan\d.*nothing was"):
        fit(tmp_path, recipe)


def test_weights_that_are_no_numbers_are_never_kept(tmp_path):
    every_step = Machine(keep_every_s=0)
    fit(tmp_path, study(**FAST, epochs=1), machine=every_step)
    good = (tmp_path / running.CHECKPOINT).read_bytes()
    wild = study(**FAST | {"optimiser": "adadelta", "rate": 1e38}, epochs=3)
    with pytest.raises(TrainingError, match=r"not a number|the loss is"):
        fit(tmp_path / "wild", wild, machine=every_step)
    kept = callbacks.load(tmp_path / "wild" / running.CHECKPOINT)
    assert kept.finite
    assert (tmp_path / running.CHECKPOINT).read_bytes() == good


def test_a_training_ends_early_where_nothing_gets_better(tmp_path, caplog):
    # With this much smoothing the loss is 0 whatever happens: only epoch 1 is a best one.
    recipe = study(**FAST, epochs=9, early_stop=2, loss_numbers={"smooth": 1e30})
    with caplog.at_level(logging.INFO):
        assert fit(tmp_path, recipe).progress.epoch == 3
    assert "stopped: no better epoch in the last 2" in caplog.messages
    assert fit(tmp_path, recipe, resume=True).progress.epoch == 3
    longer = replace(recipe, early_stop=3)
    assert fit(tmp_path, longer, resume=True).progress.epoch == 4


def test_rate_is_halved_after_patience_epochs_without_improvement(tmp_path):
    # With this much smoothing the loss is 0 whatever happens: only epoch 1 is a best one.
    recipe = study(**FAST, epochs=4, patience=1, loss_numbers={"smooth": 1e30})
    history = fit(tmp_path, recipe).progress.history
    assert [line.rate for line in history] == pytest.approx([1e-2, 1e-2, 5e-3, 2.5e-3])


def test_log_has_a_row_per_epoch(tmp_path):
    fit(tmp_path, study(**FAST, epochs=2))
    with (tmp_path / running.LOG).open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert set(rows[0]) == {"epoch", "loss", "val_loss", "rate", "seconds"}


def test_listener_hears_of_every_step(tmp_path):
    heard: list[StepReport] = []
    listener = Listener(step=heard.append)
    history = fit(tmp_path, study(**FAST, epochs=2), listener=listener).progress.history
    assert [(now.epoch, now.step, now.steps) for now in heard] == [
        *((0, 1, 2), (0, 2, 2)),
        *((1, 1, 2), (1, 2, 2)),
    ]
    assert heard[1].loss == history[0].loss
    assert heard[1].rate == pytest.approx(1e-2)


def test_listener_hears_of_every_epoch(tmp_path):
    heard: list[Progress] = []
    progress = fit(
        tmp_path, study(**FAST, epochs=2), listener=Listener(epoch=heard.append)
    ).progress
    assert [p.epoch for p in heard] == [1, 2]
    assert heard[-1] == progress


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 but no archive"])
def test_a_damaged_checkpoint_is_refused(content, tmp_path):
    (tmp_path / running.CHECKPOINT).write_bytes(content)
    with pytest.raises(TrainingError, match="no readable checkpoint"):
        callbacks.load(tmp_path / running.CHECKPOINT)


def history(fitted: fitting.Fitted) -> list[tuple[float, float]]:
    return [(line.loss, line.val_loss) for line in fitted.progress.history]


def test_a_batch_in_parts_trains_as_the_whole_batch(tmp_path):
    recipe = study(**FAST, epochs=2)
    whole = fit(tmp_path / "whole", recipe)
    parts = fit(tmp_path / "parts", recipe, machine=Machine(micro_batch=1))
    assert np.array(history(parts)) == pytest.approx(np.array(history(whole)), rel=1e-3)


def test_patches_cut_on_the_device_train_as_those_cut_in_memory(tmp_path):
    recipe = study(**FAST, epochs=2)
    outside = fit(tmp_path / "outside", recipe)
    inside = fit(tmp_path / "inside", recipe, machine=Machine(on_device=True))
    assert np.array(history(inside)) == pytest.approx(np.array(history(outside)), rel=1e-3)


class SmallDevice:
    """Takes steps of the whole batch until its memory is full, once and for all."""

    def __init__(self, room_for: int) -> None:
        self.room_for = room_for
        self.take = devices.whole_batch

    def __call__(self, model, patches, lesions) -> float:
        if self.room_for == 0:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
        self.room_for -= 1
        return self.take(model, patches, lesions)


@pytest.mark.parametrize("steps_before", [0, 3])
def test_where_memory_runs_out_the_batch_is_taken_in_parts_and_nothing_else_changes(
    steps_before, tmp_path, monkeypatch, caplog
):
    recipe = study(**FAST, epochs=2)
    whole = fit(tmp_path / "whole", recipe)
    monkeypatch.setattr(devices, "whole_batch", SmallDevice(steps_before))
    small = fit(tmp_path / "small", recipe, machine=Machine(on_device=True, keep_every_s=0))
    assert np.array(history(small)) == pytest.approx(np.array(history(whole)), rel=1e-3)
    own = [r for r in caplog.records if r.name.startswith("sct_lesion_losses")]
    assert [r.message for r in own if r.levelname == "WARNING"] == [
        "the device has too little memory for the cohort: patches are cut outside",
        "the device has too little memory: 1 of the 2 patches of a batch are taken at a time, with "
        "the result of the whole batch but slower",
    ]


def test_other_errors_of_a_step_are_not_taken_for_a_lack_of_memory(tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("something else")

    monkeypatch.setattr(devices, "whole_batch", broken)
    with pytest.raises(RuntimeError, match="something else"):
        fit(tmp_path, study(**FAST, epochs=1))


def test_half_precision_of_16_bits_scales_its_loss_and_goes_on_where_it_ended(tmp_path):
    settings = FAST | {"precision": "mixed_float16"}
    whole = fit(tmp_path / "whole", study(**settings, epochs=2))
    fit(tmp_path / "parts", study(**settings, epochs=1))
    parts = fit(tmp_path / "parts", study(**settings, epochs=2), resume=True)
    assert history(parts) == history(whole)
    assert np.isfinite(history(whole)).all()
    assert history(whole)[1][0] < history(whole)[0][0]


@pytest.mark.skipif(devices.device() == "gpu", reason="a GPU can")
def test_a_precision_that_a_cpu_does_not_have_is_refused(tmp_path):
    with pytest.raises(UsageError, match="mixed_bfloat16 or float32 there"):
        fit(tmp_path, study(**FAST | {"filters": (2, 4), "precision": "mixed_float16"}, epochs=1))


def test_a_training_that_is_given_up_leaves_no_state_behind(tmp_path):
    fit(tmp_path, study(**FAST, epochs=1))
    broken = study(**FAST, epochs=1, loss_numbers={"smooth": float("nan")})
    with pytest.raises(TrainingError, match=r"nothing was kept yet; start anew by -force 1"):
        fit(tmp_path, broken)
    assert list(tmp_path.iterdir()) == []


def test_what_a_kill_left_untold_is_told_when_the_training_goes_on(tmp_path):
    first = fit(tmp_path, study(**FAST, epochs=1))
    (tmp_path / running.LOG).unlink()
    heard: list[Progress] = []
    fit(tmp_path, study(**FAST, epochs=1), resume=True, listener=Listener(epoch=heard.append))
    assert heard == [first.progress]
    assert (tmp_path / running.LOG).read_text().count("\n") == 2


def test_a_training_that_is_not_there_begins_and_says_so(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        fit(tmp_path / "new", study(**FAST, epochs=1), resume=True)
    assert "no state in new yet: starting at the beginning" in caplog.messages


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ({"from_logits": True}, "this one gives probabilities"),
        ({"pooling": "foo"}, "expected pooling"),
        ({"fn_weight": "abc"}, "change -loss_numbers"),
    ],
)
def test_numbers_that_a_loss_cannot_use_are_refused(numbers, said):
    with pytest.raises(UsageError, match=said):
        fitting.check(study(loss_numbers=numbers), Machine())


def test_going_on_by_another_backend_is_warned_of(tmp_path, monkeypatch, caplog):
    fit(tmp_path, study(**FAST, epochs=1))
    monkeypatch.setattr(devices, "backend", lambda: "jax")
    resuming.resumable(study(**FAST, epochs=1), tmp_path)
    assert "begun on tensorflow and goes on on jax" in caplog.text
