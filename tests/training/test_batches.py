import platform
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from small_data import with_voxel as crop

from sct_lesion_losses.errors import DataError
from sct_lesion_losses.preprocessing import augmentation as augment
from sct_lesion_losses.preprocessing.cache import TrainingCrop
from sct_lesion_losses.training.batches import PatchBatches, Place, draw, places
from sct_lesion_losses.training.recipe import study


def batches_of(crops, size: int = 2, *, validation: bool = False, **entries) -> PatchBatches:
    return PatchBatches(crops, study(batch_size=size, **entries), validation)


def test_a_batch_is_the_same_whenever_it_is_asked_for_and_another_in_every_epoch():
    batches = batches_of([crop(90, margin=4)], seed=3)
    first = batches[1][0]
    batches[0]
    assert np.array_equal(batches[1][0], first)
    batches.go_to(1)
    second = batches[1][0]
    assert not np.array_equal(first, second)
    again = batches_of([crop(90, margin=4)], seed=3)
    again.go_to(1)
    assert np.array_equal(again[1][0], second)


def test_the_last_batch_is_filled_up():
    batches = batches_of([crop(72)], validation=True)  # 3 patches
    assert len(batches) == 2
    assert np.array_equal(batches[1][0][1], batches[0][0][0])


def test_validation_shows_the_same_centred_patches_in_every_epoch():
    wide = crop(48, margin=4)
    batches = batches_of([wide], 1, validation=True)
    inner = wide.values[4:-4, 4:-4]
    expected = (inner - inner.mean()) / inner.std()
    first = batches[0][0][0, ..., 0]
    assert first == pytest.approx(expected, abs=1e-4)
    batches.go_to(1)
    assert np.array_equal(batches[0][0][0, ..., 0], first)


def test_crops_are_left_as_they_are():
    one = crop(60, margin=4, lesion_at=30)
    before = one.values.copy()
    batches = batches_of([one], intensity=1.0)
    for index in range(len(batches)):
        batches[index]
    assert np.array_equal(one.values, before)


def test_no_scan_at_all_is_refused():
    with pytest.raises(DataError, match="no scan to draw patches from"):
        batches_of([])


def test_places_are_every_12_slices_and_know_their_lesions():
    # Starts 0, 12 and 24; slice 55 is in patches 12..59 and 24..71.
    assert places([crop(72, lesion_at=55)]) == [
        Place(0, 0, has_lesion=False),
        Place(0, 12, has_lesion=True),
        Place(0, 24, has_lesion=True),
    ]


def test_lesion_in_the_margin_alone_does_not_count():
    wide = crop(48, margin=4)
    wide.lesion[0, 0, 10] = True
    assert not places([wide])[0].has_lesion


def test_an_epoch_shows_every_patch_once_by_default():
    found = places([crop(72), crop(60)])
    drawn = draw(found, None, study(), np.random.default_rng(0))
    assert sorted(drawn, key=found.index) == found


def test_lesion_share_is_kept_by_drawing_again():
    found = places([crop(120, lesion_at=0)])  # 1 of 7 with lesion
    drawn = draw(found, 20, study(lesion_share=0.5), np.random.default_rng(0))
    assert sum(place.has_lesion for place in drawn) == 10
    without = [place.start for place in drawn if not place.has_lesion]
    assert set(without) == {12, 24, 36, 48, 60, 72}  # 10 draws of 6: none before every other


def test_a_share_that_cannot_be_kept_draws_what_there_is():
    free = places([crop(72)])
    assert len(draw(free, 5, study(lesion_share=0.5), np.random.default_rng(0))) == 5


# Patches: 1 with lesion and 6 without in scan 0, 2 and 5 in scan 2; 7 in the lesion-free scans.
MIXED = [
    replace(crop(120, lesion_at=at), cohort=cohort)
    for at, cohort in ((0, "a"), (None, "a"), (12, "b"), (None, "c"))
]


@pytest.mark.parametrize(
    ("entries", "per_scan", "with_lesion"),
    [
        # 0.6, 0.2 and 0.2 of 40; all that c has is free.
        ({"cohort_shares": {"a": 0.6, "b": 0.2, "c": 0.2}, "lesion_share": 0.5}, [24, 8, 8], 16),
        # Half of 40 hold lesion; 0.75 of the others are from the scans 1 and 3.
        ({"lesion_share": 0.5, "free_share": 0.75}, [25, 15], 20),
        # 3 of 28 patches hold lesion, of 40 about 4, and half of 36 are free.
        ({"free_share": 0.5}, [22, 18], 4),
        # Of a: 10 with lesion, 10 from scan 1. Of c all, of b none.
        (
            {"cohort_shares": {"a": 0.5, "b": 0, "c": 0.5}, "lesion_share": 0.5, "free_share": 1},
            [20, 0, 20],
            10,
        ),
    ],
)
def test_patches_are_shared_out_by_cohort_by_lesion_and_by_scans_without_any(
    entries, per_scan, with_lesion
):
    recipe = study(**entries)
    drawn = draw(places(MIXED), 40, recipe, np.random.default_rng(0))
    if recipe.cohort_shares:
        found = [sum(place.cohort == name for place in drawn) for name in "abc"]
    else:
        found = [sum(place.is_free is free for place in drawn) for free in (False, True)]
    assert found == per_scan
    assert sum(place.has_lesion for place in drawn) == with_lesion
    if recipe.free_share == 1:
        assert {place.crop for place in drawn if not place.has_lesion} == {1, 3}


