from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sct_lesion_losses.centerline import training
from sct_lesion_losses.centerline.training import Example

Maker = Callable[..., Example]


def test_a_point_stays_on_the_cord_whatever_is_changed() -> None:
    rng = np.random.default_rng(0)
    image = np.full((80, 70), 100, np.uint8)
    image[29:32, 39:42] = 200
    for _ in range(40):
        changed, point = training.augmented(image, np.array([40.0, 30.0]), rng)
        assert point is not None
        x, y = np.rint(point).astype(int)
        around = changed[max(y - 6, 0) : y + 7, max(x - 6, 0) : x + 7].astype(float)
        middle = changed[y - 1 : y + 2, x - 1 : x + 2].mean()
        assert abs(middle - np.median(around)) > 5


def test_wrong_places_keep_away_from_the_cord(example: Maker) -> None:
    point = np.array([25.0, 30.0])
    image = example(0).pictures.images[0]
    for weights in (None, np.ones(577, np.float32)):
        rng = np.random.default_rng(0)
        places = training._wrong_places(image, point, rng, weights)
        assert len(places) > 0
        assert np.hypot(*(places[:, ::-1] - point).T).min() > training.RIGHT_MM


def test_slabs_above_the_cord_have_only_wrong_places(example: Maker) -> None:
    above = example(0)
    assert above.points is not None
    nowhere = Example(above.pictures, np.full_like(above.points, np.nan))
    right, wrong = training.harvest([nowhere], np.random.default_rng(0))
    assert len(right) == 0
    assert len(wrong) > 0
