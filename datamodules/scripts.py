"""The writing systems of texts."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache

_SHARED = ("DIGIT", "FULLWIDTH", "HALFWIDTH", "MODIFIER", "SUPERSCRIPT", "FEMININE", "MASCULINE", "COMBINING")


@cache
def script_of(character: str) -> str | None:
    """The script of a letter, by the first word of its Unicode name; None for what is no letter, or shared.

    >>> script_of("a"), script_of("म"), script_of("ሰ"), script_of("7")
    ('Latin', 'Devanagari', 'Ethiopic', None)
    """
    if unicodedata.category(character)[0] != "L":
        return None
    first = unicodedata.name(character, "").partition(" ")[0]
    if not first or first in _SHARED:
        return None
    return "Han" if first == "CJK" else first.capitalize()


def script_shares(texts: Iterable[str]) -> dict[str, float]:
    """Share of each script among the letters of some texts, the largest first.

    >>> script_shares(["maji", "पानी"])
    {'Latin': 0.6666666666666666, 'Devanagari': 0.3333333333333333}
    """
    counts = Counter(_scripts(texts))
    total = sum(counts.values())
    return {name: number / total for name, number in counts.most_common()}


def _scripts(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        for character in text:
            if (script := script_of(character)) is not None:
                yield script
