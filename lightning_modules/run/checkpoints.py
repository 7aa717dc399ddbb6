"""Checkpoints of a run: the best one, and the last one."""

from __future__ import annotations

import pickle
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from foundations.errors import InputError


class Checkpoint(ModelCheckpoint):
    """One checkpoint under a fixed name, which a resumed run goes on with, also in a folder that was moved.

    Args:
        folder: where it goes.
        name: of the file, without ``.ckpt``.
        every: optimiser steps between two checkpoints; None writes one after each validation.
        share: skip a checkpoint where writing it would take more than this share of the training time; None writes
            all of them.
        **options: those of ``ModelCheckpoint``.
    """

    def __init__(
        self, folder: Path, name: str, every: int | None = None, share: float | None = None, **options: Any
    ) -> None:
        options |= {"every_n_train_steps": every, "enable_version_counter": False, "auto_insert_metric_name": False}
        super().__init__(dirpath=folder, filename=name, **options)
        self.every, self.share = every, share
        self.took, self.written = 0.0, 0.0

    def on_train_batch_end(self, trainer: Trainer, *arguments: Any) -> None:
        """Write a checkpoint every `every` steps, unless the last one is too recent; see ``share``."""
        is_due = trainer.global_step % self.every == 0 if self.every else False
        if is_due and self.share and self._is_too_soon(trainer, self.share):
            return
        started = time.monotonic()
        super().on_train_batch_end(trainer, *arguments)
        if is_due:
            self.written = time.monotonic()
            self.took = self.written - started

    def _is_too_soon(self, trainer: Trainer, share: float) -> bool:
        """Whether too little time went by since the last one; the same on all ranks."""
        return bool(trainer.strategy.broadcast(time.monotonic() - self.written < self.took / share))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what was best; Lightning would forget it where the path of the folder changed."""
        folder = str(self.dirpath)

        def here(path: str) -> str:
            return str(Path(folder, Path(path).name)) if path else path

        moved = {key: here(state_dict[key]) for key in ("best_model_path", "kth_best_model_path", "last_model_path")}
        models = {here(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict({**state_dict, **moved, "best_k_models": models, "dirpath": folder})


def read_weights(path: Path) -> dict[str, Any]:
    """The weights in a checkpoint, on the CPU.

    Args:
        path: the checkpoint.

    Raises:
        InputError: the file is no checkpoint.
    """
    import torch

    try:
        weights: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    except (OSError, EOFError, KeyError, TypeError, RuntimeError, pickle.UnpicklingError) as error:
        raise InputError(f"cannot be read as a checkpoint ({type(error).__name__})", path) from error
    return weights
