"""The kinds of value a bundle's description is made of."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Annotated, TypeVar

import numpy as np
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"

T = TypeVar("T")


def _sorted_keys(table: dict[str, T]) -> dict[str, T]:
    return dict(sorted(table.items()))


def _nan_is_none(value: object) -> object:
    return None if isinstance(value, (float, np.floating)) and math.isnan(value) else value


def is_increasing(values: Sequence[float]) -> bool:
    """Whether every value is above the one before it."""
    return all(low < high for low, high in itertools.pairwise(values))


Count = Annotated[int, Field(ge=0)]
Size = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Probability = Annotated[float, Field(ge=0, le=1)]
Score = Annotated[float | None, BeforeValidator(_nan_is_none)]
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")]
Table = Annotated[dict[str, T], AfterValidator(_sorted_keys)]


class Record(BaseModel):
    """Frozen, finite, without unknown fields."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        str_strip_whitespace=True,
        revalidate_instances="always",
    )
