"""Tables, pictures, model cards, pages and sidecars."""

from __future__ import annotations


def counted(number: float, noun: str) -> str:
    """Return a number with its noun.

    >>> counted(1, "scan"), counted(2.0, "scan")
    ('1 scan', '2 scans')
    """
    return f"{number:.10g} {noun}{'' if number == 1 else 's'}"
