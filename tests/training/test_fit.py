import csv
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from small_data import run_onnx
from small_data import with_block as tube

from sct_lesion_losses import losses
from sct_lesion_losses.bundle.schema import Recipe
from sct_lesion_losses.errors import TrainingError, UsageError
from sct_lesion_losses.training import callbacks, export
from sct_lesion_losses.training import fit as fitting
from sct_lesion_losses.training.batches import PatchBatches
from sct_lesion_losses.training.callbacks import StepReports, TrainingState
from sct_lesion_losses.training.fit import changed_data
from sct_lesion_losses.training.recipe import study

# Keras' variables do not know a keyword of NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

BACKEND = keras.backend.backend()
FAST = {
    "filters": (2,),
    "batch_size": 2,
    "patches_per_epoch": 4,
    "validation_patches": 2,
    "rate": 1e-2,
    "rotations": False,
}
PRECISIONS = ("mixed_bfloat16", "float32")
# With this much smoothing the loss is 0 whatever happens: only epoch 1 is a best one.
FLAT = {"arguments": {"smooth": 1e30}}


def fit(folder, recipe: Recipe, crops=None, *, resume=False, data=(), **kwargs):
    """Train on two crops, and score a third; the network and the state."""
    *training, held_out = crops or [tube(0), tube(1), tube(2)]
    state = fitting.begin(recipe, folder, data, resume)
    return fitting.fit(training, [held_out], recipe, folder, state, **kwargs), state


def curves(state: TrainingState) -> list[tuple[float, float]]:
    return [(line.loss, line.val_loss) for line in state.history]


