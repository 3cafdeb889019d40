"""The errors this package raises, as one tree.

::

    LesionError
    ├── UsageError            an option or argument is wrong: exit status 2
    ├── ImageError            an image file cannot be read, or is not a scan
    ├── GeometryError         a grid, field of view or patch layout cannot be used
    ├── CenterlineError       no centerline, or one that does not fit the scan
    │   └── NoCordError       the scan shows no spinal cord
    ├── BundleError           a model bundle is missing, damaged or refused
    ├── EngineError           the inference engine cannot run the network
    ├── SctError              the Spinal Cord Toolbox is missing or its command failed
    ├── DataError             a cohort, its labels or its split cannot be used
    ├── TrainingError         training cannot start or go on
    ├── WorkerError           a worker process was killed
    └── OutputError           a result cannot be written
        └── BusyError         another process is writing there

Every message says what is wrong, where, and what to do. The library only raises; `cli.parser`
turns an error into one line on stderr and an exit status.
"""

from __future__ import annotations


class LesionError(Exception):
    """Root of every error of this package."""

    exit_status = 1


class UsageError(LesionError):
    """An option or argument is wrong."""

    exit_status = 2


class ImageError(LesionError):
    """An image file cannot be read, or what it holds is not a scan."""


class GeometryError(LesionError):
    """A grid, field of view or patch layout cannot be used."""


class CenterlineError(LesionError):
    """No centerline was found, or the one given does not fit the scan."""


class NoCordError(CenterlineError):
    """The scan shows no spinal cord."""


class BundleError(LesionError):
    """A model bundle is missing, damaged or refused."""


class EngineError(LesionError):
    """The inference engine cannot run the network."""


class SctError(LesionError):
    """The Spinal Cord Toolbox is missing, or one of its commands failed."""


class DataError(LesionError):
    """A cohort, its labels or its split cannot be used."""


class TrainingError(LesionError):
    """Training cannot start, or cannot go on."""


class WorkerError(LesionError):
    """A worker process was killed."""


class OutputError(LesionError):
    """A result cannot be written."""


class BusyError(OutputError):
    """Another process is writing there."""


def describe(error: BaseException) -> str:
    """One line on an error: its own words if it is known, its type as well if it is not."""
    if isinstance(error, MemoryError):
        return "out of memory; close other programs or take a smaller image"
    if isinstance(error, (LesionError, OSError)):
        return str(error)
    return f"{type(error).__name__}: {error} (this is a defect; -v 2 shows where)"
