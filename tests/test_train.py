from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_cohort import write_cohort

from sct_lesion_losses import prepare, train
from sct_lesion_losses.augment import Augmentation
from sct_lesion_losses.bundle import store
from sct_lesion_losses.data import cohort as cohorts
from sct_lesion_losses.data import nifti, splits
from sct_lesion_losses.errors import DataError
from sct_lesion_losses.model.recipe import study
from sct_lesion_losses.space.centerline import Centerline

FAST = study(
    filters=(2, 4),
    batch_size=2,
    epochs=2,
    patches_per_epoch=4,
    validation_patches=2,
    rate=1e-2,
    augmentation=Augmentation(shift_mm=1.0),
)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    return write_cohort(tmp_path_factory.mktemp("cohort"), subjects=8)


@pytest.fixture(scope="module")
def trained(cohort, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "small"
    return train.run(cohort, folder, FAST, about=train.About(name="small"))


def test_training_writes_a_bundle_that_loads_with_an_untuned_threshold(trained):
    bundle = store.load(trained)
    assert (bundle.name, bundle.threshold) == ("small", 0.5)
    assert bundle.info.operating_point.kind == "untuned"
    assert bundle.info.loss.numbers["fn_weight"] == 0.7
    assert bundle.info.recipe.epochs_run == 2
    assert bundle.info.preparation.landmarks[0] == 0


def test_bundle_knows_the_contents_of_what_it_was_trained_on(trained):
    scans = cohorts.read(trained.with_name("small.training") / train.SPLIT_TABLE)
    known = store.load(trained).info.provenance.trained_on
    used = splits.part(scans, "training", "validation")
    assert sorted(known) == sorted(
        cohorts.content_hash(nifti.read(scan.scan).array) for scan in used
    )


def test_the_inner_window_of_a_training_tube_is_what_a_network_sees_in_use(cohort):
    scan = cohorts.read(cohort)[3]
    raw = train.raw_tube(scan, margin=4)
    image = nifti.read(scan.scan)
    mask = nifti.read_mask(scan.centerline)
    rpi, reorientation = image.grid.to_rpi()
    line = Centerline.from_mask(reorientation.apply(mask.array), rpi)
    _, expected = prepare.tube_values(image.array, image.grid, line)
    assert raw.values.shape[:2] == (56, 56)
    assert np.array_equal(raw.inner(4), expected)


def test_lesion_mask_lies_on_the_bright_block_of_the_tube(cohort):
    scan = cohorts.read(cohort)[3]
    raw = train.raw_tube(scan)
    # The scan is at 0.5 mm already: the block of 8 x 8 x 16 voxels is sampled as it is.
    assert raw.lesion.sum() == 8 * 8 * 16
    assert raw.values[raw.lesion].min() > raw.values[~raw.lesion].mean()


def test_resumed_training_adds_epochs_to_the_bundle(cohort, tmp_path):
    folder = tmp_path / "small"
    train.run(cohort, folder, FAST, about=train.About(name="small"))
    longer = replace(FAST, epochs=3)
    train.run(cohort, folder, longer, about=train.About(name="small"), resume=True)
    assert [line.epoch for line in store.load(folder).info.history] == [1, 2, 3]


def test_a_cohort_without_lesions_in_training_is_refused(tmp_path):
    data = write_cohort(tmp_path / "data", subjects=4, lesion_free=4)
    scans = cohorts.read(data)
    parts = ("training", "training", "validation", "unseen")
    table = tmp_path / "table.tsv"
    cohorts.write(
        [replace(scan, split=part) for scan, part in zip(scans, parts, strict=True)], table
    )
    with pytest.raises(DataError, match="no scan of the training set holds lesions"):
        train.run(table, tmp_path / "bundle", FAST)


def test_split_is_told(cohort, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        train.run(cohort, tmp_path / "small", FAST, about=train.About(name="small"))
    assert "split: 4 training, 1 validation, 1 thr-optimization, 2 unseen" in caplog.messages
