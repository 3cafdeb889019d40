"""`bundle.json` as bytes: written the same for equal values, read with one clear error."""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic import ValidationError

from sct_lesion_losses.bundle.schema import SCHEMA_VERSION, BundleInfo
from sct_lesion_losses.errors import BundleError


def dump(info: BundleInfo) -> bytes:
    """Return `info` as the bytes of `bundle.json`: the same for equal values, newline at the end.

    Lists of numbers stay on one line, so that a curve can be read and compared.
    """
    text = json.dumps(info.model_dump(mode="json"), indent=2, ensure_ascii=False, allow_nan=False)
    # JSON strings hold no raw newline, so "[" before one always opens a list.
    one_line = re.sub(r"\[\n([^\[\]{}\"]*)\n *\]", _on_one_line, text)
    return (one_line + "\n").encode()


def _on_one_line(match: re.Match[str]) -> str:
    return "[" + ", ".join(item.strip() for item in match[1].split(",")) + "]"


def parse(text: bytes, where: str = "bundle.json") -> BundleInfo:
    """Read the bytes of `bundle.json`.

    Raises
    ------
    BundleError
        Not JSON, another schema version, or a field that is missing, unknown or out of bounds.
    """
    version = _schema_version(text, where)
    if version != SCHEMA_VERSION:
        raise BundleError(
            f"{where}: schema version is {version!r}, expected {SCHEMA_VERSION};"
            " update sct_lesion_losses, or get the bundle made for this version"
        )
    try:
        return BundleInfo.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise BundleError(
            f"{where}: {problems(error)}; get the bundle again or retrain it"
        ) from error


def problems(error: ValidationError) -> str:
    """First five problems of a description that does not fit the schema, in one line."""
    return "; ".join(_problem(dict(item)) for item in error.errors(include_url=False)[:5])


def _schema_version(text: bytes, where: str) -> object:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{where}: not JSON ({error}); get the bundle again") from error
    if not isinstance(document, dict):
        raise BundleError(f"{where}: expected a JSON object; get the bundle again")
    return document.get("schema_version")


def _problem(item: dict[str, Any]) -> str:
    """One pydantic error as `operating_point.threshold is 1.5: should be <= 1`."""
    place = ".".join(str(part) for part in item["loc"])
    message = str(item["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    shown = repr(item.get("input"))
    return f"{place} is {shown}: {message}" if len(shown) <= 60 else f"{place}: {message}"
