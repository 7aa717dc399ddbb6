"""Contrastive distillation: InfoNCE against the teacher's vectors of the batch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foundations.checks import check_choice, check_number
from strategies.base import DistillationStrategy, Embeddings, ListEmbeddings
from strategies.distributed import gather, gather_embeddings, gather_tokens, own_rows, pad_over_ranks, same_source
from strategies.functional import (
    Marginals,
    Score,
    all_scores,
    at_least_float32,
    check_widths,
    masked,
    maxsim,
    token_weights,
    unit_tokens,
    without_autocast,
)

Query = Literal["target", "source"]
Listed = Literal["ranked", "negatives", "off"]

LARGEST_SCALE = 100.0
"""A learnable 1 / temperature is kept at most here, as in CLIP."""


class Contrastive(DistillationStrategy):
    """Pulls the student's vector to the teacher's vector of its source, and away from those of the other sources.

    The loss of pair i is -log( exp(s_i . t_i / temperature) / sum_j exp(s_i . t_j / temperature) ), mean over the
    batch. The sum runs over the batches of all ranks, without those j with the same id as i: equal sources (five
    captions of one image) are neither positives nor negatives of each other, they are left out. ``symmetric``
    averages this with the same loss the other way round: each t_i among all s_j.

    With ``score="maxsim"`` late interaction takes the place of the cosine s_i . t_j: the mean, over the tokens of the
    query, of the largest cosine with a token of the document (`strategies.functional.maxsim`). The mean is
    ColBERT's sum over the number of query tokens, so the same temperatures suit both scores. ``query`` says which side
    asks: its rows choose among the other side's, and under MaxSim its tokens are those summed over. With ``target``
    that is the loss above; with ``source`` each t_i chooses among all s_j.

    Where the pairs list passages, those of all pairs are further negatives of every query (``listed``), without those
    that are its own source. With ``ranked`` the first of each list is the relevant one: no negative of its own
    query, but the positive of a term of its own, ``contrastive_listed``, among the same negatives. Pairs without a list
    add zero to that term.

    Across ranks the vectors of the side that is chosen from (of both, if symmetric) are gathered with gradient, and
    each rank takes the mean over its own rows, so that with gradients averaged over ranks the result equals one
    process on the full batch.

    Source: InfoNCE, van den Oord et al. 2018 (arXiv 1807.03748), eq. 4; temperature and symmetry as in CLIP,
    Radford et al. 2021 (arXiv 2103.00020).

    Relations: ``MSE`` asks for the teacher's very vector; this asks for the right ranking, which a student too
    small to copy the teacher may still reach. Prefer it with large batches; with small ones, or many near
    duplicates without ids, prefer ``MSE``, or the two in a ``WeightedSum``.

    Args:
        temperature: divides the cosines; its start, if it is learnable.
        learnable: whether training adapts the temperature, which then stays within 0.01 and 1.
        symmetric: whether the two sides are also matched the other way round.
        score: ``pooled``, the cosine of pooled vectors, or ``maxsim``, late interaction over tokens.
        query: the side that asks: ``target``, which the student reads, or ``source``.
        listed: what listed passages are: ``ranked``, the first is relevant and the others are not; ``negatives``, none
            is; ``off``, they are not looked at.
        token_weights: how much each token of the query counts under ``maxsim``: ``uniform``, or by the ``norm`` of its
            vector, with gradient, or by its ``idf`` (`strategies.functional.token_weights`). Evaluate with the same.

    Inputs: pooled vectors, or for ``maxsim`` tokens and masks; ``ids`` of either side where sources repeat (the
    student's are used if both have them); candidates with ids, and keys, where there are any.

    Shape:
        - student.pooled, teacher.pooled (B, D), tokens (B, T, D) and (B, S, D), the same B on all ranks; ids (B,);
          candidates (B, N, D)
        - ``contrastive``, ``contrastive_listed``: scalars; ``info/accuracy`` the share of queries nearest to their own
          partner among the sources counted; ``info/temperature`` if it is learnable

    Raises:
        ValueError: an option out of range.

    Example:
        >>> import torch
        >>> vectors = torch.eye(4)
        >>> terms = Contrastive(temperature=1.0)(Embeddings(vectors), Embeddings(vectors))
        >>> {name: round(term.item(), 3) for name, term in terms.items()}  # log(1 + 3 / e)
        {'contrastive': 0.744, 'info/accuracy': 1.0}
    """

    def __init__(
        self,
        temperature: float = 0.05,
        learnable: bool = False,
        symmetric: bool = False,
        score: Score = "pooled",
        query: Query = "target",
        listed: Listed = "ranked",
        token_weights: Marginals = "uniform",
    ) -> None:
        super().__init__()
        check_number("temperature", temperature, above=0)
        check_choice("score", score, get_args(Score))
        check_choice("query", query, get_args(Query))
        check_choice("listed", listed, get_args(Listed))
        check_choice("token_weights", token_weights, get_args(Marginals) if score == "maxsim" else ("uniform",))
        if learnable and not 1 / LARGEST_SCALE <= temperature <= 1:
            raise ValueError(
                f"temperature is {temperature!r}, expected {1 / LARGEST_SCALE:g} to 1 where it is learnable"
            )
        self.temperature = temperature
        self.symmetric, self.score, self.query = symmetric, score, query
        self.listed, self.uses_candidates = listed, listed != "off"
        self.needs_tokens, self.needs_weights = score == "maxsim", token_weights == "idf"
        self.sees_pooled = score == "pooled"
        self.token_weights: Marginals = token_weights
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature))) if learnable else None

    def forward(self, student: Embeddings, teacher: Embeddings) -> dict[str, Tensor]:
        """The InfoNCE loss over the batches of all ranks."""
        check_widths(student, teacher)
        with without_autocast(student.pooled):
            queries, documents = (student, teacher) if self.query == "target" else (teacher, student)
            scale = self._scale()
            labels, excluded = own_rows(student.pooled), same_source(student, teacher)
            logits = masked(self._scores(queries, documents) * scale, excluded)
            terms: dict[str, Tensor] = {}
            if self.uses_candidates and isinstance(student, ListEmbeddings):
                loss, terms = self._with_passages(queries, student, logits, labels, scale)
            else:
                loss = F.cross_entropy(logits, labels)
            if self.symmetric:
                backwards = masked(self._scores(queries, documents, backwards=True) * scale, excluded)
                loss = (loss + F.cross_entropy(backwards, labels)) / 2
        terms |= {"contrastive": loss, "info/accuracy": (logits.argmax(1) == labels).float().mean()}
        if isinstance(scale, Tensor):
            terms["info/temperature"] = 1 / scale.detach()
        return terms

    def _with_passages(
        self, queries: Embeddings, student: ListEmbeddings, logits: Tensor, labels: Tensor, scale: Tensor | float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss with the listed passages among the negatives, and the term of the relevant ones."""
        passages = gather_passages(student, self.needs_tokens)
        scores = all_scores(queries, passages.texts, self.score, self._weights(queries)) * scale
        excluded, ranked = passages.is_source, self.listed == "ranked"
        if ranked:  # the relevant passage is no negative, neither in a list nor as a source
            excluded = excluded | passages.is_first
            logits = masked(logits, passages.source_is_first.scatter(1, labels[:, None], False))
        logits = torch.cat([logits, masked(scores, excluded)], 1)
        terms = {"contrastive_listed": relevant_loss(logits, scores, passages, labels)} if ranked else {}
        return F.cross_entropy(logits, labels), terms

    def _scores(self, queries: Embeddings, documents: Embeddings, backwards: bool = False) -> Tensor:
        """Scores of this rank's queries with the documents of all ranks, or the other way round; (B, ranks * B)."""
        if self.score == "pooled":
            rows, choices = (documents, queries) if backwards else (queries, documents)
            return at_least_float32(rows.pooled) @ gather(at_least_float32(choices.pooled))[0].mT
        query, document = (unit_tokens(side) for side in (queries, documents))
        query_mask, document_mask = queries.require_tokens()[1], documents.require_tokens()[1]
        weights = self._weights(queries)
        if backwards:
            if weights is not None:
                weights = gather_tokens(weights[..., None], query_mask)[0][..., 0]
            return maxsim(*gather_tokens(query, query_mask), document, document_mask, weights=weights).mT
        return maxsim(query, query_mask, *gather_tokens(document, document_mask), weights=weights)

    def _weights(self, queries: Embeddings) -> Tensor | None:
        """How much each token of a query counts; (B, S), or None where all count the same, or there are none."""
        return None if self.token_weights == "uniform" else token_weights(queries, self.token_weights)

    def _scale(self) -> Tensor | float:
        if self.log_scale is None:
            return 1 / self.temperature
        # On the parameter itself: a clamp inside the graph would have no gradient back from the bound.
        with torch.no_grad():
            self.log_scale.clamp_(0.0, math.log(LARGEST_SCALE))
        return self.log_scale.exp()


@dataclass(frozen=True)
class ListedPassages:
    """The M = ranks * B * N listed passages of all ranks, and what is known of them to this rank's B pairs."""

    texts: Embeddings  # pooled (M, D), tokens (M, T, D) and mask where they were asked for
    first: Tensor  # position of the first passage of each pair's list among the M; (B,)
    has_list: Tensor  # whether that list has any passage; (B,)
    is_source: Tensor  # True where the passage is not listed, or is the pair's own source; (B, M)
    is_first: Tensor  # True where the passage is the first of the pair's list, wherever it is listed; (B, M)
    source_is_first: Tensor  # True where a pair of any rank has that first passage as its source; (B, ranks * B)


def gather_passages(side: ListEmbeddings, tokens: bool) -> ListedPassages:
    """The listed passages of all ranks, with gradient; lists may be longer on some ranks.

    Ids of candidates and keys of pairs, which say which texts are the same, are needed, or it is a ValueError.
    """
    candidates, listed = side.require_candidates()
    if candidates.ids is None or side.keys is None:
        raise ValueError("to be negatives of other pairs, candidates need ids, and pairs need keys among those ids")
    ids, listed = pad_over_ranks(candidates.ids, 1), pad_over_ranks(listed, 1)
    flat = Embeddings(pad_over_ranks(candidates.pooled, 1).flatten(0, 1))
    if tokens:
        states, mask = (pad_over_ranks(part, 1).flatten(0, 1) for part in candidates.require_tokens())
        mask = mask | ((torch.arange(mask.shape[1], device=mask.device) == 0) & ~listed.flatten()[:, None])
        flat = Embeddings(flat.pooled, states, mask)
    all_ids, all_listed, all_keys = gather(ids.flatten(), listed.flatten().to(torch.uint8), side.keys)
    has_list, first = listed[:, :1], ids[:, :1]
    return ListedPassages(
        texts=gather_embeddings(flat, tokens),
        first=own_rows(ids) * ids.shape[1],
        has_list=has_list[:, 0],
        is_source=(all_ids == side.keys[:, None]) | ~all_listed.bool(),
        is_first=(all_ids == first) & has_list,
        source_is_first=(all_keys == first) & has_list,
    )


def relevant_loss(logits: Tensor, scores: Tensor, passages: ListedPassages, labels: Tensor) -> Tensor:
    """InfoNCE of the first passage of each list, mean over B; pairs without a list add zero.

    The logits (B, ranks * B + M) are those of sources and negative passages, -inf where excluded, the scores (B, M)
    the scaled ones of the passages, and labels (B,) the positions of the own sources.
    """
    negatives = logits.scatter(1, labels[:, None], -math.inf)
    choices = torch.cat([scores.gather(1, passages.first[:, None]), negatives], 1)
    return -(choices.log_softmax(1)[:, 0] * passages.has_list).mean()
