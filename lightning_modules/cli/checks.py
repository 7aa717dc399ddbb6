"""Checks of options that Lightning or the file system would refuse late: by a traceback, and beside a run folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import DeviceStatsMonitor, LearningRateMonitor

from foundations.checks import check_choice, check_number
from foundations.errors import InputError
from lightning_modules.names import LOSS
from retrieval.collection import Collection

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "32", "bf16", "16")
"""Weights, losses and transport solvers are in float32 in all of them."""
_MOST_SEED = 2**32 - 1
_LONGEST_NAME = 200
"""Bytes; file systems take 255, and the number of a run or job comes behind."""
_LEAST = {"trainer.accumulate_grad_batches": 1, "trainer.gradient_clip_val": 0, "trainer.log_every_n_steps": 0,
          "checkpoint_every": 1}  # fmt: skip
_NEED_LOGGERS = (DeviceStatsMonitor, LearningRateMonitor)


def check_seed(seed: int | bool | None) -> None:
    """Refuse, by a ValueError, a seed that NumPy would not take."""
    if seed is not None:
        check_number("seed_everything", seed, least=0, most=_MOST_SEED)


def check_precision(precision: str | int | None) -> None:
    """Refuse, by a ValueError, a precision in which the weights are not float32."""
    if precision is not None:
        check_choice("trainer.precision", str(precision), PRECISIONS)


def check_numbers(options: Mapping[str, Any]) -> None:
    """Refuse, by a ValueError, numbers of these options (dotted names) that Lightning divides by, or takes silently."""
    for name, least in _LEAST.items():
        if options.get(name) is not None:
            check_number(name, options[name], least=least)


def check_interval(trainer: Mapping[str, Any], batches: int) -> None:
    """Refuse, by an InputError, validations that are further apart than an epoch has batches."""
    interval = trainer["val_check_interval"]
    if isinstance(interval, int) and interval > batches and trainer["check_val_every_n_epoch"] is not None:
        expected = f"at most {batches}, the batches of an epoch, unless --trainer.check_val_every_n_epoch null"
        raise InputError(f"trainer.val_check_interval is {interval}, expected {expected}")


def check_place(output: str, name: str | None) -> None:
    """Refuse a run folder that cannot be made, or would lie outside of the folder for runs.

    Args:
        output: the folder for runs, which need not be there.
        name: of the run folder; None where it is made from the other options.

    Raises:
        InputError: a name that is too long or leads elsewhere, or an output that is no folder or cannot be written to.
    """
    if name is not None:
        parts = Path(name).parts
        if not parts or Path(name).is_absolute() or ".." in parts or not name.isprintable():
            raise InputError(f"name is {name!r}, expected the name of a folder within {output}")
        if (longest := max(len(os.fsencode(part)) for part in parts)) > _LONGEST_NAME:
            raise InputError(f"name has {longest} bytes, expected at most {_LONGEST_NAME}")
    folder = Path(output)
    there = next(each for each in (folder, *folder.absolute().parents) if os.path.lexists(each))
    if not there.is_dir():
        raise InputError(f"output is {output}, but {there} is a file, expected a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"output is {output}, but {there} cannot be written to")


def check_callbacks(
    callbacks: Sequence[Callback], has_logger: bool, metrics: Sequence[str], collections: Mapping[str, Collection]
) -> None:
    """Refuse callbacks that would end a run when it begins, or after its first validation.

    Args:
        callbacks: those of the user.
        has_logger: whether the run has a logger.
        metrics: of the evaluation.
        collections: of the datamodule.

    Raises:
        InputError: one needs a logger, and there is none.
        ValueError: one watches a value that is not logged.
    """
    for callback in callbacks:
        kind = type(callback).__name__
        if isinstance(callback, _NEED_LOGGERS) and not has_logger:
            raise InputError(f"the callback {kind} needs a logger, expected --logger wandb, csv or tensorboard")
        monitor = getattr(callback, "monitor", None)
        if isinstance(monitor, str) and not monitor.startswith("train/"):
            check_choice(f"the monitor of {kind}", monitor, [*_logged(metrics, collections), LOSS])


def _logged(metrics: Sequence[str], collections: Mapping[str, Collection]) -> Iterator[str]:
    """The values of a validation, as `RetrievalEvaluation` logs them."""
    dev = {name: each for name, each in collections.items() if each.split == "dev"}
    views = dict.fromkeys(view.name for each in dev.values() for view in each.views if view.name)
    for name in dict.fromkeys(["dev", *dev]):
        for view in ["", *views]:
            yield from ("/".join(filter(None, (name, view, metric))) for metric in metrics)
