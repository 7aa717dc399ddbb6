"""Documents too many to hold in memory: encoded into shards by all ranks, and searched in blocks."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from foundations.checks import check_number
from foundations.errors import InputError
from lightning_modules.evaluation.encoding import encode_into
from lightning_modules.teachers.base import Encoder, Teacher
from lightning_modules.teachers.whitened import WhitenedTeacher
from retrieval.collection import Collection
from retrieval.index.shards import MappedShards, Shards, read_manifest, texts_hash
from strategies.distributed import gathered, rank_and_world_size


class LargeCollections:
    """Shards of the documents of large collections.

    The teacher's lie in its cache, for later runs. The student's lie in the run folder while they are needed: a
    validation or test that was killed goes on with what it had encoded, if the weights are the same.

    Args:
        most: documents up to which a collection stays in memory.
        block: texts in a shard; None is the default of `encode_into`.
    """

    def __init__(self, most: int, block: int | None = None) -> None:
        check_number("shard_texts", most, least=0)
        self.most, self.block = most, block
        self.folder: Path | None = None
        self._of_students: list[Path] = []

    def has(self, collection: Collection) -> bool:
        """Whether a collection is large."""
        return len(collection.documents) > self.most

    def encode(self, encoder: Encoder, collection: Collection, *, tokens: bool, batch_size: int) -> Shards:
        """The vectors of a collection's documents; all ranks call it together.

        Args:
            encoder: the student, or the teacher.
            collection: a large one.
            tokens: whether to write token vectors as well.
            batch_size: texts that are encoded together.
        """
        if isinstance(encoder, WhitenedTeacher) and not tokens:  # plain vectors serve every run
            shards = self.encode(encoder.teacher, collection, tokens=False, batch_size=batch_size)
            return MappedShards(shards.folder, encoder.space.pooled, f"whitened-{encoder.fingerprint('documents')}")
        folder = gathered(self._folder_of(encoder, collection, tokens))[0]
        if isinstance(encoder, Teacher):
            encoder = encoder.uncached
        else:
            self._of_students.append(folder)
        if rank_and_world_size()[0] == 0:
            _remove_others(folder, encoder)
        texts = collection.documents
        return encode_into(folder, encoder, texts, tokens=tokens, block=self.block, batch_size=batch_size)

    def clean(self) -> None:
        """Remove the student's vectors, when no rank needs them any more."""
        if not self._of_students:
            return
        gathered(None)
        if rank_and_world_size()[0] == 0:
            for folder in self._of_students:
                shutil.rmtree(folder, ignore_errors=True)
                if folder.parent.is_dir() and not any(folder.parent.iterdir()):
                    folder.parent.rmdir()
        self._of_students.clear()

    def _folder_of(self, encoder: Encoder, collection: Collection, tokens: bool) -> Path:
        """Where the vectors belong; rank 0 decides."""
        if isinstance(encoder, Teacher) and (cache := encoder.folder_of("documents")) is not None:
            return cache / f"shards-{'tokens' if tokens else 'pooled'}-{texts_hash(collection.documents)}"
        if self.folder is None:
            self.folder = Path(tempfile.mkdtemp(prefix="potstill-"))
        reader = "teacher" if isinstance(encoder, Teacher) else "student"
        return self.folder / "shards" / f"{reader}-{collection.name.replace('/', '-')}"


def _remove_others(folder: Path, encoder: Encoder) -> None:
    """Remove what an earlier validation left in a folder of ours, if it is of other weights."""
    try:
        if read_manifest(folder)["model"] == encoder.fingerprint("documents"):
            return
    except InputError:
        pass
    shutil.rmtree(folder, ignore_errors=True)
