"""The frozen model that the student learns from."""

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

from lightning_modules.lightning_private import commit_of
from lightning_modules.models.files import folder_hash
from lightning_modules.models.pretrained import load_tokenizer
from lightning_modules.models.starter import resolve_model
from lightning_modules.students.base import TextEncoder, TextSide, side_prefixes
from lightning_modules.students.tokens import Tokenization
from lightning_modules.students.transformer import Pooling, TransformerEncoder
from lightning_modules.vectors import host_zeros, to_device
from strategies.base import Embeddings

_FORMAT = 1
"""Part of the fingerprint: raise it when the same model and settings give other vectors."""

_PROGRESS_FROM = 1000


class Teacher(ABC):
    """Gives the vectors that the student should reach.

    A plain object, not an ``nn.Module``: as an attribute of the training module it is not saved in checkpoints, not
    wrapped by DDP, and not counted as a parameter.
    """

    stores_new: bool = True
    """Whether a teacher with a cache keeps texts that it was not prepared for; off for pairs too many to keep."""

    @property
    def reads_images(self) -> bool:
        """Whether images (`datamodules.images`) may be among the texts; a teacher that does not know says yes."""
        return True

    @property
    @abstractmethod
    def dim(self) -> int:
        """Width of the vectors."""

    @property
    def sides(self) -> tuple[TextSide, ...]:
        """The sides of which the vectors differ: only the first stands here where they do not."""
        return ("queries",)

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
            device: where the result goes; None is the CPU.
            side: what the texts are read as.

        Returns:
            Float32: pooled unit vectors (B, D); with ``tokens`` the states of the real tokens (B, T, D), zero at
            padding, their mask, and their IDF where `fit_idf` was called.
        """

    @abstractmethod
    def fit_idf(self, texts: Sequence[str], side: TextSide = "queries") -> None:
        """Compute the inverse document frequency of each token; `encode` then gives it as ``weights``.

        Args:
            texts: the texts to count in, e.g. the source side of the training pairs.
            side: what the texts are read as.
        """

    @abstractmethod
    def prepare(self, texts: Iterable[str], tokens: bool, side: TextSide = "queries") -> None:
        """Announce the texts that will be asked for; a teacher with a cache encodes what it lacks.

        Args:
            texts: any texts, read once.
            tokens: whether their token states will be asked for.
            side: what they will be read as.
        """

    def tokenization(self) -> Tokenization | None:
        """How queries become tokens, for `text_statistics`; None where the teacher cannot say."""
        return None


@dataclass(frozen=True)
class TeacherBatch:
    """Some of the texts, encoded, as a cache stores them.

    Args:
        rows: positions of the texts in the list that was given.
        pooled: (B, D), float32.
        lengths: number of real tokens of each text, (B,); None without tokens.
        tokens: the real tokens of all texts one after the other, (sum of lengths, D), float32.
        ids: their ids in the tokenizer, (sum of lengths,), int32.
    """

    rows: list[int]
    pooled: np.ndarray[Any, np.dtype[np.float32]]
    lengths: np.ndarray[Any, np.dtype[np.int64]] | None = None
    tokens: np.ndarray[Any, np.dtype[np.float32]] | None = None
    ids: np.ndarray[Any, np.dtype[np.int32]] | None = None


class OnlineTeacher(Teacher):
    """Runs a ``transformers`` encoder whenever it is asked.

    The model is loaded when the first text comes; making the object costs nothing. It is in eval mode, its
    parameters need no gradient, and it runs in float32 whatever the precision of training is.

    Args:
        model: a starter name, a local folder, or a name on the Hugging Face hub.
        pooling: ``mean`` of the tokens, or ``cls``, the first one.
        max_length: longest text in tokens, special tokens included; what is longer is cut.
        prefix: put before each text, e.g. ``"query: "`` for e5 models.
        batch_size: number of texts that are encoded together.
        device: where the model runs; ``auto`` is the current GPU if there is one, else the CPU.
        query_prefix: takes the place of prefix for queries; None does not.
        document_prefix: takes the place of prefix for documents; None does not.
    """

    def __init__(
        self,
        model: str = "starter/minilm",
        *,
        pooling: Pooling = "mean",
        max_length: int = 128,
        prefix: str = "",
        batch_size: int = 64,
        device: str = "auto",
        query_prefix: str | None = None,
        document_prefix: str | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1; got {batch_size}")
        self.model, self.pooling, self.max_length = model, pooling, max_length
        self.prefixes = side_prefixes(prefix, query_prefix, document_prefix)
        self.batch_size, self.device = batch_size, device
        self._encoder: TextEncoder | None = None
        self._dim: int | None = None

    @property
    def dim(self) -> int:
        """Width of the vectors, read from the model's configuration."""
        if self._dim is None:
            from lightning_modules.models.pretrained import load_config

            self._dim = int(load_config(self.model).hidden_size)
        return self._dim

    @property
    def reads_images(self) -> bool:
        """No; `lightning_modules.teachers.images` does."""
        return False

    @property
    def place(self) -> torch.device:
        """The device that the model runs on."""
        return torch.device(self.device) if self.device != "auto" else _automatic_device()

    @property
    def encoder(self) -> TextEncoder:
        """The frozen model, loaded on first use."""
        if self._encoder is None:
            self._encoder = self._load().requires_grad_(False).eval().to(self.place)
        return self._encoder

    def load(self) -> None:
        """Load the model, which else happens when the first text comes."""
        _ = self.encoder

    @property
    def idf(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """IDF of each token id after `fit_idf`, (V,); the last serves all ids from there on. Empty before."""
        idf: np.ndarray[Any, np.dtype[np.float32]] = self.encoder.idf.cpu().numpy()
        return idf

    @property
    def sides(self) -> tuple[TextSide, ...]:
        """Both sides where their prefixes differ; see `Teacher.sides`."""
        return ("queries", "documents") if len(set(self.prefixes.values())) > 1 else ("queries",)

    def settings(self, side: TextSide = "queries") -> dict[str, Any]:
        """All that the vectors of one side depend on beside the model's files."""
        keys = ("model", "pooling", "max_length")
        return {key: getattr(self, key) for key in keys} | {"prefix": self.prefixes[side], "format": _FORMAT}

    def fingerprint(self, side: TextSide = "queries") -> str:
        """A key for the model's files and the settings, made without loading the model.

        The content of a local folder is read in full (about 0.1 s for 100 MB), since a model that was trained
        further differs from its start in nothing else; a model on the hub is known by its commit.

        Returns:
            32 hexadecimal digits.
        """
        settings = self.settings(side) | {"model": self._model_key()}
        return hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=16).hexdigest()

    def encode(
        self,
        texts: list[str],
        tokens: bool = False,
        device: torch.device | str | None = None,
        side: TextSide = "queries",
    ) -> Embeddings:
        """Encode texts; see `Teacher.encode`."""
        batches = list(self.encode_batches(texts, tokens, side))
        order = np.argsort(np.concatenate([batch.rows for batch in batches]))
        pooled = torch.from_numpy(np.concatenate([batch.pooled for batch in batches])[order])
        if not tokens:
            return Embeddings(to_device(pooled, device or "cpu"))
        states, ids = _ragged(batches)
        idf = self.idf
        weights = [idf[np.minimum(ids[row], len(idf) - 1)] for row in order] if len(idf) else None
        return padded(pooled, [states[row] for row in order], weights, device)

    def tokenization(self) -> Tokenization | None:
        """How queries become tokens, made without loading the model."""
        tokenizer, special = load_tokenizer(self.model)
        return Tokenization(tokenizer, self.max_length, special.get("unk_token"), self.prefixes["queries"])

    def encode_batches(self, texts: Sequence[str], tokens: bool, side: TextSide = "queries") -> Iterator[TeacherBatch]:
        """Encode many texts, those of like length together, with a progress bar if they are many.

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
        starts = range(0, len(texts), self.batch_size)
        for start in progress(starts, "teacher", self.batch_size, len(texts)):
            rows = order[start : start + self.batch_size]
            yield self._encode_batch(rows, [texts[row] for row in rows], tokens, side)

    def prepare(self, texts: Iterable[str], tokens: bool, side: TextSide = "queries") -> None:
        """Nothing: texts are encoded when they are asked for."""

    def fit_idf(self, texts: Sequence[str], side: TextSide = "queries") -> None:
        """Compute the IDF of each token; see `Teacher.fit_idf`."""
        self.encoder.fit_idf(texts, side)

    def mean_length(self, texts: Sequence[str], side: TextSide = "queries") -> float:
        """Mean number of real tokens of some texts."""
        masks = [
            self.encoder.tokenize(texts[start : start + self.batch_size], side)["token_mask"]
            for start in range(0, len(texts), self.batch_size)
        ]
        return float(sum(mask.sum() for mask in masks)) / len(texts)

    @torch.no_grad()
    def _encode_batch(self, rows: list[int], texts: list[str], tokens: bool, side: TextSide) -> TeacherBatch:
        encoder = self.encoder
        inputs = encoder.tokenize(texts, side)
        device = next(encoder.parameters()).device
        with torch.autocast(device.type, enabled=False):
            result = self._forward({name: value.to(device) for name, value in inputs.items()}, tokens)
        pooled = result.pooled.cpu().numpy()
        if not tokens:
            return TeacherBatch(rows, pooled)
        states, mask = result.require_tokens()
        ids = inputs["input_ids"][inputs["token_mask"]].to(torch.int32)
        return TeacherBatch(rows, pooled, mask.sum(1).cpu().numpy(), states[mask].float().cpu().numpy(), ids.numpy())

    def _forward(self, inputs: dict[str, Tensor], tokens: bool) -> Embeddings:
        embeddings: Embeddings = self.encoder(inputs, tokens)
        return embeddings

    def _load(self) -> TextEncoder:
        return TransformerEncoder(
            self.model,
            pooling=self.pooling,
            max_length=self.max_length,
            query_prefix=self.prefixes["queries"],
            document_prefix=self.prefixes["documents"],
        )

    def _model_key(self) -> str:
        """What the model's files are known by."""
        return _model_key(resolve_model(self.model))


