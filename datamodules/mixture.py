"""Several languages in one run: training pairs sampled with a temperature, collections by language.

``--data starter --data.language sw,so,mr`` makes a mixture of one datamodule a language. Parts of different kinds are
named in a config file:

    data:
      class_path: datamodules.mixture.MixtureDataModule
      init_args:
        temperature: 3
        parts:
          sw:
            class_path: datamodules.starter.emoji.StarterDataModule
            init_args: {language: sw}
          bem:
            class_path: datamodules.tsv.TSVDataModule
            init_args: {root: my_language/}

Traps: (1) an epoch has as many pairs as the parts together, whatever the temperature, so a small part comes several
times in an epoch and a large one does not come whole. (2) The same English text in two languages is one source: its
pairs have equal ids, and a strategy that tells positives from negatives by ids counts them as positives of each other.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from lightning.pytorch.utilities import rank_zero_only

from datamodules.base import Collections, PairsDataModule, Step
from datamodules.flickr30k.splits import SplitByImage, keep_apart
from datamodules.pairs import Pair
from datamodules.sources import ListSource, Pairs, PairSource, Row
from datamodules.text import text_id
from foundations.cache import IntArray
from foundations.errors import InputError
from retrieval.collection import Collection

_RESERVED = ("average", "maxsim")
_LOOK_FOR_QUERIES = ("leaks", "english")
"""Steps that see the queries of all parts: a word that two languages share teaches the same student the same string."""


class MixtureDataModule(PairsDataModule):
    """Several languages or datasets in one run, sampled with a temperature.

    A part gives its pairs and collections; its batch size and the like are not used. The seed of the run is that of
    the parts as well.

    Args:
        parts: name, usually the language, -> datamodule.
        temperature: T; a part with n pairs is sampled with a probability proportional to n^(1/T) (Conneau et al. 2020,
            section 3.1, alpha = 1/T; Xue et al. 2021): 1 is by size, and large values make all parts equal.
        **options: those of `PairsDataModule`.

    Raises:
        ValueError: no part, a name that cannot be part of a file name, or limit_pairs (which each part has).
    """

    def __init__(self, parts: dict[str, PairsDataModule], temperature: float = 1.0, **options: Any) -> None:
        super().__init__(temperature=temperature, **options)
        if not parts:
            raise ValueError("parts is empty, expected at least one: {name: datamodule}")
        for name in parts:
            if not re.fullmatch(r"[\w.+-]+", name) or name in _RESERVED:
                raise ValueError(
                    f"the part {name!r} needs another name: letters, digits, - and _; not average or maxsim"
                )
        if self.limit_pairs is not None:
            raise ValueError("limit_pairs belongs to the parts: set it in the init_args of each of them")
        self.parts = parts

    @property
    def shares(self) -> dict[str, int]:
        """Pairs of each part in an epoch, after `setup`."""
        return dict(zip(self.mixture.parts, self.mixture.shares, strict=True))

    @property
    def mixture(self) -> Mixture:
        """The pairs, after `setup`."""
        assert isinstance(self.pairs, Mixture)
        return self.pairs

    @property
    def caches_pairs(self) -> bool:
        """Whether the teacher encodes the pairs' sources before training; by default, where no part is streamed."""
        in_memory = all(isinstance(pairs, list) for pairs in self.mixture.parts.values())
        return in_memory if self.cache_pairs is None else self.cache_pairs

    def prepare_data(self) -> None:
        """Let every part download and unpack what it needs."""
        for part in {} if self._is_loaded else self.parts.values():
            part.prepare_data()

    def load(self) -> tuple[Mixture, dict[str, Collection]]:
        """The pairs of all parts, and their collections: ``dev/<part>``, ``test/<part>``, ``english/<part>``."""
        pairs: dict[str, Pairs] = {}
        collections: Collections = {}
        for name, part in keep_apart(self._parts()).items():
            try:
                pairs[name], loaded = part.load()
            except InputError as error:
                if error.path is not None or name in str(error):
                    raise
                raise InputError(f"{name}: {error}") from error
            collections |= {f"{split}/{name}": replace(each, name=f"{split}/{name}") for split, each in loaded.items()}
        _refuse_equal_parts(pairs, collections)
        of_images = {name for name, part in self.parts.items() if isinstance(part, SplitByImage)}
        return Mixture(pairs, self.temperature, of_images), collections

    def steps(self, stage: str | None) -> dict[str, Step]:
        """The steps of the parts, each over all of them."""
        by_part = {name: part.steps(stage) for name, part in self._parts().items()}
        return {
            step: partial(_over_parts, {name: each[step] for name, each in by_part.items()}, step in _LOOK_FOR_QUERIES)
            for step in super().steps(stage)
        }

    def setup(self, stage: str | None = None) -> None:
        """Read all parts, the first time; before training, say what an epoch is made of."""
        is_first = not self._is_loaded
        super().setup(stage)
        if stage == "fit" and is_first and rank_zero_only.rank == 0:  # type: ignore[attr-defined]
            print(self.mixture.summary(), file=sys.stderr)

    def check_teacher(self, teacher: Any) -> None:
        """Look whether a teacher can teach every part; see `PairsDataModule.check_teacher`."""
        for name, part in self.parts.items():
            collections = _collections_of(name, self.collections)
            part.with_attributes(pairs=self.mixture.parts[name], collections=collections).check_teacher(teacher)

    def _parts(self) -> dict[str, PairsDataModule]:
        """The parts with the options of the run."""
        return {
            name: part.with_attributes(
                seed=self.seed,
                remove_leaks=part.remove_leaks or self.remove_leaks,
                english=part.english if self.english is None else self.english,
                noise=self.noise or part.noise,
                test_noise=self.test_noise or part.test_noise,
            )
            for name, part in self.parts.items()
        }


