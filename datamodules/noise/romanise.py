"""Any script in Latin letters, mostly by what Unicode calls its characters: a rough one, as people type it."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from datamodules.noise.graphemes import script_name, without_diacritics

_TABLES = {
    "Cyrillic": ("абвгдеёжзийклмнопрстуфхцчшщъыьэюяіїєґўәғқңөұүһ",
                 "a b v g d e yo zh z i y k l m n o p r s t u f kh ts ch sh shch - y - e yu ya i yi ye g w "
                 "a gh q ng o u u h"),
    "Greek": ("αβγδεζηθικλμνξοπρσςτυφχψω", "a v g d e z i th i k l m n x o p r s s t y f ch ps o"),
    "Hebrew": ("אבגדהוזחטיךכלםמןנסעףפץצקרשת", "a b g d h v z ch t y k k l m m n n s a p p ts ts k r sh t"),
    "Arabic": ("اأإآبتثجحخدذرزسشصضطظعغفقكلمنهويىةءؤئپچژگکیےٹڈڑں",
               "a a i aa b t th j h kh d dh r z s sh s d t z a gh f q k l m n h w y a a - w y p ch zh g k y e t d r n"),
    "Georgian": ("აბგდევზთიკლმნოპჟრსტუფქღყშჩცძწჭხჯჰ",
                 "a b g d e v z t i k l m n o p zh r s t u p k gh q sh ch ts dz ts ch kh j h"),
    "Armenian": ("աբգդեզէըթժիլխծկհձղճմյնշոչպջռսվտրցւփքօֆ",
                 "a b g d e z e y t zh i l kh ts k h dz gh ch m y n sh o ch p j r s v t r ts w p k o f"),
}  # fmt: skip
_VIRAMA = 9
"""Canonical combining class of the sign that takes the vowel from a consonant."""


def romanise(text: str) -> str:
    """A text (in NFC) in Latin letters; what is Latin already loses its diacritics, Han stays.

    Syllables of Ethiopic and kana are called by their sound in Unicode, and so are letters and vowel signs of the
    scripts of India, where a consonant has an ``a`` unless a sign follows. Other alphabets have a small table. Sinhala,
    whose letters are called by other names, stays.

    >>> romanise("ሰላም ለዓለም"), romanise("पानी का रंग"), romanise("Привет"), romanise("かな")
    ('selam lealem', 'paanii kaa ranga', 'Privet', 'kana')
    """
    letters = []
    for index, character in enumerate(text):
        following = text[index + 1] if index + 1 < len(text) else ""
        letters.append(_indic(character, following) or _letter(character))
    return without_diacritics("".join(letters))


def _indic(character: str, following: str) -> str:
    """A consonant with its inherent vowel, unless a vowel sign or a virama follows; empty for anything else."""
    name = _name(character)
    if " LETTER " not in name or not name.endswith("A") or script_name(character) not in _INDIC:
        return ""
    sound = name.rpartition(" ")[2].lower()
    if sound in _VOWELS:
        return sound
    has_other = bool(following) and ("VOWEL SIGN" in _name(following) or unicodedata.combining(following) == _VIRAMA)
    return sound[:-1] if has_other else sound


_INDIC = ("Devanagari", "Bengali", "Gurmukhi", "Gujarati", "Oriya", "Tamil", "Telugu", "Kannada", "Malayalam",
          "Khmer", "Myanmar")  # fmt: skip
_VOWELS = ("a", "aa")


@lru_cache(maxsize=8192)
def _letter(character: str) -> str:
    """One character, without regard to what follows."""
    script = script_name(character)
    if character.isascii() or script == "Sinhala":
        return character
    if script in _TABLES:
        return _in_table(character, *_TABLES[script])
    if script == "Ethiopic":
        return _ethiopic(_name(character))
    return _thai(_name(character)) if script in ("Thai", "Lao") else _by_name(character, script)


def _in_table(character: str, letters: str, sounds: str) -> str:
    lower = character.lower()
    plain = lower if lower in letters else unicodedata.normalize("NFD", lower)[0]
    if plain not in letters:
        return "" if unicodedata.category(character) == "Mn" else character
    sound = sounds.split()[letters.index(plain)].strip("-")
    return sound.capitalize() if character != lower else sound


def _by_name(character: str, script: str | None) -> str:
    """The last word of a name such as HIRAGANA LETTER KA or BENGALI VOWEL SIGN II."""
    name = _name(character)
    if unicodedata.combining(character) == _VIRAMA:
        return ""
    for word, sound in _SIGNS.items():
        if word in name:
            return sound
    if script != "Latin" and any(word in name for word in (" VOWEL SIGN ", " LETTER ", " SYLLABLE ")):
        return name.rpartition(" ")[2].lower()
    return "" if unicodedata.category(character) == "Mn" and script else character


_SIGNS = {"ANUSVARA": "n", "CANDRABINDU": "n", "VISARGA": "h", "NUKTA": "", "AVAGRAHA": ""}


_CONSONANTS = {"hh": "h", "sz": "s", "x": "h", "tz": "ts", "ph": "p", "th": "t", "c": "ch"}


def _ethiopic(name: str) -> str:
    """The syllable of a name such as ETHIOPIC SYLLABLE SHEE, as Amharic is usually written in Latin letters."""
    if " SYLLABLE " not in name:
        return ""
    sound = name.rpartition(" ")[2].lower()
    consonant = sound.rstrip("aeiou")
    vowel = sound[len(consonant) :]
    if any(word in name for word in ("GLOTTAL", "PHARYNGEAL")):
        consonant = ""
    consonant = _CONSONANTS.get(consonant, consonant)
    order = {"a": "e", "aa": "a", "ee": "e", "e": ""}.get(vowel, vowel)
    if not consonant or consonant == "h":
        order = {"a": "a", "e": "e" if not consonant else ""}.get(vowel, order)
    return consonant + order


def _thai(name: str) -> str:
    """A letter of a name such as THAI CHARACTER KHO KHAI, THAI CHARACTER SARA AA or LAO VOWEL SIGN II."""
    words = name.split()[2:]
    if not words:
        return ""
    if words[0] in ("SARA", "SIGN"):
        return words[1].lower()
    if words[0] in ("MAI", "MAITAIKHU", "THANTHAKHAT", "PAIYANNOI", "MAIYAMOK", "PHINTHU", "NIKHAHIT"):
        return "a" if words[-1] == "HAN-AKAT" else ""
    return words[0].lower().removesuffix("o")


@lru_cache(maxsize=8192)
def _name(character: str) -> str:
    return unicodedata.name(character, "")