def padded(
    pooled: Tensor,
    states: Sequence[np.ndarray[Any, Any]],
    weights: Sequence[np.ndarray[Any, Any]] | None,
    device: torch.device | str | None,
) -> Embeddings:
    """Token states of different number as one tensor.

    Args:
        pooled: (B, D).
        states: B arrays of (tokens of the text, D), of any float type.
        weights: B arrays of (tokens of the text,), or None.
        device: where the result goes; None is the CPU.

    Returns:
        Float32, zero at padding.
    """
    lengths = np.array([len(state) for state in states])
    mask = torch.from_numpy(np.arange(lengths.max()) < lengths[:, None])
    target, shape = device or "cpu", (len(states), int(lengths.max()))
    dtype = torch.from_numpy(states[0][:0]).dtype
    tokens = host_zeros(*shape, states[0].shape[1], dtype=dtype, device=target)
    spread = None if weights is None else host_zeros(*shape, dtype=torch.float32, device=target)
    for row, state in enumerate(states):
        tokens.numpy()[row, : len(state)] = state
        if spread is not None and weights is not None:
            spread.numpy()[row, : len(state)] = weights[row]
    idf = None if spread is None else to_device(spread, target)
    pooled, mask = to_device(pooled, target), to_device(mask, target)
    return Embeddings(pooled, to_device(tokens, target).float(), mask, weights=idf)


def progress(
    starts: range, what: str, step: int, total: int, unit: str = "texts", least: int = _PROGRESS_FROM
) -> Iterator[int]:
    """The starts of batches, with a progress bar over the texts if they are more than ``least``, a thousand."""
    if total <= least:
        yield from starts
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(f"{what}: encoding {unit}", total=total)
        for start in starts:
            yield start
            bar.update(task, completed=min(start + step, total))


def _ragged(batches: list[TeacherBatch]) -> tuple[list[Any], list[Any]]:
    """Token states and ids of each text, in the order of the batches."""
    states: list[Any] = []
    ids: list[Any] = []
    for batch in batches:
        assert batch.lengths is not None
        assert batch.tokens is not None
        assert batch.ids is not None
        ends = np.cumsum(batch.lengths)[:-1]
        states += np.split(batch.tokens, ends)
        ids += np.split(batch.ids, ends)
    return states, ids


def _automatic_device() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def _model_key(model: str) -> str:
    """What a model's files are known by: a hash of a local folder's content, or the commit on the hub."""
    if not Path(model).is_dir():
        from lightning_modules.models.pretrained import load_config

        return f"{model}@{commit_of(load_config(model))}"
    return folder_hash(Path(model))
