"""Click with the command line, the help page and the exit statuses of SCT's scripts.

A command module holds one command, which is called with a list of arguments::

    @command("sct_rethreshold_lesion", help="Another mask from a stored p-map.")
    @option("-i <file>", "P-map to threshold.", dest="image", mandatory=True)
    @option("-thr <float>", "Decision threshold.", kind=float_range(0, 1), default=0.5)
    def main(image: Path, thr: float) -> int | None: ...

    status = main(["-i", "pmap.nii.gz"])

The function returns its exit status, or None for 0. Exit status: 0 done, 1 the work failed, 2 the
command line is wrong, 130 interrupted, 141 nobody reads stdout, 143 terminated. Errors of this
package become one line on stderr, with the traceback at `-v 2`.
"""

from __future__ import annotations

import math
import os
import re
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import click

from sct_lesion_losses.cli import talk
from sct_lesion_losses.errors import describe

FAILED, INTERRUPTED, NO_READER, TERMINATED = 1, 130, 141, 143
GROUPS = ("MANDATORY ARGUMENTS", "OPTIONAL ARGUMENTS", "MISC ARGUMENTS")
HELP = ("-h", "--help")
_NUMBER = re.compile(r"-(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


class Terminated(BaseException):
    """SIGTERM arrived: unwinds the work, so that temporary files are removed."""

    arrived = False  # since the last command began; an exception can be swallowed


@contextmanager
def sigterm() -> Iterator[None]:
    """Raise :class:`Terminated` on SIGTERM for the length of the block, in the main thread."""

    def stop(_signal: int, _frame: object) -> None:
        Terminated.arrived = True
        raise Terminated

    Terminated.arrived = False
    heard = threading.current_thread() is threading.main_thread()  # no other takes a handler
    before = signal.signal(signal.SIGTERM, stop) if heard else None
    try:
        yield
    finally:
        if heard:
            signal.signal(signal.SIGTERM, before)


def stop_if_terminated() -> None:
    """Raise :class:`Terminated` where SIGTERM arrived and something swallowed the exception."""
    if Terminated.arrived:
        raise Terminated


class _Path(click.Path):
    """A path whose name can be written into a sidecar."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if any("\ud800" <= letter <= "\udfff" for letter in str(value)):
            self.fail(f"the name {str(value)!a} is not UTF-8; rename it", param, ctx)
        return super().convert(value, param, ctx)


class _Float(click.FloatRange):
    """A finite number, with a point and not a comma."""

    name = "number"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if re.fullmatch(r"-?\d*,\d+", str(value)):
            self.fail(f"{value!r} is not a number; write {value.replace(',', '.')}", param, ctx)
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        return number


class _Int(click.IntRange):
    name = "whole number"


class _Switch(click.Choice):  # type: ignore[type-arg]  # generic since click 8.2
    """On or off, written 1 or 0."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        return super().convert(value, param, ctx) == "1"


choice, int_range, float_range = click.Choice, _Int, _Float
_KINDS: dict[str, click.ParamType[Any]] = {
    # What cannot be read is an error of that scan alone.
    **dict.fromkeys(("<file>", "<folder>"), _Path(path_type=Path, readable=False)),
    "<str>": click.STRING,
    "<int>": _Int(1),
    "<float>": _Float(),
    "{0,1}": _Switch(("0", "1")),
}


def one_of(words: Iterable[str]) -> str:
    """Words of which one is given, as the help shows them."""
    return "{" + ",".join(words) + "}"


def option(
    usage: str,
    help: str,  # noqa: A002 - click's own word
    *,
    kind: click.ParamType[Any] | None = None,
    dest: str | None = None,
    default: Any = None,
    shown: str | None = None,
    mandatory: bool = False,
) -> Callable[[Any], Any]:
    """Add an option to a command.

    Parameters
    ----------
    usage : str
        Name and value as the help shows them: ``-ofolder <folder>``, or ``-i <file> [<file> ...]``
        for values up to the next option, of which the function receives a tuple. ``<int>`` is a
        number from 1 on; ``{0,1}`` is a switch, off unless `default` or `shown` says otherwise; of
        ``{auto,cpu,gpu}`` one can be given, see `one_of`.
    help : str
        One or more full sentences; the default is added.
    kind : ParamType, optional
        Another `int_range(…)` or `float_range(…)`, or a `choice([…])` too long for the usage.
    dest : str, optional
        The parameter of the function that receives the value, if it is not called as the option.
    default, shown : optional
        The value where the option is left out, and what the help says instead of it.
    mandatory : bool
    """
    name, _, metavar = usage.partition(" ")
    if isinstance(kind, click.Choice):
        help = f"{help} One of {', '.join(kind.choices)}."  # noqa: A001
    elif metavar.startswith("{") and metavar not in _KINDS:
        kind = choice(metavar[1:-1].split(","))
    if metavar == "{0,1}" and shown is None:
        default = str(int(default or 0))
    if shown is None:
        shown = "" if default is None else str(default)
    return click.option(
        *([] if dest is None else [dest]),
        name,
        type=kind or _KINDS[metavar.split()[0]],
        metavar=metavar,
        help=f"{help} (default: {shown})" if shown else help,
        required=mandatory,
        multiple=metavar.endswith("...]"),
        **({} if default is None else {"default": default}),
    )


def pairs(args: Sequence[str], options: Mapping[str, bool], positional: bool = False) -> list[str]:
    """Rewrite a command line so that each value follows its own option name.

    A value that begins with a dash is a value right behind its option, and anywhere if it is a
    number; elsewhere it is an unknown option.

    >>> pairs(["-i", "a", "b", "-thr=0.3"], {"-thr": False, "-i": True})
    ['-i', 'a', '-i', 'b', '-thr', '0.3']

    Parameters
    ----------
    args : sequence of str
    options : mapping
        Names of the options, and whether they take values up to the next option.
    positional : bool
        Whether the command also takes values without an option.

    Returns
    -------
    list of str
        `option, value, option, value, …`, with values without an option between them; `["--help"]`
        alone where help is asked for.

    Raises
    ------
    click.UsageError
        An option that does not exist, one without a value, or a value that belongs to none.
    """
    out: list[str] = []
    name, rest = "", deque(args)
    while rest:
        arg = rest.popleft()
        start, equals, value = arg.partition("=")
        dashed = len(arg) > 1 and arg.startswith("-") and not _NUMBER.fullmatch(arg)
        if arg in HELP:
            return ["--help"]
        if start in options:
            name = start
            if not equals and rest and rest[0] not in (*options, *HELP):
                value = rest.popleft()
            if not value:
                raise click.UsageError(f"{name} needs a value")
            out += [name, value]
        elif options.get(name) and not dashed:
            out += [name, arg]
        elif dashed:
            import difflib  # only for a mistake

            near = difflib.get_close_matches(start, (*options, *HELP), n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}? " if near else ""
            raise click.UsageError(f"no such option: {start}; {hint}-h lists the options")
        elif positional:
            out.append(arg)
        else:
            of = f"{name} takes one value" if name else "it belongs to no option"
            raise click.UsageError(f"unexpected {arg!r}: {of}")
    return out


_VERBOSITY = option(
    "-v {0,1,2}",
    "Verbosity. 0: only warnings and errors; 1: also what is done; 2: everything, with the "
    "traceback of an error.",
    default="1",
)


class Command(click.Command):
    """A click command with exact single-dash options, SCT's help page and exit statuses."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(context_settings={"help_option_names": list(HELP)}, **kwargs)
        _VERBOSITY(self)

    def __call__(self, argv: Sequence[str] | None = None) -> int:
        """Run the command with `argv`, or `sys.argv[1:]`, and return its exit status."""
        args = list(sys.argv[1:] if argv is None else argv)
        verbosity = 1
        talk.open_closed_streams()
        try:
            with sigterm():
                context = self.make_context(self.name, list(args))
                verbosity = int(context.params.pop("v"))
                with context, talk.logged(verbosity, args):
                    status = self.invoke(context)
                stop_if_terminated()
                sys.stdout.flush()
                return int(status or 0)
        except click.exceptions.Exit as leaving:
            return leaving.exit_code
        except BrokenPipeError:
            # The interpreter flushes stdout once more when it ends; that must not fail again.
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return NO_READER
        except KeyboardInterrupt:
            return self._fail("interrupted", INTERRUPTED)
        except click.ClickException as error:
            click.echo(self.get_usage(self.context_class(self, info_name=self.name)), err=True)
            return self._fail(error.format_message(), error.exit_code)
        except (Exception, SystemExit, Terminated) as error:
            if Terminated.arrived:  # an import that it interrupts raises an error of its own
                return self._fail("terminated", TERMINATED)
            if verbosity >= 2:
                traceback.print_exc()
            said = describe(error)
            said = said if verbosity >= 2 else talk.without_typed_folders(said, args)
            return self._fail(said, getattr(error, "exit_status", FAILED))

    def _fail(self, message: str, status: int) -> int:
        with suppress(OSError):
            click.echo(f"{self.name}: error: {' '.join(message.split())}", err=True)
        return status

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Check and rewrite the command line, then let click convert the values."""
        options = {o.opts[0]: o.multiple for o in self.params if isinstance(o, click.Option)}
        ctx.meta[talk.TYPED] = pairs(args, options, len(options) < len(self.params))
        return super().parse_args(ctx, list(ctx.meta[talk.TYPED]))

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write what has to be given."""
        shown = [
            f"{p.opts[0]} {p.metavar}" if isinstance(p, click.Option) else str(p.metavar)
            for p in self.params
            if p.required or isinstance(p, click.Argument)
        ]
        formatter.write_usage(self.name or "", " ".join([*shown, "[options] [-h]"]), "usage: ")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options by group, in SCT's order."""
        rows: dict[str, list[tuple[str, str]]] = {group: [] for group in GROUPS}
        for o in self.get_params(ctx):
            if isinstance(o, click.Option):
                group = GROUPS[0 if o.required else 2 if {"-r", "-v", "-h"} & {*o.opts} else 1]
                names = ", ".join(sorted(o.opts, key=len))
                rows[group].append((names if o.is_flag else f"{names} {o.metavar}", o.help or ""))
        for group in filter(rows.get, GROUPS):
            with formatter.section(group):
                formatter.write_dl(rows[group], col_max=24)


command = partial(click.command, cls=Command)
