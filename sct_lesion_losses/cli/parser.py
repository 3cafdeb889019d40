"""What all commands share: options, help in the Spinal Cord Toolbox's order, errors to exit codes.

A command module holds a click callback, a :class:`Command` and two functions::

    @command("sct_rethreshold_lesion", "Another mask from a stored p-map.")
    @option("-i", "image", FILE, "p-map to threshold.", mandatory=True)
    @option("-thr", "threshold", FLOAT, "Decision threshold in (0, 1].", mandatory=True)
    def rethreshold(image: Path, threshold: float, verbosity: int) -> int | None: ...

    def main(argv: Sequence[str] | None = None) -> int:
        return execute(rethreshold, argv)

    def run() -> NoReturn:
        leave(main)

The callback also receives `verbosity` (`-v`, added to every command) and returns its exit status
or None for 0. Exit status: 0 done, 1 the work failed, 2 the command line is wrong, 130
interrupted, 141 nobody reads stdout, 143 terminated. Errors of this package become one line on
stderr, with the traceback at `-v 2`.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import textwrap
import threading
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import click

from sct_lesion_losses.cli import talk
from sct_lesion_losses.errors import LesionError


class Terminated(BaseException):
    """SIGTERM arrived: unwinds the work, so that temporary files are removed."""


_ARRIVED = threading.Event()


def stop_if_terminated() -> None:
    """Raise :class:`Terminated` where SIGTERM arrived and something swallowed the exception."""
    if _ARRIVED.is_set():
        raise Terminated


def terminated() -> bool:
    """Whether SIGTERM arrived."""
    return _ARRIVED.is_set()


@contextmanager
def sigterm() -> Iterator[None]:
    """Raise :class:`Terminated` on SIGTERM for the length of the block."""

    def stop(_signal: int, _frame: object) -> None:
        _ARRIVED.set()
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _ARRIVED.clear()
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


HELP = ("-h", "--help")
_NUMBER = re.compile(r"-(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


@dataclass(frozen=True)
class Names:
    """The option names of a command.

    Attributes
    ----------
    single : collection of str
        Options that take one value.
    many : collection of str
        Options that take values up to the next option.
    positional : bool
        Whether the command also takes values without an option.
    """

    single: Collection[str]
    many: Collection[str] = ()
    positional: bool = False

    def __contains__(self, name: object) -> bool:
        return name in self.single or name in self.many or name in HELP


def pairs(args: Sequence[str], names: Names) -> list[str]:
    """Rewrite a command line so that each value follows its own option name.

    A value that begins with a dash is a value right behind its option, and anywhere if it is a
    number; elsewhere it is an unknown option.

    >>> pairs(["-i", "a", "b", "-thr=0.3"], Names(single=["-thr"], many=["-i"]))
    ['-i', 'a', '-i', 'b', '-thr', '0.3']

    Returns
    -------
    list of str
        Positional values first, then `option, value, option, value, …`; `["--help"]` alone
        where help is asked for.

    Raises
    ------
    click.UsageError
        An option that does not exist, one without a value, or a value that belongs to none.
    """
    positional: list[str] = []
    out: list[str] = []
    option = ""
    awaits = False
    for arg in args:
        if awaits:
            if arg in names:
                raise _no_value(option)
            out += [option, _value(option, arg)]
            awaits = False
        elif _looks_like_option(arg):
            name, equals, value = arg.partition("=")
            if name not in names:
                raise _unknown(name, names)
            if name in HELP:
                return ["--help"]
            option, awaits = name, not equals
            if equals:
                out += [option, _value(option, value)]
        elif option in names.many:
            out += [option, _value(option, arg)]
        elif names.positional:
            positional.append(arg)
        else:
            raise click.UsageError(_stray(arg, option))
    if awaits:
        raise _no_value(option)
    return positional + out


def _looks_like_option(arg: str) -> bool:
    return len(arg) > 1 and arg.startswith("-") and _NUMBER.fullmatch(arg) is None


def _value(option: str, value: str) -> str:
    if not value:
        raise _no_value(option)
    return value


def _no_value(option: str) -> click.UsageError:
    return click.UsageError(f"{option} needs a value")


def _stray(value: str, option: str) -> str:
    if option:
        return f"unexpected {value!r}: {option} takes one value"
    return f"unexpected {value!r}: it belongs to no option"


def _unknown(name: str, names: Names) -> click.UsageError:
    import difflib

    known = [*names.single, *names.many, *HELP]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else "-h lists the options"
    return click.UsageError(f"no such option: {name}; {hint}")


GROUPS = ("MANDATORY ARGUMENTS", "OPTIONAL ARGUMENTS", "MISC ARGUMENTS")
_TYPED = f"{__name__}.typed"
_LONGEST_METAVAR = 60  # of a page of 80 columns
FAILED, INTERRUPTED, NO_READER, TERMINATED = 1, 130, 141, 143


@dataclass(frozen=True)
class Kind:
    """What an option takes.

    Attributes
    ----------
    metavar : str
        The word shown in the help.
    type : ParamType
        Click's.
    callback : callable, optional
        A last conversion.
    said : str
        A sentence that follows the option's own help.
    """

    metavar: str
    type: click.ParamType[Any]
    callback: Callable[[click.Context, click.Parameter, Any], Any] | None = None
    said: str = ""


def _utf8(_ctx: click.Context, option: click.Parameter, value: Any) -> Any:
    """Refuse a file name that is not UTF-8: it could not be written into a sidecar."""
    for path in value if isinstance(value, tuple) else (value,):
        if any("\ud800" <= letter <= "\udfff" for letter in str(path)):
            raise click.BadParameter(
                f"the name {str(path)!a} is not UTF-8; rename it", param=option
            )
    return value


FILE = Kind("<file>", click.Path(path_type=Path), _utf8)
FOLDER = Kind("<folder>", click.Path(path_type=Path), _utf8)
TEXT = Kind("<str>", click.STRING)
INT = Kind("<int>", click.INT)
FLOAT = Kind("<float>", click.FLOAT)
SWITCH = Kind("{0,1}", click.Choice(("0", "1")), lambda _ctx, _option, value: value == "1")


def choice(*values: str) -> Kind:
    """Accept one of several words; where they are many, the help lists them beside the option."""
    metavar = "{" + ",".join(values) + "}"
    if len(metavar) <= _LONGEST_METAVAR:
        return Kind(metavar, click.Choice(values))
    return Kind("<str>", click.Choice(values), said=f"One of {', '.join(values)}.")


def int_range(low: int, high: int | None = None) -> Kind:
    """Accept a whole number from `low` to `high`, both included."""
    return Kind("<int>", click.IntRange(low, high))


class Option(click.Option):
    """An option that knows its help group and the default its help names."""

    def __init__(self, *args: Any, group: str, shown: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.group = group
        self.shown = shown


def option(
    name: str,
    dest: str,
    kind: Kind,
    help: str,  # noqa: A002 - click's own word
    *,
    default: Any = None,
    shown: str | None = None,
    mandatory: bool = False,
    many: bool = False,
    misc: bool = False,
) -> Callable[[Any], Any]:
    """Add an option to a command.

    Parameters
    ----------
    name, dest : str
        `-ofolder` and the parameter of the callback that receives it.
    kind : Kind
        FILE, FOLDER, TEXT, INT, FLOAT, SWITCH, `choice(…)` or `int_range(…)`.
    help : str
        One or more full sentences; the default is added.
    default, shown : optional
        The value where the option is left out, and what the help says instead of it.
    mandatory, misc : bool
        The help group; OPTIONAL ARGUMENTS where both are False.
    many : bool
        Takes values up to the next option; the callback receives a tuple.
    """
    if kind.said:
        help = f"{help} {kind.said}"  # noqa: A001
    if kind is SWITCH:
        default = str(int(default))
    if shown is None:
        shown = "" if default is None else str(default)
    return click.option(
        dest,
        name,
        cls=Option,
        type=kind.type,
        callback=kind.callback,
        metavar=kind.metavar + (f" [{kind.metavar} ...]" if many else ""),
        help=f"{help} (default: {shown})" if shown else help,
        required=mandatory,
        multiple=many,
        group=GROUPS[0 if mandatory else 2 if misc else 1],
        shown=shown,
        **({} if default is None else {"default": default}),
    )


class Command(click.Command):
    """A click command with exact single-dash options and SCT's help page."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Check and rewrite the command line, then let click convert the values."""
        given = pairs(args, self._names())
        ctx.meta[_TYPED] = tuple(given)  # click consumes the list
        if given == ["--help"]:
            click.echo(self.get_help(ctx))
            ctx.exit()
        return super().parse_args(ctx, given)

    def options(self) -> list[Option]:
        """Return the options in the order of their declaration."""
        return [parameter for parameter in self.params if isinstance(parameter, Option)]

    def _names(self) -> Names:
        options = self.options()
        return Names(
            single=[o.opts[0] for o in options if not o.multiple],
            many=[o.opts[0] for o in options if o.multiple],
            positional=len(options) < len(self.params),
        )

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the mandatory options, the others in brackets."""
        shown = [p.metavar or f"<{p.name}>" for p in self.params if isinstance(p, click.Argument)]
        for o in self.options():
            text = f"{o.opts[0]} {o.metavar}"
            shown.append(text if o.required else f"[{text}]")
        start = f"usage: {self.name} "
        # An option and its value stay on one line: textwrap does not break at this space.
        text = " ".join(word.replace(" ", "\xa0") for word in [*shown, "[-h]"])
        lines = textwrap.wrap(
            text,
            width=formatter.width,
            initial_indent=start,
            subsequent_indent=" " * len(start),
            break_long_words=False,
            break_on_hyphens=False,
        )
        formatter.write("\n".join(lines).replace("\xa0", " ") + "\n")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options by group, in SCT's order."""
        for group in GROUPS:
            rows = [
                (f"{o.opts[0]} {o.metavar}", o.help or "")
                for o in self.options()
                if o.group == group
            ]
            if group == GROUPS[2]:
                rows.insert(0, (", ".join(HELP), "Show this help message and exit."))
            if rows:
                with formatter.section(group):
                    formatter.write_dl(rows, col_max=24)


