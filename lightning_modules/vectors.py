"""Vectors of texts: means and projections of token states, batches of them as one, and how rare a token is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from foundations.errors import InputError
from retrieval.index.tokens import TokenMatrix
from strategies.base import Embeddings
from strategies.functional import Marginals, token_weights

PROJECTION = "1_Dense/model.safetensors"
"""The projection's file in the folder of a late-interaction model of sentence-transformers."""


def idf_of_ids(texts: Iterable[np.ndarray[Any, Any]], size: int = 0) -> np.ndarray[Any, Any]:
    """Inverse document frequency of each token id, log((1 + N) / (1 + n)) + 1 for an id in n of N texts.

    Args:
        texts: the ids of each text, (tokens of the text,), integers.
        size: number V of ids; 0 is the highest id that a text holds, and two more.

    Returns:
        (V,), float32; the last serves all ids that are out of range.
    """
    counts, total = np.zeros(size, dtype=np.int64), 0
    for ids in texts:
        unique = np.unique(ids)
        if unique[-1] + 1 >= len(counts) and not size:
            counts = np.pad(counts, (0, int(unique[-1]) + 2 - len(counts)))
        counts[unique] += 1
        total += 1
    idf: np.ndarray[Any, Any] = (torch.log((1 + total) / (1 + torch.from_numpy(counts).double())) + 1).float().numpy()
    return idf


def projected(embeddings: Embeddings, layer: nn.Module) -> Embeddings:
    """Pooled vectors and token states after a linear layer, the pooled ones scaled to unit length again."""
    if isinstance(layer, nn.Identity):
        return embeddings
    states = None if embeddings.tokens is None else layer(embeddings.tokens)
    return replace(embeddings, pooled=F.normalize(layer(embeddings.pooled).float(), dim=-1), tokens=states)


def start_projection(layer: nn.Linear, path: Path) -> None:
    """Start a projection from a file, or, where there is none, as a random rotation, which nearly keeps angles.

    Args:
        layer: without bias.
        path: of the file in a late-interaction model, which need not exist.

    Raises:
        InputError: the file holds a matrix of another shape, or none.
    """
    if not path.is_file():
        nn.init.orthogonal_(layer.weight)
        return
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weight = load_file(path)["linear.weight"]
    except (SafetensorError, KeyError) as error:
        raise InputError(f"has no matrix named linear.weight ({type(error).__name__})", path) from error
    if weight.shape != layer.weight.shape:
        raise InputError(f"holds {tuple(weight.shape)}, expected {tuple(layer.weight.shape)}: set output_dim", path)
    layer.weight.data.copy_(weight)


def masked_mean(states: Tensor, mask: Tensor) -> Tensor:
    """Mean of the states where the mask is True, in float32.

    Args:
        states: (B, T, D).
        mask: weights, bool or >= 0; (B, T).

    Returns:
        (B, D); zero where the mask has no True.
    """
    weights = mask.to(torch.float32)[..., None]
    return (states.float() * weights).sum(1) / weights.sum(1).clamp(min=1e-9)


def joined(parts: Sequence[Embeddings]) -> Embeddings:
    """The texts of several batches, one after the other, padded with zeros to the same number of tokens.

    Args:
        parts: at least one; what any of them lacks is left out.
    """
    pooled = torch.cat([part.pooled for part in parts])
    length = max((part.mask.shape[1] for part in parts if part.mask is not None), default=0)
    columns: dict[str, Tensor] = {}
    for name in ("tokens", "mask", "weights", "types"):
        values = [value for part in parts if (value := getattr(part, name)) is not None]
        if len(values) == len(parts):
            pads = [(0, 0) * (value.ndim - 2) + (0, length - value.shape[1]) for value in values]
            columns[name] = torch.cat([F.pad(value, pad) for value, pad in zip(values, pads, strict=True)])
    return Embeddings(pooled, **columns)


