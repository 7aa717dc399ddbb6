"""A whitened space: the teacher's vectors with the few directions that all texts share made as small as the others."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foundations.checks import check_number
from foundations.errors import InputError
from lightning_modules.students.base import TextSide
from lightning_modules.students.vocabulary import chunks
from lightning_modules.teachers.base import Encoder, Teacher, WrappedTeacher
from lightning_modules.vectors import masked_mean
from strategies.base import Embeddings

_MOST_TEXTS, _BATCH = 100_000, 4096
_TOKEN_TEXTS, _TOKEN_BATCH = 512, 64
"""Texts that give the scale of the tokens; its standard error is below 1 %, and few token states are stored for it."""

_LEAST_VARIANCE = 1e-9
"""Total variance of unit vectors below which they differ by rounding alone."""


class Whitening(nn.Module):
    """The map of a teacher's vectors into a space where all directions vary almost alike.

    A pooled vector t becomes ``normalise((t - mu) W)`` with ``W = (C + shrinkage * mean(eig(C)) I)^(-1/2)``, mu and C
    the mean and the covariance of the pooled vectors of the texts that it was fitted on (Su et al. 2021, arXiv
    2103.15316, there without shrinkage). A token x becomes ``(x / s - mu) W``, s the mean length of the mean of a
    text's tokens, so that the mean of a text's tokens still points where its pooled vector does.

    What was fitted is part of a module's state as float32 in any precision of the trainer, so that checkpoints hold it.

    Args:
        shrinkage: how much of the mean variance each direction gets; towards infinity W only rescales.

    Raises:
        ValueError: shrinkage is not above 0.
    """

    def __init__(self, shrinkage: float = 1.0) -> None:
        super().__init__()
        check_number("shrinkage", shrinkage, above=0)
        self.shrinkage = shrinkage
        self._fitted: dict[str, Tensor] = {}
        self._copies: dict[torch.device, dict[str, Tensor]] = {}

    @property
    def is_fitted(self) -> bool:
        """Whether there is a map, fitted or from a checkpoint."""
        return bool(self._fitted)

    def get_extra_state(self) -> dict[str, Tensor]:
        """``mean`` (D,), ``matrix`` (D, D) and ``scale`` (), float32 on the CPU; empty before `fit`."""
        return dict(self._fitted)

    def set_extra_state(self, state: Any) -> None:
        """Take over what `get_extra_state` gave."""
        self._fitted, self._copies = {name: value.cpu() for name, value in state.items()}, {}

    @torch.no_grad()
    def fit(self, teacher: Encoder, texts: Iterable[str], side: TextSide = "queries") -> None:
        """Compute the map from the vectors of some texts, in float64.

        Args:
            teacher: gives the vectors.
            texts: sources of training pairs, each counted once; of more than 100,000 every nth is taken.
            side: what they are read as.

        Raises:
            InputError: the vectors of all texts are the same.
        """
        sample = _thinned(list(dict.fromkeys(texts)), _MOST_TEXTS)
        total, products = torch.zeros(()), torch.zeros(())
        for batch in chunks(sample, _BATCH):
            pooled = teacher.encode(batch, side=side).pooled.cpu().double()
            total, products = total + pooled.sum(0), products + pooled.T @ pooled
        mean = total / len(sample)
        values, vectors = torch.linalg.eigh(products / len(sample) - torch.outer(mean, mean))
        values = values.clamp(min=0)
        if values.sum() < _LEAST_VARIANCE:
            raise InputError(
                f"the teacher gives the {len(sample)} sources one and the same vector, expected vectors that differ: "
                "a whitened space cannot be made of them (--model.space plain)"
            )
        matrix = (vectors * (values + self.shrinkage * values.mean()).rsqrt()) @ vectors.T
        fitted = {"mean": mean, "matrix": matrix, "scale": _mean_length(teacher, sample, side)}
        self.set_extra_state({name: value.float() for name, value in fitted.items()})

    def forward(self, embeddings: Embeddings) -> Embeddings:
        """The teacher's vectors in this space, float32; padding is zero again.

        Raises:
            ValueError: nothing was fitted.
        """
        pooled = self.pooled(embeddings.pooled)
        if embeddings.tokens is None:
            return replace(embeddings, pooled=pooled)
        states, mask = embeddings.require_tokens()
        fitted = self._on(states.device)
        with torch.autocast(states.device.type, enabled=False):
            tokens = (states.float() / fitted["scale"] - fitted["mean"]) @ fitted["matrix"]
        return replace(embeddings, pooled=pooled, tokens=tokens * mask[..., None])

    def pooled(self, vectors: Tensor) -> Tensor:
        """Pooled unit vectors of the teacher (N, D), of any float type, in this space: unit vectors, float32.

        Raises:
            ValueError: nothing was fitted.
        """
        fitted = self._on(vectors.device)
        with torch.autocast(vectors.device.type, enabled=False):
            return F.normalize((vectors.float() - fitted["mean"]) @ fitted["matrix"], dim=-1)

    def _on(self, device: torch.device) -> dict[str, Tensor]:
        if not self._fitted:
            raise ValueError("the whitened space is not there yet: train, or load a checkpoint that has it")
        if device not in self._copies:
            self._copies[device] = {name: value.to(device) for name, value in self._fitted.items()}
        return self._copies[device]


class WhitenedTeacher(WrappedTeacher):
    """A teacher whose vectors are mapped as they are read; a cache behind it keeps them plain.

    Args:
        teacher: any teacher.
        space: the map, fitted before the first text is read.
    """

    def __init__(self, teacher: Teacher, space: Whitening) -> None:
        super().__init__(teacher)
        self.space = space

    @property
    def uncached(self) -> Teacher:
        """The same space, of the teacher that runs a model."""
        return WhitenedTeacher(self.teacher.uncached, self.space)

    def folder_of(self, side: TextSide) -> Path | None:
        """A folder of this space among the teacher's vectors, for those that cannot be mapped as they are read."""
        folder = self.teacher.folder_of(side)
        return None if folder is None else folder / f"whitened-{self.fingerprint(side)}"

    def fingerprint(self, side: TextSide = "queries") -> str:
        """A key for the teacher and the map; see `Encoder.fingerprint`."""
        digest = hashlib.blake2b(self.teacher.fingerprint(side).encode(), digest_size=16)
        for _, value in sorted(self.space.get_extra_state().items()):
            digest.update(value.contiguous().view(-1).numpy().data)
        return digest.hexdigest()

    def encode(
        self,
        texts: list[str],
        tokens: bool = False,
        device: torch.device | str | None = None,
        side: TextSide = "queries",
    ) -> Embeddings:
        """See `Encoder.encode`."""
        embeddings: Embeddings = self.space(self.teacher.encode(texts, tokens, device, side))
        return embeddings


def _thinned(texts: list[str], most: int) -> list[str]:
    """Every nth text, so that there are at most so many."""
    return texts[:: -(-len(texts) // most)]


def _mean_length(teacher: Encoder, texts: list[str], side: TextSide) -> Tensor:
    """Mean length of the mean of a text's tokens, over a sample."""
    lengths = []
    for batch in chunks(_thinned(texts, _TOKEN_TEXTS), _TOKEN_BATCH):
        states, mask = teacher.encode(batch, tokens=True, side=side).require_tokens()
        lengths.append(masked_mean(states, mask).norm(dim=-1).double().cpu())
    return torch.cat(lengths).mean()