def command(name: str, help: str) -> Callable[[Callable[..., int | None]], Command]:  # noqa: A002
    """Turn a callback with :func:`option` decorators into a :class:`Command` with `-v` and `-h`."""
    verbosity = option(
        "-v",
        "verbosity",
        Kind("{0,1,2}", click.IntRange(0, 2)),
        "Verbosity. 0: only warnings and errors; 1: also what is done; 2: everything, with the "
        "traceback of an error.",
        default=1,
        misc=True,
    )

    def wrap(callback: Callable[..., int | None]) -> Command:
        made = click.command(name, cls=Command, help=help, add_help_option=False)(callback)
        return verbosity_last(made)

    def verbosity_last(made: Command) -> Command:
        verbosity(made)
        return made

    return wrap


def execute(made: Command, argv: Sequence[str] | None = None) -> int:
    """Run a command and turn whatever happens into an exit status.

    Parameters
    ----------
    made : Command
    argv : sequence of str, optional
        Arguments without the program's name; `sys.argv[1:]` where left out.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    name = made.name or ""
    verbosity = 1
    try:
        with sigterm():
            context = made.make_context(name, list(args))
            verbosity = context.params["verbosity"]
            with context, talk.logged(verbosity, args):
                status = made.invoke(context)
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
        return _say(name, "interrupted", INTERRUPTED)
    except Terminated:
        return _say(name, "terminated", TERMINATED)
    except click.ClickException as error:
        click.echo(made.get_usage(made.context_class(made, info_name=name)), err=True)
        return _say(name, error.format_message(), error.exit_code)
    except (Exception, SystemExit) as error:
        if terminated():  # an import that it interrupts raises an error of its own
            return _say(name, "terminated", TERMINATED)
        if verbosity >= 2:
            traceback.print_exc()
        said = describe(error)
        if verbosity < 2:
            said = talk.without_folders(said, args)
        return _say(name, said, getattr(error, "exit_status", FAILED))


def words() -> tuple[str, ...]:
    """Return what was typed for the running command, one value an option."""
    given: tuple[str, ...] = click.get_current_context().meta[_TYPED]
    return given


def typed() -> list[tuple[str, str]]:
    """Return what was typed for the running command, as pairs of option and value."""
    return list(zip(words()[::2], words()[1::2], strict=True))


def leave(main: Callable[[], int]) -> NoReturn:
    """Run a command's `main` and end the process with its status."""
    sys.exit(main())


def describe(error: BaseException) -> str:
    """One line on an error: its own words if it is known, its type as well if it is not."""
    if isinstance(error, LesionError):
        return str(error)
    if isinstance(error, MemoryError):
        return "out of memory; close other programs or take a smaller image"
    if isinstance(error, OSError):
        return str(error)
    return f"{type(error).__name__}: {error} (this is a defect; -v 2 shows where)"


def _say(name: str, message: str, status: int) -> int:
    with suppress(OSError):
        click.echo(f"{name}: error: {' '.join(message.split())}", err=True)
    return status
