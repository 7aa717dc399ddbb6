"""Checkpoints of a run: the best one, and the last one."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint

from retrieval.errors import InputError


class Checkpoint(ModelCheckpoint):
    """One checkpoint under a fixed name, which a resumed run goes on with, also in a folder that was moved.

    Args:
        folder: where it goes.
        name: of the file, without ``.ckpt``.
        **options: those of ``ModelCheckpoint``.
    """

    def __init__(self, folder: Path, name: str, **options: Any) -> None:
        super().__init__(
            dirpath=folder, filename=name, enable_version_counter=False, auto_insert_metric_name=False, **options
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what was best; Lightning would forget it where the path of the folder changed."""
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