def same(one, other) -> bool:
    """Tell whether two networks have the same weights, to the bit."""
    pairs = zip(one.get_weights(), other.get_weights(), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


@pytest.fixture(scope="module")
def two_epochs(tmp_path_factory):
    """Folder, network and state of a training of two epochs."""
    folder = tmp_path_factory.mktemp("two")
    return folder, *fit(folder, study(**FAST, epochs_planned=2))


@pytest.mark.parametrize("loss", losses.LOSSES)
def test_training_with_any_loss_lowers_the_validation_loss_and_runs_as_onnx(loss, tmp_path):
    settings = FAST | ({"rate": 1.0} if loss == "combo" else {})
    model, state = fit(tmp_path, study(loss, **settings, epochs_planned=4))
    assert min(line.val_loss for line in state.history[1:]) < state.history[0].val_loss
    patches = np.random.default_rng(1).normal(size=(2, 48, 48, 48)).astype(np.float32)
    by_keras = model.predict(patches[..., None], verbose=0)[..., 0]
    by_onnx = run_onnx(export.to_onnx(model), patches)
    assert np.abs(by_keras - by_onnx).max() < 1e-5
    assert by_keras.std() > 0.01


def test_training_again_gives_the_same_weights_and_another_seed_others(two_epochs, tmp_path):
    _, model, state = two_epochs
    again, states = fit(tmp_path / "again", study(**FAST, epochs_planned=2))
    other, _ = fit(tmp_path / "other", study(**FAST, epochs_planned=2, seed=1))
    assert same(model, again)
    assert curves(states) == curves(state)
    assert not same(model, other)


@pytest.mark.parametrize(
    "entries",
    [
        {},
        {"ema": 0.8},
        pytest.param({"precision": "mixed_float16", "ema": 0.8}, marks=pytest.mark.slow),
    ],
)
def test_a_resumed_training_ends_with_the_same_weights(entries, tmp_path):
    settings = FAST | entries
    whole, _ = fit(tmp_path / "whole", study(**settings, epochs_planned=3))
    fit(tmp_path / "parts", study(**settings, epochs_planned=2))
    parts, state = fit(tmp_path / "parts", study(**settings, epochs_planned=3), resume=True)
    assert [line.epoch for line in state.history] == [1, 2, 3]
    assert np.isfinite(curves(state)).all()
    assert same(whole, parts)


def test_the_start_is_validated_first_and_only_warned_of_where_it_stays_the_best(
    two_epochs, tmp_path, caplog
):
    model, state = two_epochs[1:]
    weights, recipe = export.to_safetensors(model), study(**FAST, epochs_planned=1)
    _, better = fit(tmp_path / "better", recipe, initial=weights)
    start, first = better.history
    assert (start.epoch, start.loss, start.rate) == (0, None, None)
    assert start.val_loss == pytest.approx(min(line.val_loss for line in state.history), rel=1e-5)
    assert first.val_loss < start.val_loss
    assert "no epoch was better" not in caplog.text
    log = (tmp_path / "better" / callbacks.LOG).read_text().splitlines()
    assert log[1].startswith(f"0,,{start.val_loss},,")
    # The same in one go and after a stop, and no second start.
    whole, _ = fit(tmp_path / "whole", study(**FAST, epochs_planned=2), initial=weights)
    longer = study(**FAST, epochs_planned=2)
    parts, after = fit(tmp_path / "better", longer, initial=weights, resume=True)
    assert [line.epoch for line in after.history] == [0, 1, 2]
    assert same(whole, parts)
    # Nothing is better at a rate that changes nothing.
    still = study(**FAST | FLAT | {"rate": 1e-12}, epochs_planned=1)
    kept, state = fit(tmp_path / "still", still, initial=weights)
    assert state.best_epoch == 1
    assert not same(kept, model)  # for its statistics
    assert "no epoch was better than the start" in caplog.text


@pytest.mark.parametrize("ema", [None, 0.8])
def test_the_weights_of_the_last_epoch_are_kept_where_they_are_asked_for(ema, tmp_path):
    entries = FAST | FLAT | {"epochs_planned": 2, "ema": ema}  # no epoch is better than the first
    best, state = fit(tmp_path, study(**entries))
    assert state.best_epoch == 1
    last, state = fit(tmp_path, study(**entries, keep="last"), resume=True)
    assert not same(best, last)  # for its statistics
    for found, expected in zip(last.get_weights(), state.average or state.weights, strict=True):
        np.testing.assert_array_equal(found, expected)


class WeightsOfSteps(keras.callbacks.Callback):
    """Keeps the network's own weights at the start and after every step."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[list[np.ndarray]] = []

    def on_train_begin(self, logs=None):
        self.kept.append([array.astype(np.float64) for array in self.model.get_weights()])

    def on_train_batch_end(self, batch, logs=None):
        if BACKEND == "jax":
            self.model.jax_state_sync()
        self.on_train_begin()


def test_averaged_weights_are_those_that_are_validated_and_kept(tmp_path):
    recipe = study(**FAST, epochs_planned=2, ema=0.3)
    model, state = fit(tmp_path, recipe, watching=[steps := WeightsOfSteps()])
    average, after = steps.kept[0], []
    for step, own in enumerate(steps.kept[1:]):
        stays = [1 / 10, 2 / 11, 3 / 12, 0.3][step]  # (1 + n) / (10 + n), 0.3 at most
        average = [stays * a + (1 - stays) * w for a, w in zip(average, own, strict=True)]
        after.append(average)
    best = after[2 * state.best_epoch - 1]  # two steps an epoch
    for found, expected in zip(model.get_weights(), best, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert not same(model, fit(tmp_path / "plain", study(**FAST, epochs_planned=2))[0])
    held_out = PatchBatches([tube(2)], recipe, validation=True)
    losses_of = [line.val_loss for line in state.history]
    assert model.evaluate(held_out, verbose=0) == pytest.approx(min(losses_of), rel=1e-5)
    again = callbacks.load(tmp_path / callbacks.CHECKPOINT)
    for found, expected in zip(again.weights, steps.kept[-1], strict=True):
        np.testing.assert_array_equal(found, expected)  # the training goes on with its own


def test_resuming_a_finished_training_returns_its_best_weights_and_makes_its_log_again(two_epochs):
    folder, model, state = two_epochs
    log = (folder / callbacks.LOG).read_text()
    (folder / callbacks.LOG).unlink()
    again, after = fit(folder, study(**FAST, epochs_planned=2), resume=True)
    assert after.history == state.history
    assert same(model, again)
    assert (folder / callbacks.LOG).read_text() == log
    header, *rows = csv.reader(log.splitlines())
    assert header == ["epoch", "loss", "val_loss", "rate", "seconds"]
    assert [row[0] for row in rows] == ["1", "2"]


def test_resuming_with_other_scans_is_refused_and_says_so(two_epochs):
    with pytest.raises(TrainingError, match=r"another training .b is new.; give"):
        fitting.begin(study(**FAST, epochs_planned=3), two_epochs[0], [("b", "3")], resume=True)


def test_going_on_by_another_backend_is_warned_of(two_epochs, tmp_path, caplog):
    state = two_epochs[2]
    elsewhere = replace(state, settings={**state.settings, "backend": "another"})
    callbacks.save(elsewhere, tmp_path / callbacks.CHECKPOINT)
    fitting.resumable(study(**FAST, epochs_planned=2), tmp_path)
    assert f"begun on another and goes on on {BACKEND}" in caplog.text


def test_a_training_goes_on_where_bfloat16_has_a_kernel_and_where_it_has_none(tmp_path, caplog):
    half, whole = (study(**FAST, epochs_planned=2, precision=p) for p in PRECISIONS)
    once = half.model_copy(update={"epochs_planned": 1})
    begun = fitting.begin(once, tmp_path)
    fitting.fit([tube(0), tube(1)], [tube(2)], once, tmp_path, begun)
    assert fitting.resumable(half, tmp_path).epoch == 1
    assert "goes on" not in caplog.text
    _, state = fit(tmp_path, whole, resume=True)
    assert "begun in mixed_bfloat16 and goes on in float32: its weights will" in caplog.text
    assert state.epoch == 2
    begun.settings["recipe"]["precision"] = "float32"
    callbacks.save(begun, tmp_path / callbacks.CHECKPOINT)
    assert fitting.resumable(half, tmp_path).epoch == 1
    assert "begun in float32 and goes on in mixed_bfloat16" in caplog.text
    other = study(**FAST, epochs_planned=2, precision="mixed_float16")
    with pytest.raises(TrainingError, match="precision: 'float32' -> 'mixed_float16'"):
        fitting.resumable(other, tmp_path)


def test_a_stopped_training_ends_as_stopped_though_its_state_cannot_be_read(tmp_path, caplog):
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            (tmp_path / callbacks.CHECKPOINT).write_bytes(b"")
            raise SystemExit(143)

    with pytest.raises(SystemExit, match="143"):
        fit(tmp_path, study(**FAST, epochs_planned=2), watching=[Stop()])
    assert "stopped: the state after epoch 1 is kept in" in caplog.text


def test_a_loss_that_is_not_finite_names_its_scans_and_keeps_the_last_good_state(
    two_epochs, tmp_path
):
    broken = replace(tube(1), values=np.full_like(tube(1).values, np.nan))
    recipe = study(**FAST, epochs_planned=3)
    with pytest.raises(
        TrainingError, match=r"the loss is nan at batch \d of epoch 1 \(patches of .*scan1.*nothing"
    ):
        fit(tmp_path, recipe, [tube(0), broken, tube(2)])
    assert list(tmp_path.iterdir()) == []
    state = (two_epochs[0] / callbacks.CHECKPOINT).read_bytes()
    (tmp_path / callbacks.CHECKPOINT).write_bytes(state)
    with pytest.raises(TrainingError, match=r"at batch \d of epoch 3 .*last good state is in"):
        fit(tmp_path, recipe, [tube(0), broken, tube(2)], resume=True)
    assert (tmp_path / callbacks.CHECKPOINT).read_bytes() == state


def test_a_validation_loss_that_is_not_finite_ends_the_training(tmp_path):
    broken = replace(tube(2), values=np.full_like(tube(2).values, np.nan))
    with pytest.raises(TrainingError, match="the validation loss is nan after epoch 1; nothing"):
        fit(tmp_path, study(**FAST, epochs_planned=1), [tube(0), broken])


def test_weights_that_are_no_numbers_are_never_kept(tmp_path):
    wild = study(**FAST | {"optimiser": "adadelta", "rate": 1e38}, epochs_planned=3)
    with pytest.raises(TrainingError, match=r"not a number|loss is"):
        fit(tmp_path, wild)
    path = tmp_path / callbacks.CHECKPOINT
    kept = callbacks.load(path).weights if path.exists() else []
    assert all(np.isfinite(array).all() for array in kept)


def test_a_training_ends_early_where_nothing_gets_better(tmp_path, caplog):
    recipe = study(**FAST, **FLAT, epochs_planned=9, stop_patience=2)
    caplog.set_level("INFO")
    assert fit(tmp_path, recipe)[1].epoch == 3
    assert "stopped: no better epoch in the last 2" in caplog.messages
    assert fit(tmp_path, recipe, resume=True)[1].epoch == 3
    longer = study(**FAST, **FLAT, epochs_planned=9, stop_patience=3)
    assert fit(tmp_path, longer, resume=True)[1].epoch == 4


def test_the_rate_is_halved_after_patience_epochs_without_improvement_across_a_stop(tmp_path):
    fit(tmp_path, study(**FAST, **FLAT, epochs_planned=2, patience=1))
    _, state = fit(tmp_path, study(**FAST, **FLAT, epochs_planned=4, patience=1), resume=True)
    assert [line.rate for line in state.history] == pytest.approx([1e-2, 1e-2, 5e-3, 2.5e-3])


def test_every_step_and_every_epoch_is_told_of(tmp_path, caplog):
    heard: list[tuple[int, int, str]] = []
    recipe = study(**FAST, epochs_planned=2)
    state = fitting.begin(recipe, tmp_path)
    watching = [StepReports(state, lambda *now: heard.append(now))]
    caplog.set_level("INFO")
    fitting.fit([tube(0), tube(1)], [tube(2)], recipe, tmp_path, state, watching=watching)
    assert [now[:2] for now in heard] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert heard[1][2] == f"epoch 1 of 2, loss {state.history[0].loss:.4f}"
    lines = [text for text in caplog.messages if text.startswith("epoch")]
    assert len(lines) == 2
    assert lines[0].startswith(f"epoch 1 of 2: loss {state.history[0].loss:.4f}, validation")
    assert lines[0].endswith("left")


@pytest.mark.parametrize(
    ("error", "raised", "said"),
    [
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory"), TrainingError, "2 .*smaller -batch"),
        (RuntimeError("something else"), RuntimeError, "something else"),
    ],
)
def test_too_little_memory_alone_is_said_with_what_to_change(error, raised, said, tmp_path):
    def fail(_, logs):
        raise error

    failing = keras.callbacks.LambdaCallback(on_train_batch_end=fail)
    with pytest.raises(raised, match=said):
        fit(tmp_path, study(**FAST, epochs_planned=1), watching=[failing])


@pytest.fixture
def out_of_memory() -> Exception:
    """The error of the backend where memory runs out."""
    if BACKEND == "tensorflow":  # tries for ten seconds before it raises
        import tensorflow as tf

        return tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
    with pytest.raises(RuntimeError) as caught:
        keras.ops.convert_to_numpy(keras.ops.ones((2**50,)))  # four petabytes
    return caught.value


def test_a_lack_of_memory_is_recognised_as_the_backend_or_keras_raises_it(out_of_memory):
    class Layer(keras.layers.Layer):
        def call(self, x):
            raise out_of_memory

    with pytest.raises(Exception, match="Layer") as caught:
        Layer()(keras.ops.ones((1, 1)))
    assert fitting.exhausted(caught.value)
    assert fitting.exhausted(out_of_memory)


def test_a_lack_of_memory_is_recognised_by_torch_s_type_and_as_a_cause():
    class OutOfMemoryError(RuntimeError):
        pass

    error = ValueError("batch 3")
    error.__cause__ = RuntimeError("RESOURCE_EXHAUSTED: failed to allocate 2.0GiB")
    assert fitting.exhausted(error)
    assert fitting.exhausted(OutOfMemoryError("CUDA error"))


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes differ"), MemoryError(), ValueError("out of memory"), OSError()]
)
def test_other_errors_are_not_taken_for_a_lack_of_memory(error):
    assert not fitting.exhausted(error)


@pytest.mark.skipif(fitting.device() == "gpu", reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_missed_and_nothing_else_is():
    fitting.require_device("auto")
    fitting.require_device("cpu")
    with pytest.raises(TrainingError, match=f"{BACKEND} sees no GPU"):
        fitting.require_device("gpu")


@pytest.mark.skipif(fitting.device() == "gpu" or BACKEND != "tensorflow", reason="this one can")
def test_a_precision_that_a_cpu_does_not_have_is_refused():
    with pytest.raises(UsageError, match="mixed_bfloat16 or float32 there"):
        fitting.check(study(filters=(2, 4), precision="mixed_float16"))


AVX2 = {"fma", "avx", "avx2", "f16c", "avx_vnni"}


@pytest.mark.skipif(fitting.device() == "gpu" or BACKEND != "tensorflow", reason="others compute")
def test_bfloat16_gives_way_to_float32_where_the_cpu_has_no_kernel_of_it(caplog):
    half = study(precision="mixed_bfloat16")
    for native in ("avx512f", "avx_ne_convert", "bf16"):
        assert fitting.computable(half, AVX2 | {native}) == half
    assert fitting.computable(half, ()) == half  # nothing tells
    assert fitting.computable(study(), AVX2) == study()
    assert not caplog.records
    assert fitting.computable(half, AVX2) == study()
    assert "no kernel of bfloat16" in caplog.text
    assert "the precision is float32" in caplog.text


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="Linux tells so")
def test_the_features_of_this_cpu_are_found():
    assert fitting.cpu_flags() & {"sse2", "asimd"}


def test_a_training_that_is_not_there_begins_and_says_so(tmp_path, caplog):
    caplog.set_level("INFO")
    fit(tmp_path / "new", study(**FAST, epochs_planned=1), resume=True)
    assert "no state in new yet: starting at the beginning" in caplog.messages


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"from_logits": True}, "this one gives probabilities"),
        ({"pooling": "foo"}, "expected pooling"),
        ({"fn_weight": "abc"}, "change -loss_numbers"),
    ],
)
def test_arguments_that_a_loss_cannot_use_are_refused(arguments, said):
    with pytest.raises(UsageError, match=said):
        fitting.check(study(arguments=arguments))


BEFORE = [("a in training", "1"), ("b in training", "2"), ("c in validation", "3")]


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (BEFORE, []),
        (BEFORE[:2], ["c in validation is missing"]),
        ([*BEFORE, ("d in training", "4")], ["d in training is new"]),
        ([BEFORE[0], ("b in training", "9"), BEFORE[2]], ["b in training has changed"]),
        (BEFORE[::-1], ["the scans come in another order"]),
        (
            [BEFORE[0], ("b in validation", "2"), BEFORE[2]],
            ["b in training is missing", "b in validation is new"],
        ),
        (
            [*BEFORE, *((f"s{number}", "1") for number in range(9))],
            [*(f"s{number} is new" for number in range(5)), "and 4 more"],
        ),
    ],
)
def test_what_is_new_missing_or_changed_is_named(after, said):
    assert changed_data(BEFORE, after) == said


GPU = {"patches_per_epoch": 32, "validation_patches": 8, "rate": 1e-3}


@pytest.mark.gpu
@pytest.mark.skipif(fitting.device() != "gpu", reason="there is no GPU")
@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_training_on_a_gpu_lowers_the_validation_loss_in_every_precision(precision, tmp_path):
    recipe = study(**GPU, precision=precision, epochs_planned=2)
    scans = [tube(number, 120) for number in range(3)]
    assert fitting.compiled(recipe).jit_compile
    _, state = fit(tmp_path, recipe, scans)
    assert state.history[1].val_loss < state.history[0].val_loss


@pytest.mark.gpu
@pytest.mark.skipif(fitting.device() != "gpu", reason="there is no GPU")
def test_a_batch_beyond_the_memory_of_a_gpu_is_refused_with_what_to_change(tmp_path):
    huge = study(**GPU | {"patches_per_epoch": 4096}, batch_size=4096, epochs_planned=1)
    with pytest.raises(TrainingError, match="smaller -batch"):
        fit(tmp_path, huge, [tube(0, 120), tube(2, 120)])
