"""Average of the weights of several bundles, as a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from itertools import product
from pathlib import Path

import numpy as np
import safetensors.numpy

from sct_lesion_losses.bundle import store
from sct_lesion_losses.bundle.schema import OperatingPoint
from sct_lesion_losses.errors import BundleError, UsageError
from sct_lesion_losses.images import atomic
from sct_lesion_losses.report import card
from sct_lesion_losses.training import export, unet, warm_start


def average(names: Sequence[str], folder: Path, force: bool = False, command: str = "") -> Path:
    """Write the bundle whose weights are the mean of those of several.

    It is meant for bundles of one training at several of its epochs, or of trainings that started
    from one bundle, whose weights lie in one valley of the loss: their mean is often steadier on
    scans unlike those trained on than each of them, and as fast as one. The mean of weights that
    were trained apart is a network of no use.

    Parameters
    ----------
    names : sequence of str
        Names or folders of two bundles or more, alike in network, loss and preparation. What the
        last one says of its training stands in the new bundle.
    folder : Path
        The bundle to write; its threshold is untuned.
    force : bool
        Replace a bundle that is there.
    command : str
        The command line, for the model card.

    Returns
    -------
    Path
        `folder`, absolute.

    Raises
    ------
    BundleError
        A bundle is missing, damaged or unlike the others, or the folder may not be replaced.
    UsageError
        There is only one bundle.
    OutputError
        The folder cannot be written.

    References
    ----------
    Izmailov et al. 2018, "Averaging weights leads to wider optima and better generalization".
    Wortsman et al. 2022, "Model soups".
    """
    if len(names) < 2:
        raise UsageError("average needs two bundles or more, and -ofolder for the new one")
    folder = folder.absolute()
    store.check_replaceable(folder, force)
    atomic.require_writable(folder.parent)
    bundles = [store.load(name) for name in names]
    last = bundles[-1]
    for other, what in product(bundles[:-1], ("network", "loss", "preparation")):
        if getattr(other.info, what) != getattr(last.info, what):
            raise BundleError(
                f"{other.name} and {last.name} differ in their {what}: only bundles of one "
                "training, or of trainings that started from one bundle, have a mean of any use"
            )
    stored = [safetensors.numpy.load(bundle.weights) for bundle in bundles]
    mean = {
        name: np.mean([one[name] for one in stored], axis=0, dtype=np.float64).astype(np.float32)
        for name in stored[-1]
    }
    model = unet.build(last.info.network)
    export.import_weights(model, safetensors.numpy.save(mean))
    before, recipe = last.info.provenance, last.info.recipe
    made = [line for bundle in bundles for line in bundle.info.provenance.commands]
    facts = {
        "name": folder.name,
        "created": date.today(),
        "operating_point": OperatingPoint(),
        "metrics": {},
        "recipe": None
        if recipe is None
        else recipe.model_copy(update={"best_epoch": None, "keep": "best"}),
        "provenance": before.model_copy(
            update={
                "commands": (*dict.fromkeys(made), *filter(None, [command])),
                "trained_on": tuple(
                    sorted({seen for one in bundles for seen in one.info.provenance.trained_on})
                ),
                "ancestor": "the mean of " + "; ".join(map(warm_start.ancestor, bundles)),
                "weights_kept": True,
            }
        ),
    }
    info = last.info.model_copy(update=facts)
    network, weights = export.to_onnx(model), export.to_safetensors(model)
    store.save(folder, info, network, weights, card.text(info), overwrite=True)
    return folder
