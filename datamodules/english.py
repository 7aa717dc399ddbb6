"""English for the student: texts that the teacher reads, as pairs with themselves.

Queries are full of names and loanwords, which the teacher reads as they are, and a student forgets if it reads nothing
but its own language. Whoever has an index has its texts, so the student may read the documents: no query and no
judgment is used, and a text that is a query of ``dev`` or ``test`` is left out.

The pairs are added when everything was done to the others. So ``limit_pairs`` counts, and noise damages, pairs of two
languages alone; but a source is read as it is after noise, which may have put it to another target.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Literal

import numpy as np

from datamodules.images import is_image
from datamodules.leaks import Asked
from datamodules.lines import items_at
from datamodules.pairs import Pair
from datamodules.sources import Joined, Pairs, PairSource, SampledSource
from datamodules.text import fold, normalise, text_id
from retrieval.collection import Collection

EnglishPairs = Literal["none", "sources", "documents"]


@dataclass(frozen=True)
class EnglishReport:
    """What was added to the training pairs.

    Args:
        pairs: how many.
        documents: how many documents of ``test`` are among them, or were pairs with themselves before.
        searched: how many documents ``test`` has; 0 where they were not asked for.
    """

    pairs: int
    documents: int
    searched: int

    @classmethod
    def of_parts(cls, parts: Sequence[EnglishReport]) -> EnglishReport:
        """What was added to several datasets together."""
        return cls(*(sum(getattr(part, name) for part in parts) for name in ("pairs", "documents", "searched")))


def default_english(pairs: Pairs, collections: Mapping[str, Collection]) -> EnglishPairs:
    """What is read where nobody chose: the documents where the teacher reads them, else the sources.

    Nothing where there are images, or where pairs list candidates: strategies that rank those learn nothing from a
    pair without any.
    """
    some = pairs if isinstance(pairs, list) else islice(iter(pairs), 1)
    if any(pair.candidates or is_image(pair.source) for pair in some):
        return "none"
    searched = [next(iter(each.documents.values())) for each in _searched(collections)]
    return "none" if any(map(is_image, searched)) else "documents" if searched else "sources"


def with_english(
    pairs: Pairs, collections: Mapping[str, Collection], english: EnglishPairs, sample: int, seed: int = 0
) -> tuple[Pairs, EnglishReport | None]:
    """The pairs, and behind them each English text once as a pair with itself.

    Args:
        pairs: training pairs; of streamed ones a random sample is read.
        collections: ``dev`` and ``test``.
        english: which texts; ``documents`` are read in addition to the sources.
        sample: most texts of each kind that is not in memory, and most documents of a collection.
        seed: gives the sample.

    Returns:
        The pairs and what was added; the very same pairs and None where nothing was asked for.
    """
    if english == "none":
        return pairs, None
    streamed = isinstance(pairs, PairSource)
    some = list(SampledSource(pairs, min(sample, len(pairs)), seed)) if isinstance(pairs, PairSource) else pairs
    ids = {fold(pair.source): pair.id for pair in some if not is_image(pair.source)}
    known = {fold(pair.source) for pair in some if pair.source == pair.target}
    next_id, noisy = max((pair.id for pair in some), default=-1) + 1, None if some[0].noisy is None else False
    asked, added = Asked(collections), list[Pair]()
    documents = list(_documents(collections, sample, seed)) if english == "documents" else []
    for text in chain((pair.source for pair in some), documents):
        if is_image(text) or (key := fold(text)) in known or asked.has(text, "student", "teacher"):
            continue
        known.add(key)
        identifier = ids.get(key, text_id(text) if streamed else next_id + len(added))
        added.append(Pair(normalise(text), normalise(text), identifier, noisy=noisy))
    read = sum(fold(text) in known for text in documents)
    searched = sum(len(each.documents) for each in _searched(collections)) if english == "documents" else 0
    joined = Joined(pairs, added) if isinstance(pairs, PairSource) else pairs + added
    return joined, EnglishReport(len(added), read, searched)


def _searched(collections: Mapping[str, Collection]) -> list[Collection]:
    """The collections of ``test`` whose documents the teacher reads."""
    tests = [each for each in collections.values() if each.split == "test" and each.document_side == "teacher"]
    return [each for each in tests if each.documents]


def _documents(collections: Mapping[str, Collection], sample: int, seed: int) -> Iterator[str]:
    """The documents that the teacher reads, of large collections a random sample, in the order of the collection."""
    for collection in _searched(collections):
        if (count := len(collection.documents)) <= sample:
            yield from collection.documents.values()
        else:
            rows = np.sort(np.random.default_rng([seed, count]).choice(count, sample, replace=False)).tolist()
            yield from (text for _, text in items_at(collection.documents, rows))