def _over_parts(
    steps: Mapping[str, Step], sees_queries: bool, pairs: Mixture, collections: Collections
) -> tuple[Mixture, Collections, Any]:
    """Take each part through its step, with its own collections, and perhaps the queries of the other parts."""
    changed, reports = {}, []
    for name, step in steps.items():
        seen = _collections_of(name, collections)
        if sees_queries:
            seen = {key: replace(each, documents={}) for key, each in collections.items()} | seen
        changed[name], seen, report = step(pairs.parts[name], seen)
        collections = collections | _collections_of(name, seen)
        reports += [] if report is None else [report]
    report = type(reports[0]).of_parts(reports) if reports else None
    return pairs.with_parts(changed), collections, report


def _collections_of(part: str, collections: Collections) -> Collections:
    return {name: each for name, each in collections.items() if each.language == part}


def _refuse_equal_parts(pairs: Mapping[str, Pairs], collections: Collections) -> None:
    """Two names of one language, such as ``sw`` and ``Swahili``, would count it twice."""
    seen: dict[tuple[str, ...], str] = {}
    for name, of_part in pairs.items():
        test = collections[f"test/{name}"]
        first = next(iter(of_part))
        key = (str(len(of_part)), first.source, first.target, *test.queries, *test.queries.values())
        if key in seen:
            raise InputError(f"{seen[key]} and {name} hold the same data: name each language once")
        seen[key] = name


class Mixture(PairSource):
    """Pairs of several parts, of which every epoch holds given shares.

    An epoch has as many pairs as the parts together. A part with a share of q pairs gives q // n whole passes over
    its n pairs, and a random choice of q % n of them that is drawn for each epoch anew. Parts that lie on disk are
    drawn by chunks, so their last chunk may bring a few pairs more than their share.

    Ids of the parts mean nothing here, unless it is said that they do: the id of a pair is the hash of its source, see
    `text_id`. So equal English texts are the same source in every language, and different ones are not.

    Args:
        parts: name -> pairs.
        temperature: see `MixtureDataModule`.
        common_ids: parts whose ids hold for all parts: the captions of an image are one source.
    """

    def __init__(self, parts: dict[str, Pairs], temperature: float = 1.0, common_ids: Set[str] = frozenset()) -> None:
        self.parts, self.temperature, self.common_ids = parts, temperature, common_ids
        self._keeps_ids = [name in common_ids for name in parts]
        self._sources = [part if isinstance(part, PairSource) else ListSource(part) for part in parts.values()]
        sizes = [part.chunk_sizes() for part in self._sources]
        self._sizes = np.concatenate(sizes)
        self._ends = np.cumsum([len(each) for each in sizes])
        self.counts = [int(each.sum()) for each in sizes]
        self.shares = quotas(self.counts, temperature)

    def with_parts(self, parts: dict[str, Pairs]) -> Mixture:
        """The mixture of other pairs of the same parts, with the same temperature."""
        return Mixture(parts, self.temperature, self.common_ids)

    def chunk_sizes(self) -> IntArray:
        """Number of rows of each chunk, part by part; (C,)."""
        return self._sizes

    def read_chunk(self, number: int) -> Sequence[Row]:
        """The rows of a chunk, each with the number of its part."""
        part, first = self._part_of(number)
        return [(part, row) for row in self._sources[part].read_chunk(number - first)]

    def parse(self, row: Row) -> Pair:
        """The pair of a row, with an id that holds for all parts."""
        part, inner = row
        pair = self._sources[part].parse(inner)
        candidates = tuple(replace(each, id=text_id(each.source)) for each in pair.candidates)
        identifier = pair.id if self._keeps_ids[part] else text_id(pair.source)
        renewed: Pair = replace(pair, id=identifier, candidates=candidates)
        return renewed

    def row_length(self, row: Row) -> int:
        """Length of a row as its part counts it."""
        part, inner = row
        length: int = self._sources[part].row_length(inner)
        return length

    def epoch_chunks(self, epoch: int, seed: int) -> Sequence[int]:
        """The chunks of an epoch: whole passes and a random remainder of each part, all in a random order."""
        generator = np.random.default_rng([seed, epoch])
        drawn = []
        for part, (share, count) in enumerate(zip(self.shares, self.counts, strict=True)):
            first = int(self._ends[part - 1]) if part else 0
            chunks = np.arange(first, self._ends[part])
            passes, rest = divmod(share, count)
            drawn += [chunks] * passes
            if rest:
                order = generator.permutation(chunks)
                drawn.append(order[: int(np.searchsorted(self._sizes[order].cumsum(), rest)) + 1])
        order = generator.permutation(np.concatenate(drawn))
        result: list[int] = order.tolist()
        return result

    def summary(self) -> str:
        """A line on the size and share of each part."""
        total = sum(self.counts)
        parts = [
            f"{name} {count:,} ({count / total:.1%}) -> {share:,} ({share / total:.1%})"
            for name, count, share in zip(self.parts, self.counts, self.shares, strict=True)
        ]
        return f"pairs -> pairs of an epoch: {', '.join(parts)}"

    def _part_of(self, number: int) -> tuple[int, int]:
        """The part of a chunk, and the number of that part's first chunk."""
        part = int(np.searchsorted(self._ends, number, side="right"))
        return part, int(self._ends[part - 1]) if part else 0


def quotas(counts: Sequence[int], temperature: float) -> list[int]:
    """How many pairs of each part an epoch holds, proportional to n^(1/T), as many together as there are.

    They are at most 1 away from the exact share (largest remainders).

    >>> quotas([900, 100], 1), quotas([900, 100], 2), quotas([900, 100], float("inf"))
    ([900, 100], [750, 250], [500, 500])
    """
    # Divided by the largest, so that a small T overflows nothing.
    weights = (np.array(counts, dtype=np.float64) / max(counts)) ** (1 / temperature)
    exact = weights / weights.sum() * sum(counts)
    shares = np.floor(exact).astype(np.int64)
    order = np.argsort(shares - exact, kind="stable")
    shares[order[: sum(counts) - int(shares.sum())]] += 1
    result: list[int] = shares.tolist()
    return result
