from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cord_detector
import numpy as np
import pytest
from cord_detector import Example

from sct_lesion_losses import phantom
from sct_lesion_losses.centerline import detector
from sct_lesion_losses.centerline.detector import Detector
from sct_lesion_losses.errors import TrainingError
from sct_lesion_losses.geometry.centerline import Centerline

Maker = Callable[..., Example]


@pytest.fixture(scope="module")
def weights(example: Maker) -> np.ndarray:
    return cord_detector.train([example(k, k % 4 != 3) for k in range(16)], seed=0, rounds=1)


def test_trained_weights_find_the_disc_in_new_scans(example: Maker, weights: np.ndarray) -> None:
    seen, errors = cord_detector.examined(weights, [example(100), example(101)])
    assert max(errors) < 1
    without, _ = cord_detector.examined(weights, [example(100, cord=False)])
    assert max(without) < min(seen)


def test_the_same_seed_gives_the_same_weights(example: Maker) -> None:
    examples = [example(k, k != 1) for k in range(2)]
    first = cord_detector.train(examples, seed=3, rounds=1)
    np.testing.assert_array_equal(cord_detector.train(examples, seed=3, rounds=1), first)
    assert not np.array_equal(cord_detector.train(examples, seed=4, rounds=1), first)


def test_the_limit_lies_between_the_scans_with_and_without_a_cord() -> None:
    # From -1 three quarters of the way to 3.
    assert cord_detector.limit_between([-2, -1], [3, 5]) == 2


def test_the_shipped_limit_lets_one_of_the_84_without_a_cord_through() -> None:
    record = detector.shipped().training
    without = record["held_out"] // 2 + record["noise"]
    assert (record["held_out"] // 2, without) == (60, 84)
    assert record["held_out_accepted_without"] == int(cord_detector.MOST_ACCEPTED * without) == 1


def test_one_scan_in_fifty_without_a_cord_and_one_in_twenty_with_one_may_be_mistaken() -> None:
    without = [4.0, *np.linspace(-3, -1, 49)]
    with_cord = [-2.0, *np.linspace(3, 5, 19)]
    assert cord_detector.limit_between(without, with_cord) == 2
    with pytest.raises(TrainingError, match=r"11 of 20 .* than 4\.00"):
        cord_detector.limit_between(without[:-1], with_cord)
    with pytest.raises(TrainingError, match=r"2 of 20 .* than -1\.00"):
        cord_detector.limit_between(without, [-3.0, *with_cord[:-1]])


def test_classes_count_alike_whatever_their_numbers() -> None:
    rng = np.random.default_rng(0)
    right = rng.normal(0.2, 0.1, (20, 576)).astype(np.float32)
    wrong = rng.normal(0.0, 0.1, (400, 576)).astype(np.float32)
    weights = cord_detector.fit(right, wrong)
    assert ((right @ weights[:-1] + weights[-1]) > 0).all()
    assert ((wrong @ weights[:-1] + weights[-1]) < 0).all()


def test_noise_is_an_example_without_a_cord() -> None:
    noise = cord_detector.blobs(0, 3)
    assert np.isnan(noise.points).all()
    np.testing.assert_array_equal(noise.pictures.images, cord_detector.blobs(0, 3).pictures.images)
    assert noise.pictures.images.shape != cord_detector.blobs(0, 4).pictures.images.shape


def test_the_points_of_a_simulated_scan_lie_on_its_cord(monkeypatch: pytest.MonkeyPatch) -> None:
    scan = phantom.make_scan(0, preset="tiny")
    monkeypatch.setattr(phantom, "make_scan", lambda *_, **__: scan)
    rpi, reorientation = scan.grid.to_rpi()
    truth = Centerline.from_mask(reorientation.apply(scan.cord), rpi)
    made = cord_detector.simulated(0, 0)
    known = np.flatnonzero(truth.covered)
    expected = [np.interp(made.pictures.z, known, truth.xy[known, k]) for k in range(2)]
    apart = np.linalg.norm(made.points - made.pictures.to_pixels(np.column_stack(expected)), axis=1)
    inside = np.isfinite(apart) & (made.pictures.z > known[0]) & (made.pictures.z < known[-1])
    assert inside.sum() > 3
    assert apart[inside].max() < 1


def test_the_command_trains_and_writes_a_detector(
    example: Maker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(
        cord_detector,
        "simulated",
        lambda seed, k, with_cord=True: example(100 * seed + k, with_cord),
    )
    cord_detector.main(["-o", str(tmp_path / "d.npz"), "-scans", "16", "-seed", "5"])
    made = detector.load(tmp_path / "d.npz")
    lowest, highest = (
        made.training["held_out_evidence_with_cord"][0],
        made.training["held_out_evidence_without"][1],
    )
    assert highest < made.limit < lowest
    assert (made.training["scans"], made.training["seed"]) == (16, 5)
    assert made.training["held_out_refused"] == 0
    assert made.training["held_out_accepted_without"] == 0


def test_a_saved_detector_comes_back(tmp_path: Path) -> None:
    weights = np.arange(577, dtype=np.float32)
    cord_detector.save(tmp_path / "d.npz", Detector(weights, 0.25, {"version": "7", "seed": 3}))
    back = detector.load(tmp_path / "d.npz")
    np.testing.assert_array_equal(back.weights, weights)
    assert (back.limit, back.training) == (0.25, {"version": "7", "seed": 3})


def test_a_detector_that_tells_nothing_apart_is_not_written(
    example: Maker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cord_detector, "simulated", lambda *_, **__: example(0))
    with pytest.raises(TrainingError, match="train on more scans"):
        cord_detector.main(["-o", str(tmp_path / "d.npz"), "-scans", "4"])
    assert not (tmp_path / "d.npz").exists()


def test_a_point_stays_on_the_cord_whatever_is_changed() -> None:
    rng = np.random.default_rng(0)
    image = np.full((80, 70), 100, np.uint8)
    image[29:32, 39:42] = 200
    for _ in range(40):
        changed, point = cord_detector.augmented(image, np.array([40.0, 30.0]), rng)
        x, y = np.rint(point).astype(int)
        around = changed[max(y - 6, 0) : y + 7, max(x - 6, 0) : x + 7].astype(float)
        middle = changed[y - 1 : y + 2, x - 1 : x + 2].mean()
        assert abs(middle - np.median(around)) > 5


def test_wrong_places_keep_away_from_the_cord(example: Maker) -> None:
    point = np.array([25.0, 30.0])
    image = example(0).pictures.images[0]
    for weights in (None, np.ones(577, np.float32)):
        rng = np.random.default_rng(0)
        places = cord_detector._wrong_places(image, point, rng, weights)
        assert len(places) > 0
        assert np.hypot(*(places[:, ::-1] - point).T).min() > cord_detector.RIGHT_MM


def test_slabs_above_the_cord_have_only_wrong_places(example: Maker) -> None:
    above = example(0)
    nowhere = Example(above.pictures, np.full_like(above.points, np.nan))
    right, wrong = cord_detector.collect_descriptors([nowhere], np.random.default_rng(0))
    assert len(right) == 0
    assert len(wrong) > 0
