"""A teacher of images made of a locked network and one linear layer into the space of a text encoder.

It is no CLIP: the network stays as it is, as does MiniLM, which reads the texts; the only thing fitted is the layer,
by ridge regression on English captions of images. So it knows what it has seen captions of and little else: drawings of
emoji (``--data starter_images``, some 1,500 captions), or the photographs of one's own folder. The idea of a locked
image tower is LiT's (Zhai et al. 2022); there the text tower is trained, here neither is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from datamodules.flickr30k.files import find_images, read_flickr, require_images
from datamodules.images import image_source
from datamodules.packages import PACKAGES
from datamodules.starter.images import SPLITS, read_pictures
from datamodules.text import hash_share
from foundations.cache import Array, cache_folder, made_once
from foundations.checks import check_choice
from foundations.errors import InputError
from lightning_modules.students.base import TextSide
from lightning_modules.students.tokens import Tokenization
from lightning_modules.teachers.backbones import Backbone, EfficientNetLite0, TimmBackbone
from lightning_modules.teachers.image_head import Captioned, ImageHead, fit_head
from lightning_modules.teachers.images import ImageTeacher
from lightning_modules.teachers.online import OnlineTeacher
from strategies.base import Embeddings

if TYPE_CHECKING:
    from PIL.Image import Image

_LEARNED_FROM = ("@lobehub/fluent-emoji-3d", "cldr-annotations-full", "emojibase-data")
_RECIPE = 1
"""Part of the fingerprint: raise it when the same packages give another layer."""

_STARTER_SIZE, _PHOTOGRAPH_SIZE = 160, 224
_HELD_OUT = 0.1
"""Share of the training photographs that choose the penalty of the layer."""

Captions = Mapping[str, Sequence[str]]
"""Image -> its English captions."""


class LockedImageTeacher(ImageTeacher):
    """A locked network with a linear layer for images, MiniLM for texts; see the module's text.

    A patch is a cell of the network's last feature map (32 x 32 pixels of EfficientNet-Lite0), put through the layer;
    the pooled vector is the mean of the patches, scaled to unit length. The layer is fitted on first use, which takes
    about a minute for the starter's pictures, and kept in the cache folder.

    Args:
        split: the pictures of the starter whose English captions the layer learns: the training half of ``kind`` or
            ``family``. It must be that of the data.
        images: learn the English captions of these photographs instead: a folder in the layout of
            ``--data flickr30k``. Only the training images are used; a tenth of them chooses the penalty of the layer.
        split_lists: with images, a folder with train.txt, val.txt and test.txt in place of the split of Karpathy; see
            `Flickr30kDataModule`.
        backbone: the network: None is EfficientNet-Lite0 of the starter; or any of timm's, see `TimmBackbone`.
        size: EfficientNet-Lite0 sees images scaled to size x size pixels; a multiple of 32 has size / 32 patches a
            side. None is 160 for the starter's pictures, and 224 for photographs.
        batch_size: number of texts or images that are encoded together.
        device: where the models run; ``auto`` is the current GPU if there is one, else the CPU.

    Raises:
        ValueError: an option is out of range.
        InputError: the folder is not there or malformed.
    """

    def __init__(
        self,
        split: str = "kind",
        *,
        images: str | None = None,
        split_lists: str | None = None,
        backbone: str | None = None,
        size: int | None = None,
        batch_size: int = 64,
        device: str = "auto",
    ) -> None:
        super().__init__("starter/minilm", batch_size, device)
        check_choice("split", split, SPLITS)
        if backbone is not None and size is not None:
            raise ValueError(f"size is {size}, expected none with a backbone of timm, which has its own")
        self.split, self.images, self.split_lists = split, images, split_lists
        usual = _STARTER_SIZE if images is None else _PHOTOGRAPH_SIZE
        self.backbone: Backbone = EfficientNetLite0(size or usual) if backbone is None else TimmBackbone(backbone)
        self.texts = OnlineTeacher(self.model, batch_size=batch_size, device=device)
        self._network: nn.Module | None = None
        self._head: ImageHead | None = None

    @property
    def dim(self) -> int:
        """Width of the vectors of the texts."""
        return self.texts.dim

    @property
    def patches(self) -> int:
        """Number of cells of the last feature map."""
        return self.backbone.patches

    @cached_property
    def learned_images(self) -> frozenset[str]:
        """Ids of the images whose captions the layer has learned, so that nobody tests on them."""
        if self.images is None:
            return frozenset(each.id for each in read_pictures(self.split) if each.part == "train")
        return frozenset(path.stem for path in self._photographs)

    @property
    def network(self) -> nn.Module:
        """The frozen network, loaded on first use."""
        if self._network is None:
            self._network = self.backbone.load().to(self.model_device)
        return self._network

    @property
    def head(self) -> ImageHead:
        """The layer, from the cache folder, or fitted now."""
        if self._head is None:
            self._head = self._fitted()
        return self._head

    def load(self) -> None:
        """Load MiniLM."""
        self.texts.load()

    def load_images(self) -> None:
        """Load network and layer."""
        _ = self.network, self.head

    def tokenization(self) -> Tokenization:
        """How queries become tokens, made without loading the model."""
        return self.texts.tokenization()

    def settings(self, side: TextSide = "queries") -> dict[str, Any]:
        """See `ModelTeacher.settings`."""
        learned: Any = {name: PACKAGES[name].version for name in _LEARNED_FROM}
        if self.images is not None:
            learned = self._photographs_key
        head = {"split": self.split, "learned_from": learned, "recipe": _RECIPE}
        return self.texts.settings(side) | self.backbone.settings() | head

    def model_key(self) -> str:
        """See `ModelTeacher.model_key`."""
        return f"{self.texts.model_key()} {self.backbone.key()}"

    def pixels(self, image: Image) -> Tensor:
        """See `ImageTeacher.pixels`."""
        return self.backbone.pixels(image)

    def encode_pixels(self, pixels: Tensor, tokens: bool) -> Embeddings:
        """See `ImageTeacher.encode_pixels`."""
        head = self.head
        cells = self.backbone.cells(self.network, pixels)
        pooled = F.normalize(head(cells.mean(1)), dim=-1)
        if not tokens:
            return Embeddings(pooled)
        return Embeddings(pooled, head(cells), torch.ones(cells.shape[:2], dtype=torch.bool, device=cells.device))

    def text_ids(self, texts: list[str], side: TextSide) -> list[Array]:
        """See `ImageTeacher.text_ids`."""
        return self.texts.token_ids(texts, side)

    def encode_batch(self, texts: list[str], tokens: bool, side: TextSide) -> tuple[Embeddings, Tensor]:
        """See `ModelTeacher.encode_batch`."""
        return self.texts.encode_batch(texts, tokens, side)

    def _fitted(self) -> ImageHead:
        """The layer, fitted by the first process that asks."""
        folder = cache_folder() / "models" / f"locked-image-{self.fingerprint()}"
        made_once(folder, self._write_head, "the layer of the locked-image teacher")
        return ImageHead.load(folder / "head.safetensors")

    def _write_head(self, folder: Path) -> None:
        head = self._fit()
        folder.mkdir()
        head.save(folder / "head.safetensors")
        about = self.settings() | {"strength": head.strength, "dev_mrr": head.dev}
        (folder / "about.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")

    def _fit(self) -> ImageHead:
        train, dev = self._photograph_parts() if self.images is not None else self._starter_parts()
        return fit_head(self._captioned(train), self._captioned(dev))

    def _starter_parts(self) -> tuple[Captions, Captions]:
        pictures = read_pictures(self.split)
        train, dev = (
            {each.image: list(each.captions.values()) for each in pictures if each.part == part}
            for part in ("train", "dev")
        )
        return train, dev

    @cached_property
    def _photographs(self) -> dict[Path, Sequence[str]]:
        """The training photographs with their English captions, in the order of the split."""
        assert self.images is not None
        root = Path(self.images).expanduser()
        train = {image.name: image for image in read_flickr(root, self.split_lists).values() if image.split == "train"}
        folder = find_images(root, None)
        require_images(folder, train)
        return {folder / f"{name}.jpg": image.captions for name, image in train.items()}

    def _photograph_parts(self) -> tuple[Captions, Captions]:
        """What fits the layer, and what chooses its penalty; no photograph of dev or test is in either."""
        parts: tuple[dict[str, Sequence[str]], ...] = ({}, {})
        for path, captions in self._photographs.items():
            parts[hash_share(path.stem, "penalty of the layer") < _HELD_OUT][image_source(path)] = captions
        if not all(parts):
            raise InputError(f"{len(self._photographs)} training images, expected more to fit a layer on", self.images)
        return parts[0], parts[1]

    @cached_property
    def _photographs_key(self) -> str:
        """What the photographs and their captions are known by: names, sizes of the files, captions."""
        digest = hashlib.blake2b(digest_size=16)
        for path, captions in self._photographs.items():
            digest.update(json.dumps([path.name, path.stat().st_size, *captions]).encode())
        return digest.hexdigest()

    @torch.no_grad()
    def _captioned(self, images: Captions) -> Captioned:
        """The features of images, and the vectors of their English captions."""
        parts = [
            self.backbone.cells(self.network, pixels.to(self.model_device)).mean(1).cpu()
            for _, pixels in self.read(list(images), list(range(len(images))))
        ]
        captions = [(row, text) for row, texts in enumerate(images.values()) for text in texts]
        vectors = self.encode([text for _, text in captions]).pooled
        return Captioned(torch.cat(parts), vectors, torch.tensor([row for row, _ in captions]))
