from __future__ import annotations

import numpy as np
from small_tubes import with_voxel as tube

from sct_lesion_losses.preprocessing.sampler import Place, draw, places


def test_places_are_every_12_slices_and_know_their_lesions():
    # Starts 0, 12 and 24; slice 55 is in patches 12..59 and 24..71.
    assert places([tube(72, lesion_at=55)]) == [
        Place(0, 0, has_lesion=False),
        Place(0, 12, has_lesion=True),
        Place(0, 24, has_lesion=True),
    ]


def test_lesion_in_the_margin_alone_does_not_count():
    wide = tube(48, margin=4)
    wide.lesion[0, 0, 10] = True
    assert not places([wide])[0].has_lesion


def test_an_epoch_shows_every_patch_once_by_default():
    found = places([tube(72), tube(60)])
    drawn = draw(found, None, None, np.random.default_rng(0))
    assert sorted(drawn, key=found.index) == found


def test_lesion_share_is_kept_by_drawing_again():
    found = places([tube(120, lesion_at=0)])  # 1 of 7 with lesion
    drawn = draw(found, 20, 0.5, np.random.default_rng(0))
    assert sum(place.has_lesion for place in drawn) == 10
    without = [place.start for place in drawn if not place.has_lesion]
    assert set(without) == {12, 24, 36, 48, 60, 72}  # 10 draws of 6: none before every other


def test_a_share_that_cannot_be_kept_draws_what_there_is():
    free = places([tube(72)])
    assert len(draw(free, 5, 0.5, np.random.default_rng(0))) == 5
