"""The passages to score for a batch of pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from datamodules.text import text_id

if TYPE_CHECKING:
    from datamodules.pairs import Candidate


@dataclass
class CandidateBatch:
    """The candidates of B pairs, at most N each, with each text once.

    Not frozen, as the other batches are not: Lightning fills copies of them in, field by field, under FSDP.

    Args:
        sources: texts for the teacher; U, at least one.
        targets: texts for the student; V.
        source_index: place of a candidate in `sources`, 0 where none is listed; (B, N), int64.
        target_index: place in `targets`, -1 where the student does not read it; (B, N), int64.
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
        return replace(
            self,
            source_index=self.source_index.to(device, **options),
            target_index=self.target_index.to(device, **options),
            listed=self.listed.to(device, **options),
            ids=self.ids.to(device, **options),
            keys=self.keys.to(device, **options),
            scores=None if self.scores is None else self.scores.to(device, **options),
        )


def collate_candidates(sources: Sequence[str], lists: Sequence[Sequence[Candidate]]) -> CandidateBatch | None:
    """The batch of some lists.

    The ids are made from the texts, so that they also say which passage is the source of which pair.

    Args:
        sources: the source of each pair; B.
        lists: the candidates of each pair; B, any of which may be empty.

    Returns:
        None where all lists are empty.

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
