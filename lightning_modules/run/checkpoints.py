"""Checkpoints of a run: the best one, and the last one."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint


class Checkpoint(ModelCheckpoint):
    """One checkpoint under a fixed name, which a resumed run goes on with, also in a folder that was moved.

    Args:
        folder: where it goes.
        name: of the file, without ``.ckpt``.
        share: leave checkpoints out of those after every so many steps, where writing them would take more than this
            share of the time; None writes them all.
        **options: those of ``ModelCheckpoint``.
    """

    def __init__(self, folder: Path, name: str, share: float | None = None, **options: Any) -> None:
        super().__init__(
            dirpath=folder, filename=name, enable_version_counter=False, auto_insert_metric_name=False, **options
        )
        self.share = share
        self.took, self.written = 0.0, 0.0

    def on_train_batch_end(self, trainer: Trainer, *arguments: Any) -> None:
        """Write a checkpoint after every so many steps, unless the last one is too recent; see ``share``."""
        every = self._every_n_train_steps
        if self.share and every > 0 and trainer.global_step % every == 0 and self._is_too_soon(trainer):
            return
        super().on_train_batch_end(trainer, *arguments)

    def _is_too_soon(self, trainer: Trainer) -> bool:
        """Whether too little time went by since the last one; the same on all ranks."""
        assert self.share is not None
        return bool(trainer.strategy.broadcast(time.monotonic() - self.written < self.took / self.share))

    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        started = time.monotonic()
        super()._save_checkpoint(trainer, filepath)
        self.written = time.monotonic()
        self.took = self.written - started

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what was best; Lightning would forget it where the path of the folder changed."""
        folder = str(self.dirpath)

        def here(path: str) -> str:
            return str(Path(folder, Path(path).name)) if path else path

        moved = {key: here(state_dict[key]) for key in ("best_model_path", "kth_best_model_path", "last_model_path")}
        models = {here(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict({**state_dict, **moved, "best_k_models": models, "dirpath": folder})
