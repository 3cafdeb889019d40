"""Stages of a long piece of work, each done once for what it is made of.

A stage that has succeeded leaves a record: what its result follows from, the hashes of the files it
has made, and how long it took. It is skipped while both are as the record says, and done again
where either has changed, where what it made is damaged otherwise, or where the record is missing
or damaged.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal

from sct_lesion_losses import __version__
from sct_lesion_losses.errors import LesionError
from sct_lesion_losses.images import atomic
from sct_lesion_losses.study import hashes
from sct_lesion_losses.training.callbacks import duration

FOLDER = "stages"
_SHOWN = 3

Facts = Mapping[str, str | int | float | None]
Results = Mapping[str, "Result"]
Action = Literal["skip", "run", "resume"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    """What became of a stage.

    Attributes
    ----------
    outcome : {"kept", "done", "failed", "left out"}
        ``kept``: nothing had changed. ``left out``: a stage that it needs has failed.
    why : str
        The error of a stage that has failed, the name of what one that was left out needs.
    seconds : float
        How long it took, when it was done.
    """

    outcome: Literal["kept", "done", "failed", "left out"]
    why: str = ""
    seconds: float = 0.0

    @property
    def good(self) -> bool:
        """Whether what it makes is there."""
        return self.outcome in ("kept", "done")


@dataclass(frozen=True)
class Estimate:
    """Seconds that a stage will take, and what says so; None where nothing does."""

    seconds: float | None
    by: str


@dataclass(frozen=True, eq=False)
class Stage:
    """One step.

    Attributes
    ----------
    name : str
        Its first word is what is done: stages that share it take about as long.
    inputs : callable
        Of the results so far: all that its own result follows from, the software aside.
    run : callable
        Of the results so far; does the work. It can be sent to another process if `remote`.
    outputs : callable
        The files that the work has made.
    needs, follows : tuple of str
        Earlier stages: of the first all must be good, the others are only waited for.
    essential : bool
        Without it nothing goes on: its error is raised, not kept.
    remote : bool
        Neighbours of this kind may be done at the same time, elsewhere.
    estimate : callable
        Of its own, where the records of earlier runs are not the best there is.
    begun : callable
        Whether some of the work is done already, for stages that go on where they ended.
    damage : callable
        Why what it has made cannot be used though its outputs are as they were, None if it can.
    """

    name: str
    inputs: Callable[[Results], Facts]
    run: Callable[[Results], None]
    outputs: Callable[[], Sequence[Path]]
    needs: tuple[str, ...] = ()
    follows: tuple[str, ...] = ()
    essential: bool = False
    remote: bool = False
    estimate: Callable[[], Estimate | None] = lambda: None
    begun: Callable[[], bool] = lambda: False
    damage: Callable[[], str | None] = lambda: None


@dataclass(frozen=True)
class Record:
    """What a stage leaves when it has succeeded.

    Attributes
    ----------
    version : str
        Of this software.
    digest : str
        Hash of version and inputs.
    inputs : dict
    outputs : dict of str to str
        Hashes of the files, by their paths below the folder of the work.
    seconds : float
    """

    version: str
    digest: str
    inputs: dict[str, str | int | float | None]
    outputs: dict[str, str]
    seconds: float


@dataclass(frozen=True)
class Ledger:
    """The records of a piece of work, in the subfolder ``stages`` of its folder `root`."""

    root: Path

    def path(self, name: str) -> Path:
        """File of a stage's record."""
        return self.root / FOLDER / f"{name.replace(' ', '-')}.json"

    def read(self, name: str) -> Record | None:
        """Return the record of a stage; None where there is no good one."""
        try:
            return Record(**json.loads(self.path(name).read_text(encoding="utf-8")))
        except (OSError, TypeError, ValueError):
            return None

    def write(self, stage: Stage, inputs: Facts, seconds: float) -> None:
        """Write the record of a stage that has succeeded."""
        outputs = {
            path.relative_to(self.root).as_posix(): hashes.of_file(path) or ""
            for path in stage.outputs()
        }
        record = Record(__version__, digest(inputs), dict(inputs), outputs, round(seconds, 3))
        atomic.write_json(self.path(stage.name), asdict(record))

    def changed(self, stage: Stage, inputs: Facts) -> str | None:
        """Say why a stage has to be done, None if it has not.

        >>> Ledger(Path("nowhere")).changed(
        ...     Stage("split", lambda _: {}, lambda _: None, lambda: []), {}
        ... )
        'it was not done yet'
        """
        record = self.read(stage.name)
        if record is None:
            return "it was not done yet"
        if record.version != __version__:
            return f"it was done by version {record.version}"
        if record.digest != digest(inputs):
            return _difference(record.inputs, inputs)
        for name, known in record.outputs.items():
            found = hashes.of_file(self.root / name)
            if found != known:
                return f"{name} {'is missing' if found is None else 'was changed'}"
        return stage.damage()

    def seconds(self, stage: Stage) -> Estimate:
        """How long a stage took before, or the longest of its kind."""
        own = self.read(stage.name)
        if own is not None:
            return Estimate(own.seconds, "the last time")
        kind = stage.name.split()[0]
        alike = [self.read(path.stem) for path in (self.root / FOLDER).glob(f"{kind}-*.json")]
        longest = max((record.seconds for record in alike if record), default=None)
        by = (
            "unknown until it has run once"
            if longest is None
            else f"the last time of another {kind}"
        )
        return Estimate(longest, by)


