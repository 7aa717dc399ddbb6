"""Training steps without a trainer."""

from __future__ import annotations

import torch

from datamodules.pairs import PairBatch
from lightning_modules.distillation import DistillationModule


def losses_of_steps(module: DistillationModule, batch: PairBatch, steps: int = 20) -> list[float]:
    """The losses of some steps of Adam on one batch."""
    optimiser = torch.optim.Adam(module.parameters(), lr=0.01)
    losses = []
    for _ in range(steps):
        loss = module.training_step(batch, 0)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses
