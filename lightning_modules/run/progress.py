"""What a run shows of its progress: a bar in a terminal, a line for each validation in a log file."""

from __future__ import annotations

import sys
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

from lightning_modules.names import LOSS


def progress_callbacks() -> list[Callback]:
    """The callback that fits where stdout goes."""
    return [ProgressBar(refresh_rate=10)] if sys.stdout.isatty() else [ProgressLines()]


class ProgressBar(TQDMProgressBar):
    """Lightning's progress bar with the loss, and without the version number."""

    def get_metrics(self, trainer: Trainer, *arguments: Any) -> dict[str, Any]:
        """What to show at the end of the bar; the loss is read when the bar is drawn, not in every step."""
        metrics = {name: value for name, value in super().get_metrics(trainer, *arguments).items() if name != "v_num"}
        return metrics | loss_of(trainer)


class ProgressLines(Callback):
    """A line on stderr after each validation."""

    def on_validation_end(self, trainer: Trainer, *_: Any) -> None:
        """Say where the run is."""
        if trainer.sanity_checking or trainer.state.fn != "fit" or not trainer.is_global_zero:
            return
        last = "" if trainer.max_epochs in (None, -1) else f"/{trainer.max_epochs}"
        shown = trainer.progress_bar_metrics | loss_of(trainer)
        values = [f"{name} {float(value):.4f}" for name, value in shown.items()]
        line = "  ".join([f"epoch {trainer.current_epoch + 1}{last}", f"step {trainer.global_step}", *values])
        print(line, file=sys.stderr, flush=True)


def loss_of(trainer: Trainer) -> dict[str, float]:
    """The last loss by its name, if there was one; on a GPU this waits for it."""
    loss = trainer.callback_metrics.get(LOSS)
    return {} if loss is None else {LOSS: float(loss)}
