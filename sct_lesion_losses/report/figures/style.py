"""House style of all pictures: colours, sizes, type, and how they are saved."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

from sct_lesion_losses.errors import OutputError
from sct_lesion_losses.images import atomic

FORMATS = (".png", ".svg")
WIDTH_INCH = 7.2  # across both columns of a page
DPI = 300
POINTS = 8.0  # of all text

# Okabe and Ito 2008, "Color universal design": told apart with any colour vision.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILLION, PURPLE = "#0072B2", "#D55E00", "#CC79A7"
GREY = "#666666"

_STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the same on every machine
    "font.size": POINTS,
    "axes.titlesize": POINTS,
    "axes.labelsize": POINTS,
    "xtick.labelsize": POINTS,
    "ytick.labelsize": POINTS,
    "legend.fontsize": POINTS,
    "legend.frameon": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "hatch.linewidth": 0.6,
    "svg.fonttype": "none",  # text that can be searched and edited
    "svg.hashsalt": "sct_lesion_losses",  # else the names inside a file are random
}


# Losses of one family share a colour.
_LOOKS = {
    "bce": (BLUE, "-"),
    "combo": (BLUE, "--"),
    "dice": (ORANGE, "-"),
    "log_cosh_dice": (ORANGE, "--"),
    "generalized_dice": (VERMILLION, "-"),
    "tversky": (GREEN, "-"),
    "focal_tversky": (GREEN, "--"),
    "sct": (BLACK, "-"),
    "sct as shipped": (BLACK, ":"),
    "default": (PURPLE, "-."),
}


def looks(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Give each model a look of its own; a loss of the study has the same in every figure.

    >>> looks(["mine", "tversky"])["tversky"]
    {'color': '#009E73', 'ls': '-'}
    """
    wanted = list(dict.fromkeys(names))
    found = {name: _LOOKS[name] for name in wanted if name in _LOOKS}
    colours = (SKY, PURPLE, VERMILLION, GREEN, ORANGE, BLUE, BLACK)
    every = [(colour, dashes) for dashes in ("-", "--", ":", "-.") for colour in colours]
    spare = cycle([look for look in every if look not in found.values()])
    looks_of = {name: found.get(name) or next(spare) for name in wanted}
    return {name: {"color": colour, "ls": dashes} for name, (colour, dashes) in looks_of.items()}


def require() -> None:
    """Raise an OutputError where pictures cannot be drawn, before any work is done."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise OutputError(
            "a picture needs matplotlib: pip install 'sct_lesion_losses[report]'"
        ) from error


@contextmanager
def drawing() -> Iterator[None]:
    """Draw and save in the house style, whatever the user's own settings of matplotlib are.

    Raises
    ------
    OutputError
        Matplotlib is not installed.
    """
    require()
    import matplotlib.style

    with matplotlib.style.context(["default", _STYLE]):
        yield


def sheet(
    height_inch: float,
    width_inch: float = WIDTH_INCH,
    colour: str = "white",
    dpi: float = DPI,
    **options: Any,
) -> Any:
    """Return an empty figure that needs no display; `options` are those of matplotlib's Figure."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width_inch, height_inch), facecolor=colour, dpi=dpi, **options)


def save(made: Any, path: Path) -> None:
    """Write a figure, whole or not at all; the same figure gives the same bytes.

    Parameters
    ----------
    made : matplotlib.figure.Figure
    path : Path
        Ends in .png or .svg.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    kind = path.suffix.lower()[1:]
    metadata = {"Software": None} if kind == "png" else {"Date": None}
    with atomic.replacing(path) as temporary, drawing():
        made.savefig(temporary, format=kind, dpi=made.dpi, metadata=metadata)


def save_all(made: Any, stem: Path) -> tuple[Path, ...]:
    """Write a figure in every format.

    Parameters
    ----------
    made : matplotlib.figure.Figure
    stem : Path
        The files' path without an ending.

    Returns
    -------
    tuple of Path
        The files.

    Raises
    ------
    OutputError
        A file cannot be written.
    """
    paths = paths_of(stem)
    for path in paths:
        save(made, path)
    return paths


def paths_of(stem: Path) -> tuple[Path, ...]:
    """Files of a figure.

    >>> [path.name for path in paths_of(Path("a.b"))]
    ['a.b.png', 'a.b.svg']
    """
    return tuple(stem.with_name(stem.name + ending) for ending in FORMATS)


def panels(
    made: Any, number: int, across: str, up: str, most: int = 3, **options: Any
) -> list[Any]:
    """Lay out axes in a grid as wide as the page, and label the outer ones.

    Parameters
    ----------
    made : matplotlib.figure.Figure
    number, most : int
        See `shape`.
    across, up : str
        Labels of the axes with none below them, and with none on their left.
    options
        Of `Figure.subplots`.

    Returns
    -------
    list of matplotlib.axes.Axes
        Row by row.
    """
    rows, columns = shape(number, most)
    every = list(made.subplots(rows, columns, squeeze=False, **options).flat)
    for axes in every[number:]:
        axes.remove()
    for place, axes in enumerate(every[:number]):
        if place + columns >= number:
            axes.set_xlabel(across)
            axes.tick_params(labelbottom=True)
        if place % columns == 0:
            axes.set_ylabel(up)
    return every[:number]


def shape(number: int, most: int = 3) -> tuple[int, int]:
    """Rows and columns of a grid of panels, with `most` columns at most.

    >>> [shape(number) for number in (1, 2, 4, 7, 9)]
    [(1, 1), (1, 2), (2, 2), (3, 3), (3, 3)]
    """
    rows = math.ceil(number / most)
    return rows, math.ceil(number / rows)


def plain(axes: Any, grid: str = "y") -> None:
    """Leave away the frame, and draw a pale grid along an axis behind all else."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
