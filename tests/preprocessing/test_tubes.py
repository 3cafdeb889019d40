from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_cohort import write_cohort

from sct_lesion_losses.cohorts import table as cohorts
from sct_lesion_losses.geometry.centerline import Centerline
from sct_lesion_losses.images import nifti
from sct_lesion_losses.preprocessing import scan as prepare
from sct_lesion_losses.preprocessing import scan as tubes


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    return write_cohort(tmp_path_factory.mktemp("cohort"), subjects=4)


def test_the_inner_window_of_a_training_tube_is_what_a_network_sees_in_use(cohort):
    scan = cohorts.read(cohort)[3]
    raw = tubes.cut(scan, margin=4)
    image = nifti.read(scan.scan)
    mask = nifti.read_mask(scan.centerline)
    rpi, reorientation = image.grid.to_rpi()
    line = Centerline.from_mask(reorientation.apply(mask.array), rpi)
    _, expected = prepare.tube_values(image.array, image.grid, line)
    assert raw.values.shape[:2] == (56, 56)
    assert np.array_equal(raw.inner(4), expected)


def test_lesion_mask_lies_on_the_bright_block_of_the_tube(cohort):
    scan = cohorts.read(cohort)[3]
    raw = tubes.cut(scan)
    # The scan is at 0.5 mm already: the block of 8 x 8 x 16 voxels is sampled as it is.
    assert raw.lesion.sum() == 8 * 8 * 16
    assert raw.values[raw.lesion].min() > raw.values[~raw.lesion].mean()


def test_what_cuts_tubes_does_not_load_keras():
    code = "import sys, sct_lesion_losses.preprocessing.scan; print('keras' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
