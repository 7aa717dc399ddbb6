"""The student or the teacher of a run, as it reads one side of a collection into shards."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_modules.distillation import DistillationModule
from lightning_modules.students.base import TextSide
from lightning_modules.teachers.cached import CachedTeacher
from lightning_modules.teachers.online import OnlineTeacher
from lightning_modules.vectors import unit_token_matrix
from retrieval.collection import Side
from retrieval.index.shards import ShardDtype, Shards, ShardSettings, prepare_shards, write_shards
from retrieval.index.tokens import TokenMatrix

_POOLED_BLOCK = 50_000

_TOKEN_BLOCK = 5_000

_NOT_SETTINGS = ("training", "texts_seen", "texts_truncated", "model_name")


class Reader:
    """Gives the vectors of texts, and a fingerprint of all that they depend on.

    A teacher is asked without its cache, since shards are one.

    Args:
        module: student and teacher.
        reader: which of the two; after siamese training it is the student always.
        reads: what the texts are read as.
        tokens: whether to give token vectors as well.
    """

    def __init__(self, module: DistillationModule, reader: Side, reads: TextSide, tokens: bool) -> None:
        teacher = module.teacher.teacher if isinstance(module.teacher, CachedTeacher) else module.teacher
        self.module, self.teacher, self.reads, self.tokens = module, teacher, reads, tokens
        self.reader: Side = "student" if module.siamese else reader

    @property
    def dim(self) -> int:
        """Width of the pooled vectors."""
        if self.reader == "teacher":
            return self.teacher.dim
        layer = self.module.projection
        return layer.out_features if isinstance(layer, nn.Linear) else self.module.student.dim

    def fingerprint(self) -> str:
        """A key for the weights and the settings; 32 hexadecimal digits."""
        if self.reader == "student":
            return student_fingerprint(self.module, self.reads)
        if isinstance(self.teacher, OnlineTeacher):
            return self.teacher.fingerprint(self.reads)
        raise ValueError(f"{type(self.teacher).__name__} has no fingerprint, which an index of its vectors needs")

    @torch.no_grad()
    def __call__(self, texts: list[str]) -> tuple[Tensor, TokenMatrix | None]:
        """Encode texts; see `retrieval.index.shards.Encode`."""
        if self.reader == "student":
            found = self.module(texts, tokens=self.tokens, side=self.reads)
        else:
            found = self.teacher.encode(texts, tokens=self.tokens, side=self.reads)
        return found.pooled, unit_token_matrix(found) if self.tokens else None

    def encode(
        self,
        folder: Path,
        texts: Mapping[str, str],
        *,
        dtype: ShardDtype = "float32",
        block: int | None = None,
        batch_size: int = 256,
        about: Mapping[str, Any] | None = None,
        rank: int = 0,
        world_size: int = 1,
        barrier: Callable[[], object] = lambda: None,
    ) -> Shards:
        """Encode what a folder of shards lacks, together with the other ranks, and open it.

        Args:
            folder: see `prepare_shards`.
            texts: id -> text.
            dtype: type of the pooled vectors on disk; token vectors are float16.
            block: texts in a block; None is 50,000, and 5,000 with token vectors.
            batch_size: texts that are encoded together.
            about: to write down in the manifest.
            rank: this process.
            world_size: number of processes.
            barrier: waits for the other processes.
        """
        if block is None:
            block = _TOKEN_BLOCK if self.tokens else _POOLED_BLOCK
        settings = ShardSettings(
            self.fingerprint(), self.dim, dtype, self.tokens, block=block, batch_size=batch_size, about=about
        )
        if rank == 0:
            prepare_shards(folder, texts, settings)
        barrier()
        write_shards(folder, texts, self, rank, world_size)
        barrier()
        return Shards(folder)


def student_fingerprint(module: DistillationModule, reads: TextSide) -> str:
    """A key for a student's weights and settings.

    Args:
        module: its student and its projection count.
        reads: what the texts are read as, where the student makes a difference.

    Returns:
        32 hexadecimal digits.
    """
    digest = hashlib.blake2b(digest_size=16)
    settings = {
        name: value
        for name, value in vars(module.student).items()
        if not name.startswith("_") and name not in _NOT_SETTINGS and isinstance(value, str | int | float | dict | None)
    }
    is_plain = len(set(module.student.prefixes.values())) == 1 and not module.student.query_augmentation
    settings |= {"class": type(module.student).__name__, "reads": "" if is_plain else reads}
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    for part in (module.student, module.projection):
        for name, value in sorted(part.state_dict().items()):
            digest.update(name.encode())
            if isinstance(value, Tensor):
                digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
            else:
                digest.update(json.dumps(value, sort_keys=True, default=str).encode())
    return digest.hexdigest()
