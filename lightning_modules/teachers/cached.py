"""A teacher that answers from disk."""

from __future__ import annotations

import random
import shutil
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from foundations.cache import Array, cache_folder, locked
from foundations.checks import check_choice
from foundations.errors import InputError
from foundations.files import read_json, write_json
from foundations.progress import delayed_progress
from lightning_modules.students.base import TextSide
from lightning_modules.students.vocabulary import chunks
from lightning_modules.teachers.base import EncodedBatch, ModelTeacher, Teacher, WrappedTeacher
from lightning_modules.teachers.store import TeacherStore, text_keys
from lightning_modules.vectors import host_zeros, idf_of_ids, to_device
from strategies.base import Embeddings

TokenDtype = Literal["float16", "float32"]
_SEGMENT_BYTES, _SEGMENT_SECONDS = 2**30, 60.0
_SLICE = 16
"""Batches that are looked up together: after each slice, what other processes wrote meanwhile is left out."""
_ANNOUNCED_BYTES = 10**9
_SAMPLE = 1000
_BLOCK = 65536


class CachedTeacher(WrappedTeacher):
    """Keeps what a teacher gave on disk, so that a second run loads no model.

    Vectors are stored under the fingerprint of the model's files and settings, by the hash of the text; token
    states apart from pooled vectors, which need much less space. They are mapped into memory, not read, and always
    given back from disk: the first run and later ones see the same bits. A segment is written every minute at the
    latest, or with each gigabyte, so a killed process loses at most that. Where a text has other vectors as a query
    than as a document, the sides have folders of their own.

    Processes with the same teacher do not wait for each other: each writes segments of its own, and leaves out what
    the others have written. Each takes the texts in an order of its own, so that those with the same texts share the
    work; what two encode within the same minute is stored twice, and the older vectors count.

    Args:
        teacher: the teacher whose vectors to keep.
        cache_dir: folder; None is ``teacher`` in the cache folder (POTSTILL_CACHE, by default ``~/.cache/potstill``).
        token_dtype: type of the token states on disk.

    Raises:
        ValueError: an unknown type.
    """

    teacher: ModelTeacher

    def __init__(
        self, teacher: ModelTeacher, cache_dir: str | None = None, token_dtype: TokenDtype = "float16"
    ) -> None:
        check_choice("token_dtype", token_dtype, get_args(TokenDtype))
        super().__init__(teacher)
        self.cache_dir, self.token_dtype = cache_dir, token_dtype
        self._folders: dict[TextSide, Path] = {}
        self._stores: dict[tuple[bool, TextSide], TeacherStore] = {}

    @property
    def folder(self) -> Path:
        """Where the vectors of this model with these settings lie, those of queries if the sides differ."""
        return self.folder_of("queries")

    def folder_of(self, side: TextSide) -> Path:
        """Where the vectors of one side lie."""
        if side not in self._folders:
            root = cache_folder() / "teacher" if self.cache_dir is None else Path(self.cache_dir).expanduser()
            self._folders[side] = root / self.teacher.fingerprint(side)
        return self._folders[side]

    @property
    def uncached(self) -> Teacher:
        """The teacher whose vectors it keeps."""
        return self.teacher

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        about = self.folder / "about.json"
        if not about.is_file():
            return self.teacher.dim
        try:
            return int(read_json(about)["dim"])
        except (ValueError, KeyError, TypeError) as error:
            warnings.warn(f"{about}: ignored and written again: {error}", stacklevel=2)
            self._describe("queries")
            return self.teacher.dim

    def prepare(self, texts: Iterable[str], tokens: bool, side: TextSide = "queries") -> None:
        """Encode the texts that are not on disk yet: a sequence as a whole, another iterable in blocks of 65,536.

        Raises:
            InputError: the disk has too little room.
        """
        parts = [texts] if isinstance(texts, Sequence) else chunks(texts, _BLOCK)
        blocks = (list(dict.fromkeys(part)) for part in parts)
        for block in blocks:
            if missing := self._missing(block, tokens, side):
                with self._locked(tokens, side):
                    pass  # a folder that cannot be written is an error before anything is encoded
                self._write(chain([missing], blocks), tokens, side)

    def encode(
        self,
        texts: list[str],
        tokens: bool = False,
        device: torch.device | str | None = None,
        side: TextSide = "queries",
    ) -> Embeddings:
        """Look texts up, and encode and store those that are new; see `Teacher.encode`.

        Where ``stores_new`` is off, a batch with a new text is encoded as a whole, and nothing of it is stored.
        """
        if not texts:
            raise ValueError("there are no texts to encode")
        keys = text_keys(texts)
        if (self._locate(keys, tokens, side)[0] < 0).any():
            if not self.stores_new:
                return self.teacher.encode(texts, tokens, device, side)
            self.prepare(texts, tokens, side)
        rows, stores = self._locate(keys, tokens, side)
        if not tokens:
            return Embeddings(to_device(torch.from_numpy(self._pooled(rows, stores, side)), device or "cpu"))
        store = self._store(True, side)
        weights, idf = None, self.teacher.idf
        if len(idf):
            weights = [idf[np.minimum(ids, len(idf) - 1)] for ids in store.ragged("ids", rows)]
        return padded_embeddings(torch.from_numpy(store.pooled(rows)), store.ragged("tokens", rows), weights, device)

    def fit_idf(self, texts: Sequence[str], side: TextSide = "queries") -> None:
        """Compute the IDF of each token, from the stored ids if texts are stored; see `Teacher.fit_idf`."""
        if not self.stores_new:
            self.teacher.fit_idf(texts, side)
            return
        self.prepare(texts, tokens=True, side=side)
        store = self._store(True, side)
        self.teacher.idf = idf_of_ids(store.ragged("ids", store.find(text_keys(texts))))

    def _store(self, tokens: bool, side: TextSide) -> TeacherStore:
        if (tokens, side) not in self._stores:
            name = f"tokens-{self.token_dtype}" if tokens else "pooled"
            self._stores[tokens, side] = TeacherStore(self.folder_of(side) / name)
        return self._stores[tokens, side]

    def _locate(self, keys: Array, tokens: bool, side: TextSide) -> tuple[Array, Array]:
        """Row of each text, -1 where it is nowhere, and whether the row is in the store with tokens.

        Pooled vectors are looked for in both stores.
        """
        rows = self._store(tokens, side).find(keys)
        with_tokens = np.full(len(keys), tokens)
        if not tokens and (rows < 0).any():
            others = self._store(True, side).find(keys)
            with_tokens = (rows < 0) & (others >= 0)
            rows = np.where(with_tokens, others, rows)
        return rows, with_tokens

    def _pooled(self, rows: Array, with_tokens: Array, side: TextSide) -> Array:
        if not with_tokens.any():
            return self._store(False, side).pooled(rows)
        if with_tokens.all():
            return self._store(True, side).pooled(rows)
        result = np.empty((len(rows), self.dim), dtype=np.float32)
        for tokens in (False, True):
            here = with_tokens == tokens
            result[here] = self._store(tokens, side).pooled(rows[here])
        return result

    def _missing(self, texts: Sequence[str], tokens: bool, side: TextSide) -> list[str]:
        rows, _ = self._locate(text_keys(texts), tokens, side)
        return [texts[index] for index in np.flatnonzero(rows < 0).tolist()]

    @contextmanager
    def _locked(self, tokens: bool, side: TextSide) -> Iterator[TeacherStore]:
        """The store as it is now, without what killed processes left, while no other process writes to it."""
        store = self._store(tokens, side)
        with locked(store.folder / ".lock", f"writes vectors of {self.teacher.model}"):
            store.refresh()
            store.clean()
            yield store

    def _write(self, blocks: Iterable[list[str]], tokens: bool, side: TextSide) -> None:
        """Encode what is missing of some blocks of texts, and write a segment for each gigabyte or minute."""
        columns: dict[str, list[Array]] = {}
        size, begun, unwritten = 0, time.monotonic(), set[bytes]()
        for block in blocks:
            missing = self._missing(block, tokens, side)
            keyed = zip(missing, text_keys(missing).tolist(), strict=True)
            texts = [text for text, key in keyed if key not in unwritten]
            if not texts:
                continue
            self._check_room(texts, tokens, side)
            self._describe(side)
            for keys, batch in self._encoded(texts, tokens, side):
                for name, part in self._columns(batch, keys).items():
                    columns.setdefault(name, []).append(part)
                    size += part.nbytes
                unwritten.update(columns["keys"][-1].tolist())
                if size >= _SEGMENT_BYTES or time.monotonic() - begun >= _SEGMENT_SECONDS:
                    self._keep(columns, tokens, side)
                    columns, size, begun, unwritten = {}, 0, time.monotonic(), set()
        if columns:
            self._keep(columns, tokens, side)

    def _encoded(self, texts: list[str], tokens: bool, side: TextSide) -> Iterator[tuple[Array, EncodedBatch]]:
        """Encode texts, but for those that another process writes before their turn, with a progress bar.

        Yields:
            The keys of a slice of the texts, and a batch with rows in it.
        """
        texts, width = sorted(texts, key=len, reverse=True), _SLICE * self.teacher.batch_size
        starts = list(range(width, len(texts), width))
        random.SystemRandom().shuffle(starts)
        with delayed_progress("teacher: encode", len(texts)) as advance:
            for start in [0, *starts]:  # the longest first: if they need too much memory, that is known at once
                self._store(tokens, side).refresh()
                part = texts[start : start + width]
                left = self._missing(part, tokens, side)
                advance(len(part) - len(left))
                keys = text_keys(left)
                for batch in self.teacher.encode_batches(left, tokens, side) if left else ():
                    yield keys, batch
                    advance(len(batch.rows))

    def _keep(self, columns: dict[str, list[Array]], tokens: bool, side: TextSide) -> None:
        """Write a segment, unless others have written all of its texts."""
        with self._locked(tokens, side) as store:
            if (store.find(np.concatenate(columns["keys"])) < 0).any():
                store.write(**columns)

    def _columns(self, batch: EncodedBatch, keys: Array) -> dict[str, Array]:
        """A batch in the format of a `Segment`, with ``lengths`` for the offsets."""
        columns: dict[str, Array] = {
            "keys": keys[batch.rows],
            "pooled": batch.embeddings.pooled.float().cpu().numpy(),
        }
        if batch.ids is not None:
            states, mask = batch.embeddings.require_tokens()
            columns["lengths"] = mask.sum(1).cpu().numpy()
            columns["tokens"] = states[mask].float().cpu().numpy().astype(self.token_dtype)
            columns["ids"] = batch.ids[mask.cpu()].to(torch.int32).numpy()
        return columns

    def _check_room(self, texts: list[str], tokens: bool, side: TextSide) -> None:
        """Say how much a large cache will need, and refuse where the disk has less."""
        dim, length = self.teacher.dim, 0.0
        if tokens:
            sample = texts[:: -(-len(texts) // _SAMPLE)]
            length = self.teacher.mean_length(sample, side)
        item = np.dtype(self.token_dtype).itemsize
        needed = int(len(texts) * (dim * 4 + 16 + length * (dim * item + 4)))
        free = shutil.disk_usage(self.folder_of(side)).free
        what = f"{len(texts)} texts x ({dim} x 4" + (f" + {length:.1f} tokens x {dim} x {item}" if tokens else "")
        if needed > free:
            raise InputError(
                f"the teacher's vectors need {needed / 1e9:.1f} GB ({what}) bytes), but only {free / 1e9:.1f} GB "
                "are free: free some space, or set cache_dir or POTSTILL_CACHE to another disk",
                self.folder_of(side),
            )
        if needed > _ANNOUNCED_BYTES:
            print(f"teacher cache: {what}) bytes = {needed / 1e9:.1f} GB in {self.folder_of(side)}", file=sys.stderr)

    def _describe(self, side: TextSide) -> None:
        """Say in ``about.json`` what the folder is for; it also holds the width, which needs no model then."""
        about: dict[str, Any] = self.teacher.settings(side) | {"dim": self.teacher.dim}
        write_json(self.folder_of(side) / "about.json", about)


def padded_embeddings(
    pooled: Tensor, states: Sequence[Array], weights: Sequence[Array] | None, device: torch.device | str | None
) -> Embeddings:
    """Token states of different number as one tensor.

    Args:
        pooled: (B, D).
        states: B arrays of (tokens of the text, D), of any float type; they may be read-only.
        weights: B arrays of (tokens of the text,), or None.
        device: where the result goes; None is the CPU.

    Returns:
        Float32, zero at padding.
    """
    lengths = np.array([len(state) for state in states])
    mask = torch.from_numpy(np.arange(lengths.max()) < lengths[:, None])
    target, shape = device or "cpu", (len(states), int(lengths.max()))
    dtype = torch.from_numpy(np.empty(0, dtype=states[0].dtype)).dtype
    tokens = host_zeros(*shape, states[0].shape[1], dtype=dtype, device=target)
    spread = None if weights is None else host_zeros(*shape, dtype=torch.float32, device=target)
    for row, state in enumerate(states):
        tokens.numpy()[row, : len(state)] = state
        if spread is not None and weights is not None:
            spread.numpy()[row, : len(state)] = weights[row]
    idf = None if spread is None else to_device(spread, target)
    pooled, mask = to_device(pooled, target), to_device(mask, target)
    return Embeddings(pooled, to_device(tokens, target).float(), mask, weights=idf)
