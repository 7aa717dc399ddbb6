"""Keyboard layouts by script, and the keys next to a key.

Latin: QWERTY. Cyrillic: JCUKEN. Greek and Hebrew (SI 1452) as on their national keyboards, Arabic 101, Thai Kedmanee,
Georgian by QWERTY, and InScript (IS 16350) for Devanagari and the scripts whose Unicode blocks are laid out as its own.
Ethiopic is typed as consonant and vowel (as in SERA), so a slip gives another syllable of the same consonant. Any
other script has its neighbours in Unicode's chart.
"""

from __future__ import annotations

import unicodedata
from functools import cache, lru_cache

from datamodules.noise.graphemes import chart_neighbours, script_name

_OFFSETS = (0.0, 0.25, 0.75)
"""How far each row of letters is moved to the right, in keys."""
_REACH = 0.8
_GAP = " "
_LAYERS: dict[str, tuple[tuple[str, ...], ...]] = {
    "Latin": (("qwertyuiop", "asdfghjkl", "zxcvbnm"),),
    "Cyrillic": (("йцукенгшщзхъ", "фывапролджэ", "ячсмитьбю"), ("    ё   ўїґ", " ії    є  є", "")),
    "Greek": ((" ςερτυθιοπ", "ασδφγηξκλ", "ζχψωβνμ"),),
    "Hebrew": (("  קראטוןםפ", "שדגכעיחלךף", "זסבהנמצתץ"),),
    "Arabic": (("ضصثقفغعهخحجد", "شسيبلاتنمكط", "ئءؤر ىةوزظ"), ("      إ   چ", "   پ أ  گ", "    ژ آ")),
    "Georgian": (("ქწერტყუიოპ", "ასდფგჰჯკლ", "ზხცვბნმ"), (" ჭ ღთ", " შ   ჟ", "ძ ჩ")),
    "Devanagari": (
        ("ौैाीूबहगदजड़", "ोे्िुपरकतचट", " ंमनवलस  य"),
        ("औऐआईऊभङघधझढञ", "ओएअइउफ खथछठ", " ँण  ळश"),
    ),
    "Thai": (("ๆไำพะัีรนยบล", "ฟหกดเ้่าสวง", "ผปแอิืทมใฝ"), ("  ฎฑธํ๊ณฯญฐ", "ฤฆฏโฌ็๋ษศซ", "  ฉฮฺ์ ฒฬฦ")),
}
_BLOCKS = {"Bengali": 0x980, "Gurmukhi": 0xA00, "Gujarati": 0xA80, "Oriya": 0xB00, "Tamil": 0xB80, "Telugu": 0xC00,
           "Kannada": 0xC80, "Malayalam": 0xD00}  # fmt: skip
_DIGITS = "1234567890"
ETHIOPIC = "ሀለሐመረሰሸቀበተቸነኘአከወዘየደጀገጠጨጸፈፐ"
"""The first syllable of each consonant in common use."""


@lru_cache(maxsize=4096)
def keys_beside(character: str) -> tuple[str, ...]:
    """What a slip of the finger gives instead of a letter, vowel sign or digit; letters stay letters, marks marks.

    >>> keys_beside("a"), keys_beside("S")
    (('q', 'w', 's', 'z'), ('W', 'E', 'A', 'D', 'Z', 'X'))
    >>> "ሱ" in keys_beside("ሰ"), "ख" in keys_beside("क")
    (True, True)
    """
    if character in _DIGITS:
        index = _DIGITS.index(character)
        return tuple(_DIGITS[near] for near in (index - 1, index + 1) if 0 <= near < len(_DIGITS))
    script = script_name(character)
    if script == "Ethiopic":
        return syllables_beside(character)
    lower = character.lower()
    keys = layout(script or "").get(lower, ())
    if keys:
        return tuple(each.upper() for each in keys) if character != lower else keys
    return chart_neighbours(character)


def syllables_beside(character: str) -> tuple[str, ...]:
    """The other syllables of an Ethiopic consonant: its first seven orders."""
    first = ord(character) & ~7
    series = [chr(first + order) for order in range(7)]
    names = [unicodedata.name(each, "").startswith("ETHIOPIC SYLLABLE") for each in series]
    return tuple(each for each, known in zip(series, names, strict=True) if known and each != character)


@cache
def alphabet(script: str) -> tuple[str, ...]:
    """The letters of a script's layout, without marks; empty where there is none.

    >>> "".join(alphabet("Latin"))[:4]
    'qwer'
    """
    if script == "Ethiopic":
        return tuple(chr(ord(first) + order) for first in ETHIOPIC for order in range(7))
    return tuple(each for each in layout(script) if unicodedata.category(each)[0] == "L")


@cache
def layout(script: str) -> dict[str, tuple[str, ...]]:
    """Key -> keys next to it, of the same kind (letter or mark), and what else is on the key itself."""
    positions = _positions(script)
    neighbours: dict[str, tuple[str, ...]] = {}
    for key, (layer, row, column) in positions.items():
        near = []
        for second, (second_layer, second_row, second_column) in positions.items():
            rows, columns = abs(row - second_row), abs(column - second_column)
            same_layer = columns <= (_REACH if rows else 1) and rows <= 1
            is_near = same_layer if layer == second_layer else rows == columns == 0
            if is_near and second != key and unicodedata.category(second)[0] == unicodedata.category(key)[0]:
                near.append(second)
        neighbours[key] = tuple(near)
    return neighbours


def _positions(script: str) -> dict[str, tuple[int, int, float]]:
    """Key -> layer, row and column."""
    base = _BLOCKS.get(script)
    layers = _LAYERS["Devanagari"] if base is not None else _LAYERS.get(script, ())
    positions: dict[str, tuple[int, int, float]] = {}
    for layer, rows in enumerate(layers):
        for row, keys in enumerate(rows):
            for column, key in enumerate(keys):
                character = key if base is None or key == _GAP else chr(ord(key) - 0x900 + base)
                if key != _GAP and unicodedata.category(character) != "Cn":
                    positions.setdefault(character, (layer, row, column + _OFFSETS[row]))
    return positions
