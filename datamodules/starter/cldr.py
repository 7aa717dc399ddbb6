"""Names and keywords of emoji, and names of places, languages and scripts, from Unicode's CLDR.

Sources: the npm packages ``cldr-annotations-full`` (a name and keywords for each base emoji and many symbols),
``cldr-annotations-derived-full`` (the same for skin tones, flags and sequences, composed of translated parts),
``cldr-localenames-full``, and ``emojibase-data`` (Unicode's groups of emoji). Licences: Unicode-3.0; MIT.
People translated all of it; see cldr.unicode.org/translation.

Traps: a regional locale holds only what differs from its parent (sw-KE from sw), but another script inherits nothing
(zh-Hant from zh). Locale names that nobody translated are copies of the English ones. CLDR writes emoji without the
variation selector U+FE0F, emojibase with it.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from datamodules.fetch import fetch
from datamodules.text import fold, has_letter, normalise
from foundations.errors import InputError

_LEAST_NAMES = 500

ALIASES = {
    "tl": "fil",
    "nb": "no",
    "iw": "he",
    "in": "id",
    "mo": "ro",
    "cmn": "zh",
    "zh-Hans": "zh",
    "zh-TW": "zh-Hant",
}

_COMPONENTS = 2

VARIATION_SELECTOR = "\ufe0f"


@dataclass(frozen=True)
class Annotation:
    """What CLDR says of one emoji or symbol in one language.

    Args:
        name: its name, e.g. "grinning face"; empty where the language has keywords only.
        keywords: words that people may look for, e.g. "happy"; may include the name.
    """

    name: str
    keywords: tuple[str, ...]


def read_json(path: Path) -> Any:
    """The content of a JSON file of a package.

    Raises:
        InputError: the file is not there, or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError("no such file in the package", path) from None
    except ValueError as error:
        raise InputError(f"this is not JSON: {error}", path) from None


def inheritance(locale: str) -> list[str]:
    """A locale after those from which it takes what it does not say itself.

    >>> inheritance("zh-Hant-HK"), inheritance("sw-KE"), inheritance("sr-Latn")
    (['zh-Hant', 'zh-Hant-HK'], ['sw', 'sw-KE'], ['sr-Latn'])
    """
    parent, _, last = locale.rpartition("-")
    is_script = len(last) == 4 and last.isalpha()
    return [*(inheritance(parent) if parent and not is_script else []), locale]


def read_annotations(locale: str, derived: bool = False) -> dict[str, Annotation]:
    """Names and keywords in one language.

    Args:
        locale: a CLDR locale, e.g. ``sw``, ``pt-PT``.
        derived: those of skin tones, flags and sequences, in place of those of base emoji and symbols.

    Returns:
        Annotation by emoji (without variation selectors); empty where CLDR has nothing.
    """
    if derived:
        folder, key = fetch("cldr-annotations-derived-full") / "package/annotationsDerived", "annotationsDerived"
    else:
        folder, key = fetch("cldr-annotations-full") / "package/annotations", "annotations"
    found: dict[str, Annotation] = {}
    for name in inheritance(locale):
        path = folder / name / "annotations.json"
        if path.is_file():
            for emoji, entry in read_json(path)[key].get("annotations", {}).items():
                names = [normalise(text) for text in entry.get("tts", ())]
                keywords = tuple(normalise(text) for text in entry.get("default", ()))
                before = found.get(emoji, Annotation("", ()))
                found[emoji] = Annotation(names[0] if names else before.name, keywords or before.keywords)
    return found


def read_locale_names(locale: str) -> dict[tuple[str, ...], str]:
    """Names of languages, territories, scripts, variants, calendars and the like in one language.

    Returns:
        Text by its place in the files, which is the same in each language. Patterns ("Region: {0}") are left out.
    """
    found: dict[tuple[str, ...], str] = {}
    for name in inheritance(locale):
        folder = fetch("cldr-localenames-full") / "package/main" / name
        for path in sorted(folder.glob("*.json")):
            content = read_json(path)["main"][name]["localeDisplayNames"]
            for place, text in _leaves(content, (path.stem,)):
                if "{0}" not in text and has_letter(text):
                    found[place] = normalise(text)
    return found


