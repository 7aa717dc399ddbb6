"""Leaks: evaluation queries among the training texts."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from datamodules.images import is_image
from datamodules.sources import Pairs, PairSource, WithoutRows
from datamodules.text import fold, normalise
from foundations.errors import InputError
from foundations.progress import delayed_progress
from retrieval.collection import Collection
from retrieval.index.bm25 import words

_EXAMPLES = 3

_MOST_CHECKED = 250_000
"""Streamed pairs that are looked at."""

_STRETCH = 4
"""A text this many times as long as the longest query is not looked at: its words cannot be those of a query."""


@dataclass(frozen=True)
class Leaks:
    """Evaluation queries among the training pairs.

    Args:
        checked: number of pairs that were looked at.
        pairs: those of them with the text of a query, apart from case, punctuation and white space.
        exact: those of them with exactly the text of a query, in NFC and apart from white space.
        examples: some of the texts.
        dropped: whether the pairs were taken out of the training data.
    """

    checked: int
    pairs: int
    exact: int
    examples: list[str]
    dropped: bool = False

    @classmethod
    def of_parts(cls, parts: Sequence[Leaks]) -> Leaks:
        """What was found in several datasets together."""
        return cls(
            checked=sum(part.checked for part in parts),
            pairs=sum(part.pairs for part in parts),
            exact=sum(part.exact for part in parts),
            examples=[text for part in parts for text in part.examples][:_EXAMPLES],
            dropped=any(part.dropped for part in parts),
        )

    def __str__(self) -> str:
        examples = ", ".join(repr(text) for text in self.examples)
        return (
            f"{self.pairs:,} of {self.checked:,} training pairs hold a query of dev or test "
            f"({self.exact:,} exactly), such as {examples}"
        )


def find_leaks(
    pairs: Pairs, collections: Mapping[str, Collection], limit: int | None = None
) -> tuple[Leaks, list[int]]:
    """Evaluation queries among the first `limit` training pairs (all by default), and the positions of those pairs.

    A pair leaks where its target is a query that the student reads, or its source a query that the teacher reads; a
    query inside a longer text is no leak. The English twin collection is not looked at: that a translation of a query's
    word is in training is the task. Nor are images.
    """
    readers: dict[str, set[str]] = {"student": set(), "teacher": set()}
    exact: set[str] = set()
    for collection in collections.values():
        if collection.split == "english":
            continue
        for query in collection.queries.values():
            if not is_image(query):
                readers[collection.query_side].add(_key(query))
                exact.add(normalise(query))
    longest = _STRETCH * max((len(query) for query in exact), default=0)
    rows, number_exact, checked, examples = [], 0, 0, dict[str, None]()
    with delayed_progress("look for leaks", len(pairs) if limit is None else limit) as advance:
        for row, pair in enumerate(itertools.islice(pairs, limit)):
            checked += 1
            if row % 4096 == 0:
                advance(4096)
            leaking = [
                text
                for text, queries in ((pair.target, readers["student"]), (pair.source, readers["teacher"]))
                if queries and len(text) <= longest and not is_image(text) and _key(text) in queries
            ]
            if leaking:
                rows.append(row)
                number_exact += any(normalise(text) in exact for text in leaking)
                if len(examples) < _EXAMPLES:
                    examples[leaking[0]] = None
    return Leaks(checked, len(rows), number_exact, list(examples)), rows


def check_leaks(pairs: Pairs, collections: Mapping[str, Collection], remove: bool) -> tuple[Pairs, Leaks]:
    """The pairs that are left, and the evaluation queries among them, of streamed ones among the first 250,000.

    To remove them, all pairs are looked at; InputError where none would be left.
    """
    leaks, rows = find_leaks(pairs, collections, None if remove or isinstance(pairs, list) else _MOST_CHECKED)
    if not (remove and rows):
        return pairs, leaks
    if len(rows) == len(pairs):
        raise InputError("every training pair holds a query of dev or test, so remove_leaks leaves none")
    return without_rows(pairs, rows), replace(leaks, dropped=True)


def without_rows(pairs: Pairs, rows: Sequence[int]) -> Pairs:
    """The pairs without those at some positions, which are in ascending order."""
    if isinstance(pairs, PairSource):
        return WithoutRows(pairs, rows) if rows else pairs
    dropped = set(rows)
    return [pair for row, pair in enumerate(pairs) if row not in dropped]


def _key(text: str) -> str:
    """The key by which a text matches a query: its words, or the text itself where it has none."""
    return " ".join(words(text)) or fold(text)
