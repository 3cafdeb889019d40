import numpy as np
import pytest
from scipy import ndimage

from sct_lesion_losses import losses
from sct_lesion_losses.losses.instance import BASES, blob, components

tf = pytest.importorskip("tensorflow")


def volume(batch: int = 1) -> np.ndarray:
    return np.zeros((batch, 8, 8, 8, 1), np.float32)


def test_components_are_those_of_scipy() -> None:
    masks = np.random.default_rng(0).random((5, 10, 10, 10, 1)) < 0.12
    found = np.asarray(components(tf.constant(masks)))
    for mask, labels in zip(masks[..., 0], found[..., 0], strict=True):
        expected, count = ndimage.label(mask, np.ones((3, 3, 3)))
        pairs = {*zip(expected[mask].tolist(), labels[mask].tolist(), strict=True)}
        assert len(pairs) == count == len({label for _, label in pairs})
        assert not labels[~mask].any()


def test_a_winding_lesion_is_one() -> None:
    mask = volume().astype(bool)
    mask[0, 0, :, 0], mask[0, 0, 7, :], mask[0, :, 7, 7], mask[0, 7, :, 7] = True, True, True, True
    assert len(np.unique(np.asarray(components(tf.constant(mask))))) == 2


def test_a_worked_example() -> None:
    # Lesions of 8 and of 1 voxel, the first found whole, the second missed; one false voxel.
    g, p = volume(), volume()
    g[0, 0:2, 0:2, 0:2] = 1
    g[0, 6, 6, 6] = 1
    p[0, 0:2, 0:2, 0:2] = 1
    p[0, 4, 4, 0] = 1
    # Dice with smoothing 1: whole 1 - 17/19; alone 1 - 17/18 and 1 - 1/3.
    expected = 2 * (1 - 17 / 19) + ((1 - 17 / 18) + (1 - 1 / 3)) / 2
    assert np.asarray(blob(g, p)) == pytest.approx([expected], rel=1e-6)


def test_a_small_lesion_counts_as_much_as_a_large_one() -> None:
    g = volume()
    g[0, 0:3, 0:3, 0:3] = 1
    g[0, 6, 6, 6] = 1
    only_large, only_small = g.copy(), g.copy()
    only_large[0, 6, 6, 6] = 0
    only_small[0, 0:3, 0:3, 0:3] = 0
    arguments = {"whole_weight": 0.0, "base": "tversky"}
    missed_small = float(blob(g, only_large, **arguments)[0])
    missed_large = float(blob(g, only_small, **arguments)[0])
    assert missed_small > 0.4 * missed_large
    plain = float(losses.tversky(g, only_large)[0]), float(losses.tversky(g, only_small)[0])
    assert plain[0] < 0.1 * plain[1]


@pytest.mark.parametrize("base", BASES)
def test_any_base_has_finite_values_and_gradients(base: str) -> None:
    rng = np.random.default_rng(1)
    for g in (volume(2), volume(2) + 1, (rng.random((2, 8, 8, 8, 1)) < 0.05).astype(np.float32)):
        p = tf.constant(rng.random(g.shape).astype(np.float32))
        with tf.GradientTape() as tape:
            tape.watch(p)
            value = tf.reduce_mean(blob(g, p, base=base))
        assert np.isfinite(value)
        assert np.isfinite(tape.gradient(value, p)).all()


def test_without_lesions_it_is_the_base_loss() -> None:
    p = np.random.default_rng(2).random((2, 8, 8, 8, 1)).astype(np.float32)
    expected = 2 * np.asarray(losses.dice(volume(2), p))
    assert np.asarray(blob(volume(2), p)) == pytest.approx(expected)


def test_an_unknown_base_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected a base out of bce, dice.*received 'dise'"):
        blob(volume(), volume(), base="dise")
