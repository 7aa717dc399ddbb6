"""Documents too many to hold in memory: encoded into shards by all ranks, and searched by each for some queries."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch.distributed as dist
from lightning.pytorch import Trainer

from foundations.errors import InputError
from lightning_modules.distillation import DistillationModule
from lightning_modules.evaluation.reader import Reader
from lightning_modules.teachers.cached import CachedTeacher
from retrieval.collection import Collection, Run, Side
from retrieval.index.shards import Shards, read_manifest, texts_hash

T = TypeVar("T")


class LargeCollections:
    """Shards of the documents of large collections.

    The teacher's lie in its cache, for later runs. The student's lie in the run folder while they are needed: a
    validation or test that was killed goes on with what it had encoded, if the weights are the same.

    Args:
        most: documents up to which a collection stays in memory.
        block: texts in a shard; None is the default of `Reader.encode`.
    """

    def __init__(self, most: int, block: int | None = None) -> None:
        if most < 0:
            raise ValueError(f"shard_texts is {most}, expected at least 0")
        self.most, self.block = most, block
        self.folder: Path | None = None
        self._made: list[Path] = []
        self._is_used = False

    def has(self, collection: Collection) -> bool:
        """Whether a collection is large."""
        return len(collection.documents) > self.most

    def read(self, trainer: Trainer, module: DistillationModule, collection: Collection, reader: Side) -> Shards:
        """The vectors of a collection's documents; all ranks call it together.

        Args:
            trainer: knows the ranks.
            module: student and teacher.
            collection: a large one.
            reader: who reads the documents.
        """
        self._is_used = True
        read = Reader(module, reader, "documents", tokens=module.score != "pooled")
        folder = Path(trainer.strategy.broadcast(str(self._folder_of(read, collection))))
        if trainer.is_global_zero:
            if read.reader == "student":
                self._made.append(folder)
            _remove_others(folder, read)
        with trainer.precision_plugin.val_step_context():
            return read.encode(
                folder,
                collection.documents,
                block=self.block,
                batch_size=trainer.datamodule.eval_batch_size,  # type: ignore[attr-defined]
                rank=trainer.global_rank,
                world_size=trainer.world_size,
                barrier=trainer.strategy.barrier,
            )

    def clean(self, trainer: Trainer) -> None:
        """Remove the student's vectors, when no rank needs them any more."""
        if not self._is_used:
            return
        trainer.strategy.barrier("searched")
        self._is_used = False
        for folder in self._made:
            shutil.rmtree(folder, ignore_errors=True)
            if not any(folder.parent.iterdir()):
                folder.parent.rmdir()
        self._made.clear()

    def _folder_of(self, read: Reader, collection: Collection) -> Path:
        """Where the vectors belong; the rank 0 decides."""
        teacher = read.module.teacher
        if read.reader == "teacher" and isinstance(teacher, CachedTeacher):
            kind = "tokens" if read.tokens else "pooled"
            return teacher.folder_of("documents") / f"shards-{kind}-{texts_hash(collection.documents)}"
        if self.folder is None:
            self.folder = Path(tempfile.mkdtemp(prefix="potstill-"))
        return self.folder / "shards" / f"{read.reader}-{collection.name.replace('/', '-')}"


def _remove_others(folder: Path, read: Reader) -> None:
    """Remove what an earlier validation left in a folder of ours, if it is of other weights."""
    try:
        if read_manifest(folder)["model"] == read.fingerprint():
            return
    except InputError:
        pass
    shutil.rmtree(folder, ignore_errors=True)


def own_share(items: Sequence[T]) -> list[T]:
    """The items of this rank: r, r + W, ..."""
    rank, world_size = _ranks()
    return list(items[rank::world_size])


def merge_runs(runs: dict[str, Run], query_ids: Sequence[str]) -> dict[str, Run]:
    """The runs of all ranks as one, in the order of the queries."""
    gathered: list[Any] = [runs]
    if _ranks()[1] > 1:
        gathered = [None] * _ranks()[1]
        dist.all_gather_object(gathered, runs)
    names = dict.fromkeys(name for part in gathered for name in part)
    return {
        name: {query: part[name][query] for query in query_ids for part in gathered if query in part.get(name, {})}
        for name in names
    }


def _ranks() -> tuple[int, int]:
    is_many = dist.is_available() and dist.is_initialized()
    return (dist.get_rank(), dist.get_world_size()) if is_many else (0, 1)