def in_chunks(
    tokenize: Callable[[Sequence[str]], dict[str, Tensor]],
    encode: Callable[[dict[str, Tensor]], Embeddings],
    texts: Sequence[str],
    size: int,
) -> Embeddings:
    """The vectors of a batch in the memory of a chunk: the backward pass makes its activations again, chunk by chunk.

    A loss over the whole batch gets the gradient of the whole batch, for one more forward pass (GradCache, Gao et al.
    2021, arXiv 2101.06983). Each chunk is one of ``torch.utils.checkpoint``, which repeats dropout; a weight gets
    its gradient once, when the last chunk is done, so that DDP reduces it once.

    Args:
        tokenize: gives the inputs of some texts; it is called once for each.
        encode: gives the vectors of some inputs.
        texts: B texts.
        size: texts in a chunk; 0 is all of them, as it is where no gradient is asked for.
    """
    if not 0 < size < len(texts) or not torch.is_grad_enabled():
        return encode(tokenize(texts))
    chunks = (tokenize(texts[start : start + size]) for start in range(0, len(texts), size))
    return joined([checkpoint(encode, chunk, use_reentrant=False) for chunk in chunks])


def without_gaps(embeddings: Embeddings) -> Embeddings:
    """The real tokens first, in their order, and zeros behind them; no longer than the longest text.

    Args:
        embeddings: with tokens (B, T, D) and mask; the mask may have gaps.
    """
    states, mask = embeddings.require_tokens()
    order = mask.int().argsort(dim=1, descending=True, stable=True)[:, : int(mask.sum(1).max())]
    mask, rows = mask.gather(1, order), torch.arange(len(mask), device=mask.device)[:, None]
    weights = None if embeddings.weights is None else embeddings.weights[rows, order] * mask
    return replace(embeddings, tokens=states[rows, order] * mask[..., None], mask=mask, weights=weights, types=None)


def selected(embeddings: Embeddings, rows: Tensor) -> Embeddings:
    """Some of the texts, in the order given, or for an index (B, N) lists of them.

    Args:
        embeddings: N texts.
        rows: their positions, on the same device.
    """
    columns: dict[str, Any] = {field.name: getattr(embeddings, field.name) for field in fields(Embeddings)}
    columns = {name: None if value is None else value[rows] for name, value in columns.items()}
    return Embeddings(**columns)


def on_device(embeddings: Embeddings, device: torch.device | str) -> Embeddings:
    """The vectors on another device; see `to_device`."""
    columns: dict[str, Any] = {field.name: getattr(embeddings, field.name) for field in fields(Embeddings)}
    columns = {name: None if value is None else to_device(value, device) for name, value in columns.items()}
    return Embeddings(**columns)


def unit_token_matrix(embeddings: Embeddings, kind: Marginals = "uniform") -> TokenMatrix:
    """The real tokens of some texts for MaxSim: unit vectors in half precision, on the CPU.

    Args:
        embeddings: with tokens (B, T, D) and their mask.
        kind: what each token counts where these are queries, see `strategies.functional.token_weights`.

    Raises:
        InputError: IDF weights of an encoder without them.
        ValueError: there are no token states.
    """
    states, mask = embeddings.require_tokens()
    if kind == "idf" and embeddings.weights is None:
        raise InputError(
            "token_weights is idf, but the checkpoint holds no IDF of the tokens: it is older than this option, or of "
            "a teacher that cannot count; expected norm or uniform"
        )
    weights = None if kind == "uniform" else token_weights(embeddings, kind).detach().cpu()
    return TokenMatrix.from_padded(F.normalize(states.detach().float(), dim=-1).half().cpu(), mask.cpu(), weights)


def to_device(tensor: Tensor, device: torch.device | str) -> Tensor:
    """A tensor on a device; the copy to a GPU is queued behind the work that it has, and the host goes on.

    A plain ``.to`` waits until the GPU has done all that it was given, so that the host could not prepare the next
    step while the GPU works at this one.

    Args:
        tensor: on the CPU, in pinned memory or not.
        device: where it goes.
    """
    device = torch.device(device)
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return (tensor if tensor.is_pinned() else tensor.pin_memory()).to(device, non_blocking=True)


def host_zeros(*shape: int, dtype: torch.dtype, device: torch.device | str) -> Tensor:
    """Zeros on the host, to be filled and sent to a device: in pinned memory if that is a GPU.

    Args:
        shape: of the tensor.
        dtype: of its elements.
        device: where it will go.
    """
    return torch.zeros(shape, dtype=dtype, pin_memory=torch.device(device).type == "cuda")
