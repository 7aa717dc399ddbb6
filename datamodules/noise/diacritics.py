"""Texts without the small signs that hurried writers leave out."""

from __future__ import annotations

import unicodedata

from datamodules.noise.graphemes import script_name

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
    """A text without its diacritics, by script; base letters stay.

    - Latin and Greek: combining marks, strokes and hooks (``ɗ`` as ``d``).
    - Cyrillic: ``ё`` as ``е``, ``ї`` as ``і``; the breve of ``й`` stays, since that is another letter.
    - Arabic and Hebrew: vowel points; hamza on a carrier, teh marbuta.
    - Devanagari and its kin: nukta; candrabindu becomes anusvara. Vowel signs stay.
    - Ethiopic, which has none: gemination signs, and series that sound alike are written by one of them.

    Args:
        text: in NFC.

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
