"""Command lines in the Spinal Cord Toolbox's style, read exactly.

Options are whole words behind a single dash. click would take the unknown `-ofoldr x` for `-o`
followed by `foldr`, and knows no `-i a b c`; so a command line is checked and rewritten here,
one `option value` pair at a time, before click reads it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import click

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
