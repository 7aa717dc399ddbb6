"""Tensors on their way from the host to a GPU, without a wait."""

from __future__ import annotations

import torch
from torch import Tensor


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
