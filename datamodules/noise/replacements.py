"""What may replace a character: keys next to it, characters that look alike, other letters of its script.

Each function takes a grapheme cluster and gives the clusters that may replace it, made by changing one letter or mark
of it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from functools import cache, lru_cache

from datamodules.noise.graphemes import chart_neighbours, clusters, script_name
from datamodules.noise.keyboards import alphabet, keys_beside


@lru_cache(maxsize=8192)
def mistyped(cluster: str) -> tuple[str, ...]:
    """The cluster with a key pressed that is next to one of its own.

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
    if len(cluster) > 1 and unicodedata.combining(cluster[1]) == _NUKTA:
        return (cluster[0] + cluster[2:],)  # the same, of letters that Unicode always writes as two
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
        cluster[:index] + replacement + cluster[index + 1 :]
        for index, character in enumerate(cluster)
        for replacement in choices(character)
    )


_GROUPS = {
    "Latin": "0oce 1lit 5s 6b 9gq 2z nhru vyu ao ft kx mn wv ij 0OQDC 1IlT 5S 8B 2Z 6G EF PR MN VU VY KX",
    "Cyrillic": "сео аоэ ипн шщ цщ ьъы лп бв тг зэ жк 3з 0о 0О СО ИНП ШЩ ЬЪЫ ЛП БВ ЗЭ 3З ЕЁ её ий ії әе қк ңн өо үұу",
    "Greek": "νυ οσθ απ ηπ ικ ρσ ςζ γυ εξ χκ λά ΟΘ ΑΛΔ ΕΞΣ ΗΝ ΚΧ 0ο 0Ο",
    "Hebrew": "בכ דרך החת וזן םס עצ גנ יו ךן שט",
    "Arabic": "بتثنيپ جحخچ دذ رزژ سش صض طظ عغ فق كکگل هة ىي اأإآ وؤر مه",
    "Devanagari": "वबक भम घधछ पषफ यथ तन रस टठढ डङइ खर जज उऊ अआ एऐ चज णण लळ िी ुू ेै ोौ ंँ ृ्",
    "Bengali": "বরক যষ য়য নণল তভও ঘথ খথ ডড় ঢঢ় পফ উঊ ঙও িী ুূ েৈ ংঃ",
    "Ethiopic": "",
    "Thai": "กถภ ขชซ คตด ผฝ พฟ นม บป ฎฏ วาร อฮ ลส ยผ ิีึื ุู ่้๊๋",
    "Georgian": "აპ ბგ დლ ეფ ვპ თო რღ სხ ცძ უყ შწ ჩზ",
}

_NUKTA = 7
"""The combining class of the dot that makes another letter of one, in the scripts of India."""

_SPLIT = {"m": "rn", "w": "vv", "d": "cl", "h": "li", "M": "IVI", "W": "VV"}
"""Latin letters that are read as two."""

_ETHIOPIC = "ሀህ ሐሕ ሰሸ በሰለ ተቸ ነኘ አኣ ከኸ ዘዠ ደጀ ጠጨ ጸፀ ቀቐ ገኀ ፈረ መሠ ወዐ የጸ ለስ"
"""Pairs that differ by a stroke; what holds for the first of a series holds for the other orders."""


@lru_cache(maxsize=4096)
def looks_like(character: str) -> tuple[str, ...]:
    """The characters that look like one; in a script without a table, neighbours in Unicode's chart.

    >>> looks_like("m"), looks_like("व")
    (('n', 'rn'), ('ब', 'क'))
    """
    script = script_name(character)
    if script == "Ethiopic":
        return _like_syllable(character)
    if script is not None and script not in _GROUPS:
        return chart_neighbours(character)
    alike = [each for name in ([script] if script else _GROUPS) for each in _table(name).get(character, ())]
    split = [_SPLIT[character]] if character in _SPLIT else []
    # A digit looks like letters of many scripts; only those of Latin are taken.
    return tuple(dict.fromkeys([*(each for each in alike if script or each.isascii()), *split]))


@cache
def _table(script: str) -> dict[str, list[str]]:
    table: dict[str, list[str]] = {}
    for group in _GROUPS[script].split():
        # Marks that look alike stand in a group of their own; in others a mark is part of the letter before it.
        alike = list(group) if unicodedata.category(group[0])[0] == "M" else clusters(group)
        for character in alike:
            table.setdefault(character, []).extend(each for each in alike if each != character)
    return table


def _like_syllable(character: str) -> tuple[str, ...]:
    """Syllables of another consonant in the same order, and the next orders of the same consonant."""
    order, first = ord(character) & 7, ord(character) & ~7
    syllables = []
    for group in _ETHIOPIC.split():
        series = [ord(each) & ~7 for each in group]
        if first in series:
            syllables += [chr(each | order) for each in series if each != first]
    syllables += [chr(first | near) for near in (order - 1, order + 1) if 0 <= near < 7]
    return tuple(
        each
        for each in dict.fromkeys(syllables)
        if each != character and unicodedata.name(each, "").startswith("ETHIOPIC SYLLABLE")
    )
