"""Wrong correspondence: targets that are paired with the source of another pair.

Two protocols go by "r % noise" in the literature, and both are here:

- ``caption`` (NCR, Huang et al. 2021; BiCro, Yang et al. 2023): of N captions, int(r * N) are drawn and their sources
  shuffled among themselves. With five captions an image, a caption may draw its own image again: of the 29,000 chosen
  of 145,000 at r = 0.2, 1.8 are expected to (the caption itself and 0.8 others of its image), so the realised rate is
  0.19999.
- ``image`` (RCL, Hu et al. 2023; DECL, Qin et al. 2022; L2RM, Han et al. 2024): of M distinct sources, int(r * M) are
  drawn and permuted; all captions of a source move together. One fixed point is expected.

A caption is a pair, or, where the teacher reads both the image and the English caption, the two pairs of one target:
they move together, the image to another image and the English caption to one of that image's English captions, the one
in the same position. Rates are shares of the captions, so published index files fit in all three cases.

A pair takes the other's source, id and candidates, and keeps its target; ``noisy`` says whether the id is another one.
Sources are numbered in the order in which the pairs name them first, which is the order of the images in the published
index files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from datamodules.images import is_image
from datamodules.noise.options import TrainingNoise
from datamodules.pairs import Pair
from foundations.cache import IntArray
from foundations.errors import InputError

_STREAM = 1
"""Tells these random numbers from others of the same seed."""


def mismatch(pairs: list[Pair], noise: TrainingNoise) -> list[Pair]:
    """Pair some targets with the sources of others; all pairs have ``noisy`` set then.

    Expects all pairs, in the dataset's order, and gives the list itself where there is no wrong correspondence. With
    the same seed, what is drawn at a rate is drawn at each higher rate too. InputError where the index file does not
    fit.
    """
    if not noise.changes_correspondence:
        return pairs
    captions = _Captions(pairs)
    donors = _by_file(captions, noise) if noise.index_file else _by_rate(captions, noise)
    return [
        _with_source(pair, captions.pair_like(pair, donors[caption]))
        for pair, caption in zip(pairs, captions.of_pair.tolist(), strict=True)
    ]


def with_known_level(pairs: list[Pair], noise: TrainingNoise) -> TrainingNoise:
    """The noise as it is to be reported: an index file whose captions of a source move together is of level image."""
    if not noise.index_file or noise.level == "image":
        return noise
    captions = _Captions(pairs)
    indices = _read(Path(noise.index_file).expanduser())
    first = np.array([own[0] for own in captions.of_source], dtype=np.int64)
    several = len(captions.source) > len(captions.of_source) and len(indices) == len(captions.source)
    together = several and bool((indices == indices[first][captions.source]).all())
    return replace(noise, level="image") if together else noise


def caption_numbers(pairs: Sequence[Pair]) -> IntArray:
    """The number of each pair's caption, from 0, in their order; (P,).

    A pair with a text as source belongs to the caption of the pair before it, if that has an image as source and the
    same id and target: ``source: both`` writes such pairs.
    """
    starts = [True, *(not _is_twin(first, second) for first, second in pairwise(pairs))][: len(pairs)]
    return np.cumsum(np.array(starts, dtype=np.int64)) - 1


def realised_counts(pairs: Sequence[Pair]) -> tuple[int, int]:
    """How many captions are known to be wrong, and how many captions there are."""
    numbers = caption_numbers(pairs)
    wrong = {number for number, pair in zip(numbers.tolist(), pairs, strict=True) if pair.noisy is True}
    return len(wrong), int(numbers[-1]) + 1 if len(pairs) else 0


def shuffled(size: int, rate: float, seed: int) -> IntArray:
    """A permutation of ``range(size)`` that moves at most int(rate * size) randomly chosen positions; (size,)."""
    generator = np.random.default_rng([seed, _STREAM])
    drawn = generator.permutation(size)[: int(rate * size)]
    result = np.arange(size, dtype=np.int64)
    result[drawn] = drawn[np.random.default_rng([seed, _STREAM, 1]).permutation(len(drawn))]
    return result


class _Captions:
    """The captions of some pairs, and the sources that they are of.

    `rows` is the first pair of each of the C captions, and the number of pairs; (C + 1). `source` is the number of each
    caption's source, `position` its own among the captions of that source; (C,). `of_source` lists the captions of each
    source.
    """

    def __init__(self, pairs: list[Pair]) -> None:
        self.pairs, self.of_pair = pairs, caption_numbers(pairs)
        self.rows: list[int] = [*np.flatnonzero(np.diff(self.of_pair, prepend=-1)).tolist(), len(pairs)]
        numbers: dict[int, int] = {}
        sources = [numbers.setdefault(pairs[row].id, len(numbers)) for row in self.rows[:-1]]
        self.source: IntArray = np.array(sources, dtype=np.int64)
        self.of_source: list[list[int]] = [[] for _ in numbers]
        self.position: list[int] = []
        for caption, source in enumerate(sources):
            self.position.append(len(self.of_source[source]))
            self.of_source[source].append(caption)

    def in_same_position(self, sources: IntArray) -> list[int]:
        """For each caption one of another source, (C,), in the same position; counted round where that has fewer."""
        captions = (self.of_source[source] for source in sources.tolist())
        return [own[position % len(own)] for own, position in zip(captions, self.position, strict=True)]

    def pair_like(self, pair: Pair, caption: int) -> Pair:
        """The pair of a caption whose source is of the same kind as another pair's; its first one if there is none."""
        pairs = self.pairs[self.rows[caption] : self.rows[caption + 1]]
        return next((each for each in pairs if is_image(each.source) == is_image(pair.source)), pairs[0])


