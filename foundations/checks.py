"""Checks of options, and the nearest of some names."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Iterable
from difflib import get_close_matches


def did_you_mean(name: str, names: Iterable[str], cutoff: float = 0.5) -> str:
    """A question that names the nearest of some names, or nothing where none is near.

    Args:
        name: what was given.
        names: what there is.
        cutoff: similarity that the nearest must have, from 0 to 1.

    >>> did_you_mean("contrastiv", ["ot", "contrastive"])
    ", did you mean 'contrastive'?"
    """
    nearest = difflib.get_close_matches(name, list(names), 1, cutoff)
    return f", did you mean {nearest[0]!r}?" if nearest else ""


def check_choice(name: str, value: str, choices: Collection[str]) -> None:
    """Refuse a value that is not among the choices, and name the nearest one.

    Args:
        name: the option, as the user writes it.
        value: what the user gave.
        choices: what is allowed.

    Raises:
        ValueError: the value is not among the choices.
    """
    if value not in choices:
        near = get_close_matches(str(value), choices, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{name} must be one of {', '.join(sorted(choices))}, not {value!r}{hint}")


def check_number(name: str, value: float, *, minimum: float = 0.0, inclusive: bool = False) -> None:
    """Refuse a number that is not finite, or not above a minimum.

    Args:
        name: the option, as the user writes it.
        value: what the user gave.
        minimum: the bound below.
        inclusive: whether the bound itself is allowed.

    Raises:
        ValueError: the number is out of range.
    """
    if not math.isfinite(value) or value < minimum or (value == minimum and not inclusive):
        raise ValueError(f"{name} must be {'at least' if inclusive else 'greater than'} {minimum:g}, not {value!r}")
