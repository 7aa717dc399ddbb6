"""Wrong correspondence: targets that are paired with the source of another pair.

Two protocols go by "r % noise" in the literature, and both are here:

- ``caption`` (NCR, Huang et al. 2021; BiCro, Yang et al. 2023): of N pairs, int(r * N) are drawn and their sources
  shuffled among themselves. With five captions an image, a caption may draw its own image again: of the 29,000 chosen
  of 145,000 at r = 0.2, 1.8 are expected to (the caption itself and 0.8 others of its image), so the realised rate is
  0.19999.
- ``image`` (RCL, Hu et al. 2023; DECL, Qin et al. 2022; L2RM, Han et al. 2024): of M distinct sources, int(r * M) are
  drawn and permuted; all pairs of a source move together. One fixed point is expected.

A pair takes the other's source, id and candidates, and keeps its target; ``noisy`` says whether the id is another one.
Sources are numbered in the order in which the pairs name them first, which is the order of the images in the published
index files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.noise.options import TrainingNoise
from datamodules.pairs import Pair
from retrieval.errors import InputError

IntArray = np.ndarray[Any, np.dtype[np.int64]]
_STREAM = 1
"""Tells these random numbers from others of the same seed."""


def mismatch(pairs: list[Pair], noise: TrainingNoise) -> list[Pair]:
    """Pair some targets with the sources of others.

    Args:
        pairs: all training pairs, in the dataset's order.
        noise: rate, level, index file and seed. With the same seed, what is drawn at a rate is drawn at each higher
            rate too.

    Returns:
        As many pairs in the same order, all with ``noisy`` set; the list itself where there is no wrong correspondence.

    Raises:
        InputError: the index file is none, or does not fit the pairs.
    """
    if not noise.changes_correspondence:
        return pairs
    first: dict[int, int] = {}
    for row, pair in enumerate(pairs):
        first.setdefault(pair.id, row)
    rows = np.fromiter(first.values(), dtype=np.int64)
    number = {identifier: number for number, identifier in enumerate(first)}
    own = np.array([number[pair.id] for pair in pairs], dtype=np.int64)
    donors = _by_file(own, rows, noise) if noise.index_file else _by_rate(own, rows, noise)
    return [_with_source(pair, pairs[donor]) for pair, donor in zip(pairs, donors.tolist(), strict=True)]


def shuffled(size: int, rate: float, seed: int) -> IntArray:
    """A permutation of ``range(size)`` that moves nothing but int(rate * size) drawn places; (size,)."""
    generator = np.random.default_rng([seed, _STREAM])
    drawn = generator.permutation(size)[: int(rate * size)]
    result = np.arange(size, dtype=np.int64)
    result[drawn] = drawn[np.random.default_rng([seed, _STREAM, 1]).permutation(len(drawn))]
    return result


def realised_rate(pairs: Sequence[Pair]) -> float:
    """Share of the pairs that are known to be wrong."""
    return sum(pair.noisy is True for pair in pairs) / len(pairs)


def _by_rate(own: IntArray, rows: IntArray, noise: TrainingNoise) -> IntArray:
    """For each pair the row of the pair whose source it takes."""
    if noise.level == "caption":
        return shuffled(len(own), noise.rate, noise.known_seed)
    return rows[shuffled(len(rows), noise.rate, noise.known_seed)[own]]


def _by_file(own: IntArray, rows: IntArray, noise: TrainingNoise) -> IntArray:
    indices = _read(Path(str(noise.index_file)).expanduser())
    path, sources = noise.index_file, len(rows)
    sizes = {"caption": len(own), "image": sources}
    if len(indices) != sizes[noise.level]:
        other = "image" if noise.level == "caption" else "caption"
        hint = f"; it fits level {other}" if len(indices) == sizes[other] else ""
        expected = (
            f"{len(own):,} for the pairs" if noise.level == "caption" else f"{sources:,} for the distinct sources"
        )
        raise InputError(f"found {len(indices):,} indices, expected {expected} (level {noise.level}){hint}", path)
    if indices.min() < 0 or indices.max() >= sources:
        wrong = int(np.flatnonzero((indices < 0) | (indices >= sources))[0])
        raise InputError(f"index {indices[wrong]} at {wrong} is none of the {sources:,} sources (0 is the first)", path)
    if noise.level == "image":
        if len(np.unique(indices)) < sources:
            raise InputError("holds an index twice, expected a permutation of the sources (level image)", path)
        indices = indices[own]
    return rows[indices]


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
