"""The base of teachers that put images and texts into one space."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from datamodules.images import is_image, load_image
from lightning_modules.students.base import TextSide
from lightning_modules.teachers.online import OnlineTeacher, TeacherBatch, progress
from lightning_modules.vectors import idf_of_ids
from strategies.base import Embeddings

if TYPE_CHECKING:
    from PIL.Image import Image

_THREADS = 8

_PROGRESS_FROM = 200
"""Images take longer than texts, so a bar is shown for fewer of them."""

_PATCH_ID = 0


class ImageTeacher(OnlineTeacher):
    """A teacher that reads texts and images (`datamodules.images`), also in one list.

    The tokens of an image are its patches; all of them are real, and share the token id 0, which the IDF of texts does
    not matter to: padding has it. With `fit_idf` every patch has the same weight, 1 where all the texts are images.
    """

    def __init__(self, model: str, **options: Any) -> None:
        super().__init__(model, **options)
        self._idf: np.ndarray[Any, Any] = np.empty(0, dtype=np.float32)

    @property
    def reads_images(self) -> bool:
        """Yes."""
        return True

    @property
    @abstractmethod
    def patches(self) -> int:
        """Number of patches of an image, known without loading the model where that is possible."""

    @abstractmethod
    def load_images(self) -> None:
        """Load what images need, before threads use it."""

    @abstractmethod
    def _pixels(self, image: Image) -> Tensor:
        """An image as the model reads it, (3, H, W), float32; called in several threads."""

    @abstractmethod
    def _see(self, pixels: Tensor, tokens: bool) -> Embeddings:
        """The vectors of images.

        Args:
            pixels: (B, 3, H, W), float32, on the device that the model runs on.
            tokens: whether to give the patches as well, with a mask of True.
        """

    @abstractmethod
    def _ids(self, texts: list[str], side: TextSide) -> list[np.ndarray[Any, Any]]:
        """The ids of the real tokens of texts, each (tokens of the text,)."""

    @property
    def idf(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """See `OnlineTeacher.idf`."""
        return self._idf

    def encode_batches(self, texts: Sequence[str], tokens: bool, side: TextSide = "queries") -> Iterator[TeacherBatch]:
        """Encode many texts, then many images; see `OnlineTeacher.encode_batches`.

        Raises:
            ValueError: there are no texts.
            InputError: an image is missing or damaged.
        """
        if not texts:
            raise ValueError("there are no texts to encode")
        images = [row for row, text in enumerate(texts) if is_image(text)]
        written = [row for row, text in enumerate(texts) if not is_image(text)]
        if written:
            for batch in super().encode_batches([texts[row] for row in written], tokens, side):
                yield replace(batch, rows=[written[row] for row in batch.rows])
        if images:
            self.load_images()
        for rows, pixels in self._read(texts, images):
            yield self._image_batch(rows, pixels, tokens)

    def fit_idf(self, texts: Sequence[str], side: TextSide = "queries") -> None:
        """Compute the IDF of each token; see `Teacher.fit_idf`."""
        written = [text for text in texts if not is_image(text)]
        patch = np.array([_PATCH_ID])
        ids = self._ids(written, side) if written else []
        self._idf = idf_of_ids(ids + [patch] * (len(texts) - len(written)), len(texts))

    def mean_length(self, texts: Sequence[str], side: TextSide = "queries") -> float:
        """Mean number of real tokens, or of patches."""
        written = [text for text in texts if not is_image(text)]
        words = sum(len(ids) for ids in self._ids(written, side)) if written else 0
        return (words + self.patches * (len(texts) - len(written))) / len(texts)

    def _read(self, texts: Sequence[str], rows: list[int]) -> Iterator[tuple[list[int], Tensor]]:
        """Batches of images, the next one read by other threads while one is used."""
        starts = range(0, len(rows), self.batch_size)
        with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:

            def begin(start: int) -> list[Future[Tensor]]:
                chosen = rows[start : start + self.batch_size]
                return [pool.submit(lambda text: self._pixels(load_image(text)), texts[row]) for row in chosen]

            following = begin(0)
            for start in progress(starts, "teacher", self.batch_size, len(rows), "images", _PROGRESS_FROM):
                images, following = following, begin(start + self.batch_size)
                yield rows[start : start + self.batch_size], torch.stack([image.result() for image in images])

    @torch.no_grad()
    def _image_batch(self, rows: list[int], pixels: Tensor, tokens: bool) -> TeacherBatch:
        with torch.autocast(self.place.type, enabled=False):
            found = self._see(pixels.to(self.place), tokens)
        pooled = found.pooled.float().cpu().numpy()
        if not tokens:
            return TeacherBatch(rows, pooled)
        states, _ = found.require_tokens()
        patches = states.shape[1]
        lengths = np.full(len(rows), patches, dtype=np.int64)
        ids = np.full(len(rows) * patches, _PATCH_ID, dtype=np.int32)
        return TeacherBatch(rows, pooled, lengths, states.flatten(0, 1).float().cpu().numpy(), ids)
