"""Leaks: evaluation queries among the training texts."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from datamodules.images import is_image
from datamodules.pairs import Pair
from datamodules.sources import Pairs, PairSource, Row, WrappedSource
from datamodules.text import fold, normalise, text_id
from foundations.errors import InputError
from foundations.progress import delayed_progress
from retrieval.collection import Collection, Side
from retrieval.index.bm25 import words

_EXAMPLES = 3

_MOST_CHECKED = 250_000
"""Streamed pairs that are looked at."""

_OTHERS = 1024
"""Pairs that may come in place of streamed ones that leak."""

_NOTHING_LEFT = "every training pair holds a query of dev or test, so remove_leaks leaves none"

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


class Asked:
    """The texts that ``dev`` and ``test`` ask; `exact` has them normalised."""

    def __init__(self, collections: Mapping[str, Collection]) -> None:
        self.exact: set[str] = set()
        self._keys: dict[Side, set[str]] = {"student": set(), "teacher": set()}
        for collection in collections.values():
            for query in collection.queries.values() if collection.split != "english" else ():
                if not is_image(query):
                    self._keys[collection.query_side].add(_key(query))
                    self.exact.add(normalise(query))
        self._longest = _STRETCH * max((len(query) for query in self.exact), default=0)

    def has(self, text: str, *sides: Side) -> bool:
        """Whether a text is a query that one of some sides reads, apart from case, punctuation and white space."""
        keys = [self._keys[side] for side in sides if self._keys[side]]
        if not keys or len(text) > self._longest or is_image(text):
            return False
        key = _key(text)
        return any(key in each for each in keys)

    def leaking(self, pair: Pair) -> list[str]:
        """The sides of a pair that are queries of their readers."""
        sides: tuple[tuple[str, Side], ...] = ((pair.target, "student"), (pair.source, "teacher"))
        return [text for text, side in sides if self.has(text, side)]


def find_leaks(
    pairs: Pairs, collections: Mapping[str, Collection], limit: int | None = None
) -> tuple[Leaks, list[int]]:
    """Evaluation queries among the first `limit` training pairs (all by default), and the positions of those pairs.

    A pair leaks where its target is a query that the student reads, or its source a query that the teacher reads; a
    query inside a longer text is no leak. The English twin collection is not looked at: that a translation of a query's
    word is in training is the task. Nor are images.
    """
    asked = Asked(collections)
    rows, number_exact, checked, examples = [], 0, 0, dict[str, None]()
    with delayed_progress("look for leaks", len(pairs) if limit is None else limit) as advance:
        for row, pair in enumerate(itertools.islice(pairs, limit)):
            checked += 1
            if row % 4096 == 0:
                advance(4096)
            leaking = asked.leaking(pair)
            if leaking:
                rows.append(row)
                number_exact += any(normalise(text) in asked.exact for text in leaking)
                if len(examples) < _EXAMPLES:
                    examples[leaking[0]] = None
    return Leaks(checked, len(rows), number_exact, list(examples)), rows


class WithoutLeaks(WrappedSource):
    """Streamed pairs; in place of one that leaks comes one of some others, always the same for a text."""

    def __init__(self, source: PairSource, collections: Mapping[str, Collection]) -> None:
        super().__init__(source)
        self.asked = Asked(collections)
        clean = (pair for pair in itertools.islice(source, _MOST_CHECKED) if not self.asked.leaking(pair))
        self.others = list(itertools.islice(clean, _OTHERS))
        if not self.others:
            raise InputError(_NOTHING_LEFT)

    def parse(self, row: Row) -> Pair:
        """The pair of a row, or another one."""
        pair = self.source.parse(row)
        return self.others[text_id(pair.target) % len(self.others)] if self.asked.leaking(pair) else pair


def check_leaks(pairs: Pairs, collections: Mapping[str, Collection], remove: bool) -> tuple[Pairs, Leaks]:
    """The pairs that are left, and the evaluation queries among them, of streamed ones among the first 250,000.

    InputError where none would be left.
    """
    streamed = isinstance(pairs, PairSource)
    leaks, rows = find_leaks(pairs, collections, _MOST_CHECKED if streamed else None)
    leaks = replace(leaks, dropped=remove and bool(rows))
    if isinstance(pairs, PairSource):
        return WithoutLeaks(pairs, collections) if remove else pairs, leaks
    if not leaks.dropped:
        return pairs, leaks
    if len(rows) == len(pairs):
        raise InputError(_NOTHING_LEFT)
    dropped = set(rows)
    return [pair for row, pair in enumerate(pairs) if row not in dropped], leaks


def _key(text: str) -> str:
    """The key by which a text matches a query: its words, or the text itself where it has none."""
    return " ".join(words(text)) or fold(text)
