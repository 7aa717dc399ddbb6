"""What may stand in the place of a character: keys beside it, characters that look alike, other letters of its script.

Each function takes a grapheme cluster and gives the clusters that may replace it, made by changing one letter or mark
of it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from functools import lru_cache

from datamodules.noise.confusables import looks_like
from datamodules.noise.graphemes import chart_neighbours, script_name
from datamodules.noise.keyboards import alphabet, keys_beside


@lru_cache(maxsize=8192)
def mistyped(cluster: str) -> tuple[str, ...]:
    """The cluster with a key pressed beside one of its own.

    >>> mistyped("z")
    ('a', 's', 'x')
    >>> "रि" in mistyped("पि"), "पु" in mistyped("पि"), "पइ" in mistyped("पि")
    (True, True, False)
    """
    return _with_one_changed(cluster, keys_beside)


@lru_cache(maxsize=8192)
def misread(cluster: str) -> tuple[str, ...]:
    """The cluster as a machine may misread it.

    >>> misread("o"), misread("é")
    (('0', 'c', 'e', 'a'), ('e',))
    """
    plain, *marks = list(unicodedata.normalize("NFD", cluster[0]))
    if marks and all(unicodedata.category(mark) == "Mn" for mark in marks):
        return (plain + cluster[1:],)  # a small mark is what is lost first
    return _with_one_changed(cluster, looks_like)


@lru_cache(maxsize=8192)
def other_letters(cluster: str) -> tuple[str, ...]:
    """The cluster with another letter of the same script and case; its marks stay."""
    first = cluster[0]
    if first.isdecimal():
        zero = ord(first) - unicodedata.decimal(first)
        return tuple(chr(zero + value) + cluster[1:] for value in range(10) if chr(zero + value) != first)
    letters: Sequence[str] = alphabet(script_name(first) or "") or chart_neighbours(first)
    if first.isupper():
        letters = [letter.upper() for letter in letters]
    return tuple(letter + cluster[1:] for letter in letters if letter != first)


def _with_one_changed(cluster: str, choices: Callable[[str], Sequence[str]]) -> tuple[str, ...]:
    return tuple(
        cluster[:place] + other + cluster[place + 1 :]
        for place, character in enumerate(cluster)
        for other in choices(character)
    )
