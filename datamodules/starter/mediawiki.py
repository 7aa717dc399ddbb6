"""Messages of the MediaWiki interface and their translations, as bitext.

Source: Debian's package ``mediawiki`` (GPL-2.0-or-later), translated by the people of translatewiki.net into some 400
languages. Each ``i18n`` folder has one JSON file a language, key -> message.

Traps: messages are wikitext with templates, links, HTML and numbered gaps; a plural template holds one word in many
forms. What remains of a message after cleaning may be nothing, or a piece of code. Codes are lower case, and some
are MediaWiki's own (``sr-ec`` for Serbian in Cyrillic).
"""

from __future__ import annotations

import html
import re
from pathlib import Path

from datamodules.fetch import fetch
from datamodules.pairs import without_repeats
from datamodules.starter.cldr import ALIASES, inheritance
from datamodules.text import fold, normalise
from foundations.files import read_json

_OWN_CODES = {"no": ["nb"], "pt": ["pt-br"], "sr": ["sr-ec"], "sr-Latn": ["sr-el"], "yue": ["yue-hant"],
              "zh": ["zh-hans"]}  # fmt: skip

_LONGEST = 300
_LEAST_LETTERS = 3
_TAG = re.compile(r"<[^>]*>|__[A-Z]+__|'{2,}")
_TEMPLATE = re.compile(r"\{\{([^{}\[\]]*)\}\}")
_LINK = re.compile(r"\[\[(?:[^\[\]|{}]*\|)?([^\[\]|{}]*)\]\]")
_WEB_LINK = re.compile(r"\[\S+\s+([^\[\]]*)\]")
_GAP = re.compile(r"\$(?:\d+|[A-Z_]+)")
_CODE = re.compile(r"\{\{|\}\}|\[\[|\]\]|/\*|//|[{}|\\]")
_INFLECTED = ("plural", "gender", "grammar")


def clean(message: str) -> str:
    """What a reader would see of a message: without markup, gaps, and all forms but the first.

    >>> clean("'''Add''' {{PLURAL:$2|group|groups}} to [[Special:Log/$1|the log]]: <b>$1</b>&nbsp;")
    'Add group to the log'
    """
    text, before = _TAG.sub(" ", message), ""
    while text != before:  # templates and links hold each other: from the inside outwards
        before = text
        text = _LINK.sub(r"\1", _TEMPLATE.sub(_first_form, text))
    text = _GAP.sub(" ", _WEB_LINK.sub(r"\1", text))
    return normalise(html.unescape(text)).strip(" :;*#")


def _first_form(template: re.Match[str]) -> str:
    """The text that stands for a template."""
    name, *forms = template[1].split("|")
    if name.strip() == "SITENAME":
        return "wiki"
    if name.split(":")[0].strip().casefold() not in _INFLECTED:
        return " "
    return next((form for form in forms if not re.match(r"\s*\d+=", form)), "")


def mediawiki_codes(locale: str) -> list[str]:
    """MediaWiki's codes for a CLDR locale, the best first."""
    codes = []
    for name in reversed(inheritance(locale)):
        codes += [*_OWN_CODES.get(name, ()), name.lower()]
        codes += [alias.lower() for alias, target in ALIASES.items() if target == name]
    return list(dict.fromkeys(codes))


def mediawiki_pairs(locale: str) -> list[tuple[str, str]]:
    """(English, translation) of the messages that are text in English and in a CLDR locale, each once."""
    pairs = []
    for path in sorted((fetch("mediawiki") / "usr/share/mediawiki").rglob("i18n/**/en.json")):
        english = _messages(path)
        foreign: dict[str, str] = {}
        for code in reversed(mediawiki_codes(locale)):
            foreign |= _messages(path.with_name(f"{code}.json"))
        for key, message in foreign.items():
            pair = (clean(english.get(key, "")), clean(message))
            if _is_text(*pair):
                pairs.append(pair)
    return list(without_repeats(pairs))


def _messages(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    return {key: message for key, message in read_json(path).items() if isinstance(message, str)}


def _is_text(source: str, target: str) -> bool:
    """Whether a pair can be learnt from: words, not too long, translated, no rest of code."""
    return (
        sum(map(str.isalpha, source)) >= _LEAST_LETTERS
        and any(map(str.isalpha, target))
        and max(len(source), len(target)) <= _LONGEST
        and fold(source) != fold(target)
        and not _CODE.search(source + target)
    )
