"""Checks of options in one grammar, "NAME is VALUE, expected WHAT", and the nearest of some names."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from difflib import get_close_matches


def nearest(name: str, names: Iterable[str], count: int = 3, cutoff: float = 0.5) -> list[str]:
    """The names most similar to one that is unknown, the most similar first.

    Args:
        name: what was given.
        names: what there is.
        count: give at most this many.
        cutoff: similarity that they must have, from 0 to 1.

    >>> nearest("contrastiv", ["ot", "contrastive"])
    ['contrastive']
    """
    return get_close_matches(name, list(names), count, cutoff)


def did_you_mean(name: str, names: Iterable[str], cutoff: float = 0.5) -> str:
    """A question with the nearest name, to be put behind an error message; empty where no name is near.

    The cutoff is that of `nearest`.

    >>> did_you_mean("contrastiv", ["ot", "contrastive"])
    ", did you mean 'contrastive'?"
    """
    return "".join(f", did you mean {near!r}?" for near in nearest(name, names, 1, cutoff))


def check_choice(name: str, value: str | int, choices: Collection[str] | Collection[int]) -> None:
    """Refuse a value that is not among the choices.

    Args:
        name: the option, as the user writes it.
        value: what the user gave.
        choices: what is allowed, in the order in which the message lists it.

    Raises:
        ValueError: the value is not among the choices; the message has all of them and the nearest.
    """
    if value not in choices:
        names = list(map(str, choices))
        raise ValueError(f"{name} is {value!r}, expected one of {', '.join(names)}{did_you_mean(str(value), names)}")


def check_number(
    name: str,
    value: float,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
) -> None:
    """Refuse a number that is not finite or out of range.

    Args:
        name: the option, as the user writes it.
        value: what the user gave.
        least: the smallest number allowed.
        above: a number below all that are allowed.
        most: the largest number allowed.
        below: a number above all that are allowed.

    Raises:
        ValueError: the number is out of range.

    >>> check_number("mass", 1.5, above=0, most=1)
    Traceback (most recent call last):
    ValueError: mass is 1.5, expected a number above 0 and at most 1
    """
    fits = (least is None or value >= least) and (above is None or value > above)
    if math.isfinite(value) and fits and (most is None or value <= most) and (below is None or value < below):
        return
    if least is not None and most is not None:
        expected = f"a number from {least} to {most}"
    else:
        bounds = {"at least": least, "above": above, "at most": most, "below": below}
        words = " and ".join(f"{word} {bound}" for word, bound in bounds.items() if bound is not None)
        expected = words if words.startswith("at") else f"a number {words}" if words else "a finite number"
    raise ValueError(f"{name} is {value}, expected {expected}")