@dataclass(frozen=True)
class Planned:
    """What a run would do of a stage, why, and for how long."""

    stage: str
    action: Action
    why: str
    estimate: Estimate


# Does the work of stages; yields each with its seconds, or with the error that ended it.
Workers = Callable[[Sequence[Stage], Results], Iterable[tuple[Stage, float, Exception | None]]]


def alone(
    stages: Sequence[Stage], results: Results
) -> Iterator[tuple[Stage, float, Exception | None]]:
    """Do the work of stages here, one after the other."""
    for stage in stages:
        began = time.monotonic()
        error: Exception | None = None
        try:
            stage.run(results)
        except Exception as caught:  # whatever it is, the other stages go on
            error = caught
        yield stage, time.monotonic() - began, error


def run(stages: Sequence[Stage], ledger: Ledger, elsewhere: Workers = alone) -> dict[str, Result]:
    """Do what has to be done, in order.

    Parameters
    ----------
    stages : sequence of Stage
    ledger : Ledger
    elsewhere : callable
        Does the work of remote stages.

    Returns
    -------
    dict of str to Result
        What became of each stage, by its name.

    Raises
    ------
    Exception
        Whatever an essential stage raises.
    """
    results: dict[str, Result] = {}
    for remote, group in groupby(stages, key=lambda stage: stage.remote):
        if remote:
            _run_together(list(group), ledger, results, elsewhere)
            continue
        for stage in group:
            _run_together([stage], ledger, results, alone)
    return results


def plan(stages: Sequence[Stage], ledger: Ledger) -> list[Planned]:
    """Say what `run` would do, and do nothing.

    A stage after one that would be done is said to be done as well; it may turn out that nothing
    has changed for it.
    """
    kept: dict[str, Result] = {}
    planned = []
    for stage in stages:
        before = [name for name in (*stage.needs, *stage.follows) if name not in kept]
        if before:
            why: str | None = f"after {_listed(before)}"
        else:
            why = ledger.changed(stage, stage.inputs(kept))
        if why is None:
            kept[stage.name] = Result("kept")
            planned.append(Planned(stage.name, "skip", "nothing has changed", Estimate(0.0, "")))
            continue
        action: Action = "resume" if stage.begun() else "run"
        planned.append(Planned(stage.name, action, why, stage.estimate() or ledger.seconds(stage)))
    return planned


def digest(inputs: Facts) -> str:
    """Hash of what a result follows from, this software's version included."""
    text = json.dumps({"version": __version__, "inputs": dict(inputs)}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _run_together(
    stages: Sequence[Stage], ledger: Ledger, results: dict[str, Result], workers: Workers
) -> None:
    known: dict[str, Facts] = {}
    waiting = []
    for stage in stages:
        failed = [name for name in stage.needs if not results[name].good]
        if failed:
            results[stage.name] = Result("left out", failed[0])
            logger.warning("%s: left out, it needs %s", stage.name, failed[0])
            continue
        try:
            inputs = stage.inputs(results)
        except LesionError as error:
            _failed(stage, error, results)
            continue
        why = ledger.changed(stage, inputs)
        if why is None:
            record = ledger.read(stage.name)
            results[stage.name] = Result("kept", seconds=record.seconds if record else 0.0)
            logger.info("%s: nothing has changed", stage.name)
            continue
        logger.info("%s: %s", stage.name, why)
        known[stage.name] = inputs
        waiting.append(stage)
    for stage, seconds, failure in workers(waiting, dict(results)):
        if failure is not None:
            _failed(stage, failure, results)
            continue
        ledger.write(stage, known[stage.name], seconds)
        results[stage.name] = Result("done", seconds=seconds)
        logger.info("%s: done in %s", stage.name, duration(seconds))


def _failed(stage: Stage, error: Exception, results: dict[str, Result]) -> None:
    if stage.essential:
        raise error
    said = str(error) if isinstance(error, LesionError) else f"{type(error).__name__}: {error}"
    results[stage.name] = Result("failed", said)
    logger.error("%s failed: %s", stage.name, said)
    logger.debug("what ended it", exc_info=error)


def _difference(before: Facts, after: Facts) -> str:
    """Say what has changed, the first few entries by name."""
    changed = [
        name
        for name in dict.fromkeys((*before, *after))
        if name not in before or name not in after or before[name] != after[name]
    ]
    return f"changed: {_listed(changed)}"


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
