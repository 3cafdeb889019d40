from __future__ import annotations

import platform
import subprocess
import sys

import numpy as np
import pytest

from sct_lesion_losses.preprocessing import augmentation as augment
from sct_lesion_losses.preprocessing.augmentation import Augmentation
from sct_lesion_losses.preprocessing.sampler import Place, TrainingTube, filled, windows

PLACES = [Place(0, start, True) for start in (0, 12, 7, 12)]


def tube(margin: int = 0, lesion: bool = True) -> TrainingTube:
    rng = np.random.default_rng(1)
    side = 48 + 2 * margin
    values = rng.normal(50, 20, size=(side, side, 60)).astype(np.float32)
    return TrainingTube(values, (rng.random(values.shape) < 0.01) & lesion)


def plainly(tube: TrainingTube, augmentation: Augmentation, seed: int) -> tuple[np.ndarray, ...]:
    """What `filled` is to return, step by step, the normalisation in float64."""
    rng = np.random.default_rng(seed)
    patches, lesions = [], []
    for place in PLACES:
        x, y = rng.integers(0, 2 * tube.margin + 1, 2) if tube.margin else (0, 0)
        box = (slice(x, x + 48), slice(y, y + 48), slice(place.start, place.start + 48))
        patch, lesion = tube.values[box], tube.lesion[box]
        if augmentation.intensity > 0:
            patch = augment.vary_intensity(patch, rng, augmentation.intensity)
        axes, turns = np.flatnonzero(rng.random(3) < 0.5), int(rng.integers(4))
        patch, lesion = (np.rot90(np.flip(a, axes), turns) for a in (patch, lesion))
        patches.append((patch - patch.mean(dtype=np.float64)) / patch.std(dtype=np.float64))
        lesions.append(lesion)
    return np.stack(patches)[..., None], np.stack(lesions)[..., None]


@pytest.mark.parametrize("margin", [0, 4])
@pytest.mark.parametrize("intensity", [0.0, 1.0])
def test_a_batch_is_cut_varied_turned_and_normalised(margin: int, intensity: float) -> None:
    one, augmentation = tube(margin), Augmentation(intensity=intensity)
    patches, lesions = filled(windows([one], PLACES, augmentation, np.random.default_rng(3)))
    expected, expected_lesions = plainly(one, augmentation, 3)
    assert patches.dtype == lesions.dtype == np.float32
    np.testing.assert_allclose(patches, expected, atol=2e-5 if intensity else 2e-6)
    np.testing.assert_array_equal(lesions, expected_lesions)


def test_a_tube_stored_slice_after_slice_and_read_only_gives_the_same_batch() -> None:
    one = tube(margin=4)
    stored = []
    for array in (one.values, one.lesion):
        slices = np.ascontiguousarray(array.transpose(2, 0, 1))
        slices.setflags(write=False)
        stored.append(slices.transpose(1, 2, 0))
    given = (PLACES, Augmentation())
    expected = filled(windows([one], *given, np.random.default_rng(0)))
    found = filled(windows([TrainingTube(*stored)], *given, np.random.default_rng(0)))
    assert np.array_equal(found[0], expected[0])
    assert np.array_equal(found[1], expected[1])


def test_a_batch_without_lesions_is_all_zero() -> None:
    _, lesions = filled(windows([tube(lesion=False)], PLACES, None, np.random.default_rng(0)))
    assert not lesions.any()


FAULTS = """
import resource
import numpy as np
from sct_lesion_losses.preprocessing import sampler as filling
from sct_lesion_losses.preprocessing.sampler import Place, TrainingTube

def faults(batches):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(batches):
        filling.filled(filling.windows([tube], [Place(0, 0, True)] * 8, None, None))
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / batches

tube = TrainingTube(np.ones((48, 48, 48), np.float32), np.ones((48, 48, 48), bool))
filling.keep_freed_memory()
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
