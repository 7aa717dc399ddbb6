"""Distillation of score distributions by KL divergence."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from foundations.checks import check_choice, check_number
from strategies.base import DistillationStrategy, Embeddings, ListEmbeddings, require_lists
from strategies.distributed import gather_embeddings, same_source
from strategies.functional import (
    Score,
    all_scores,
    check_widths,
    list_scores,
    masked_log_softmax,
    teacher_list_scores,
    without_autocast,
)

Passages = Literal["all", "batch", "listed"]


class KL(DistillationStrategy):
    """Gives the student the teacher's distribution of scores over passages, not only the teacher's best one.

    For query i let p_i = softmax_j(teacher score of i and j / temperature), and q_i the same of the student's scores.
    The loss is KL(p_i || q_i) = sum_j p_ij (log p_ij - log q_ij), mean over the batch. It has a term for

    - the batch: j runs over the sources of the pairs of all ranks, without those with the same id as i. The teacher's
      score is that of source i with source j, the student's that of target i with source j.
    - the lists: j runs over the passages listed for the pair, where it lists two or more. The teacher's scores are
      those of a file where the data have them, divided by ``given_temperature``, else computed from its
      vectors. The student scores its query with the passages that it reads, and with the teacher's vectors of
      those that it does not read.

    Source: Hinton et al. 2015 (arXiv 1503.02531), without their factor temperature^2; over lists of passages
    with scores of a cross-encoder: Translate-Distill, Yang et al. 2024 (arXiv 2401.04810).

    Relations: ``Contrastive`` is the batch term with a p that is 1 at the own source, which it tends to as the
    temperature falls; it pushes other sources away as far as it can, this one as far as the teacher has them.
    ``MarginMSE`` matches differences of scores instead of their softmax. With a perfect student this loss is zero, as
    that of ``MSE`` is; unlike ``MSE`` it spends the student's capacity on what decides the ranking.

    Args:
        temperature: divides the student's scores, and the teacher's where they are computed.
        given_temperature: divides the scores of a file. Cross-encoders give logits, for which 1 is right.
        score: ``pooled``, the cosine of pooled vectors, or ``maxsim``, late interaction over tokens.
        passages: ``batch`` and ``listed`` take the one term alone, ``all`` both where the pairs list passages.

    Inputs: pooled vectors, or tokens and masks for ``maxsim``; ``ids`` of either side where sources repeat; candidates
    for ``listed``, and for ``all`` where there are any.

    Shape:
        - student.pooled, teacher.pooled (B, D), the same B on all ranks; candidates (B, N, D)
        - ``kl``, ``kl_listed``: scalars; ``info/teacher_entropy`` of p over the batch, in nats (0 means that the
          temperature is so low that only the own source counts)

    Raises:
        ValueError: an option out of range.

    Example:
        >>> import torch
        >>> teacher, student = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.6, 0.8], [0.0, 1.0]])
        >>> terms = KL(temperature=1.0)(Embeddings(student), Embeddings(teacher))
        >>> {name: round(term.item(), 3) for name, term in terms.items()}
        {'kl': 0.081, 'info/teacher_entropy': 0.582}
    """

    def __init__(
        self,
        temperature: float = 0.1,
        given_temperature: float = 1.0,
        score: Score = "pooled",
        passages: Passages = "all",
    ) -> None:
        super().__init__()
        check_number("temperature", temperature, above=0)
        check_number("given_temperature", given_temperature, above=0)
        check_choice("score", score, get_args(Score))
        check_choice("passages", passages, get_args(Passages))
        self.temperature, self.given_temperature = temperature, given_temperature
        self.score: Score = score
        self.passages: Passages = passages
        self.needs_tokens = score == "maxsim"
        self.sees_pooled = score == "pooled"
        self.needs_candidates = passages == "listed"
        self.uses_candidates = self.uses_scores = passages != "batch"

    def forward(self, student: Embeddings, teacher: Embeddings) -> dict[str, Tensor]:
        """The divergence over the batches of all ranks, and over the lists."""
        check_widths(student, teacher)
        terms = {}
        with without_autocast(student.pooled):
            if self.passages != "listed":
                terms["kl"], terms["info/teacher_entropy"] = self._over_batch(student, teacher)
            if self.passages == "listed" or (self.passages == "all" and isinstance(student, ListEmbeddings)):
                terms["kl_listed"] = self._over_lists(*require_lists(student, teacher))
        return terms

    def _over_batch(self, student: Embeddings, teacher: Embeddings) -> tuple[Tensor, Tensor]:
        """The divergence, and the entropy of the teacher's distribution."""
        sources = gather_embeddings(teacher, self.needs_tokens)
        same = same_source(student, teacher)
        counted = torch.ones(len(student.pooled), len(sources.pooled), dtype=torch.bool, device=sources.pooled.device)
        if same is not None:
            counted = ~same
        with torch.no_grad():
            expected = masked_log_softmax(all_scores(teacher, sources, self.score) / self.temperature, counted)
        result = masked_log_softmax(all_scores(student, sources, self.score) / self.temperature, counted)
        return _divergence(expected, result, counted), -(expected.exp() * expected * counted).sum(1).mean()

    def _over_lists(self, student: ListEmbeddings, teacher: ListEmbeddings) -> Tensor:
        passages, listed = student.require_candidates()
        counted = listed & (listed.sum(1, keepdim=True) > 1)
        scores = teacher_list_scores(teacher, self.score, 1 / self.temperature, 1 / self.given_temperature)
        result = list_scores(student, passages, self.score) / self.temperature
        return _divergence(masked_log_softmax(scores, counted), masked_log_softmax(result, counted), counted)


def _divergence(expected: Tensor, result: Tensor, counted: Tensor) -> Tensor:
    """KL divergence of log-probabilities, mean over the batch; rows where nothing counts add zero."""
    return (expected.exp() * (expected - result) * counted).sum(1).mean()
