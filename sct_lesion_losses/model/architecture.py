"""What makes one 3-D U-Net another: its filters, as one value."""

from __future__ import annotations

from dataclasses import dataclass

EPSILON = 1e-3  # of keras.layers.BatchNormalization, which unet.build leaves as it is
STUDY = "unet3d"
DOUBLING = "unet3d_doubling"
KINDS = (STUDY, DOUBLING)


@dataclass(frozen=True)
class Architecture:
    """Filters of a 3-D U-Net with two 3×3×3 convolutions a level.

    In the kind ``unet3d``, the study's, every convolution of a level has the level's filters, the
    transposed one that leads up to it included. In ``unet3d_doubling`` the first convolution of a
    level on the way down has half of them, and the transposed one keeps the channels it is given,
    as Çiçek et al. have it, and the lesion models of SCT.

    Attributes
    ----------
    filters : tuple of int
        Filters of each level, from the finest.
    kind : str
        One of `KINDS`.

    Raises
    ------
    ValueError
        There is no network of such filters.

    References
    ----------
    Çiçek et al. 2016, "3D U-Net: Learning Dense Volumetric Segmentation from Sparse Annotation".
    """

    filters: tuple[int, ...] = (16, 32, 64)
    kind: str = STUDY

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"architecture is {self.kind!r}, expected one of {', '.join(KINDS)}")
        step = 2 if self.kind == DOUBLING else 1
        if not self.filters or any(width < 1 or width % step for width in self.filters):
            wanted = "even numbers" if step == 2 else "whole numbers"
            raise ValueError(
                f"filters is {self.filters!r}, expected {wanted} above 0, one for each level of "
                f"{self.kind}"
            )

    def __str__(self) -> str:
        """Return the kind and the filters as people write them: ``unet3d 16-32-64``."""
        return f"{self.kind} {'-'.join(map(str, self.filters))}"

    def first(self, level: int) -> int:
        """Return the filters of the first convolution of a level on the way down."""
        return self.filters[level] // 2 if self.kind == DOUBLING else self.filters[level]

    def transposed(self, level: int) -> int:
        """Return the filters of the transposed convolution that leads up to a level."""
        return self.filters[level + 1 if self.kind == DOUBLING else level]
