"""Distillation from noisy pairs, which are found by their loss and re-matched by partial transport over the batch."""

from __future__ import annotations

import torch
from torch import Tensor

from foundations.checks import check_number
from strategies.base import INFO_PREFIX, DistillationStrategy, Embeddings
from strategies.distributed import gather, own_rows, same_source
from strategies.functional import at_least_float32, check_widths, masked, without_autocast
from strategies.noise_detection import FEWEST, NoiseDetector, standing
from strategies.transport.batch import LARGEST_BATCH, match_batch


class OTMatch(DistillationStrategy):
    """Finds the pairs that are put together wrongly, and gives them the partners that partial transport finds.

    Each pair has a row of targets over the teacher's vectors of the batch (of all ranks), T_i. The loss is

        contrastive = - 1/B sum_ij T_ij log softmax_j(s_i . t_j / temperature)
        pooled      =   1/B sum_ij T_ij ||s_i - t_j||^2

    with their weights. A clean pair has its own source as the target, T_ii = 1, so without noise these are the
    losses of ``Contrastive`` and ``MSE``.

    After ``warmup_steps`` batches, pairs are parted into clean and noisy by a mixture on how far the last ``memory`` of
    them stand out from chance (`strategies.noise_detection`). The noisy students and the noisy teachers of the batch
    are then matched by partial optimal transport with cost 1 - cosine, which moves only the cheapest ``mass`` of them;
    no student may get its own source or one with the same id. T_i is the student's row of the plan, as a share of its
    mass: what was not moved is missing in it, so a pair without a good partner is dropped, and one with a doubtful
    one counts little.

    Source: L2RM (Han et al. 2024, arXiv 2403.05105), which learns its cost and divides by the loss; soft targets from
    a plan over the batch as in OTTER (Wu et al. 2022, arXiv 2112.09445).

    Relations: with clean data it is ``Contrastive`` and ``MSE`` in a ``WeightedSum``; prefer those there. ``ot`` with
    ``marginal_relaxation`` needs tokens, but no division, no warm-up and no memory.

    Args:
        temperature: divides the cosines. A low one makes the student learn wrong pairs by heart sooner.
        symmetric: whether the teachers also choose among the students, by the columns of T.
        contrastive_weight: weight of the contrastive term; 0 leaves it out.
        pooled_weight: weight of the pooled term; 0 leaves it out.
        warmup_steps: batches in training before any pair is judged. Half an epoch at most: wrong pairs that the student
            knows by heart are not found.
        memory: pairs whose standing is kept, of some batches, as old ones are those of an older student; at least 100.
        threshold: probability of being clean under which a pair is noisy.
        mass: share of the noisy students' mass that is moved to other teachers; 0 drops noisy pairs.
        epsilon: softness of the plan, in units of the cost, which is 0 to 2.

    Inputs: pooled vectors; ``ids`` of either side where sources repeat (the student's are used if both have them).
    ``student.noisy`` is only compared with what was found.

    Shape:
        - student.pooled, teacher.pooled (B, D), the same B on all ranks
        - ``contrastive``, ``pooled``: scalars; ``info/accuracy`` the share of students nearest to their own source;
          ``info/noise_detected``, ``info/noise_rate``, ``info/noise_precision``, ``info/noise_recall``, see
          `strategies.noise_detection.NoiseDetector.diagnostics`; ``info/rematched`` the share of the noisy students'
          mass that was moved, where any pair was found noisy

    Raises:
        ValueError: an option out of range, no term left, or more than 4096 pairs to match in a batch.

    Example:
        >>> import torch
        >>> strategy = OTMatch(temperature=1.0)
        >>> vectors = torch.eye(4)
        >>> terms = strategy(Embeddings(vectors), Embeddings(vectors))
        >>> {name: round(term.item(), 3) for name, term in terms.items()}  # log(1 + 3 / e)
        {'contrastive': 0.744, 'pooled': 0.0, 'info/accuracy': 1.0}
    """

    step: Tensor

    def __init__(
        self,
        *,
        temperature: float = 0.1,
        symmetric: bool = False,
        contrastive_weight: float = 1.0,
        pooled_weight: float = 1.0,
        warmup_steps: int = 50,
        memory: int = 1024,
        threshold: float = 0.5,
        mass: float = 0.1,
        epsilon: float = 0.05,
    ) -> None:
        super().__init__()
        check_number("temperature", temperature, above=0)
        check_number("contrastive_weight", contrastive_weight, least=0)
        check_number("pooled_weight", pooled_weight, least=0)
        check_number("warmup_steps", warmup_steps, least=0)
        check_number("memory", memory, least=FEWEST)
        check_number("threshold", threshold, above=0, below=1)
        check_number("mass", mass, least=0, most=1)
        check_number("epsilon", epsilon, above=0)
        if contrastive_weight == pooled_weight == 0:
            raise ValueError("contrastive_weight and pooled_weight 0 leave no loss: give one of them a weight")
        self.temperature, self.symmetric = temperature, symmetric
        self.contrastive_weight, self.pooled_weight = contrastive_weight, pooled_weight
        self.warmup_steps, self.mass, self.epsilon = warmup_steps, mass, epsilon
        self.detector = NoiseDetector(memory, threshold)
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def forward(self, student: Embeddings, teacher: Embeddings) -> dict[str, Tensor]:
        """The two terms, against the targets that the division into clean and noisy leaves."""
        check_widths(student, teacher)
        with without_autocast(student.pooled):
            ours, theirs = at_least_float32(student.pooled), at_least_float32(teacher.pooled)
            cosines = ours @ gather(theirs)[0].mT
            if self.mass > 0 and cosines.shape[1] > LARGEST_BATCH:  # now, not after the warm-up
                raise ValueError(
                    f"a batch has {cosines.shape[1]} pairs of all devices, expected at most {LARGEST_BATCH}: "
                    "set mass to 0, which drops noisy pairs, or take smaller batches"
                )
            labels, same = own_rows(ours), same_source(student, teacher)
            logits = masked(cosines / self.temperature, same)
            info = {INFO_PREFIX + "accuracy": (logits.argmax(1) == labels).float().mean()}
            with torch.no_grad():
                noisy = self._judge(standing(cosines, labels, same), student.noisy, info)
                targets = torch.diag((~noisy).to(ours))
                if self.mass > 0 and int(noisy.sum()) > 1:
                    targets += self._matched(ours, theirs, noisy, labels, same, info)
            terms = {}
            if self.contrastive_weight > 0:
                loss = _cross_entropy(logits, targets[labels])
                if self.symmetric:
                    backwards = masked(theirs @ gather(ours)[0].mT / self.temperature, same)
                    loss = (loss + _cross_entropy(backwards, targets[:, labels].mT)) / 2
                terms["contrastive"] = self.contrastive_weight * loss
            if self.pooled_weight > 0:
                terms["pooled"] = self.pooled_weight * (targets[labels] * (2 - 2 * cosines)).sum(1).mean()
        return terms | info

    def _judge(self, standings: Tensor, truth: Tensor | None, info: dict[str, Tensor]) -> Tensor:
        """Which pairs of all ranks are noisy, by their standings (B,); (ranks * B,)."""
        unknown = torch.full_like(standings, -1)
        standings, truth = gather(standings, (unknown if truth is None else truth).to(torch.int8))
        positions = self.detector.remember(standings, truth) if self.training else None
        noisy = torch.zeros_like(standings, dtype=torch.bool)
        if int(self.step) >= self.warmup_steps:
            noisy = self.detector.judge(standings)
            if positions is not None:
                self.detector.note(positions, noisy)
        self.step += int(self.training)
        info |= self.detector.diagnostics()
        return noisy

    def _matched(
        self, ours: Tensor, theirs: Tensor, noisy: Tensor, labels: Tensor, same: Tensor | None, info: dict[str, Tensor]
    ) -> Tensor:
        """The share of each noisy student's mass that goes to each noisy teacher; (ranks * B, ranks * B)."""
        forbidden = labels[:, None] == torch.arange(len(noisy), device=noisy.device)
        mass = noisy[labels].to(ours)
        plan = match_batch(
            ours,
            theirs,
            epsilon=self.epsilon,
            mass=self.mass,
            forbidden=forbidden if same is None else forbidden | same,
            student_mass=mass,
            teacher_mass=mass,
        )[1].plan[0]
        info[INFO_PREFIX + "rematched"] = plan.sum()
        return plan * noisy.sum()


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over the rows of -sum_j T_j log softmax_j; where the target is 0 the logit may be -inf."""
    return -(targets * logits.log_softmax(1).masked_fill(targets == 0, 0.0)).sum(1).mean()
