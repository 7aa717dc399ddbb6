"""What a run gives the trainer: the precision, a seed for each step, checkpoints, and the display of progress."""

from __future__ import annotations

import errno
import hashlib
import os
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.plugins.io import TorchCheckpointIO

from foundations.files import remove_unfinished, unfinished
from lightning_modules.lightning_private import batches_started, validates_next
from lightning_modules.names import LOSS
from lightning_modules.run.signals import EndOnSignal
from lightning_modules.step_values import check_weights

Precision = Literal["32-true", "bf16-mixed"]


def default_precision(accelerator: str, student: str) -> Precision:
    """bfloat16 autocast where the hardware has the instructions and the student gains by it, else float32.

    Weights, optimiser, transport solvers and the teacher are in float32 in any case. On a CPU only a student that
    says so (`TextEncoder.gains_by_bfloat16`) is trained in bfloat16.

    Args:
        accelerator: ``trainer.accelerator``.
        student: class path of the student.
    """
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    module, _, name = student.rpartition(".")
    gains = getattr(getattr(import_module(module), name), "gains_by_bfloat16", False)
    is_cpu = accelerator == "cpu" or (accelerator == "auto" and not torch.backends.mps.is_available())
    return "bf16-mixed" if gains and is_cpu and _cpu_has_bfloat16() else "32-true"


def _cpu_has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 itself; emulated it is slower than float32."""
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


class StepSeed(Callback):
    """Seeds torch's generator before each training batch, from seed, rank and the number of the batch.

    Dropout is then the same in a run that was killed and resumed as in one that was not, on any rank, and no
    generator state has to be saved.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.number: int | None = None

    def on_train_start(self, *_: Any) -> None:
        """Count from where this run starts, or goes on."""
        self.number = None

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Seed for this batch."""
        self.number = batches_started(trainer) if self.number is None else self.number + 1
        key = f"{self.seed} {trainer.global_rank} {self.number}"
        torch.manual_seed(int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "big"))


class Checkpoint(ModelCheckpoint):
    """One checkpoint under a fixed name, which a resumed run goes on with, also in a folder that was moved.

    Args:
        folder: where it goes.
        name: of the file, without ``.ckpt``.
        every: optimiser steps between two checkpoints; None writes one after each validation.
        share: skip a checkpoint where writing it would take more than this share of the training time; None writes
            all of them.
        signals: may ask to end the run after a step, with a checkpoint.
        **options: those of ``ModelCheckpoint``.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        every: int | None = None,
        share: float | None = None,
        signals: EndOnSignal | None = None,
        **options: Any,
    ) -> None:
        options |= {"every_n_train_steps": every, "enable_version_counter": False, "auto_insert_metric_name": False}
        super().__init__(dirpath=folder, filename=name, **options)
        self.file, self.every, self.share, self.signals = folder / f"{name}.ckpt", every, share, signals
        self.took, self.written = 0.0, 0.0
        self.waits = self.ends = False  # for the end of a validation, and for that of the run

    def on_train_batch_end(self, trainer: Trainer, *arguments: Any) -> None:
        """Write a checkpoint every `every` steps, unless the last one is too recent, and where the run is to end."""
        ends = self.signals.asked(trainer) if self.signals else False
        is_due = trainer.global_step % self.every == 0 if self.every else False
        if is_due and not ends and self.share and self._is_too_soon(trainer, self.share):
            return
        if (is_due or ends) and validates_next(trainer):
            self.waits, self.ends = True, ends
            return
        started = time.monotonic()
        super().on_train_batch_end(trainer, *arguments)
        if is_due:
            self.written = time.monotonic()
            self.took = self.written - started
        if ends:
            self._write(trainer, ends=True)

    def on_validation_end(self, trainer: Trainer, *arguments: Any) -> None:
        """Write what was due before a validation within the epoch."""
        super().on_validation_end(trainer, *arguments)
        if self.waits and not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self._write(trainer, self.ends)

    def on_train_epoch_end(self, trainer: Trainer, *arguments: Any) -> None:
        """Write what was due before the validation at the end of the epoch; a signal may have come during it."""
        super().on_train_epoch_end(trainer, *arguments)
        ends = self.ends or (self.signals is not None and self.signals.asked(trainer, within=False))
        if self.waits or ends:
            self._write(trainer, ends)

    def on_train_end(self, trainer: Trainer, *arguments: Any) -> None:
        """Look for a signal that came during the last validation."""
        super().on_train_end(trainer, *arguments)
        if self.signals:
            if self.signals.asked(trainer, within=False):
                self._write(trainer, ends=True)
            self.signals.waits = False

    def _write(self, trainer: Trainer, ends: bool) -> None:
        self.waits = False
        trainer.save_checkpoint(self.file, weights_only=False)
        if ends and self.signals:
            self.signals.end()

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


class WholeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it, so that a kill leaves the old one or the new one.

    One with weights that are not finite is not written.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:  # noqa: ARG002
        """See Lightning's ``CheckpointIO``.

        Raises:
            NotFiniteError: a weight is NaN or infinite.
        """
        check_weights(checkpoint["state_dict"], checkpoint["global_step"])
        remove_unfinished(path)
        with unfinished(path) as temporary, temporary.open("wb") as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:  # torch's, where the file could not be written
                raise OSError(errno.EIO, f"the checkpoint cannot be written ({error})", str(path)) from error
            file.flush()
            os.fsync(file.fileno())


def progress_callbacks() -> list[Callback]:
    """The callback that fits where stdout goes: a bar in a terminal, lines in a log file."""
    return [ProgressBar(refresh_rate=10)] if sys.stdout.isatty() else [ProgressLines()]


class ProgressBar(TQDMProgressBar):
    """Lightning's progress bar with the loss, and without the version number."""

    def get_metrics(self, trainer: Trainer, *arguments: Any) -> dict[str, Any]:
        """What to show at the end of the bar; the loss is read when the bar is drawn, not in every step."""
        metrics = {name: value for name, value in super().get_metrics(trainer, *arguments).items() if name != "v_num"}
        return metrics | _loss(trainer)


class ProgressLines(Callback):
    """A line on stderr after each validation; its loss is the mean since the last line."""

    def on_validation_end(self, trainer: Trainer, *_: Any) -> None:
        """Print epoch, step, dev metric and loss."""
        if trainer.sanity_checking or trainer.state.fn != "fit" or not trainer.is_global_zero:
            return
        last = "" if trainer.max_epochs in (None, -1) else f"/{trainer.max_epochs}"
        values = [
            f"{name} {float(value):.4f}" for name, value in (trainer.progress_bar_metrics | _loss(trainer)).items()
        ]
        line = "  ".join([f"epoch {trainer.current_epoch + 1}{last}", f"step {trainer.global_step}", *values])
        print(line, file=sys.stderr, flush=True)


def _loss(trainer: Trainer) -> dict[str, float]:
    """The mean loss since the last point by its name, if there was a step; on a GPU this waits for it."""
    loss = trainer.callback_metrics.get(LOSS)
    return {} if loss is None else {LOSS: float(loss)}
