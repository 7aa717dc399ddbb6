"""Transport problems as training has them: token states of real texts, and of what a student makes of them."""

from __future__ import annotations

import random
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from strategies.base import Embeddings
from strategies.functional import token_cost, token_marginals

PROSE = Path(__file__).parent.parent / "LICENSE"
"""A text that does not change with the documentation."""
SHORTEST = 0.4
"""The shortest text of a problem, as a share of the longest."""
NOISE = 0.5
"""Length of the noise on the student's token states, in lengths of the state: their cosine is about 0.9."""


@dataclass(frozen=True)
class Problem:
    """B pairs of texts with lengths U[0.4 n, n], uniform masses.

    Args:
        teacher: token states (B, n, D).
        student: token states (B, n, D).
    """

    teacher: Embeddings
    student: Embeddings

    @cached_property
    def cost(self) -> Tensor:
        """1 - cosine; (B, n, n), float32."""
        return token_cost(self.teacher, self.student)

    @cached_property
    def marginals(self) -> tuple[Tensor, Tensor]:
        """Masses of the teacher's and of the student's tokens."""
        return token_marginals(self.teacher, "uniform"), token_marginals(self.student, "uniform")

    @cached_property
    def lengths(self) -> list[tuple[int, int]]:
        """The number of tokens of each pair's two sides."""
        counts = torch.stack([side.require_tokens()[1].sum(1) for side in (self.teacher, self.student)], 1)
        return [(n, m) for n, m in counts.tolist()]


class Costs:
    """The same problems as costs alone, on any device.

    Args:
        costs: 1 - cosine of texts without padding; (B, n, n).
        batch: how many pairs.
        length: cut to lengths drawn from U[0.4 length, length], as `States.problem` does.
        device: where the tensors are.
    """

    def __init__(self, costs: Tensor, batch: int, length: int, device: str = "cpu") -> None:
        draw = torch.Generator().manual_seed(0)
        counts = [_lengths(batch, length, SHORTEST, draw) for _ in range(2)]
        real = [torch.arange(length) < each[:, None] for each in counts]
        self.lengths = list(zip(*(each.tolist() for each in counts), strict=True))
        self.cost = costs[:batch, :length, :length].contiguous().to(device)
        source, target = ((mask / mask.sum(1, keepdim=True)).to(device) for mask in real)
        self.marginals = source, target

    def to(self, device: str) -> Costs:
        """A copy on this device."""
        other = copy(self)
        other.cost, other.marginals = self.cost.to(device), (self.marginals[0].to(device), self.marginals[1].to(device))
        return other


class States:
    """Token states of many texts and of their pseudo-translations.

    A pseudo-translation has the words of the text, of which 15 % are left out and 10 % doubled, in an order that
    differs within windows of four. The teacher's encoder reads it, and noise of half its length is added to each
    state: a student in the middle of training.

    Args:
        texts: number of pairs.
        longest: tokens of each.
        encoder: a teacher's name; None makes up states instead (a vector for each word, mixed with its neighbours').
    """

    def __init__(self, texts: int, longest: int, encoder: str | None = "starter/minilm") -> None:
        words = _words()
        draw = random.Random(0)
        count = 2 * longest + 20
        originals = [
            words[start : start + count] for start in (draw.randrange(len(words) - count) for _ in range(texts))
        ]
        others = [_translated(original, draw) for original in originals]
        self.teacher = self._encode(originals, longest, encoder)
        states = self._encode(others, longest, encoder)
        noise = torch.randn(states.shape, generator=torch.Generator().manual_seed(0))
        self.student = states + NOISE * F.normalize(noise, dim=-1) * states.norm(dim=-1, keepdim=True)

    @staticmethod
    def _encode(texts: list[list[str]], longest: int, encoder: str | None) -> Tensor:
        if encoder is None:
            known: dict[str, Tensor] = {}
            draw = torch.Generator().manual_seed(1)
            rows = [
                torch.stack([known.setdefault(word, torch.randn(32, generator=draw)) for word in text[:longest]])
                for text in texts
            ]
            stacked = torch.stack(rows)
            return stacked + 0.3 * stacked.roll(1, 1)
        from lightning_modules.teachers.online import OnlineTeacher

        teacher = OnlineTeacher(encoder, max_length=longest + 2, batch_size=32, device="cpu")
        return teacher.encode([" ".join(text) for text in texts], tokens=True).require_tokens()[0][:, :longest].clone()

    def costs(self) -> Tensor:
        """The costs of all pairs in full length; (B, n, n)."""
        teacher, student = (F.normalize(states, dim=-1) for states in (self.teacher, self.student))
        return 1 - teacher @ student.mT

    def problem(self, batch: int, length: int, shortest: float = SHORTEST) -> Problem:
        """The first pairs, cut to lengths drawn from U[shortest n, n]."""
        draw = torch.Generator().manual_seed(0)
        sides = []
        for states in (self.teacher, self.student):
            lengths = _lengths(batch, length, shortest, draw)
            mask = torch.arange(length) < lengths[:, None]
            tokens = states[:batch, :length].masked_fill(~mask[..., None], 0.0)
            sides.append(Embeddings(F.normalize(tokens.sum(1), dim=-1), tokens, mask))
        return Problem(*sides)


def _lengths(batch: int, length: int, shortest: float, draw: torch.Generator) -> Tensor:
    return torch.randint(round(shortest * length), length + 1, (batch,), generator=draw)


def _words() -> list[str]:
    """The words of the licence."""
    return PROSE.read_text(encoding="utf-8").split()


def _translated(words: list[str], draw: random.Random) -> list[str]:
    kept = [word for word in words for _ in range(1 + (draw.random() < 0.1)) if draw.random() >= 0.15]
    windows = [kept[start : start + 4] for start in range(0, len(kept), 4)]
    for window in windows:
        draw.shuffle(window)
    return [word for window in windows for word in window]