def _leaves(node: Any, place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _leaves(value, (*place, key))
    elif isinstance(node, str):
        yield place, node


def read_families() -> dict[str, str]:
    """The Unicode subgroup, e.g. ``animal-mammal``, of each emoji, with those of its skin tones.

    Returns:
        Subgroup by emoji (without variation selectors). Components, such as hair, are left out: they are no emoji.
    """
    package = fetch("emojibase-data") / "package"
    names = read_json(package / "meta/groups.json")["subgroups"]
    found = {}
    for entry in read_json(package / "en/data.json"):
        if entry.get("group", _COMPONENTS) != _COMPONENTS:
            for emoji in (entry, *entry.get("skins", ())):
                found[emoji["emoji"].replace(VARIATION_SELECTOR, "")] = names[str(entry["subgroup"])]
    return found


@cache
def _languages(folder: Path) -> dict[str, int]:
    names: dict[str, int] = {}
    for path in sorted(folder.iterdir()):
        if path.name.split("-")[0] not in ("en", "und"):
            names[path.name] = sum(1 for entry in read_annotations(path.name).values() if entry.name)
    return names


def languages() -> list[str]:
    """The locales, English apart, in which at least 500 emoji and symbols have a name."""
    counts = _languages(fetch("cldr-annotations-full") / "package/annotations")
    return [locale for locale, count in counts.items() if count >= _LEAST_NAMES]


def find_language(language: str) -> str:
    """The CLDR locale that a user means.

    Args:
        language: a locale in any case, with ``-`` or ``_``, an alias of one (``tl`` for ``fil``), or the English
            name of its language.

    Returns:
        A locale of CLDR with annotations.

    Raises:
        InputError: there is no such locale, or too little in it; with the nearest choices.
    """
    folder = fetch("cldr-annotations-full") / "package/annotations"
    wanted = language.strip().replace("_", "-").casefold()
    locales = {name.casefold(): name for name in sorted(path.name for path in folder.iterdir())}
    locales |= {alias.casefold(): locale for alias, locale in ALIASES.items()}
    locale = locales.get(wanted)
    if locale is None:
        locale = _codes_by_name(set(locales.values())).get(fold(language)) or _refuse(language)
    if locale.split("-")[0] == "en":
        raise InputError("the language is English, which is the teacher's: choose the student's, e.g. sw")
    count = sum(1 for entry in read_annotations(locale).values() if entry.name)
    if count < _LEAST_NAMES:
        raise InputError(f"language {locale!r}: CLDR names only {count} emoji in it, expected at least {_LEAST_NAMES}")
    return locale


def _codes_by_name(choices: Collection[str]) -> dict[str, str]:
    """Locale by the folded English name of its language."""
    codes: dict[str, str] = {}
    for place, name in read_locale_names("en").items():
        code = ALIASES.get(place[-1], place[-1])
        if place[0] == "languages" and code in choices:
            codes.setdefault(fold(name), code)
    return codes


def _refuse(language: str) -> NoReturn:
    """Raise InputError with what a wrong language may stand for: by code, and by English name."""
    choices = languages()
    names = _codes_by_name(choices)
    codes = [names[name] for name in difflib.get_close_matches(fold(language), names, n=2, cutoff=0.7)]
    codes += difflib.get_close_matches(language.strip(), choices, n=3)
    if codes:
        hint = f"did you mean {' or '.join(dict.fromkeys(codes))}? ({len(choices)} locales have data)"
    else:
        hint = f"expected one of {', '.join(choices)}"
    raise InputError(f"unknown language {language!r}; {hint}")
