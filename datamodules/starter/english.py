"""``--data starter_english``: English pairs of the starter, to train an English late-interaction model on.

The source of a pair is a document, the target a query to it, in the form in which ColBERT is trained:

1. an emoji's or symbol's name, and its keywords without that name;
2. a phrase of two words or more out of a longer name, and the whole document ("name: keywords"), as the index has it;
3. the same out of the names of languages, places and scripts, and the whole name;
4. a clause of the Universal Declaration of Human Rights, and the rest of its paragraph.

So it sees the texts of the index, which whoever has the index has, and no judgment: no keyword is asked for in
training, and no text that is a query of ``dev`` or ``test`` here is a whole side of a pair. It sees no text of another
language. The queries of ``dev`` and ``test`` are the English keywords that are the twin of every other language's
queries; a quarter of them, by a hash, are ``dev``.

Sources and licences: see `datamodules.starter.cldr` and `datamodules.starter.udhr`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from typing import Any

from datamodules.base import PairsDataModule
from datamodules.english import EnglishPairs
from datamodules.fetch import fetch_data
from datamodules.pairs import Pair
from datamodules.starter.cldr import read_locale_names
from datamodules.starter.emoji import EmojiSearch, emoji_document
from datamodules.text import fold, normalise
from retrieval.collection import Collection

_CLAUSE = re.compile(r"(?<=[.;,:])\s+")
_CLAUSE_WORDS = 4


class StarterEnglishDataModule(PairsDataModule):
    """English queries and documents out of the starter's texts, for a late-interaction teacher.

    Args:
        english: as in `PairsDataModule`; all pairs are English here, so none are added by default.
        **options: those of `PairsDataModule`.
    """

    def __init__(self, english: EnglishPairs | None = "none", **options: Any) -> None:
        super().__init__(english=english, **options)

    def prepare_data(self) -> None:
        """Fetch the packages."""
        fetch_data("starter")

    def load_pairs(self) -> list[Pair]:
        """The pairs; those of one emoji, name or article share an id."""
        asked = {fold(query) for each in self.load_collections().values() for query in each.queries.values()}
        pairs = []
        seen: set[tuple[str, str]] = set()
        for id_, texts in enumerate(self._groups()):
            for document, query in texts:
                key = fold(document), fold(query)
                if key not in seen and not asked & set(key) and all(key):
                    seen.add(key)
                    pairs.append(Pair(normalise(document), normalise(query), id_))
        return pairs

    def load_collections(self) -> dict[str, Collection]:
        """``dev`` and ``test``: English keywords, and all emoji."""
        collections = self._data.collections()
        return {name: collections[name] for name in ("dev", "test")}

    @cached_property
    def _data(self) -> EmojiSearch:
        return EmojiSearch.read("en", "keyword")

    def _groups(self) -> Iterator[list[tuple[str, str]]]:
        """(document, query) texts, those of one thing together."""
        for entry in self._data.english.values():
            if entry.name:
                keywords = [word for word in entry.keywords if fold(word) != fold(entry.name)]
                document = emoji_document(entry)
                yield [(", ".join(keywords), entry.name), *((document, part) for part in phrases(entry.name))]
        for name in dict.fromkeys(read_locale_names("en").values()):
            yield [(name, part) for part in phrases(name)]
        for paragraph, _ in self._data.other_pairs:
            yield list(clauses(paragraph))


def phrases(name: str) -> list[str]:
    """The runs of at least two words at the beginning and at the end of a longer name.

    >>> phrases("person in steamy room")
    ['person in', 'person in steamy', 'steamy room', 'in steamy room']
    """
    words = name.split()
    sizes = range(2, len(words))
    return [" ".join(words[:size]) for size in sizes] + [" ".join(words[-size:]) for size in sizes]


def clauses(paragraph: str) -> Iterator[tuple[str, str]]:
    """(rest of the paragraph, clause) for each clause of at least four words.

    >>> list(clauses("He who runs may read; yes."))
    [('yes.', 'He who runs may read;')]
    """
    parts = _CLAUSE.split(paragraph)
    for index, clause in enumerate(parts):
        rest = " ".join(parts[:index] + parts[index + 1 :])
        if rest and len(clause.split()) >= _CLAUSE_WORDS:
            yield rest, clause