def _is_twin(first: Pair, second: Pair) -> bool:
    """Whether two pairs in a row have one target, the first with the image and the second with its English caption."""
    same = (first.id, first.target) == (second.id, second.target)
    return same and is_image(first.source) and not is_image(second.source)


def _by_rate(captions: _Captions, noise: TrainingNoise) -> list[int]:
    """For each caption the one whose source it takes."""
    if noise.level == "caption":
        donors: list[int] = shuffled(len(captions.source), noise.rate, noise.known_seed).tolist()
        return donors
    return captions.in_same_position(shuffled(len(captions.of_source), noise.rate, noise.known_seed)[captions.source])


def _by_file(captions: _Captions, noise: TrainingNoise) -> list[int]:
    """The same, as a published file says."""
    indices = _read(Path(str(noise.index_file)).expanduser())
    path, sources = noise.index_file, len(captions.of_source)
    sizes = {"caption": len(captions.source), "image": sources}
    if len(indices) != sizes[noise.level]:
        level = "image" if noise.level == "caption" else "caption"
        hint = f"; it fits level {level}" if len(indices) == sizes[level] else ""
        what = "captions" if noise.level == "caption" else "distinct sources"
        expected = f"{sizes[noise.level]:,} for the {what}"
        raise InputError(f"found {len(indices):,} indices, expected {expected} (level {noise.level}){hint}", path)
    if indices.min() < 0 or indices.max() >= sources:
        wrong = int(np.flatnonzero((indices < 0) | (indices >= sources))[0])
        raise InputError(f"index {indices[wrong]} at {wrong} is none of the {sources:,} sources (0 is the first)", path)
    if noise.level == "image":
        if len(np.unique(indices)) < sources:
            raise InputError("holds an index twice, expected a permutation of the sources (level image)", path)
        indices = indices[captions.source]
    return captions.in_same_position(indices)


def _read(path: Path) -> IntArray:
    try:
        indices = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"is no .npy file of numbers: {str(error).splitlines()[0]}", path) from error
    if not isinstance(indices, np.ndarray) or indices.ndim != 1 or indices.dtype.kind not in "iu" or not len(indices):
        shape = getattr(indices, "shape", "several arrays")
        kind = getattr(indices, "dtype", "")
        raise InputError(f"holds {kind} {shape}, expected one row of whole numbers", path)
    return indices.astype(np.int64)


def _with_source(pair: Pair, donor: Pair) -> Pair:
    if donor.id == pair.id:
        return replace(pair, noisy=False)
    return replace(donor, target=pair.target, noisy=True)
