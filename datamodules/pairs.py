"""Training pairs, and the batches that the dataloaders give."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from datamodules.images import is_image
from datamodules.text import fold, normalise, text_id

_Batch = TypeVar("_Batch", "PairBatch", "CandidateBatch")


@dataclass(frozen=True)
class Candidate:
    """A passage to score for a pair, for strategies that learn from rankings.

    Args:
        source: the passage that the teacher reads.
        target: the same passage for the student to read; None where only the teacher reads passages.
        score: how well a ranker found it to answer the pair's source, read from a file; None to let the teacher say.
        id: equal ids are the same passage.
    """

    source: str
    target: str | None = None
    score: float | None = None
    id: int = 0


@dataclass(frozen=True)
class Pair:
    """One training pair.

    Args:
        source: the text that the teacher reads, or an image (`datamodules.images`).
        target: the text that the student reads; it should land where the teacher puts the source.
        id: equal ids are the same source text, or the same image.
        candidates: passages to score with the pair; the first is relevant, where that is known (``triples``).
        noisy: whether noise made the target belong to another source; None where nobody knows.
    """

    source: str
    target: str
    id: int
    candidates: tuple[Candidate, ...] = ()
    noisy: bool | None = None


@dataclass
class PairBatch:
    """What the training dataloader gives: B pairs as plain texts, for the encoders to tokenise.

    Not frozen: under FSDP Lightning fills a copy in, field by field.

    Args:
        source: B texts or images for the teacher.
        target: B texts for the student.
        ids: equal ids are the same source; (B,), int64.
        candidates: passages to score with the pairs; None where no pair of the batch lists any.
        noisy: True at pairs that noise put together wrongly; (B,), or None where that is not known.
    """

    source: list[str]
    target: list[str]
    ids: Tensor
    candidates: CandidateBatch | None = None
    noisy: Tensor | None = None

    def __len__(self) -> int:
        return len(self.source)

    def to(self, device: torch.device | str, **options: Any) -> PairBatch:
        """The batch with its tensors on a device; copies to a GPU are queued, and nothing waits for them."""
        if torch.device(device).type == "cuda":
            options = {"non_blocking": True} | options
        return _moved(self, device, options)


def make_pairs(texts: Iterable[tuple[str, str]]) -> list[Pair]:
    """Pairs from (source, target) texts, with ids.

    Texts are normalised (NFC, white space). Sources that differ only in case share an id.

    Args:
        texts: source and target of each pair.

    Returns:
        One pair for each item, in the same order.

    >>> make_pairs([("Water", "maji"), ("fire", "moto"), ("water ", "maji")])[2]
    Pair(source='water', target='maji', id=0, candidates=(), noisy=None)
    """
    ids: dict[str, int] = {}
    pairs = []
    for source, target in texts:
        pairs.append(Pair(normalise(source), normalise(target), ids.setdefault(fold(source), len(ids))))
    return pairs


def without_repeats(texts: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """The (source, target) texts, each combination once, where case and white space make no difference."""
    seen: set[tuple[str, str]] = set()
    for source, target in texts:
        key = (fold(source), fold(target))
        if key not in seen:
            seen.add(key)
            yield source, target


def pair_length(pair: Pair) -> int:
    """UTF-8 bytes of the longer side, which is what is padded; they stand for tokens.

    Images count nothing: all of them have the same number of patches.
    """
    return max(0 if is_image(pair.source) else len(pair.source.encode()), len(pair.target.encode()))


def collate(pairs: Sequence[Pair]) -> PairBatch:
    """The batch of some pairs."""
    sources = [pair.source for pair in pairs]
    ids = torch.tensor([pair.id for pair in pairs], dtype=torch.int64)
    candidates = collate_candidates(sources, [pair.candidates for pair in pairs])
    is_known = all(pair.noisy is not None for pair in pairs)
    noisy = torch.tensor([pair.noisy for pair in pairs]) if is_known else None
    return PairBatch(sources, [pair.target for pair in pairs], ids, candidates, noisy)


@dataclass
class CandidateBatch:
    """The candidates of B pairs, at most N each, with each text once.

    Not frozen, as the other batches are not: Lightning fills copies of them in, field by field, under FSDP.

    Args:
        sources: texts for the teacher; U, at least one.
        targets: texts for the student; V.
        source_index: position of a candidate in `sources`, 0 where none is listed; (B, N), int64.
        target_index: position in `targets`, -1 where the student does not read it; (B, N), int64.
        listed: True at candidates, which come first in a row; (B, N).
        ids: equal for the same text, in every batch; (B, N), int64.
        keys: such an id of each pair's own source; (B,), int64.
        scores: NaN where there is none; (B, N), float32, or None where there is none at all.
    """

    sources: list[str]
    targets: list[str]
    source_index: Tensor
    target_index: Tensor
    listed: Tensor
    ids: Tensor
    keys: Tensor
    scores: Tensor | None

    def to(self, device: torch.device | str, **options: Any) -> CandidateBatch:
        """The batch with its tensors on a device."""
        return _moved(self, device, options)


def _moved(batch: _Batch, device: torch.device | str, options: dict[str, Any]) -> _Batch:
    """The batch with all that it has of tensors on a device."""
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    moved = {name: value.to(device, **options) for name, value in values.items() if hasattr(value, "to")}
    return replace(batch, **moved)


def collate_candidates(sources: Sequence[str], lists: Sequence[Sequence[Candidate]]) -> CandidateBatch | None:
    """The batch of the candidates of B pairs with these sources; any list may be empty, and None where all are.

    The ids are made from the texts, so that they also say which passage is the source of which pair.

    >>> from datamodules.pairs import Candidate
    >>> batch = collate_candidates(["a", "b"], [[Candidate("x"), Candidate("y")], [Candidate("x")]])
    >>> batch.sources, batch.source_index.tolist(), batch.listed.tolist()
    (['x', 'y'], [[0, 1], [0, 0]], [[True, True], [True, False]])
    """
    width = max((len(candidates) for candidates in lists), default=0)
    if width == 0:
        return None
    shape = (len(lists), width)
    source_index, ids = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.int64)
    target_index, scores = torch.full(shape, -1), torch.full(shape, math.nan)
    texts, targets = dict[str, int](), dict[str, int]()
    for row, candidates in enumerate(lists):
        for column, candidate in enumerate(candidates):
            source_index[row, column] = texts.setdefault(candidate.source, len(texts))
            if candidate.target is not None:
                target_index[row, column] = targets.setdefault(candidate.target, len(targets))
            if candidate.score is not None:
                scores[row, column] = candidate.score
            ids[row, column] = text_id(candidate.source)
    lengths = torch.tensor([len(candidates) for candidates in lists])
    return CandidateBatch(
        list(texts),
        list(targets),
        source_index,
        target_index,
        listed=torch.arange(width) < lengths[:, None],
        ids=ids,
        keys=torch.tensor([text_id(source) for source in sources]),
        scores=None if bool(scores.isnan().all()) else scores,
    )
