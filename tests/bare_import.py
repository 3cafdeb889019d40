"""Train with a loss where nothing but Keras, its backend and numpy can be imported.

    KERAS_BACKEND=jax python tests/bare_import.py written.npz

Writes ``loss``, that of each epoch, and ``modules``, what of other packages is loaded at the end.
"""

from __future__ import annotations

import os
import re
import sys
from importlib import metadata
from typing import Any

BACKENDS = {"tensorflow": ("tensorflow", "tensorflow-cpu"), "jax": ("jax",), "torch": ("torch",)}


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def needed(*names: str) -> set[str]:
    """Distributions that these need, themselves included."""
    found: set[str] = set()
    waiting = [*names]
    while waiting:
        name = normalised(waiting.pop())
        try:
            required = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        if name not in found:
            found.add(name)
            waiting += [re.match(r"[\w.-]+", r)[0] for r in required if "extra ==" not in r]
    return found


def of_others(allowed: set[str]) -> set[str]:
    """Modules that only other distributions bring."""
    owners = metadata.packages_distributions().items()
    return {module for module, of in owners if not allowed & {normalised(name) for name in of}}


class Hiding:
    """A finder of modules that does not find some of them."""

    def __init__(self, finder: Any, modules: set[str]) -> None:
        self.finder = finder
        self.modules = modules

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        if fullname.partition(".")[0] in self.modules:
            return None
        return self.finder.find_spec(fullname, path, target)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.finder, name)


def hide(modules: set[str]) -> None:
    """Make modules look as if they were not installed."""
    sys.meta_path[:] = [Hiding(finder, modules) for finder in sys.meta_path]


def main(written: str) -> None:
    allowed = needed("keras", "numpy", *BACKENDS[os.environ["KERAS_BACKEND"]])
    # What the interpreter loads of itself at its start needs no import any more.
    others = of_others(allowed | {"sct-lesion-losses"}) - sys.modules.keys()
    hide(others)
    import keras
    import numpy as np

    import sct_lesion_losses.losses

    model = keras.Sequential([keras.Input((4, 4, 4, 1)), keras.layers.Conv3D(1, 1)])
    loss = sct_lesion_losses.losses.get("tversky", from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(0.1), loss=loss)
    x = np.linspace(-1, 1, 4 * 64, dtype="float32").reshape(4, 4, 4, 4, 1)
    history = model.fit(x, (x > 0).astype("float32"), epochs=5, verbose=0).history
    loaded = others & {name.partition(".")[0] for name in sys.modules}
    np.savez(written, loss=history["loss"], modules=np.array(sorted(loaded), dtype=str))


if __name__ == "__main__":
    main(*sys.argv[1:])
