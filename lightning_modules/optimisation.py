"""What goes with the steps of a training run: the optimiser, its learning rates, and the means of what is logged."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

Schedule = Literal["linear", "cosine", "constant"]


def build_optimiser(module: Any, total_steps: int) -> dict[str, Any]:
    """AdamW for the parameters of a `DistillationModule`, and its schedule, which Lightning steps with it."""
    tables = {id(weight) for table in module.student.token_tables() for weight in table.parameters()}
    matrices = (module.matrices or ids_of_matrices(module)) - {
        id(weight) for weight in module.distillation.parameters()
    }
    groups: dict[str, dict[str, Any]] = {
        "tables": {"params": [], "lr": module.embedding_lr, "weight_decay": 0.0},
        "matrices": {"params": [], "lr": module.lr, "weight_decay": module.weight_decay},
        "vectors": {"params": [], "lr": module.lr, "weight_decay": 0.0},
    }
    for weight in module.parameters():
        if weight.requires_grad:
            kind = "tables" if id(weight) in tables else "matrices" if id(weight) in matrices else "vectors"
            groups[kind]["params"].append(weight)
    # A fused optimiser unscales gradients itself, and Lightning cannot clip them then.
    fused = module.trainer.precision != "16-mixed"
    optimiser = AdamW([group for group in groups.values() if group["params"]], fused=fused)
    factor = LambdaLR(
        optimiser, lambda step: learning_rate_factor(step, total_steps, module.warmup_steps, module.schedule)
    )
    return {"optimizer": optimiser, "lr_scheduler": {"scheduler": factor, "interval": "step"}}


def ids_of_matrices(module: nn.Module) -> set[int]:
    """The identities of parameters with two dimensions or more; ask before FSDP makes flat shards of them."""
    return {id(weight) for weight in module.parameters() if weight.ndim >= 2}


def learning_rate_factor(step: int, total_steps: int, warmup_steps: int, schedule: Schedule) -> float:
    """The learning rate after some optimiser steps, as a share of its peak.

    >>> [round(learning_rate_factor(step, 10, 2, "linear"), 2) for step in (0, 1, 2, 6, 10)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    done = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
    if schedule == "linear":
        return 1.0 - done
    return 0.5 * (1.0 + math.cos(math.pi * done)) if schedule == "cosine" else 1.0


class RunningMeans:
    """Means of named scalars over the steps since a point; adding to them does not wait for the device."""

    def __init__(self) -> None:
        self.point = 0
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def start_at(self, point: int) -> None:
        """Begin again, unless it is still the point that they began at."""
        if point != self.point:
            self.point, self.sums, self.counts = point, {}, {}

    def add(self, values: dict[str, Tensor]) -> None:
        """Count the values of one step, detached."""
        for name, value in values.items():
            self.sums[name] = self.sums[name] + value.float() if name in self.sums else value.float()
            self.counts[name] = self.counts.get(name, 0) + 1

    def means(self) -> dict[str, Tensor]:
        """Name -> mean over the steps that had the value."""
        return {name: total / self.counts[name] for name, total in self.sums.items()}

    def state(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return {"point": self.point, "sums": {k: float(v) for k, v in self.sums.items()}, "counts": dict(self.counts)}

    def load(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave."""
        self.point, self.counts = state["point"], dict(state["counts"])
        self.sums = {name: torch.tensor(total) for name, total in state["sums"].items()}
