"""Texts as words, and words as what readers see as characters: marks stay with their base."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from itertools import groupby

import regex  # type: ignore[import-untyped]

from datamodules.text import script_of

_CLUSTER = regex.compile(r"\X")
_PIECES = {"Han": 2, "Cjk": 2, "Hiragana": 2, "Katakana": 2, "Thai": 4, "Lao": 4, "Khmer": 3, "Myanmar": 3}
"""Scripts that put no space between words -> characters that stand for a word."""
_AFTER_DIVIDER = re.compile("(?<=[\u0f0b\u0f0c\u0f0d\u1361\u16eb\u1680])(?=\\w)")
"""Where a word begins after a mark that divides words: tsheg and shad of Tibetan, those of Ethiopic, Runes, Ogham."""


def clusters(text: str) -> list[str]:
    """The extended grapheme clusters of a text (Unicode Standard Annex 29); no mark is a cluster of its own.

    >>> clusters("पानी")
    ['पा', 'नी']
    """
    result: list[str] = []
    for cluster in _CLUSTER.findall(text):
        # The annex lets some vowel signs, of Burmese for one, stand alone.
        if result and unicodedata.category(cluster[0])[0] == "M":
            result[-1] += cluster
        else:
            result.append(cluster)
    return result


def split_words(text: str) -> tuple[list[str], list[str]]:
    """The words of a text, and what comes before each of them: a space, or nothing.

    In scripts without spaces some characters (2 of Han and kana, 4 of Thai) count as a word; where other marks than
    spaces divide words (the tsheg of Tibetan), those do.

    >>> split_words("maji 水資源 x")
    (['maji', '水資', '源', 'x'], ['', ' ', '', ' '])
    """
    words: list[str] = []
    gaps: list[str] = []
    for number, run in enumerate(text.split()):
        for index, piece in enumerate(_pieces(run)):
            words.append(piece)
            gaps.append(" " if number and not index else "")
    return words, gaps


def join_words(words: list[str], gaps: list[str]) -> str:
    """The text of words, with what comes before each."""
    return "".join(gap + word for gap, word in zip(gaps, words, strict=True))


def _pieces(run: str) -> list[str]:
    if run.isascii():
        return [run]
    pieces: list[str] = []
    if len(parts := _AFTER_DIVIDER.split(run)) > 1:
        return [piece for part in parts for piece in _pieces(part)]
    if not any(script_of(character) in _PIECES for character in run):
        return [run]
    for script, group in groupby(clusters(run), key=lambda cluster: script_of(cluster[0])):
        parts = list(group)
        size = _PIECES.get(script or "", len(parts))
        pieces += ["".join(parts[start : start + size]) for start in range(0, len(parts), size)]
    return pieces


def has_letter_base(cluster: str) -> bool:
    """Whether a cluster is a letter or a digit, with its marks."""
    return unicodedata.category(cluster[0])[0] in "LN"


@lru_cache(maxsize=4096)
def chart_neighbours(character: str) -> tuple[str, ...]:
    """Letters (or marks) of the same script at most two positions away in Unicode's chart.

    This stands in for a layout or an alphabet where none is known here.

    >>> chart_neighbours("ა")
    ('ბ', 'გ')
    """
    script, kind = script_name(character), unicodedata.category(character)[0]
    if script is None or kind not in "LM":
        return ()
    near = [chr(ord(character) + step) for step in (-2, -1, 1, 2) if 0 <= ord(character) + step < 0x110000]
    return tuple(
        each
        for each in near
        if unicodedata.category(each)[0] == kind
        and script_name(each) == script
        and unicodedata.is_normalized("NFC", each)
        and each.isupper() == character.isupper()
    )


@lru_cache(maxsize=4096)
def script_name(character: str) -> str | None:
    """The script of a letter or of a mark that belongs to one script."""
    if unicodedata.category(character)[0] == "L":
        return script_of(character)
    first = unicodedata.name(character, "").partition(" ")[0]
    return None if first in ("", "COMBINING") or unicodedata.category(character)[0] != "M" else first.capitalize()


_LETTERS = str.maketrans({
    # Latin letters with a hook or a stroke, and those beyond ASCII that writers replace by a plain one.
    **dict(zip("đłøħıɓɗƙƴɛɔŋɖƒɣʋɩʊǝəĐŁØĦƁƊƘƳƐƆŊƉƑƔƲƎƏ", "dlohibdkyeondfgviueeDLOHBDKYEONDFGVEE", strict=True)),
    # Cyrillic and Arabic letters whose sign is often left out.
    "ё": "е", "Ё": "Е", "ї": "і", "Ї": "І", "ґ": "г", "Ґ": "Г",
    "أ": "ا", "إ": "ا", "آ": "ا", "ٱ": "ا", "ؤ": "و", "ئ": "ى", "ة": "ه",
    # Candrabindu as anusvara, in the scripts of India.
    "ँ": "ं", "ঁ": "ং", "ઁ": "ં", "ଁ": "ଂ",
})  # fmt: skip

_DROPPED = frozenset("\u093c\u09bc\u0a3c\u0abc\u0b3c\u135d\u135e\u135f\u0670")
"""Nukta; the gemination signs of Ethiopic; the superscript alef of Arabic."""

_STRIPPED = ("Latin", "Greek")
_POINTED = ("Arabic", "Hebrew")
_HOMOPHONES = {"ሐ": "ሀ", "ኀ": "ሀ", "ሠ": "ሰ", "ዐ": "አ", "ፀ": "ጸ"}
"""Ethiopic series that Amharic reads alike, and writes one for the other."""


def without_diacritics(text: str) -> str:
    """A text (in NFC) without its diacritics, by script; base letters stay.

    - Latin and Greek: combining marks, strokes and hooks (``ɗ`` as ``d``).
    - Cyrillic: ``ё`` as ``е``, ``ї`` as ``і``; the breve of ``й`` stays, since that is another letter.
    - Arabic and Hebrew: vowel points; hamza on a carrier, teh marbuta.
    - Devanagari and its kin: nukta; candrabindu becomes anusvara. Vowel signs stay.
    - Ethiopic, which has none: gemination signs, and series that sound alike are written by one of them.

    >>> without_diacritics("Ọjọ́ ɗaya"), without_diacritics("हाँ, ज़मीन"), without_diacritics("ፀሐይ")
    ('Ojo daya', 'हां, जमीन', 'ጸሀይ')
    """
    return "".join(_plain(character) for character in text.translate(_LETTERS))


def _plain(character: str) -> str:
    if character.isascii():
        return character
    if character in _DROPPED:
        return ""
    if unicodedata.category(character) == "Mn":
        # Combining marks of no script belong to Latin, Greek or Cyrillic letters.
        return character if script_name(character) not in (None, *_POINTED) else ""
    script = script_name(character)
    if script in _STRIPPED or script in _POINTED:
        return "".join(each for each in unicodedata.normalize("NFD", character) if unicodedata.category(each) != "Mn")
    if script == "Ethiopic":
        return _same_sound(character)
    return character


def _same_sound(character: str) -> str:
    first, order = chr(ord(character) & ~7), ord(character) & 7
    return chr(ord(_HOMOPHONES[first]) | order) if first in _HOMOPHONES and order < 7 else character
