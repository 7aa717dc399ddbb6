"""What a run gives the trainer: the precision, a seed for each step, and the display of progress."""

from __future__ import annotations

import hashlib
import sys
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

from lightning_modules.distillation import LOSS
from lightning_modules.lightning_private import batches_started

Precision = Literal["32-true", "bf16-mixed"]


def default_precision(accelerator: str, student: str) -> Precision:
    """bfloat16 autocast where the hardware has the instructions and the student gains by it, else float32.

    Weights, optimiser, transport solvers and the teacher are in float32 in any case. A student of token vectors alone
    does next to no matrix product, so on a CPU it stays in float32.

    Args:
        accelerator: ``trainer.accelerator``.
        student: class path of the student.
    """
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    has_products = student == "lightning_modules.students.transformer.TransformerEncoder"
    is_cpu = accelerator == "cpu" or (accelerator == "auto" and not torch.backends.mps.is_available())
    return "bf16-mixed" if has_products and is_cpu and _cpu_has_bfloat16() else "32-true"


def _cpu_has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 itself; emulated it is slower than float32."""
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


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
        key = f"{self.seed} {trainer.global_rank} {batches_started(trainer)}"
        torch.manual_seed(int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "big"))


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
