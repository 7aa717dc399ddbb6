"""The one way to the vectors of texts: in memory, or in shards on disk; the ranks share the work."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from foundations.progress import delayed_progress
from lightning_modules.distillation import DistillationModule
from lightning_modules.students.base import TextSide
from lightning_modules.teachers.base import Encoder
from lightning_modules.vectors import unit_token_matrix
from retrieval.collection import Side
from retrieval.index.shards import ShardDtype, Shards, ShardSettings, prepare_shards, write_shards
from retrieval.index.tokens import TokenMatrix
from strategies.base import Embeddings
from strategies.distributed import gathered, rank_and_world_size
from strategies.functional import Marginals

_BATCH_SIZE = 256
_BLOCK, _TOKEN_BLOCK = 50_000, 5_000
"""Texts in a shard, without and with token vectors."""

_NOT_SETTINGS = ("training", "truncated", "model_name")


@dataclass(frozen=True)
class EncodedTexts:
    """The texts of one side of a collection, encoded, on the CPU.

    Args:
        ids: N ids.
        pooled: (N, D).
        tokens: the tokens of the N texts, or None where only pooled vectors are compared.
    """

    ids: list[str]
    pooled: Tensor
    tokens: TokenMatrix | None

    @classmethod
    def from_embeddings(
        cls, ids: Sequence[str], embeddings: Embeddings, token_weights: Marginals = "uniform"
    ) -> EncodedTexts:
        """The vectors of a batch, moved to the CPU; tokens are kept in half precision."""
        tokens = None if embeddings.tokens is None else unit_token_matrix(embeddings, token_weights)
        return cls(list(ids), embeddings.pooled.detach().float().cpu(), tokens)

    @classmethod
    def concatenate(cls, parts: Sequence[EncodedTexts]) -> EncodedTexts:
        """Parts as one, each id once, in the order of the ids."""
        first: dict[str, int] = {}
        for row, name in enumerate(name for part in parts for name in part.ids):
            first.setdefault(name, row)
        rows = torch.tensor([first[name] for name in sorted(first)])
        tokens = [part.tokens for part in parts if part.tokens is not None]
        merged = TokenMatrix.concatenate(tokens).select(rows) if tokens else None
        return cls(sorted(first), torch.cat([part.pooled for part in parts])[rows], merged)

    def select(self, rows: Sequence[int]) -> EncodedTexts:
        """The texts at some positions, in the order given."""
        index = torch.tensor(rows, dtype=torch.int64)
        tokens = None if self.tokens is None else self.tokens.select(index)
        return EncodedTexts([self.ids[row] for row in rows], self.pooled[index], tokens)

    def of(self, ids: Sequence[str]) -> EncodedTexts:
        """The texts with some ids, in the order given."""
        return self.select([self._positions[name] for name in ids])

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.ids)}


def encode(
    encoder: Encoder,
    texts: Mapping[str, str],
    side: TextSide,
    *,
    tokens: bool,
    batch_size: int = _BATCH_SIZE,
    token_weights: Marginals = "uniform",
) -> EncodedTexts:
    """The vectors of all texts; every rank encodes a share, and gets them all.

    Texts of similar length go together, the longest first, so that little is padded and a lack of memory shows at once.
    All ranks encode equally many batches, as sharded models need it: some are encoded twice where they do not come out
    even, and merged by id.

    Args:
        encoder: the student, or a teacher.
        texts: id -> text, at least one.
        side: what they are read as.
        tokens: whether to give token vectors as well.
        batch_size: texts that are encoded together.
        token_weights: how much each token counts in MaxSim where these texts are the queries.
    """
    encoder.prepare(list(texts.values()), tokens, side)
    rank, world_size = rank_and_world_size()
    items = sorted(texts.items(), key=lambda item: (-len(item[1]), item[0]))
    batches = [items[start : start + batch_size] for start in range(0, len(items), batch_size)]
    most = -(-len(batches) // world_size) * world_size
    own = [batches[index % len(batches)] for index in range(rank, most, world_size)]
    parts: list[EncodedTexts] = []
    with delayed_progress(f"encode {side}", sum(map(len, own))) as advance:
        for batch in own:
            ids, written = zip(*batch, strict=True)
            embeddings = encoder.encode(list(written), tokens, side=side)
            parts.append(EncodedTexts.from_embeddings(ids, embeddings, token_weights))
            advance(len(batch))
    return EncodedTexts.concatenate([part for share in gathered(parts) for part in share])


def encode_into(
    folder: Path,
    encoder: Encoder,
    texts: Mapping[str, str],
    side: TextSide = "documents",
    *,
    tokens: bool,
    dtype: ShardDtype = "float32",
    block: int | None = None,
    batch_size: int = _BATCH_SIZE,
    about: Mapping[str, Any] | None = None,
) -> Shards:
    """Encode what a folder of shards lacks, the ranks together, and open it.

    Args:
        folder: see `prepare_shards`.
        encoder: the student, or a teacher without a cache, since shards are one.
        texts: id -> text, at least one.
        side: what they are read as.
        tokens: whether to write token vectors as well, in float16.
        dtype: type of the pooled vectors on disk.
        block: texts in a block; None is 50,000, and 5,000 with token vectors.
        batch_size: texts that are encoded together.
        about: to write down in the manifest.

    Raises:
        InputError: the folder holds something else.
        ValueError: an option is out of range.
    """

    def vectors(batch: list[str]) -> tuple[Tensor, TokenMatrix | None]:
        embeddings = encoder.encode(batch, tokens, side=side)
        return embeddings.pooled, unit_token_matrix(embeddings) if tokens else None

    rank, world_size = rank_and_world_size()
    if rank == 0:
        size = (_TOKEN_BLOCK if tokens else _BLOCK) if block is None else block
        settings = ShardSettings(
            encoder.fingerprint(side), encoder.dim, dtype, tokens, block=size, batch_size=batch_size, about=about
        )
        prepare_shards(folder, texts, settings)
    gathered(None)
    write_shards(folder, texts, vectors, rank, world_size)
    gathered(None)
    return Shards(folder)


class StudentEncoder(Encoder):
    """The student of a module with its projection as an `Encoder`, in eval mode and without gradient.

    Args:
        module: student and projection.
        forward: what to call in the place of the module, where it is wrapped.
        context: what to call it within, such as the autocast of a trainer.
    """

    def __init__(
        self,
        module: DistillationModule,
        forward: nn.Module | None = None,
        context: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self.module, self.context = module, context
        self.forward = module if forward is None else forward

    @classmethod
    def within(cls, trainer: Trainer, module: DistillationModule) -> StudentEncoder:
        """The student as a trainer validates it: in its precision, and with what shards the weights (FSDP).

        DDP has nothing to add without gradient, but would make the ranks wait for each other in every batch.
        """
        is_ddp = isinstance(trainer.model, DistributedDataParallel)
        return cls(module, module if is_ddp else trainer.model, trainer.precision_plugin.val_step_context)

    @property
    def dim(self) -> int:
        """The teacher's width, where there is a projection."""
        layer = self.module.projection
        return layer.out_features if isinstance(layer, nn.Linear) else self.module.student.dim

    @property
    def sides(self) -> tuple[TextSide, ...]:
        """See `Encoder.sides`."""
        return self.module.student.sides

    def fingerprint(self, side: TextSide = "queries") -> str:
        """A key for the weights and the settings; 32 hexadecimal digits."""
        student = self.module.student
        plain = {
            name: value for name, value in vars(student).items() if isinstance(value, str | int | float | dict | None)
        }
        settings = {name: plain[name] for name in plain if not name.startswith("_") and name not in _NOT_SETTINGS}
        settings |= {"class": type(student).__name__, "reads": side if len(self.sides) > 1 else ""}
        digest = hashlib.blake2b(json.dumps(settings, sort_keys=True, default=str).encode(), digest_size=16)
        for part in (student, self.module.projection):
            for name, value in sorted(part.state_dict().items()):
                digest.update(name.encode())
                if isinstance(value, Tensor):
                    digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
                else:
                    digest.update(json.dumps(value, sort_keys=True, default=str).encode())
        return digest.hexdigest()

    @torch.no_grad()
    def encode(
        self,
        texts: list[str],
        tokens: bool = False,
        device: torch.device | str | None = None,  # noqa: ARG002
        side: TextSide = "queries",
    ) -> Embeddings:
        """Encode texts, on the device of the module; see `Encoder.encode`."""
        with self.context(), _evaluating(self.module):
            embeddings: Embeddings = self.forward(texts, tokens=tokens, side=side)
            return embeddings


def encoder_of(module: DistillationModule, reader: Side) -> Encoder:
    """The student or the teacher of a module, outside a trainer; of a siamese one, the student in both cases.

    Args:
        module: student and teacher.
        reader: which of the two.
    """
    return StudentEncoder(module) if reader == "student" or module.siamese else module.teacher_in_space


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode; afterwards every part is in the mode that it was in."""
    training = [part for part in module.modules() if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True
