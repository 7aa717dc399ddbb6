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

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from datamodules.fetch import fetch
from datamodules.text import fold, has_letter, normalise
from foundations.checks import nearest
from foundations.errors import InputError
from foundations.files import read_json

_LEAST_NAMES = 500

ALIASES = {"tl": "fil", "nb": "no", "iw": "he", "in": "id", "mo": "ro", "cmn": "zh", "zh-Hans": "zh",
           "zh-TW": "zh-Hant"}  # fmt: skip
"""Other code of a locale -> the code that CLDR uses."""

_COMPONENTS = 2
"""Number of the group of parts of emoji."""

VARIATION_SELECTOR = "\ufe0f"


@dataclass(frozen=True)
class Annotation:
    """Name of an emoji or symbol in one language (may be empty), and keywords that people may look for."""

    name: str
    keywords: tuple[str, ...]


def inheritance(locale: str) -> list[str]:
    """A locale after those from which it takes what it does not say itself.

    >>> inheritance("zh-Hant-HK"), inheritance("sw-KE"), inheritance("sr-Latn")
    (['zh-Hant', 'zh-Hant-HK'], ['sw', 'sw-KE'], ['sr-Latn'])
    """
    parent, _, last = locale.rpartition("-")
    is_script = len(last) == 4 and last.isalpha()
    return [*(inheritance(parent) if parent and not is_script else []), locale]


def read_annotations(locale: str, derived: bool = False) -> dict[str, Annotation]:
    """Names and keywords in a CLDR locale by emoji (without variation selectors); empty where CLDR has nothing.

    With `derived` they are those of skin tones, flags and sequences, in place of those of base emoji and symbols.
    """
    key = "annotationsDerived" if derived else "annotations"
    folder = fetch("cldr-annotations-derived-full" if derived else "cldr-annotations-full") / "package" / key
    annotations: dict[str, Annotation] = {}
    for name in inheritance(locale):
        path = folder / name / "annotations.json"
        if path.is_file():
            for emoji, entry in read_json(path)[key].get("annotations", {}).items():
                names = [normalise(text) for text in entry.get("tts", ())]
                keywords = tuple(normalise(text) for text in entry.get("default", ()))
                before = annotations.get(emoji, Annotation("", ()))
                annotations[emoji] = Annotation(names[0] if names else before.name, keywords or before.keywords)
    return annotations


def read_locale_names(locale: str) -> dict[tuple[str, ...], str]:
    """Names of languages, territories, scripts, variants, calendars and the like in one language.

    They go by their keys in the files, which are the same in each language. Patterns ("Region: {0}") are left out.
    """
    texts: dict[tuple[str, ...], str] = {}
    for name in inheritance(locale):
        folder = fetch("cldr-localenames-full") / "package/main" / name
        for path in sorted(folder.glob("*.json")):
            content = read_json(path)["main"][name]["localeDisplayNames"]
            for keys, text in _leaves(content, (path.stem,)):
                if "{0}" not in text and has_letter(text):
                    texts[keys] = normalise(text)
    return texts


def _leaves(node: Any, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _leaves(value, (*keys, key))
    elif isinstance(node, str):
        yield keys, node


def read_families() -> dict[str, str]:
    """The Unicode subgroup, e.g. ``animal-mammal``, of each emoji (without variation selectors) and its skin tones.

    Components, such as hair, are left out: they are no emoji.
    """
    package = fetch("emojibase-data") / "package"
    names = read_json(package / "meta/groups.json")["subgroups"]
    families = {}
    for entry in read_json(package / "en/data.json"):
        if entry.get("group", _COMPONENTS) != _COMPONENTS:
            for emoji in (entry, *entry.get("skins", ())):
                families[emoji["emoji"].replace(VARIATION_SELECTOR, "")] = names[str(entry["subgroup"])]
    return families


@cache
def _name_counts(folder: Path) -> dict[str, int]:
    """How many emoji and symbols have a name, by locale."""
    locales = [path.name for path in sorted(folder.iterdir()) if path.name.split("-")[0] not in ("en", "und")]
    return {locale: _name_count(locale) for locale in locales}


def _name_count(locale: str) -> int:
    return sum(1 for entry in read_annotations(locale).values() if entry.name)


def languages() -> list[str]:
    """The locales, English apart, in which at least 500 emoji and symbols have a name."""
    counts = _name_counts(fetch("cldr-annotations-full") / "package/annotations")
    return [locale for locale, count in counts.items() if count >= _LEAST_NAMES]


def find_language(language: str) -> str:
    """The CLDR locale that a user means, by a locale in any case, with ``-`` or ``_``, an alias, or an English name.

    InputError where there is no such locale, with the nearest ones, or too little in it.
    """
    folder = fetch("cldr-annotations-full") / "package/annotations"
    locales = {path.name.casefold(): path.name for path in sorted(folder.iterdir())}
    locales |= {alias.casefold(): locale for alias, locale in ALIASES.items()}
    locale = locales.get(language.strip().replace("_", "-").casefold())
    if locale is None:
        locale = _codes_by_name(set(locales.values())).get(fold(language)) or _refuse(language)
    if locale.split("-")[0] == "en":
        raise InputError("the language is English, which is the teacher's: choose the student's, e.g. sw")
    if (count := _name_count(locale)) < _LEAST_NAMES:
        raise InputError(f"language {locale!r}: CLDR names only {count} emoji in it, expected at least {_LEAST_NAMES}")
    return locale


def _codes_by_name(choices: Collection[str]) -> dict[str, str]:
    """Locale by the folded English name of its language."""
    codes: dict[str, str] = {}
    for keys, name in read_locale_names("en").items():
        code = ALIASES.get(keys[-1], keys[-1])
        if keys[0] == "languages" and code in choices:
            codes.setdefault(fold(name), code)
    return codes


def _refuse(language: str) -> NoReturn:
    """Raise InputError with what a wrong language may stand for: by code, and by English name."""
    choices = languages()
    names = _codes_by_name(choices)
    codes = [names[name] for name in nearest(fold(language), names, 2, cutoff=0.7)]
    codes += nearest(language.strip(), choices, 3, cutoff=0.6)
    if codes:
        hint = f"did you mean {' or '.join(dict.fromkeys(codes))}? ({len(choices)} locales have data)"
    else:
        hint = f"expected one of {', '.join(choices)}"
    raise InputError(f"unknown language {language!r}; {hint}")
