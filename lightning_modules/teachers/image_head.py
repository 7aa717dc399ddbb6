"""A linear layer from image features into a space of texts, fitted in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

STRENGTHS = tuple(10 ** (half / 2) for half in range(2, 12))
"""Ridge penalties to choose from, for standardised features: 10 to 300,000."""


@dataclass(frozen=True)
class Captioned:
    """Images with captions, as numbers.

    Args:
        features: of the images, (N, F).
        vectors: unit vectors of the captions, (M, D).
        images: the row of the image that each caption belongs to, (M,), int64.
    """

    features: Tensor
    vectors: Tensor
    images: Tensor


@dataclass(frozen=True)
class ImageHead:
    """The layer: features @ weight + bias.

    Args:
        weight: (F, D), float32.
        bias: (D,), float32.
        strength: the ridge penalty that was chosen.
        dev: its mean reciprocal rank on the dev images, each caption asking for its image.
    """

    weight: Tensor
    bias: Tensor
    strength: float
    dev: float

    def __call__(self, features: Tensor) -> Tensor:
        """Features (..., F) in the space of the texts, (..., D), not normalised."""
        return features @ self.weight.to(features.device) + self.bias.to(features.device)

    def save(self, path: Path) -> None:
        """Write it as safetensors."""
        about = {"strength": repr(self.strength), "dev": repr(self.dev)}
        save_file({"weight": self.weight.contiguous(), "bias": self.bias}, path, metadata=about)

    @classmethod
    def load(cls, path: Path) -> ImageHead:
        """Read what `save` wrote."""
        with safe_open(path, framework="pt") as file:
            about = file.metadata()
            return cls(
                file.get_tensor("weight"), file.get_tensor("bias"), float(about["strength"]), float(about["dev"])
            )


def fit_head(train: Captioned, dev: Captioned) -> ImageHead:
    """Ridge regression from images to the vectors of their captions.

    Minimises the squared distance between W z + b and the vector of each caption of an image with the standardised
    features z, plus a penalty on the squares of W. The penalty is the one with the best mean reciprocal rank on
    the dev images. Computed in float64; the same input gives the same layer.

    Args:
        train: what to fit.
        dev: what to choose the penalty by.
    """
    features, vectors = train.features.double(), train.vectors.double()
    rows = features[train.images]
    centre, scale = rows.mean(0), rows.std(0).clamp(min=1e-3)
    goal = vectors.mean(0)
    rows = (rows - centre) / scale
    values, basis = torch.linalg.eigh(rows.T @ rows)
    projected = basis.T @ (rows.T @ (vectors - goal))
    heads = []
    for strength in STRENGTHS:
        weight = (basis @ (projected / (values.clamp(min=0) + strength)[:, None])) / scale[:, None]
        head = ImageHead(weight.float(), (goal - centre @ weight).float(), strength, 0.0)
        heads.append(ImageHead(head.weight, head.bias, strength, mean_reciprocal_rank(head, dev)))
    return max(heads, key=lambda head: head.dev)


def mean_reciprocal_rank(head: ImageHead, captioned: Captioned) -> float:
    """How well captions find their images; ties count against the image."""
    scores = F.normalize(captioned.vectors.float(), dim=-1) @ F.normalize(head(captioned.features.float()), dim=-1).T
    correct = scores.gather(1, captioned.images[:, None])
    return float((1 / (scores >= correct).sum(1)).mean())
