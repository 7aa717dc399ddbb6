"""Candidate passages in the training loop: whether a strategy gets them, and their vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields, replace

import torch
import torch.distributed as dist
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from datamodules.pairs import CandidateBatch, Pair
from foundations.errors import InputError
from lightning_modules.vectors import joined, selected
from strategies.base import DistillationStrategy, Embeddings, ListEmbeddings

Read = Callable[[list[str]], Embeddings]


def takes_candidates(strategy: DistillationStrategy, pairs: Iterable[Pair]) -> bool:
    """Whether the strategy is to be given the candidates of these pairs; it warns where it ignores them.

    Args:
        strategy: the distillation loss.
        pairs: the training pairs, or a sample of them.

    Raises:
        InputError: the strategy needs candidates, and no pair lists any.
    """
    candidates = next((pair.candidates for pair in pairs if pair.candidates), ())
    name = type(strategy).__name__
    if strategy.needs_candidates and not candidates:
        raise InputError(
            f"{name} learns from candidate passages, but no training pair lists any: give the data a file of them "
            "(--data.candidates with tsv), or choose another strategy, such as kl or contrastive"
        )
    uses = strategy.needs_candidates or strategy.uses_candidates
    if candidates and not uses:
        what = "candidate passages" + (" with scores" if candidates[0].score is not None else "")
        rank_zero_warn(f"the training pairs list {what}, which {name} ignores; kl, margin_mse and contrastive use them")
    elif candidates and candidates[0].score is not None and not strategy.uses_scores:
        rank_zero_warn(f"{name} uses the listed passages, but not their scores; kl and margin_mse use them")
    return uses and bool(candidates)


def candidate_texts(pairs: Iterable[Pair], siamese: bool) -> list[str]:
    """What the student reads of the candidates of some pairs; of siamese training, the sources as well."""
    candidates = [each for pair in pairs for each in pair.candidates]
    targets = [each.target for each in candidates if each.target is not None]
    return list(dict.fromkeys(targets + ([each.source for each in candidates] if siamese else [])))


def with_candidates(
    student: Embeddings, teacher: Embeddings, batch: CandidateBatch | None, read_source: Read, read_target: Read
) -> tuple[ListEmbeddings, ListEmbeddings]:
    """Both sides of some pairs together with their candidates; each passage is encoded once.

    Args:
        student: target side of B pairs.
        teacher: source side.
        batch: the candidates, on the device of the sides; None gives empty lists.
        read_source: encodes passages as the teacher reads them.
        read_target: encodes passages as the student reads them.

    Returns:
        Student and teacher. The student's passages are its own vectors of those that it reads, and the teacher's
        vectors of the others.
    """
    if batch is None:
        lists = _no_candidates(teacher)
        return _listed(student, _in_the_graph_of(student, lists)), _listed(teacher, lists)
    sources = read_source(batch.sources)
    teacher_lists = ListEmbeddings(
        teacher.pooled,
        candidates=_candidates(sources, batch.source_index, batch.ids),
        listed=batch.listed,
        scores=batch.scores,
        keys=batch.keys,
    )
    student_lists = teacher_lists
    if batch.targets:
        texts = joined([sources, read_target(batch.targets)])
        index = torch.where(batch.target_index < 0, batch.source_index, batch.target_index + len(batch.sources))
        student_lists = replace(teacher_lists, candidates=_candidates(texts, index, batch.ids))
    return _listed(student, _in_the_graph_of(student, student_lists)), _listed(teacher, teacher_lists)


def _listed(side: Embeddings, lists: ListEmbeddings) -> ListEmbeddings:
    """A side with the candidates of another object."""
    own = {field.name: getattr(side, field.name) for field in fields(Embeddings)}
    return replace(lists, **own)


def _in_the_graph_of(student: Embeddings, lists: ListEmbeddings) -> ListEmbeddings:
    """The lists, as a part of the student's graph on every rank: gathering them has a backward pass on all or on none.

    Whether a batch has passages that the student reads differs by rank; one without would leave the others waiting.
    """
    texts = lists.candidates
    if texts is None or not dist.is_initialized():
        return lists
    nothing = student.pooled.sum() * 0
    tokens = None if texts.tokens is None else texts.tokens + nothing
    return replace(lists, candidates=replace(texts, pooled=texts.pooled + nothing, tokens=tokens))


def _candidates(texts: Embeddings, index: Tensor, ids: Tensor) -> Embeddings:
    """The texts at the positions of an index (B, N)."""
    return replace(selected(texts, index), ids=ids, weights=None)


def _no_candidates(side: Embeddings) -> ListEmbeddings:
    """Lists of length one where nothing is listed: other ranks may have candidates, and wait for this one's."""
    zeros = Embeddings(torch.zeros_like(side.pooled))
    if side.tokens is not None and side.mask is not None:
        zeros = Embeddings(zeros.pooled, torch.zeros_like(side.tokens[:, :1]), torch.ones_like(side.mask[:, :1]))
    index = torch.arange(len(side.pooled), device=side.pooled.device)[:, None]
    candidates = _candidates(zeros, index, torch.full_like(index, -1))
    # No text has a negative id.
    return ListEmbeddings(
        side.pooled, candidates=candidates, listed=torch.zeros_like(index).bool(), keys=torch.full_like(index[:, 0], -2)
    )
