"""What gives vectors without gradient: the interface of encoders, and that of the frozen models to learn from."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from foundations.cache import Array
from foundations.checks import check_number
from foundations.progress import delayed_progress
from lightning_modules.students.base import TextSide
from lightning_modules.students.tokens import Tokenization
from lightning_modules.vectors import idf_of_ids, joined, on_device, selected, without_gaps
from strategies.base import Embeddings


class Encoder(ABC):
    """Gives the vectors of texts: a student with its projection, or a teacher."""

    @property
    @abstractmethod
    def dim(self) -> int:
        """Width of the vectors."""

    @property
    def sides(self) -> tuple[TextSide, ...]:
        """The sides of which the vectors differ: only the first stands here where they do not."""
        return ("queries",)

    @abstractmethod
    def fingerprint(self, side: TextSide = "queries") -> str:
        """A key for all that the vectors of one side depend on; 32 hexadecimal digits."""

    def prepare(self, texts: Iterable[str], tokens: bool, side: TextSide = "queries") -> None:  # noqa: B027
        """Announce the texts that will be asked for; an encoder with a cache encodes what it lacks.

        Args:
            texts: any texts, read once.
            tokens: whether their token states will be asked for.
            side: what they will be read as.
        """

    @abstractmethod
    def encode(
        self,
        texts: list[str],
        tokens: bool = False,
        device: torch.device | str | None = None,
        side: TextSide = "queries",
    ) -> Embeddings:
        """Encode texts, without gradient.

        Args:
            texts: B texts, at least one.
            tokens: whether to give token states as well.
            device: where the result goes; None is the CPU for a teacher, and the student's own device.
            side: what the texts are read as.

        Returns:
            Pooled unit vectors (B, D), float32; with ``tokens`` also token states (B, T, D) and the mask of real ones.
        """


class Teacher(Encoder):
    """Gives the vectors that the student should reach; it never changes.

    A plain object, not an ``nn.Module``: as an attribute of the training module it is not saved in checkpoints, not
    wrapped by DDP, and not counted as a parameter. Its token states are float32 and zero at padding.
    """

    idf: Array = np.empty(0, dtype=np.float32)
    """IDF of each token id after `fit_idf`, the last for all ids from there on; (V,), empty before."""

    stores_new: bool = True
    """Whether a teacher with a cache keeps texts that it was not prepared for; off for pairs too many to keep."""

    @property
    def reads_images(self) -> bool:
        """Whether images (`datamodules.images`) may be among the texts; a teacher that does not know says yes."""
        return True

    @property
    def uncached(self) -> Teacher:
        """The teacher that runs a model: itself, or the one behind a cache."""
        return self

    def folder_of(self, side: TextSide) -> Path | None:  # noqa: ARG002
        """Where the vectors of one side are kept; None where nothing is kept."""
        return None

    def fingerprint(self, side: TextSide = "queries") -> str:  # noqa: ARG002
        """See `Encoder.fingerprint`.

        Raises:
            ValueError: this teacher has none.
        """
        raise ValueError(f"{type(self).__name__} has no fingerprint, which an index of its vectors needs")

    @abstractmethod
    def fit_idf(self, texts: Sequence[str], side: TextSide = "queries") -> None:
        """Compute the inverse document frequency of each token; `encode` then gives it as ``weights``.

        Args:
            texts: the texts to count in, e.g. the source side of the training pairs.
            side: what the texts are read as.
        """

    def tokenization(self) -> Tokenization | None:
        """How queries become tokens, for `text_statistics`; None where the teacher cannot say."""
        return None


class WrappedTeacher(Teacher):
    """Stands before another teacher, and answers as that one does where a subclass says nothing else.

    Args:
        teacher: the other one.
    """

    def __init__(self, teacher: Teacher) -> None:
        self.teacher = teacher

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return self.teacher.dim

    @property
    def sides(self) -> tuple[TextSide, ...]:
        """See `Encoder.sides`."""
        return self.teacher.sides

    @property
    def reads_images(self) -> bool:
        """See `Teacher.reads_images`."""
        return self.teacher.reads_images

    def fingerprint(self, side: TextSide = "queries") -> str:
        """See `Encoder.fingerprint`."""
        return self.teacher.fingerprint(side)

    def prepare(self, texts: Iterable[str], tokens: bool, side: TextSide = "queries") -> None:
        """See `Encoder.prepare`."""
        self.teacher.prepare(texts, tokens, side)

    def fit_idf(self, texts: Sequence[str], side: TextSide = "queries") -> None:
        """See `Teacher.fit_idf`."""
        self.teacher.fit_idf(texts, side)

    def tokenization(self) -> Tokenization | None:
        """See `Teacher.tokenization`."""
        return self.teacher.tokenization()


@dataclass(frozen=True)
class EncodedBatch:
    """Some texts of a list, encoded together.

    Args:
        rows: positions of the B texts in the list.
        embeddings: on the model's device; the mask has gaps where tokens are not real.
        ids: of the tokens in the tokenizer, (B, T), int64, on the CPU; None without token states.
    """

    rows: list[int]
    embeddings: Embeddings
    ids: Tensor | None


class ModelTeacher(Teacher):
    """A teacher that runs a frozen model in float32; it is loaded when the first text comes.

    Args:
        model: name or path of the model.
        batch_size: number of texts that are encoded together.
        device: where the model runs; ``auto`` is the current GPU if there is one, else the CPU.

    Raises:
        ValueError: batch_size is below 1.
    """

    def __init__(self, model: str, batch_size: int = 64, device: str = "auto") -> None:
        check_number("batch_size", batch_size, least=1)
        self.model, self.batch_size, self.device = model, batch_size, device

    @property
    def model_device(self) -> torch.device:
        """The device that the model runs on."""
        if self.device != "auto":
            return torch.device(self.device)
        return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")

    @abstractmethod
    def load(self) -> None:
        """Load the model, which else happens when the first text comes."""

    @abstractmethod
    def settings(self, side: TextSide = "queries") -> dict[str, Any]:
        """All that the vectors of one side depend on in addition to the model's files."""

    @abstractmethod
    def model_key(self) -> str:
        """What the model's files are known by."""

    @abstractmethod
    def token_ids(self, texts: Sequence[str], side: TextSide) -> list[Array]:
        """The ids of the real tokens of each text, (tokens of the text,)."""

    @abstractmethod
    def encode_batch(self, texts: list[str], tokens: bool, side: TextSide) -> tuple[Embeddings, Tensor]:
        """The vectors of texts that fit into memory together, and the ids of their tokens, see `EncodedBatch`."""

    def fingerprint(self, side: TextSide = "queries") -> str:
        """A key for the model's files and the settings, made without loading the model.

        The content of a local folder is read in full (about 0.1 s for 100 MB), since a model that was trained
        further differs from its start in nothing else; a model on the hub is known by its commit.
        """
        settings = self.settings(side) | {"model": self.model_key()}
        return hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=16).hexdigest()

    def encode(
        self,
        texts: list[str],
        tokens: bool = False,
        device: torch.device | str | None = None,
        side: TextSide = "queries",
    ) -> Embeddings:
        """See `Encoder.encode`; with IDF ``weights`` of the tokens after `fit_idf`."""
        batches = list(self.encode_batches(texts, tokens, side))
        order = torch.tensor([row for batch in batches for row in batch.rows]).argsort()
        embeddings = joined([self._contiguous(batch) for batch in batches])
        return on_device(selected(embeddings, order.to(embeddings.pooled.device)), device or "cpu")

    def encode_batches(self, texts: Sequence[str], tokens: bool, side: TextSide = "queries") -> Iterator[EncodedBatch]:
        """Encode many texts, those of similar length together, with a progress bar if that takes long.

        Args:
            texts: at least one text.
            tokens: whether to give token states as well.
            side: what the texts are read as.

        Yields:
            Parts of the texts, longest first; each text is in one of them.

        Raises:
            ValueError: there are no texts.
        """
        if not texts:
            raise ValueError("there are no texts to encode")
        self.load()
        order = sorted(range(len(texts)), key=lambda row: -len(texts[row]))
        with delayed_progress("teacher: encode texts", len(texts)) as advance:
            for start in range(0, len(texts), self.batch_size):
                rows = order[start : start + self.batch_size]
                with torch.no_grad(), torch.autocast(self.model_device.type, enabled=False):
                    embeddings, ids = self.encode_batch([texts[row] for row in rows], tokens, side)
                yield EncodedBatch(rows, embeddings, ids if tokens else None)
                advance(len(rows))

    def fit_idf(self, texts: Sequence[str], side: TextSide = "queries") -> None:
        """Compute the IDF of each token; see `Teacher.fit_idf`."""
        self.idf = idf_of_ids(self.token_ids(texts, side))

    def mean_length(self, texts: Sequence[str], side: TextSide = "queries") -> float:
        """Mean number of real tokens of some texts."""
        return sum(map(len, self.token_ids(texts, side))) / len(texts)

    def _contiguous(self, batch: EncodedBatch) -> Embeddings:
        """A batch with its real tokens first, zeros behind them, and their IDF."""
        if batch.ids is None:
            return Embeddings(batch.embeddings.pooled.float())
        weights = None
        if len(self.idf):
            device = batch.embeddings.pooled.device
            weights = torch.from_numpy(self.idf)[batch.ids.clamp(max=len(self.idf) - 1)].to(device)
        states, mask = batch.embeddings.require_tokens()
        return without_gaps(Embeddings(batch.embeddings.pooled.float(), states.float(), mask, weights=weights))