def test_shares_that_are_no_whole_numbers_of_patches_are_rounded_to_as_many_as_asked_for():
    shares = {"a": 0.35, "b": 0.35, "c": 0.3}
    drawn = draw(places(MIXED), 7, study(cohort_shares=shares), np.random.default_rng(0))
    # Up to a 2.45, up to b 4.9, up to c 7.
    assert [sum(place.cohort == name for place in drawn) for name in "abc"] == [2, 3, 2]


def test_a_cohort_without_a_patch_to_validate_on_leaves_its_share_to_the_others():
    entries = {"cohort_shares": {"a": 0.5, "gone": 0.5}, "validation_patches": 6}
    assert len(batches_of(MIXED[:2], 1, validation=True, **entries)) == 6


def noisy(margin: int = 0) -> TrainingCrop:
    rng = np.random.default_rng(1)
    side = 48 + 2 * margin
    values = rng.normal(50, 20, size=(side, side, 60)).astype(np.float32)
    return TrainingCrop(values, rng.random(values.shape) < 0.01)


def plainly(crop: TrainingCrop, intensity: float, seed: int) -> tuple[np.ndarray, ...]:
    """The first batch of two, step by step, the normalisation in float64."""
    order = draw(places([crop]), None, study(), np.random.default_rng([seed, 0]))
    rng = np.random.default_rng([seed, 0, 0])
    patches, lesions = [], []
    for place in order:
        x, y = rng.integers(0, 2 * crop.margin + 1, 2) if crop.margin else (0, 0)
        box = (slice(x, x + 48), slice(y, y + 48), slice(place.start, place.start + 48))
        patch, lesion = crop.values[box], crop.lesion[box]
        if intensity > 0:
            patch = augment.vary_intensity(patch, rng, intensity)
        axes, turns = np.flatnonzero(rng.random(3) < 0.5), int(rng.integers(4))
        patch, lesion = (np.rot90(np.flip(a, axes), turns) for a in (patch, lesion))
        patches.append((patch - patch.mean(dtype=np.float64)) / patch.std(dtype=np.float64))
        lesions.append(lesion)
    return np.stack(patches)[..., None], np.stack(lesions)[..., None]


@pytest.mark.parametrize("margin", [0, 4])
@pytest.mark.parametrize("intensity", [0.0, 1.0])
def test_a_batch_is_cut_varied_turned_and_normalised(margin: int, intensity: float) -> None:
    one = noisy(margin)
    for seed in range(4):
        patches, lesions = batches_of([one], intensity=intensity, seed=seed)[0]
        expected, expected_lesions = plainly(one, intensity, seed)
        np.testing.assert_allclose(patches, expected, atol=2e-5 if intensity else 2e-6)
        np.testing.assert_array_equal(lesions, expected_lesions)
        assert patches.dtype == lesions.dtype == np.float32


def test_a_crop_stored_slice_after_slice_and_read_only_gives_the_same_batch() -> None:
    one = noisy(margin=4)
    stored = []
    for array in (one.values, one.lesion):
        slices = np.ascontiguousarray(array.transpose(2, 0, 1))
        slices.setflags(write=False)
        stored.append(slices.transpose(1, 2, 0))
    first, again = (batches_of([crop])[0] for crop in (one, TrainingCrop(*stored)))
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])


def test_a_stripe_follows_the_cord_when_the_window_is_moved_and_is_no_lesion() -> None:
    values = np.full((56, 56, 60), 20, np.float32)
    values[27:29, 27:29] = 0  # the middle of the crop stays the darkest of the patch
    still = {"mirrors": False, "rotations": False, "shift_mm": 2.0, "stripe": 1.0}
    batches = batches_of([TrainingCrop(values, np.zeros(values.shape, bool))], 8, **still)
    patches, lesions = batches[0]
    assert not lesions.any()
    for patch in patches[..., 0]:
        middle = np.argwhere(patch == patch.min())[:, :2].mean(axis=0)
        brightest = np.argwhere(patch == patch.max())[0, :2]
        assert np.abs(brightest - middle).max() <= 3.5


FAULTS = """
import resource
import numpy as np
from sct_lesion_losses.training.batches import PatchBatches
from sct_lesion_losses.training.recipe import study
from sct_lesion_losses.preprocessing.cache import TrainingCrop

def faults(number):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(number):
        batches[0]
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / number

crop = TrainingCrop(np.ones((48, 48, 48), np.float32), np.ones((48, 48, 48), bool))
batches = PatchBatches([crop], study(), validation=True)
faults(2)
print(faults(5))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_batches_live_in_the_memory_of_those_before() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True
    )
    # Two arrays of 8 x 442 kB have 1728 pages of 4 kB.
    assert float(done.stdout) < 100
