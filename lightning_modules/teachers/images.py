"""The base of teachers that put images and texts into one space."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from datamodules.images import is_image, load_image
from foundations.cache import Array
from foundations.progress import delayed_progress
from lightning_modules.students.base import TextSide
from lightning_modules.teachers.base import EncodedBatch, ModelTeacher
from strategies.base import Embeddings

if TYPE_CHECKING:
    from PIL.Image import Image

_THREADS = 8
_PATCH_ID = 0


class ImageTeacher(ModelTeacher):
    """A teacher that reads texts and images (`datamodules.images`), also in one list.

    The tokens of an image are its patches; all of them are real, and share the token id 0, which the IDF of texts does
    not matter to: padding has it. With `fit_idf` every patch has the same weight, 1 where all the texts are images.
    """

    @property
    @abstractmethod
    def patches(self) -> int:
        """Number of patches of an image, known without loading the model where that is possible."""

    @abstractmethod
    def load_images(self) -> None:
        """Load what images need, before threads use it."""

    @abstractmethod
    def text_ids(self, texts: list[str], side: TextSide) -> list[Array]:
        """The ids of the real tokens of texts, each (tokens of the text,)."""

    @abstractmethod
    def pixels(self, image: Image) -> Tensor:
        """An image as the model reads it, (3, H, W), float32; called in several threads."""

    @abstractmethod
    def encode_pixels(self, pixels: Tensor, tokens: bool) -> Embeddings:
        """The vectors of images.

        Args:
            pixels: (B, 3, H, W), float32, on the device that the model runs on.
            tokens: whether to give the patches as well, with a mask of True.
        """

    def token_ids(self, texts: Sequence[str], side: TextSide = "queries") -> list[Array]:
        """See `ModelTeacher.token_ids`."""
        written = [text for text in texts if not is_image(text)]
        ids = iter(self.text_ids(written, side) if written else [])
        patches = np.full(self.patches if len(written) < len(texts) else 0, _PATCH_ID)
        return [patches if is_image(text) else next(ids) for text in texts]

    def encode_batches(self, texts: Sequence[str], tokens: bool, side: TextSide = "queries") -> Iterator[EncodedBatch]:
        """Encode many texts, then many images; see `ModelTeacher.encode_batches`.

        Raises:
            ValueError: there are no texts.
            InputError: an image is missing or damaged.
        """
        images = [row for row, text in enumerate(texts) if is_image(text)]
        written = [row for row, text in enumerate(texts) if not is_image(text)]
        if written or not images:
            for batch in super().encode_batches([texts[row] for row in written], tokens, side):
                yield replace(batch, rows=[written[row] for row in batch.rows])
        if images:
            self.load_images()
        for rows, pixels in self.read(texts, images):
            with torch.no_grad(), torch.autocast(self.model_device.type, enabled=False):
                embeddings = self.encode_pixels(pixels.to(self.model_device), tokens)
            ids = torch.full(embeddings.tokens.shape[:2], _PATCH_ID) if embeddings.tokens is not None else None
            yield EncodedBatch(rows, embeddings, ids)

    def read(self, texts: Sequence[str], rows: list[int]) -> Iterator[tuple[list[int], Tensor]]:
        """Batches of images, the next one read by other threads while one is used.

        Args:
            texts: images, among others.
            rows: the positions of those to read.

        Yields:
            The positions of B images, and their pixels, (B, 3, H, W).
        """
        size = self.batch_size
        with (
            ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool,
            delayed_progress("teacher: encode images", len(rows)) as advance,
        ):

            def begin(start: int) -> list[Future[Tensor]]:
                chosen = rows[start : start + size]
                return [pool.submit(lambda text: self.pixels(load_image(text)), texts[row]) for row in chosen]

            following = begin(0)
            for start in range(0, len(rows), size):
                images, following = following, begin(start + size)
                yield rows[start : start + size], torch.stack([image.result() for image in images])
                advance(len(images))
