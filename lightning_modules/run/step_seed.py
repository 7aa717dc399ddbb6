"""Randomness as a function of the step, so that a resumed run goes on as if it had not stopped."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer


class StepSeed(Callback):
    """Seeds torch's generator before each training batch, from seed, rank and the number of the batch.

    Dropout is then the same in a run that was killed and resumed as in one that was not, on any rank, and no
    generator state has to be saved.

    Args:
        seed: seed of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Seed for this batch."""
        number = trainer.fit_loop.epoch_loop.batch_progress.total.ready
        digest = hashlib.sha256(f"{self.seed} {trainer.global_rank} {number}".encode()).digest()
        torch.manual_seed(int.from_bytes(digest[:7], "big"))
