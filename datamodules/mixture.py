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
from collections.abc import Sequence, Set
from dataclasses import replace
from typing import Any

import numpy as np
from lightning.pytorch.utilities import rank_zero_only

from datamodules.base import PairsDataModule
from datamodules.flickr30k.splits import SplitByImage, keep_apart
from datamodules.leaks import Leaks
from datamodules.pairs import Pair, pair_length
from datamodules.sources import PairSource, Row
from datamodules.text import text_id
from foundations.errors import InputError
from retrieval.collection import Collection

_CHUNKS = 2**16
_RESERVED = ("average", "maxsim")


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

    shares: dict[str, int]
    """Pairs of each part in an epoch, after `setup`."""

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

    def setup(self, stage: str | None = None) -> None:
        """Read all parts, the first time; before training, say what an epoch is made of."""
        is_first = not self._is_loaded
        super().setup(stage)
        if stage == "fit" and is_first and isinstance(self.pairs, Mixture) and rank_zero_only.rank == 0:  # type: ignore[attr-defined]
            print(self.pairs.summary(), file=sys.stderr)

    def load_pairs(self) -> PairSource:
        """The pairs of all parts, as a `Mixture`."""
        keep_apart(self.parts)
        for name, part in self.parts.items():
            part.seed = self.seed
            noises, part.noise, part.test_noise = (part.noise, part.test_noise), None, None
            try:
                # Without the check for leaks, which needs the queries of all parts, and noise, which comes after it.
                part.setup("test")
            except InputError as error:
                if error.path is not None or name in str(error):
                    raise
                raise InputError(f"{name}: {error}") from error
            part.noise, part.test_noise = self.noise or noises[0], self.test_noise or noises[1]
        self._refuse_same_parts()
        if self.cache_pairs is None:
            self.cache_pairs = not any(isinstance(part.pairs, PairSource) for part in self.parts.values())
        return self._mixture()

    def load_collections(self) -> dict[str, Collection]:
        """The collections of all parts: ``dev/<part>``, ``test/<part>`` and, where there is one, ``english/<part>``."""
        named = [
            replace(collection, name=f"{split}/{name}")
            for name, part in self.parts.items()
            for split, collection in part.collections.items()
        ]
        return {collection.name: collection for collection in named}

    def check_leaks(
        self, pairs: list[Pair] | PairSource, collections: dict[str, Collection]
    ) -> tuple[list[Pair] | PairSource, Leaks | None]:
        """Look for the queries of all languages among the pairs of all languages; see `PairsDataModule`.

        A word that two languages share teaches the same student the same string, so it is a leak in both.
        """
        found = []
        for part in self.parts.values():
            part.remove_leaks = part.remove_leaks or self.remove_leaks
            part.pairs, leaks = part.check_leaks(part.pairs, collections)
            found += [] if leaks is None else [leaks]
        leaks = Leaks.of_parts(found) if found else None
        return (self._mixture() if leaks is not None and leaks.dropped else pairs), leaks

    def add_noise(self) -> None:
        """Put the noise of each part, or of the mixture where it has its own, into the parts."""
        parts = self.parts.values()
        if all(part.noise is None and part.test_noise is None for part in parts):
            return
        for part in parts:
            part.add_noise()
        reports = [part.noise_report for part in parts if part.noise_report is not None]
        self.noise_report = None if not reports else reports[0].of_parts(reports)
        self.pairs, self.collections = self._mixture(), self.load_collections()

    def check_teacher(self, teacher: Any) -> None:
        """Look whether a teacher can teach every part; see `PairsDataModule.check_teacher`."""
        for part in self.parts.values():
            part.check_teacher(teacher)

    def _mixture(self) -> Mixture:
        of_images = {name for name, part in self.parts.items() if isinstance(part, SplitByImage)}
        mixture = Mixture({name: part.pairs for name, part in self.parts.items()}, self.temperature, of_images)
        self.shares = dict(zip(mixture.names, mixture.shares, strict=True))
        return mixture

    def _refuse_same_parts(self) -> None:
        """Two names of one language, such as ``sw`` and ``Swahili``, would count it twice."""
        seen: dict[tuple[str, ...], str] = {}
        for name, part in self.parts.items():
            test = part.collections["test"]
            first = next(iter(part.pairs))
            key = (str(len(part.pairs)), first.source, first.target, *test.queries, *test.queries.values())
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

    def __init__(
        self,
        parts: dict[str, Sequence[Pair] | PairSource],
        temperature: float = 1.0,
        common_ids: Set[str] = frozenset(),
    ) -> None:
        self.names = list(parts)
        self._keeps_ids = [name in common_ids for name in self.names]
        self._parts = [part if isinstance(part, PairSource) else ListSource(part) for part in parts.values()]
        sizes = [part.chunk_sizes() for part in self._parts]
        self._sizes = np.concatenate(sizes)
        self._ends = np.cumsum([len(each) for each in sizes])
        self.counts = [int(each.sum()) for each in sizes]
        self.shares = quotas(self.counts, temperature)

    def chunk_sizes(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Number of rows of each chunk, part by part; (C,)."""
        return self._sizes

    def read_chunk(self, number: int) -> Sequence[Row]:
        """The rows of a chunk, each with the number of its part."""
        part, first = self._place(number)
        return [(part, row) for row in self._parts[part].read_chunk(number - first)]

    def parse(self, row: Row) -> Pair:
        """The pair of a row, with an id that holds for all parts."""
        part, inner = row
        pair = self._parts[part].parse(inner)
        candidates = tuple(replace(each, id=text_id(each.source)) for each in pair.candidates)
        identifier = pair.id if self._keeps_ids[part] else text_id(pair.source)
        renewed: Pair = replace(pair, id=identifier, candidates=candidates)
        return renewed

    def row_length(self, row: Row) -> int:
        """Length of a row as its part counts it."""
        part, inner = row
        length: int = self._parts[part].row_length(inner)
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
            for name, count, share in zip(self.names, self.counts, self.shares, strict=True)
        ]
        return f"pairs -> pairs of an epoch: {', '.join(parts)}"

    def _place(self, number: int) -> tuple[int, int]:
        """The part of a chunk, and the number of that part's first chunk."""
        part = int(np.searchsorted(self._ends, number, side="right"))
        return part, int(self._ends[part - 1]) if part else 0


class ListSource(PairSource):
    """Pairs in memory, in chunks of one where they are no more than 65,536, and else in about as many chunks.

    Args:
        pairs: the pairs.
    """

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self.pairs = pairs
        self._rows = max(1, -(-len(pairs) // _CHUNKS))

    def chunk_sizes(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Number of pairs of each chunk; (C,)."""
        starts = np.arange(0, len(self.pairs), self._rows)
        return np.diff(np.append(starts, len(self.pairs)))

    def read_chunk(self, number: int) -> Sequence[Row]:
        """The pairs of a chunk."""
        return self.pairs[number * self._rows : (number + 1) * self._rows]

    def parse(self, row: Row) -> Pair:
        """The row itself."""
        assert isinstance(row, Pair)
        return row

    def row_length(self, row: Row) -> int:
        """See `pair_length`."""
        return pair_length(row)


def quotas(counts: Sequence[int], temperature: float) -> list[int]:
    """How many pairs of each part an epoch holds, proportional to n^(1/T), as many together as there are.

    Args:
        counts: pairs of each part (n).
        temperature: T.

    Returns:
        Whole numbers with the sum of the counts, at most 1 away from the exact share (largest remainders).

    >>> quotas([900, 100], 1), quotas([900, 100], 2), quotas([900, 100], float("inf"))
    ([900, 100], [750, 250], [500, 500])
    """
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}, expected a number above 0, such as 1 or 3")
    # Divided by the largest, so that a small T overflows nothing.
    weights = (np.array(counts, dtype=np.float64) / max(counts)) ** (1 / temperature)
    exact = weights / weights.sum() * sum(counts)
    shares = np.floor(exact).astype(np.int64)
    order = np.argsort(shares - exact, kind="stable")
    shares[order[: sum(counts) - int(shares.sum())]] += 1
    result: list[int] = shares.tolist()
    return result
