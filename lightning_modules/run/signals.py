"""Signals that ask a run to end: it does so after a whole step, with a checkpoint, and the next one ends it at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from lightning.pytorch import Callback, Trainer

_COPIES = 2.0
"""Seconds in which a second signal is a copy of the first: torchrun and SLURM give both to every process."""


class Ended(BaseException):
    """A signal asked the run to end, and it is at a place where it can."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    @property
    def status(self) -> int:
        """Exit status: 143 for SIGTERM, 130 for SIGINT."""
        return 128 + self.number


class EndOnSignal(Callback):
    """Ends the run by `Ended` at SIGTERM, SIGINT and, in a job of SLURM, SIGUSR1, while `handling`.

    From the first step to the last it waits for the end of a step, the same one on all ranks, where `Checkpoint` asks
    it; before and after that it ends at once. Lightning's handlers are not used: theirs write a checkpoint in the
    middle of a step, or send a message to the other ranks in the middle of another one.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.time, self.process, self.step = 0.0, os.getpid(), 0
        self.trainer: Trainer | None = None
        self.waits = False

    @contextmanager
    def handling(self) -> Iterator[None]:
        """Handle the signals in this block, in the main thread."""
        before = {number: signal.getsignal(number) for number in _numbers()}
        self._install()
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _install(self) -> None:
        for number in _numbers():
            signal.signal(number, self._handle)

    def _handle(self, number: int, _: Any) -> None:
        if os.getpid() != self.process:  # a worker that loads data, which its parent ends
            return
        if self.number is not None:
            is_alone = self.trainer is None or self.trainer.world_size == 1
            if is_alone or time.monotonic() - self.time > _COPIES:
                signal.signal(number, signal.SIG_DFL)
                os.kill(self.process, number)
            return
        self.number, self.time = number, time.monotonic()
        if kill := getattr(self.trainer and self.trainer.strategy.launcher, "kill", None):
            kill(number)  # the ranks that this process started
        if not self.waits:
            raise Ended(number)
        os.write(2, b"ends with a checkpoint after this step; at the next signal at once\n")

    def setup(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        """Know the other ranks."""
        self.trainer = trainer

    def on_train_start(self, *_: Any) -> None:
        """Take the place of Lightning's handlers, and wait from here on for the end of a step."""
        self._install()
        self.waits = True

    def on_test_start(self, *_: Any) -> None:
        """As `on_train_start`, but nothing is lost here by an end at once."""
        self._install()

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Know whether the batch ends an optimiser step."""
        self.step = trainer.global_step

    def asked(self, trainer: Trainer, within: bool = True) -> bool:
        """Whether the run is to end here; the same on all ranks, and False ``within`` the batches of one step."""
        if within and trainer.global_step == self.step:
            return False
        asked = self.number is not None
        return asked if trainer.world_size == 1 else trainer.strategy.reduce_boolean_decision(asked, all=False)

    def end(self) -> NoReturn:
        """Raise `Ended`."""
        raise Ended(self.number or signal.SIGTERM)  # another rank had the signal


def requeue() -> None:
    """Ask SLURM to start this job again; it goes on with its run by itself."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ["SLURM_JOB_ID"]
    try:
        subprocess.run(["scontrol", "requeue", job], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"warning: the job was not queued again: {error}", file=sys.stderr)


def _numbers() -> list[int]:
    return [signal.SIGTERM, signal.SIGINT, *([signal.SIGUSR1] if "SLURM_JOB_ID" in os.environ else [])]
