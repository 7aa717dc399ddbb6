"""AdamW, its parameter groups, and the schedule of the learning rates."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

if TYPE_CHECKING:
    from lightning_modules.distillation import DistillationModule

Schedule = Literal["linear", "cosine", "constant"]


def build_optimiser(module: DistillationModule, total_steps: int) -> dict[str, Any]:
    """What ``configure_optimizers`` returns.

    Args:
        module: gives the parameters and the options.
        total_steps: optimiser steps of the whole run.

    Returns:
        A fused AdamW, and its schedule, which Lightning steps after each optimiser step.
    """
    tables = {id(weight) for table in module.student.token_tables() for weight in table.parameters()}
    strategy = {id(weight) for weight in module.distillation.parameters()}
    matrices = module.matrices or ids_of_matrices(module)
    groups: dict[str, list[nn.Parameter]] = {"tables": [], "matrices": [], "others": []}
    for weight in module.parameters():
        if weight.requires_grad:
            plain = id(weight) not in matrices or id(weight) in strategy
            groups["tables" if id(weight) in tables else "others" if plain else "matrices"].append(weight)
    rates = {"tables": module.embedding_lr, "matrices": module.lr, "others": module.lr}
    decay = {"tables": 0.0, "matrices": module.weight_decay, "others": 0.0}
    # A fused optimiser unscales gradients itself, and Lightning cannot clip them then.
    fused = module.trainer.precision != "16-mixed"
    optimiser = AdamW(
        [
            {"params": weights, "lr": rates[name], "weight_decay": decay[name]}
            for name, weights in groups.items()
            if weights
        ],
        fused=fused,
    )
    factor = LambdaLR(
        optimiser, lambda step: learning_rate_factor(step, total_steps, module.warmup_steps, module.schedule)
    )
    return {"optimizer": optimiser, "lr_scheduler": {"scheduler": factor, "interval": "step"}}


def ids_of_matrices(module: nn.Module) -> set[int]:
    """The identities of parameters with two dimensions or more; ask before FSDP makes flat shards of them."""
    return {id(weight) for weight in module.parameters() if weight.ndim >= 2}


def learning_rate_factor(step: int, total_steps: int, warmup_steps: int, schedule: Schedule) -> float:
    """The learning rate of a step, as a share of its peak.

    Args:
        step: optimiser steps done.
        total_steps: optimiser steps of the run.
        warmup_steps: steps of linear rise.
        schedule: what follows it.

    >>> [round(learning_rate_factor(step, 10, 2, "linear"), 2) for step in (0, 1, 2, 6, 10)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    done = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
    if schedule == "linear":
        return 1.0 - done
    return 0.5 * (1.0 + math.cos(math.pi * done)) if schedule == "cosine" else 1.0
